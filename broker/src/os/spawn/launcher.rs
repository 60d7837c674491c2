//! Starts processes without waiting for them: each has a slot until its program or its death is known.
//!
//! The end of a launch is one event of the launcher's descriptor: the pipe of the slot hangs up when the program is
//! executed, because the child's end of it has close-on-exec, or when the child dies. The pidfd is watched from birth as
//! well: a child that is killed before it has its end of the pipe gives no other event.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;
use procbroker_protocol::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::child::ChildTask;
use super::clone::{Birth, CloneMethod, Memory};
use super::facilities::SpawnFacilities;
use super::failure::{SpawnError, Step};
use super::memory::Shared;
use super::oom_score::{self, OomScore};
use super::plan::SpawnPlan;
use super::report::StepReports;
use super::signals::SignalSet;
use super::slot::{Departed, DescriptorFolder, Slot, Way};
use super::spec::Bounding;
use crate::limits::{LAUNCH_EVENTS, SLOTS, SLOTS_AT_START};
use crate::os::host::nofile::Provision;
use crate::os::process::descriptor::watched;
use crate::os::process::pidfd;

/// Set in the token of a pidfd; the rest is the number of the slot.
const DEATH: u64 = 1 << 32;

/// A process that executes its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its id, and that of its process group and session.
    pub pid: Pid,
    /// Refers to it for good, even after it has been reaped. Has close-on-exec.
    pub pidfd: OwnedFd,
}

/// What came of a launch.
#[derive(Debug)]
pub struct LaunchOutcome<T> {
    /// What it was launched for.
    pub of: T,
    /// What it was launched with: to let go of it takes a moment.
    pub plan: SpawnPlan,
    /// The process, or why there is none.
    pub result: Result<Spawned, SpawnError>,
    /// Whether it was killed on its way by who launched it, whatever it came to.
    pub was_killed: bool,
}

/// What is kept of a launch while its child is on its way.
#[derive(Debug)]
struct Load<T> {
    of: T,
    /// The directory of its cgroup.
    cgroup: Option<OwnedFd>,
    bounding: Bounding,
    /// Since when it is on its way, or since it was killed for that.
    since: Instant,
    /// Whether it was killed by who launched it.
    was_killed: bool,
}

/// The end of a launch, whatever was to be made.
struct End<T> {
    task: ChildTask,
    load: Load<T>,
    result: Result<Spawned, SpawnError>,
}

/// Starts processes. What one is for is the caller's.
#[derive(Debug)]
pub struct Launcher<T> {
    facilities: SpawnFacilities,
    /// What a child must be given default dispositions for: it would inherit them.
    signals: SignalSet,
    /// Whether the broker is spared when memory runs out, which no other user's child inherits.
    pub(super) is_spared: bool,
    epoll: Epoll,
    /// Where children find their ends of the slots' pipes: opened before those.
    descriptors: Option<DescriptorFolder>,
    slots: Vec<Slot>,
    reports: Arc<Shared<StepReports>>,
    /// The numbers of the empty ones. The one that was used last comes first: few stacks are ever touched.
    free: Vec<usize>,
    /// What those in use carry beside what the child reads.
    loads: Vec<Option<Load<T>>>,
    /// Dead, and somebody else (a debugger) has to let go of it before it can be reaped.
    unreaped: Vec<usize>,
}

impl<T> Launcher<T> {
    /// A launcher that uses these ways.
    ///
    /// A child ignores none of the signals that the broker ignores now, such as SIGPIPE, which every Rust
    /// program does: whoever ignores another one later makes a new launcher. (To look at each disposition
    /// for each child would cost a tenth of the spawn.) Likewise, the broker's `oom_score_adj` is looked at once. Its
    /// descriptors should be among the first that are opened.
    ///
    /// # Errors
    /// When its memory (some 8 MiB, of which few pages are ever touched; the slots that come later have as much each) cannot be mapped, or there are no descriptors.
    pub fn new(facilities: SpawnFacilities) -> io::Result<Self> {
        // The others come when they are needed.
        Self::with_slots(facilities, Provision::LaunchSlots.at_hand().min(SLOTS_AT_START))
    }

