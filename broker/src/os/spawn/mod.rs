//! Starts a process, at the same cost however large the broker is and however many descriptors it has open.
//!
//! A [`SpawnSpec`] says what to start, [`SpawnPlan::prepare`] checks and converts it, and a [`Spawner`] starts it;
//! the result is a process that executes its program, or the step that failed and why, with nothing left.
//! [`Facilities::probe`] finds out, once, which ways the kernel lets through.
//!
//! Inside, `clone` is the birth, `child` what the child does until it executes its program, and `flight` what the
//! two share.

mod child;
mod clone;
mod failure;
mod flight;
mod memory;
mod plan;
mod probe;
mod resource;
mod signals;
#[cfg(test)]
mod tests;

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{Resource as KernelResource, getrlimit};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use child::{ChildOutput, ChildPlan, Departure, Errand, Ids, Program};

pub(in crate::os) use child::BEGUN_MODE;
use clone::Birth;
use flight::Flight;
use memory::Stack;
use plan::PlannedOutput;
use signals::Signals;

pub use clone::Method;
pub use failure::{SpawnFailure, Step};
pub use flight::KillSwitch;
pub use plan::{ErrorOutput, Identity, Output, SpawnPlan, SpawnSpec};
pub use probe::{CgroupEntry, DescriptorClosing, Facilities, ProbeError};
pub use resource::{Resource, Rlimit};

/// The highest descriptor looked for where `/proc` cannot be asked and the limit is higher.
const HIGHEST_GUESS: u64 = 65_535;

/// A process that executes its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its id, and that of its process group and session.
    pub pid: Pid,
    /// Refers to it for good, even after it has been reaped. Has close-on-exec.
    pub pidfd: OwnedFd,
}

/// Starts processes, one at a time: a thread that spawns has one of its own.
#[derive(Debug)]
pub struct Spawner {
    facilities: Facilities,
    /// What a child must be given default dispositions for: it would inherit them.
    signals: Signals,
    stack: Stack,
    flight: Arc<Flight>,
}

impl Spawner {
    /// A spawner that uses these ways.
    ///
    /// A child ignores none of the signals that the broker ignores now, such as SIGPIPE, which every Rust
    /// program does: whoever ignores another one later makes a new spawner. (To look at each disposition
    /// for each child would cost a tenth of the spawn.)
    ///
    /// # Errors
    /// When its memory (some 130 KiB, of which few pages are ever touched) cannot be mapped.
    pub fn new(facilities: Facilities) -> io::Result<Self> {
        let signals = match facilities.method {
            // The kernel resets those with a handler (CLONE_CLEAR_SIGHAND).
            Method::Clone3 => Signals::ignored(),
            Method::Clone => Signals::CHANGEABLE,
        };
        Ok(Self { facilities, signals, stack: Stack::new()?, flight: Arc::new(Flight::new()?) })
    }

    /// What ends, from another thread, a spawn that takes too long.
    #[must_use]
    pub fn kill_switch(&self) -> KillSwitch {
        KillSwitch::new(Arc::clone(&self.flight))
    }

    /// Starts a process, and returns when it executes its program. The calling thread is suspended meanwhile
    /// and takes no signal.
    ///
    /// # Errors
    /// The step that failed, and why. No process is left then, and none was ever seen by a
    /// `waitid` of the broker that does not ask for clone children.
    pub fn spawn(&mut self, plan: &SpawnPlan) -> Result<Spawned, SpawnFailure> {
        let (into, procs) = match (&plan.cgroup, self.facilities.cgroup_entry) {
            (None, _) => (None, None),
            (Some(directory), CgroupEntry::AtBirth) => (Some(directory.as_fd()), None),
            (Some(directory), CgroupEntry::ByItself) => (None, Some(open_procs(directory)?)),
        };
        let [argv, env] = [&plan.argv, &plan.env].map(|strings| null_terminated(strings));
        let candidates: Vec<_> = plan.candidates.iter().map(|candidate| candidate.as_ptr()).collect();
        let groups = plan.groups();
        let program = Program {
            broker: std::process::id() as usize,
            cgroup_procs: procs.as_ref().map(|procs| procs.as_raw_fd().cast_unsigned() as usize),
            stdout: plan.stdout.for_child(),
            stderr: plan.stderr.as_ref().map(PlannedOutput::for_child),
            rlimits: &plan.rlimits,
            ids: plan.ids(&groups),
            signals: self.signals,
            umask: plan.umask.bits(),
            cwd: &plan.cwd,
            argv: &argv,
            env: &env,
            candidates: &candidates,
        };
        match self.start(Errand::Execute(program), into)? {
            (spawned, Birth::Executed) => Ok(spawned),
            (_, Birth::Killed { signal }) => Err(SpawnFailure::Killed { signal }),
            // It exits only after a report, which `start` has read.
            (_, Birth::Exited) => Err(SpawnFailure::refused(Step::Exec, Errno::EPROTO)),
        }
    }

