//! A small broker: a thread that spawns, a reaper, a containment, and a loop that goes on until something was reported.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as KernelSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use procbroker_core::{Incarnation, Input, Members, Pid, Run};
use procbroker_protocol::{ChildId, Signal};
use tempfile::TempDir;
use uuid::Uuid;

use super::super::ProcessTrees;
use crate::os::logs::pipes::Pipes;
use crate::os::process::pidfd;
use crate::os::process::proc::ProcessStat;
use crate::os::process::reaper::{Backlog, Reaped, Reaper};
use crate::os::process::subreaper::Inheritance;
use crate::os::process::variables::CHILD_ID_VARIABLE;
use crate::os::spawn::tests::Starter;
use crate::os::spawn::{
    BaseEnvironment, Bounding, Credentials, ErrorOutput, LaunchName, Output, Restraint, SpawnFacilities,
    SpawnPlan, SpawnSpec, Spawned, StdinSource,
};
use crate::os::tree::cgroup::{Cgroups, Leaf, PreviousFolder};
use crate::recovery::processes::{Expected, recover};

/// How long a test waits for an event before it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What holds descendants in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A cgroup for each child.
    Cgroup,
    /// The list of the main thread's children.
    List,
    /// All of `/proc`, as where the kernel has no such list.
    Scan,
}

pub(super) struct Scene {
    folder: TempDir,
    scout: Inheritance,
    pub(super) reaper: Reaper,
    pub(super) containment: Option<ProcessTrees>,
    signals: SignalFd,
    plans: Sender<SpawnPlan>,
    spawned: Receiver<Spawned>,
    reports: Receiver<Input>,
    waker: UnixStream,
    pub(super) inputs: Vec<Input>,
    next: u128,
}

impl Scene {
    /// None where children can have no cgroups.
    pub(super) fn new(way: Way) -> Option<Self> {
        Self::after(way, None)
    }

    /// The same, with the cgroups of an earlier broker.
    pub(super) fn after(way: Way, previous: Option<PreviousFolder>) -> Option<Self> {
        let inheritance = Inheritance::begin().unwrap();
        let cgroups =
            if way == Way::Cgroup { Some(Cgroups::begin_after(previous, Leaf::Stay).ok()?) } else { None };
        let facilities = SpawnFacilities::probe().unwrap();
        let mut mask = SigSet::empty();
        mask.add(KernelSignal::SIGCHLD);
        mask.thread_block().unwrap();
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).unwrap();
        let scout = inheritance.share();
        let inheritance = if way == Way::Scan { inheritance.without_list() } else { inheritance };
        let (report, reports) = channel();
        let (ring, waker) = UnixStream::pair().unwrap();
        waker.set_nonblocking(true).unwrap();
        let ring_bell = move |input| {
            report.send(input).unwrap();
            (&ring).write_all(b"!").unwrap();
        };
        let reaper = Reaper::new(&inheritance).unwrap();
        let folder = TempDir::new().unwrap();
        let pipes = Pipes::open(folder.path().join("output")).unwrap();
        let containment = ProcessTrees::new(inheritance, cgroups, pipes, Box::new(ring_bell)).unwrap();
        let (plans, spawned) = spawn_thread(facilities);
        let (containment, inputs) = (Some(containment), Vec::new());
        Some(Self {
            folder,
            scout,
            reaper,
            containment,
            signals,
            plans,
            spawned,
            reports,
            waker,
            inputs,
            next: 1,
        })
    }

    pub(super) fn containment(&mut self) -> &mut ProcessTrees {
        self.containment.as_mut().unwrap()
    }

    /// Starts a child that runs a script; `$fifo` in it is what [`hear`](Self::hear) hears.
    pub(super) fn start(&mut self, script: &str) -> Run {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        self.start_command(&command, &[])
    }

    pub(super) fn start_command(&mut self, command: &[String], variables: &[(&str, &str)]) -> Run {
        let child = ChildId::from_uuid(Uuid::from_u128(self.next));
        self.next += 1;
        let run = Run { child, incarnation: Incarnation::FIRST };
        let cgroup = self.containment().prepare(run, None).unwrap();
        let fifo = self.fifo();
        let own = [("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("fifo".to_owned(), fifo)];
        let mark = [(CHILD_ID_VARIABLE.to_owned(), child.to_string())];
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = own.into_iter().chain(mark).chain(given);
        let spec = SpawnSpec {
            name: LaunchName::NOBODY,
            command: command.iter().map(Into::into).collect(),
            env: env.map(|(name, value)| (name.into(), value.into())).collect(),
            inherited: BaseEnvironment::default(),
            own_pid: None,
            cwd: "/".into(),
            umask: Mode::from_bits_truncate(0o022),
            credentials: Credentials::Unchanged,
            restraint: Restraint::default(),
            rlimits: Vec::new(),
            stdin: StdinSource::Null,
            stdout: Output::Null,
            stderr: ErrorOutput::Own(Output::Inherit),
            cgroup,
            bounding: Bounding::Free,
        };
        self.plans.send(SpawnPlan::prepare(spec).unwrap()).unwrap();
        let Spawned { pid, pidfd } = self.spawned.recv().unwrap();
        let pid = Pid::new(pid.as_raw().cast_unsigned()).unwrap();
        self.reaper.watch(run, pid, pidfd.as_fd());
        self.containment().adopt(run, pid, pidfd);
        run
    }

    pub(super) fn fifo(&self) -> String {
        fifo_in(self.folder.path()).to_str().unwrap().to_owned()
    }

    /// What processes write to the fifo, a line each.
    pub(super) fn ear(&self) -> Ear {
        Ear::at(&fifo_in(self.folder.path()))
    }

    /// Takes over what an earlier broker has left, and returns what is left of those that are gone.
    pub(super) fn adopt_all(&mut self, expected: Vec<Expected>) -> HashMap<Run, Members> {
        let recovered = recover(expected).unwrap();
        for (run, recovered) in &recovered {
            self.reaper.adopt(*run, recovered);
        }
        self.containment().adopt_all(&recovered)
    }

    /// Goes on until the inputs say what the test wants to hear.
    pub(super) fn until(&mut self, is_enough: impl Fn(&[Input]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.take_reports();
            self.reap();
            if is_enough(&self.inputs) {
                return;
            }
            assert!(Instant::now() < deadline, "nothing more is reported: {:?}", self.inputs);
            self.wait();
        }
    }

    /// Reaps until a process is gone, be it one that the reaper asks for at times only.
    pub(super) fn until_gone(&mut self, pid: Pid) {
        self.reap_until(|_| ProcessStat::read(pid).is_none());
    }

    fn reap_until(&mut self, is_enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough(self) {
            assert!(Instant::now() < deadline, "{:?} are left", self.own());
            self.take_reports();
            self.reap();
        }
    }

    fn wait(&self) {
        let sources = [self.reaper.as_fd(), self.signals.as_fd(), self.waker.as_fd()];
        let mut events = sources.map(|source| PollFd::new(source, PollFlags::POLLIN));
        // Whatever comes to light only afterwards has not been announced: the broker would have waited for ever.
        let announced = poll(&mut events, PollTimeout::try_from(PATIENCE).unwrap()).unwrap();
        assert!(announced > 0, "nothing is announced: {:?}", self.inputs);
    }

    fn take_reports(&mut self) {
        let _nothing = self.waker.read(&mut [0; 64]);
        self.inputs.extend(self.reports.try_iter());
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut reaped = Vec::new();
        while self.reaper.reap(0, &mut reaped) == Backlog::More {}
        let containment = self.containment.as_mut().unwrap();
        let (groups, heirs) = (containment.look_at_groups(), self.reaper.heirs());
        let mut orphans = false;
        for one in reaped {
            match one {
                Reaped::Child { run, status, .. } => {
                    self.inputs.extend(containment.exited(run, status, groups, heirs));
                }
                Reaped::Orphan { .. } => orphans = true,
            }
        }
        if orphans {
            containment.orphan_reaped();
        }
    }

    /// Everything whose parent this process is, zombies too.
    pub(super) fn own(&self) -> Vec<Pid> {
        self.scout.all().pids
    }

    /// Sweeps, and says how many processes are left.
    pub(super) fn sweep(&mut self) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        self.containment().sweep(deadline);
        let swept = |inputs: &[Input]| {
            inputs.iter().find_map(|input| if let Input::Swept { left } = input { Some(*left) } else { None })
        };
        self.until(|inputs| swept(inputs).is_some());
        swept(&self.inputs).unwrap()
    }

    /// Ends all that is there, and shows that nothing is left of it.
    pub(super) fn close(mut self) {
        assert_eq!(self.sweep(), 0);
        // All of them are zombies by now.
        self.reap_until(|scene| scene.own().is_empty());
        self.containment.take().unwrap().shut_down(std::time::Duration::from_secs(10));
    }
}

