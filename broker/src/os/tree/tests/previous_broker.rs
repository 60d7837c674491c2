//! An earlier broker and the init that inherits its children, both processes of their own: this test binary again.
//!
//! The init is no descendant of the test, so that nothing of what it inherits comes to the test. It reaps only when
//! it is told to. When the test ends, in whatever way, it ends everything below it and then itself.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use procbroker_core::{Incarnation, Pid, Run};
use procbroker_protocol::{ChildId, Signal};
use tempfile::TempDir;
use uuid::Uuid;

use super::scene::{PATIENCE, Way};
use crate::os::process::identity::ProcessIdentity;
use crate::os::process::pidfd;
use crate::os::process::proc;
use crate::os::process::variables::CHILD_ID_VARIABLE;
use crate::os::spawn::tests::Starter;
use crate::os::spawn::{
    BaseEnvironment, Bounding, Credentials, ErrorOutput, LaunchName, Output, Restraint, SpawnFacilities,
    SpawnPlan, SpawnSpec, StdinSource,
};
use crate::os::tree::cgroup::{Cgroups, PreviousFolder};
use crate::recovery::processes::{Expected, LaunchProgress, Sought};

/// Which of the two a process is to be.
const ROLE: &str = "PROCBROKER_TEST_PREDECESSOR";

/// Where it is told what to do.
const PLACE: &str = "PROCBROKER_TEST_PREDECESSOR_SOCKET";

/// The earlier broker, as the test sees it.
pub(super) struct PreviousBroker {
    folder: TempDir,
    init: Line,
    init_process: OwnedFd,
    broker: Option<(Line, OwnedFd)>,
    cgroup_folder: Option<PathBuf>,
}

/// A child of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) run: Run,
    pub(super) pid: Pid,
    /// As the earlier broker would have it on record.
    pub(super) identity: ProcessIdentity,
}

/// A connection for lines.
struct Line(BufReader<UnixStream>);

impl Line {
    fn tell(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    /// None when the other side is gone.
    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).unwrap_or(0);
        (count > 0).then(|| line.trim_end().to_owned())
    }

    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear().unwrap()
    }
}

impl PreviousBroker {
    /// To be made before the test becomes a subreaper. None where children can have no cgroups and are to.
    pub(super) fn new(way: Way) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let place = folder.path().join("socket");
        let listener = UnixListener::bind(&place).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "\"$@\" &", "sh"]).arg(std::env::current_exe().unwrap()).args(arguments());
        let kind = if way == Way::Cgroup { "cgroup" } else { "bare" };
        shell.env(ROLE, format!("init {kind}")).env(PLACE, &place).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(shell.status().unwrap().success());
        let accept = || {
            let mut line = Line(BufReader::new(listener.accept().unwrap().0));
            let pid = Pid::new(line.hear().unwrap().parse().unwrap()).unwrap();
            (line, pidfd::open(pid).unwrap())
        };
        let (init, init_process) = accept();
        let mut broker = accept();
        let cgroup_folder = match broker.0.hear().unwrap().as_str() {
            "none" => None,
            path => Some(PathBuf::from(path)),
        };
        let has_way = (way == Way::Cgroup) == cgroup_folder.is_some();
        let broker = Some(broker);
        has_way.then_some(Self { folder, init, init_process, broker, cgroup_folder })
    }

    /// What children write to; `$fifo` in their scripts.
    pub(super) fn ear(&self) -> super::scene::Ear {
        super::scene::Ear::at(&self.fifo())
    }

    fn fifo(&self) -> PathBuf {
        super::scene::fifo_in(self.folder.path())
    }

    /// Has the broker start a child.
    pub(super) fn start(&mut self, script: &str) -> Left {
        // All of /proc is searched for its id, so that no other test may use the same.
        let child = ChildId::from_uuid(Uuid::new_v4());
        let fifo = self.fifo();
        let (broker, _) = self.broker.as_mut().unwrap();
        let answer = broker.ask(&format!("{child} {} {}", fifo.display(), script.replace('\n', " ")));
        let (pid, cgroup) = answer.split_once(' ').unwrap();
        let pid = Pid::new(pid.parse().unwrap()).unwrap();
        let pidfd = pidfd::open(pid).unwrap();
        let identity = ProcessIdentity::of(pid, pidfd.as_fd(), cgroup.parse().ok()).unwrap();
        Left { run: Run { child, incarnation: Incarnation::FIRST }, pid, identity }
    }

    /// Kills the broker. Its children are the init's from now on.
    pub(super) fn crash(&mut self) {
        let (_, process) = self.broker.take().unwrap();
        pidfd::send(process.as_fd(), Signal::KILL).unwrap();
        assert!(pidfd::wait_for_end(process.as_fd(), Instant::now() + PATIENCE));
    }

    /// A process that no broker has to do with.
    pub(super) fn innocent(&mut self) -> Pid {
        Pid::new(self.init.ask("innocent").parse().unwrap()).unwrap()
    }

    /// Waits for the end of a process, and has the init reap it.
    pub(super) fn until_reaped(&mut self, pid: Pid) {
        if let Ok(pidfd) = pidfd::open(pid) {
            assert!(pidfd::wait_for_end(pidfd.as_fd(), Instant::now() + PATIENCE));
            self.reap();
            assert!(pidfd::is_reaped(pidfd.as_fd()));
        }
    }

    /// Has the init reap what has ended.
    pub(super) fn reap(&mut self) {
        assert_eq!(self.init.ask("reap"), "reaped");
    }

    pub(super) fn previous_folder(&self) -> Option<PreviousFolder> {
        self.cgroup_folder.clone().map(|path| PreviousFolder { path, folder: None })
    }
}