    /// Makes a child that executes nothing.
    fn rehearse(&mut self, into: Option<BorrowedFd<'_>>) -> Result<(), SpawnFailure> {
        match self.start(Errand::Rehearse, into)? {
            (_, Birth::Exited) => Ok(()),
            (_, Birth::Killed { signal }) => Err(SpawnFailure::Killed { signal }),
            (_, Birth::Executed) => Err(SpawnFailure::refused(Step::Clone, Errno::EPROTO)),
        }
    }

    fn start(
        &mut self,
        errand: Errand<'_>,
        into: Option<BorrowedFd<'_>>,
    ) -> Result<(Spawned, Birth), SpawnFailure> {
        let departure = match self.facilities.descriptors {
            DescriptorClosing::CloseRange => Departure::CloseRange,
            DescriptorClosing::OneByOne => Departure::OneByOne { highest: highest_descriptor() },
        };
        let report = self.flight.report();
        let plan = ChildPlan { report, departure, errand };
        self.flight.begin();
        let started = clone::start(self.facilities.method, &plan, &mut self.stack, report.pidfd_slot(), into);
        let pid = started.map_err(|errno| {
            self.flight.cancel();
            SpawnFailure::refused(refusing_step(errno, into.is_some()), errno)
        })?;
        let pidfd = self.flight.land();
        let birth = clone::outcome(pidfd.as_fd());
        match report.failure() {
            Some(failure) => Err(failure),
            None => Ok((Spawned { pid, pidfd }, birth)),
        }
    }
}

/// Tells the errors that `clone3(2)` has for the cgroup from those for the process.
fn refusing_step(errno: Errno, into_cgroup: bool) -> Step {
    match errno {
        Errno::EACCES
        | Errno::EBADF
        | Errno::EBUSY
        | Errno::ENODEV
        | Errno::ENOENT
        | Errno::EOPNOTSUPP
        | Errno::EPERM
            if into_cgroup =>
        {
            Step::Cgroup
        }
        _ => Step::Clone,
    }
}

/// Opened by the broker, whose permission counts; the child writes to it.
fn open_procs(directory: &OwnedFd) -> Result<OwnedFd, SpawnFailure> {
    openat(directory, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| SpawnFailure::refused(Step::Cgroup, errno))
}

fn null_terminated(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The highest descriptor that a child could inherit. Whatever the broker opens meanwhile has close-on-exec.
fn highest_descriptor() -> usize {
    let listed = std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| {
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<usize>().ok()).max()
    });
    listed.unwrap_or_else(|| {
        let soft = getrlimit(KernelResource::RLIMIT_NOFILE).map_or(HIGHEST_GUESS, |(soft, _hard)| soft);
        usize::try_from(soft.min(HIGHEST_GUESS)).unwrap_or(usize::MAX)
    })
}

impl PlannedOutput {
    fn for_child(&self) -> ChildOutput<'_> {
        match self {
            Self::Null => ChildOutput::Null,
            Self::Inherit => ChildOutput::Inherit,
            Self::Append(path) => ChildOutput::Append(path),
        }
    }
}

impl SpawnPlan {
    fn groups(&self) -> Vec<libc::gid_t> {
        match &self.identity {
            Identity::Unchanged => Vec::new(),
            Identity::Become { groups, .. } => groups.iter().map(|group| group.as_raw()).collect(),
        }
    }

    fn ids<'a>(&self, groups: &'a [libc::gid_t]) -> Option<Ids<'a>> {
        match self.identity {
            Identity::Unchanged => None,
            Identity::Become { uid, gid, .. } => Some(Ids { uid: uid.as_raw(), gid: gid.as_raw(), groups }),
        }
    }
}