    pub(super) fn with_slots(facilities: SpawnFacilities, count: usize) -> io::Result<Self> {
        let signals = match facilities.method {
            // The kernel resets those with a handler (CLONE_CLEAR_SIGHAND).
            CloneMethod::Clone3 => SignalSet::ignored(),
            CloneMethod::Clone => SignalSet::CHANGEABLE,
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let descriptors = DescriptorFolder::open();
        let reports = Arc::new(Shared::zeroed()?);
        let (slots, free, loads) = (Vec::new(), Vec::new(), Vec::new());
        let unreaped = Vec::new();
        let is_spared = oom_score::is_spared();
        let mut launcher = Self {
            facilities,
            signals,
            is_spared,
            epoll,
            descriptors,
            slots,
            reports,
            free,
            loads,
            unreaped,
        };
        for _ in 0..count {
            launcher.add_slot()?;
        }
        launcher.free.reverse();
        Ok(launcher)
    }

    fn add_slot(&mut self) -> io::Result<()> {
        let number = self.slots.len();
        let slot = Slot::new(number, &self.reports, self.descriptors.as_ref())?;
        // Nothing but that it hangs up, each time that it does.
        self.epoll.add(slot.pipe(), EpollEvent::new(EpollFlags::EPOLLET, number as u64))?;
        self.slots.push(slot);
        self.loads.push(None);
        self.free.push(number);
        Ok(())
    }

    /// What becomes readable when something has come of a launch: to be called in the event loop.
    ///
    /// # Errors
    /// When the event loop cannot watch it.
    pub fn readable(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watched(self.as_fd().try_clone_to_owned()?, Interest::READABLE)
    }

    /// How many are on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Starts a process, and returns while it gets to its program: [`take_outcomes`](Self::take_outcomes) tells what comes of it.
    ///
    /// # Errors
    /// The outcome of one that was never made. EAGAIN when no slot is free.
    pub fn launch(&mut self, plan: SpawnPlan, of: T) -> Result<(), Box<LaunchOutcome<T>>> {
        let SpawnPlan { program, cgroup, bounding } = plan;
        let load = Load { of, cgroup, bounding, since: Instant::now(), was_killed: false };
        match self.start(ChildTask::Execute(program), load) {
            None => Ok(()),
            Some(end) => end.outcome().map_or(Ok(()), |outcome| Err(Box::new(outcome))),
        }
    }

    /// Makes a child, or says at once why it cannot be made.
    fn start(&mut self, task: ChildTask, load: Load<T>) -> Option<End<T>> {
        let refused =
            |task, load, step, errno| Some(End { task, load, result: Err(SpawnError::refused(step, errno)) });
        if self.free.is_empty() && self.slots.len() < SLOTS {
            // There were few descriptors at the start.
            if let Err(error) = self.add_slot() {
                return refused(task, load, Step::Clone, Errno::try_from(error).unwrap_or(Errno::EMFILE));
            }
        }
        let number = self.free.last().copied();
        let Some((number, slot)) = number.and_then(|number| Some((number, self.slots.get_mut(number)?)))
        else {
            return refused(task, load, Step::Clone, Errno::EAGAIN);
        };
        let into = load.cgroup.as_ref().map(AsFd::as_fd);
        let step = |errno| refusing_step(errno, into.is_some());
        let oom_score = match &task {
            ChildTask::Execute(program) if self.is_spared && program.is_of_another_user() => {
                OomScore::Default
            }
            ChildTask::Execute(_) | ChildTask::Rehearse | ChildTask::Look(_) => OomScore::Inherited,
        };
        let memory = match (oom_score, load.bounding) {
            (OomScore::Inherited, Bounding::Free) => Memory::Brokers,
            // What it changes, or loses, belongs to the memory.
            (OomScore::Default, _) | (_, Bounding::Bounded) => Memory::Copied,
        };
        let way = Way { method: self.facilities.method, memory, oom_score, signals: self.signals };
        if let Err((task, errno)) = slot.enter(way, task, into) {
            let step = step(errno);
            return refused(task, load, step, errno);
        }
        self.free.pop();
        if let Some(pidfd) = slot.pidfd() {
            let event =
                EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, number as u64 | DEATH);
            if self.epoll.add(pidfd, event).is_err() {
                // Asked for with each event of any other one.
                self.unreaped.push(number);
            }
        }
        if let Some(place) = self.loads.get_mut(number) {
            *place = Some(load);
        }
        None
    }

    /// The process that was launched for this, as long as it is on its way.
    pub fn pid(&self, is_meant: impl Fn(&T) -> bool) -> Option<Pid> {
        let mut launched = self.slots.iter().zip(&self.loads);
        launched.find_map(|(slot, load)| load.as_ref().filter(|load| is_meant(&load.of)).and(slot.pid()))
    }

    /// Kills the child that was launched for this before it gets to its program. Says whether there was one.
    ///
    /// It fails with [`SpawnError::Killed`] then. Should it execute its program in this very moment, then it is a
    /// program that SIGKILL ends.
    pub fn kill(&mut self, is_meant: impl Fn(&T) -> bool) -> bool {
        let mut any = false;
        for (slot, load) in self.slots.iter().zip(&mut self.loads) {
            if let (Some(pidfd), Some(load)) = (slot.pidfd(), load)
                && is_meant(&load.of)
            {
                any = true;
                load.was_killed = true;
                // It cannot have been reaped: only the launcher does that. (Nobody but a security module refuses.)
                let _ended = pidfd::send(pidfd, Signal::KILL);
            }
        }
        any
    }

    /// When the child that has been on its way for longest has been so for this long.
    #[must_use]
    pub fn overdue_at(&self, patience: Duration) -> Option<Instant> {
        self.loads.iter().flatten().map(|load| load.since + patience).min()
    }