impl Drop for Scene {
    /// A test that fails leaves nothing behind either.
    fn drop(&mut self) {
        while thread::panicking() {
            let living: Vec<Pid> = self.own();
            let living: Vec<_> = living
                .into_iter()
                .filter(|&pid| ProcessStat::read(pid).is_some_and(|stat| !stat.is_zombie))
                .filter_map(|pid| pidfd::open(pid).ok())
                .collect();
            if living.is_empty() {
                return;
            }
            for process in &living {
                let _gone = pidfd::send(process.as_fd(), Signal::KILL);
                let _ended = pidfd::wait_for_end(process.as_fd(), Instant::now() + PATIENCE);
            }
        }
    }
}

pub(super) struct Ear(BufReader<File>);

/// The fifo in a folder, made if there is none.
pub(super) fn fifo_in(folder: &Path) -> PathBuf {
    let path = folder.join("fifo");
    if !path.exists() {
        mkfifo(&path, Mode::S_IRWXU).unwrap();
    }
    path
}

impl Ear {
    pub(super) fn at(fifo: &Path) -> Self {
        Self(BufReader::new(OpenOptions::new().read(true).write(true).open(fifo).unwrap()))
    }

    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(super) fn pid(&mut self) -> Pid {
        Pid::new(self.line().parse().unwrap()).unwrap()
    }
}

/// Children have to be another thread's than the main one's, which is for orphans.
fn spawn_thread(facilities: SpawnFacilities) -> (Sender<SpawnPlan>, Receiver<Spawned>) {
    let (plans, taken) = channel::<SpawnPlan>();
    let (done, spawned) = channel();
    thread::spawn(move || {
        let mut starter = Starter::new(facilities);
        for plan in taken {
            done.send(starter.spawn(plan).unwrap()).unwrap();
        }
    });
    (plans, spawned)
}

/// Whether a process lives.
pub(super) fn lives(pid: Pid) -> bool {
    ProcessStat::read(pid).is_some_and(|stat| !stat.is_zombie)
}

/// Ends a process that the test itself has no handle on.
pub(super) fn kill(pid: Pid) {
    let pidfd = pidfd::open(pid).unwrap();
    pidfd::send(pidfd.as_fd(), Signal::KILL).unwrap();
}
