//! The module against real processes.

mod bonds;
mod cgroup;
mod failures;
mod filtered;
mod hanging;
mod look;
mod orphaned;
mod surroundings;

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::{
    BaseEnvironment, Bounding, CloneMethod, Credentials, ErrorOutput, LaunchName, Launcher, Output,
    Restraint, SpawnError, SpawnFacilities, SpawnPlan, SpawnSpec, Spawned, StdinSource,
};

/// Starts processes one at a time, and waits for each.
pub(in crate::os) struct Starter(Launcher<()>);

impl Starter {
    pub(in crate::os) fn new(facilities: SpawnFacilities) -> Self {
        Self(Launcher::with_slots(facilities, 1).unwrap())
    }

    pub(in crate::os) fn spawn(&mut self, plan: SpawnPlan) -> Result<Spawned, SpawnError> {
        self.0.launch(plan, ()).map_err(|outcome| outcome.result.unwrap_err())?;
        let mut outcomes = Vec::new();
        while outcomes.is_empty() {
            self.0.wait();
            self.0.take_outcomes(&mut outcomes);
        }
        outcomes.pop().unwrap().result
    }
}

/// Every way, whether or not the probe would choose it here.
fn every_way() -> impl Iterator<Item = SpawnFacilities> {
    [CloneMethod::Clone3, CloneMethod::Clone].into_iter().map(|method| SpawnFacilities { method })
}

/// A folder that the child's user may enter, and the specification of a child that writes there.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: TempDir::new().unwrap() };
        scene.make_output("out");
        scene.make_output("err");
        scene
    }

    /// Makes an empty file for a child to write to.
    fn make_output(&self, name: &str) {
        let mut options = fs::File::options();
        drop(options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a file, by a process of its own: a copy of the descriptor that it is written through could be alive
    /// in a child of another test, and the kernel executes no file that is open for writing (ETXTBSY).
    fn write(&self, name: &str, text: &str, mode: &str) {
        let script = "printf %s \"$1\" > \"$2\" && chmod \"$3\" \"$2\"";
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", script, "sh", text])
            .args([self.path(name).as_os_str(), mode.as_ref()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Its output goes to the file `out`.
    fn spec<S: AsRef<Path>>(&self, command: &[S]) -> SpawnSpec {
        SpawnSpec {
            name: LaunchName::NOBODY,
            command: command.iter().map(|argument| argument.as_ref().into()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            inherited: BaseEnvironment::default(),
            own_pid: None,
            cwd: "/".into(),
            umask: Mode::from_bits_truncate(0o022),
            credentials: Credentials::Unchanged,
            restraint: Restraint::default(),
            rlimits: Vec::new(),
            stdin: StdinSource::Null,
            stdout: Output::Append(self.path("out")),
            stderr: ErrorOutput::Stdout,
            cgroup: None,
            bounding: Bounding::Free,
        }
    }

    fn shell(&self, script: &str) -> SpawnSpec {
        self.spec(&["/bin/sh", "-c", script])
    }

    /// What a child wrote, taken away.
    fn take_output(&self) -> String {
        let text = fs::read_to_string(self.path("out")).unwrap();
        self.make_output("out");
        text
    }
}

/// A file that keeps whoever opens it waiting until this lets go: a child on the way to its program.
struct Leased(fs::File);

/// Chooses the signal (`<linux/fcntl.h>`).
const F_SETSIG: libc::c_int = 10;

impl Leased {
    #[expect(unsafe_code, reason = "nix has no leases")]
    fn new(path: &Path) -> Self {
        let file = fs::File::options().write(true).create(true).truncate(true).open(path).unwrap();
        // That somebody waits is told by a signal that means nothing (fcntl(2)).
        for (command, argument) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)] {
            // SAFETY: both take a number, and no memory.
            let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        }
        Self(file)
    }

    fn let_go(self) {
        drop(self.0);
    }
}

fn spawn(way: SpawnFacilities, spec: SpawnSpec) -> Result<Spawned, SpawnError> {
    Starter::new(way).spawn(SpawnPlan::prepare(spec)?)
}

/// Waits for the end of a child as a reaper does that does not ask for clone children.
fn reap(spawned: &Spawned) -> i32 {
    match waitid(Id::PIDFd(spawned.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap() {
        WaitStatus::Exited(pid, code) if pid == spawned.pid => code,
        other => panic!("{other:?}"),
    }
}

fn run(way: SpawnFacilities, spec: SpawnSpec) -> i32 {
    reap(&spawn(way, spec).unwrap_or_else(|failure| panic!("{way:?}: {failure}")))
}

/// The step and the error number of a spawn that fails, and leaves no child of this thread, dead or alive.
fn refusal(way: SpawnFacilities, spec: SpawnSpec) -> (&'static str, Errno) {
    let failure = spawn(way, spec).unwrap_err();
    assert_eq!(children_of_this_thread(), "", "{way:?}: {failure}");
    (failure.step_name(), failure.errno())
}

/// Zombies and clone children too; other tests run in other threads.
fn children_of_this_thread() -> String {
    fs::read_to_string("/proc/thread-self/children").unwrap()
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// Runs one test of this binary alone in a process of its own, for a test that changes what threads share.
///
/// Returns true in that process, and false in the other, when it has ended well.
fn alone(test: &str) -> bool {
    const MARK: &str = "PROCBROKER_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let name: OsString = format!("os::spawn::tests::{test}").into();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact".into(), name, "--nocapture".into(), "--test-threads=1".into()] as [OsString; 4])
        .env(MARK, "1")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.contains("1 passed"), "{report}");
    false
}