impl Drop for PreviousBroker {
    fn drop(&mut self) {
        let _told = self.init.0.get_ref().shutdown(std::net::Shutdown::Both);
        let ended = pidfd::wait_for_end(self.init_process.as_fd(), Instant::now() + PATIENCE);
        assert!(ended || std::thread::panicking(), "the init of the test does not end");
        if let Some(folder) = &self.cgroup_folder {
            for group in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let _removed = std::fs::remove_dir(group.path());
            }
            let _removed = std::fs::remove_dir(folder);
        }
    }
}

impl Left {
    /// As it is found on record.
    pub(super) fn expected(&self) -> Expected {
        let (process, launch, sought) = (Some(self.identity), LaunchProgress::Possible, Sought::Main);
        let user = nix::unistd::geteuid().as_raw();
        Expected { run: self.run, user, process, passed: None, launch, sought }
    }

    /// As it is found if the broker was killed before its process was on record.
    pub(super) fn not_on_record(&self) -> Expected {
        Expected { process: None, ..self.expected() }
    }
}

fn arguments() -> [String; 4] {
    let (_crate, module) = module_path!().split_once("::").unwrap();
    let name = format!("{module}::a_process_of_another_test");
    ["--exact".to_owned(), name, "--nocapture".to_owned(), "--test-threads=1".to_owned()]
}

/// No test of its own: what another one starts this binary for.
#[test]
fn a_process_of_another_test() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut line = Line(BufReader::new(UnixStream::connect(std::env::var(PLACE).unwrap()).unwrap()));
    line.tell(&std::process::id().to_string());
    match role.split_once(' ') {
        Some(("init", kind)) => be_init(line, kind),
        _ => be_broker(line, role == "cgroup"),
    }
}

#[expect(clippy::zombie_processes, reason = "it reaps all of them, whoever they are")]
fn be_init(mut line: Line, kind: &str) {
    set_child_subreaper(true).unwrap();
    let mut broker = Command::new(std::env::current_exe().unwrap());
    let _broker = broker.args(arguments()).env(ROLE, kind).stdin(Stdio::null()).spawn().unwrap();
    while let Some(order) = line.hear() {
        if order == "innocent" {
            let mut innocent = Command::new("/usr/bin/setsid");
            let innocent = innocent.args(["sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
            line.tell(&innocent.id().to_string());
            continue;
        }
        assert_eq!(order, "reap");
        while matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
        ) {}
        line.tell("reaped");
    }
    let own = Pid::new(std::process::id()).unwrap();
    loop {
        for child in proc::children(own) {
            if let Ok(pidfd) = pidfd::open(child) {
                let _gone = pidfd::send(pidfd.as_fd(), Signal::KILL);
            }
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

fn be_broker(mut line: Line, in_cgroups: bool) {
    let cgroups = if in_cgroups { Cgroups::begin().ok() } else { None };
    let facilities = SpawnFacilities::probe().unwrap();
    let mut starter = Starter::new(facilities);
    line.tell(&cgroups.as_ref().map_or("none".to_owned(), |cgroups| cgroups.path().display().to_string()));
    while let Some(order) = line.hear() {
        let [child, fifo, script] = order.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let (group, directory) = cgroups.as_ref().map(|cgroups| cgroups.take().unwrap()).unzip();
        let env = [("PATH", "/usr/bin:/bin"), ("fifo", fifo), (CHILD_ID_VARIABLE, child)];
        let spec = SpawnSpec {
            name: LaunchName::NOBODY,
            command: ["/bin/sh", "-c", script].map(Into::into).into(),
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
            inherited: BaseEnvironment::default(),
            own_pid: None,
            cwd: "/".into(),
            umask: Mode::from_bits_truncate(0o022),
            credentials: Credentials::Unchanged,
            restraint: Restraint::default(),
            rlimits: Vec::new(),
            stdin: StdinSource::Null,
            stdout: Output::Null,
            stderr: ErrorOutput::Own(Output::Null),
            cgroup: directory,
            bounding: Bounding::Free,
        };
        let spawned = starter.spawn(SpawnPlan::prepare(spec).unwrap()).unwrap();
        let group = group.map_or("none".to_owned(), |group| group.number().to_string());
        line.tell(&format!("{} {group}", spawned.pid));
    }
}