    /// For what those were launched that have been on their way for this long.
    pub fn overdue(&self, patience: Duration) -> impl Iterator<Item = &T> {
        let now = Instant::now();
        self.loads.iter().flatten().filter(move |load| load.since + patience <= now).map(|load| &load.of)
    }

    /// Kills those that have been on their way for this long. Each is asked once.
    pub fn kill_overdue(&mut self, patience: Duration) -> usize {
        let now = Instant::now();
        let mut killed = 0;
        for (slot, load) in self.slots.iter().zip(&mut self.loads) {
            if let (Some(pidfd), Some(load)) = (slot.pidfd(), load)
                && load.since + patience <= now
            {
                // It cannot have been reaped: only the launcher does that.
                let _ended = pidfd::send(pidfd, Signal::KILL);
                load.since = now;
                killed += 1;
            }
        }
        killed
    }

    /// What has come of launches since it was asked last. Never waits.
    pub fn take_outcomes(&mut self, outcomes: &mut Vec<LaunchOutcome<T>>) {
        self.depart(|end| outcomes.extend(end.outcome()));
    }

    fn depart(&mut self, mut tell: impl FnMut(End<T>)) {
        let mut tokens = Vec::new();
        let mut events = [EpollEvent::empty(); LAUNCH_EVENTS];
        loop {
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            tokens.extend(events.iter().take(count).map(EpollEvent::data));
            if count < LAUNCH_EVENTS {
                break;
            }
        }
        let unreaped = std::mem::take(&mut self.unreaped);
        tokens.extend(unreaped.into_iter().map(|number| number as u64 | DEATH));
        for token in tokens {
            let Ok(number) = usize::try_from(token & !DEATH) else { continue };
            let (Some(slot), Some(place)) = (self.slots.get_mut(number), self.loads.get_mut(number)) else {
                continue;
            };
            match (slot.leave(), place.take()) {
                (Some(departed), Some(load)) => {
                    // It may live long, and be watched by somebody else.
                    let _unwatched = self.epoll.delete(&departed.pidfd);
                    self.free.push(number);
                    tell(end(departed, load));
                }
                (_, load) => {
                    // An event of one that has left before, or one that is dead and not to be reaped yet.
                    *place = load;
                    let is_dead = token & DEATH != 0 && slot.pidfd().is_some();
                    if is_dead && !self.unreaped.contains(&number) {
                        self.unreaped.push(number);
                    }
                }
            }
        }
    }

    /// Waits until something has come of a launch, at start and in tests: a driver never does.
    pub(super) fn wait(&self) {
        let mut descriptors = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not, it is looked at then.
        let _ready = poll(&mut descriptors, PollTimeout::NONE);
    }
}

impl Launcher<()> {
    /// Makes a child that executes nothing, and waits for its end.
    pub(super) fn rehearse(&mut self, into: Option<OwnedFd>) -> Result<(), SpawnError> {
        let (cgroup, bounding) = (into, Bounding::Free);
        let load = Load { of: (), cgroup, bounding, since: Instant::now(), was_killed: false };
        let mut end = self.start(ChildTask::Rehearse, load);
        loop {
            match end {
                Some(End { result: Err(IT_EXITED), .. }) => return Ok(()),
                Some(End { result: Err(failure), .. }) => return Err(failure),
                Some(End { result: Ok(_), .. }) => {
                    return Err(SpawnError::refused(Step::Clone, Errno::EPROTO));
                }
                None => {
                    self.wait();
                    self.depart(|other| end = Some(other));
                }
            }
        }
    }
}

impl<T> End<T> {
    /// None if no program was to be executed.
    fn outcome(self) -> Option<LaunchOutcome<T>> {
        let Self { task, load: Load { of, cgroup, bounding, was_killed, since: _ }, result } = self;
        match task {
            ChildTask::Execute(program) => {
                Some(LaunchOutcome { of, plan: SpawnPlan { program, cgroup, bounding }, result, was_killed })
            }
            ChildTask::Rehearse | ChildTask::Look(_) => None,
        }
    }
}

/// A child exits only after a report, unless it was made to try whether it can be.
const IT_EXITED: SpawnError = SpawnError::refused(Step::Exec, Errno::EPROTO);

fn end<T>(departed: Departed, load: Load<T>) -> End<T> {
    let Departed { pid, pidfd, task, birth, failure } = departed;
    let result = match (failure, birth) {
        (Some(failure), _) => Err(failure),
        (None, Birth::Executed) => Ok(Spawned { pid, pidfd }),
        (None, Birth::Killed { signal }) => Err(SpawnError::Killed { signal }),
        (None, Birth::Exited | Birth::Underway) => Err(IT_EXITED),
    };
    End { task, load, result }
}

impl<T> AsFd for Launcher<T> {
    /// Readable when something has come of a launch.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl<T> Drop for Launcher<T> {
    /// What a child reads and runs on is never taken from under it: a broker that exits leaves it to the kernel.
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            if slot.pidfd().is_some() {
                // It may look for its pipe there, as long as the numbers are its own as well.
                std::mem::forget(self.descriptors.take());
                std::mem::forget(slot);
            }
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
