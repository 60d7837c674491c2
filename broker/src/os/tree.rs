//! Holds each child together with everything that descends from it: knows what is left, and signals and kills it.
//!
//! The main process is held by its pidfd. What descends from it is known by the cgroup that it was born into, where
//! there is one; by its session and process group; by the child's id in its environment; by its ancestors; and by the
//! child's output, where it has nothing else left. The common case, a child that leaves nothing behind, is answered at once; everything else is the worker's.
//!
//! A child that a previous broker started before it was killed is adopted: nothing of it comes to this one, so that it is
//! searched for everywhere (`search::Search`).

mod adopt;
pub mod cgroup;
mod exit_watch;
mod job;
mod kin;
mod leader;
mod left;
mod meter;
mod orders;
mod process_table;
mod right;
mod scan;
mod search;
mod targets;
#[cfg(test)]
mod tests;
mod visitors;
mod walk;
mod wanted;
mod worker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use procbroker_core::{Asked, Input, Members, Pid, Run, SignalOutcome};
use procbroker_protocol::create::Resources;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, ExitStatus, Signal};
use thiserror::Error;

use crate::os::logs::pipes::Pipes;
use crate::os::process::identity::ProcessIdentity;
use crate::os::process::pidfd;
use crate::os::process::reaper::Heirs;
use crate::os::process::subreaper::Inheritance;
use crate::os::tree::cgroup::{Cgroups, Taint};
use exit_watch::ExitWatch;
use job::{Pending, SignalOrder, WorkerJob};
pub use meter::Meter;
use meter::Subject;
use orders::JobQueue;
use process_table::{ProcessEntry, SharedTable};
use search::{PerSearch, Search};
use walk::Known;
pub use worker::Reporter;
use worker::Worker;

/// Room for so many is kept when nothing is released.
const RELEASED_KEPT: usize = 64;

/// To let go of so many takes longer than to wake the worker.
const MANY_RELEASED: usize = 32;

/// Every child's processes. All of its methods are for one thread, the driver's.
#[derive(Debug)]
pub struct ProcessTrees {
    inheritance: Inheritance,
    cgroups: Option<Arc<Cgroups>>,
    table: SharedTable,
    orders: JobQueue,
    /// Closed when the worker has ended.
    worker: Receiver<()>,
    /// What was released and is still to be let go of: to close a descriptor takes longer than to release a child.
    released: Vec<ProcessEntry>,
}

/// What is known of the cgroups of all children together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Nothing lives in any of them.
    Empty,
    /// Something may live in some of them.
    Unknown,
}

/// The worker cannot be started.
#[derive(Debug, Error)]
pub enum ProcessTreesError {
    /// There is no thread to be had.
    #[error(
        "cannot start the thread that follows descendants: {0}; raise the limit on processes (ulimit -u)"
    )]
    Thread(#[source] io::Error),
    /// There is no descriptor to be had.
    #[error(
        "cannot open what wakes the thread that follows descendants: {0}; raise the limit on open files (ulimit -n)"
    )]
    Descriptors(#[source] Errno),
}

impl ProcessTrees {
    /// Starts the worker.
    ///
    /// # Errors
    /// When the system has no thread or no descriptor to give.
    pub fn new(
        inheritance: Inheritance,
        cgroups: Option<Cgroups>,
        pipes: Pipes,
        report: Reporter,
    ) -> Result<Self, ProcessTreesError> {
        let (jobs, received) = channel();
        let cgroups = cgroups.map(Arc::new);
        let (table, pending) = (SharedTable::default(), Pending::default());
        let exit_watch = ExitWatch::new().map_err(ProcessTreesError::Descriptors)?;
        let orders = JobQueue::new(jobs, exit_watch.waker(), pending.clone());
        let worker = Worker {
            inheritance: inheritance.share(),
            cgroups: cgroups.clone(),
            pipes,
            table: table.clone(),
            pending,
            report,
            known: Known::default(),
            is_unsure: PerSearch::default(),
            exit_watch,
            is_untidy: false,
            has_released: false,
        };
        let (alive, ended) = channel();
        std::thread::Builder::new()
            .name("descendants".to_owned())
            .spawn(move || {
                worker.work(&received);
                drop(alive);
            })
            .map_err(ProcessTreesError::Thread)?;
        Ok(Self { inheritance, cgroups, table, orders, worker: ended, released: Vec::new() })
    }

    /// Before a child is spawned: the directory of the cgroup that it is to be born into, if it gets one, with these bounds.
    ///
    /// The bounds are written here, on the driver's thread: some short writes to the kernel's memory, each of which takes
    /// microseconds and none of which waits for a disk.
    ///
    /// # Errors
    /// When bounds are wanted and cannot be set: nothing is to be spawned without them.
    pub fn prepare(&mut self, run: Run, resources: Option<&Resources>) -> Result<Option<OwnedFd>, Errno> {
        let bounds = resources.filter(|resources| **resources != Resources::default());
        let taken = self.cgroups.as_ref().ok_or(Errno::EOPNOTSUPP).and_then(|cgroups| cgroups.take());
        let (Ok((group, directory)), Some(cgroups)) = (&taken, &self.cgroups) else {
            self.table.lock().prepare(run, None);
            return bounds.map_or(Ok(None), |_| taken.map(|(_, directory)| Some(directory)));
        };
        let set = bounds.map_or(Ok(Taint::Clean), |bounds| cgroups.bound(directory.as_fd(), bounds));
        self.table.lock().prepare(run, Some((*group, *set.as_ref().unwrap_or(&Taint::Bounded))));
        set.and(taken).map(|(_, directory)| Some(directory))
    }

    /// Sets the bounds of children that were adopted again, as far as they are not there any more: whoever started this broker
    /// had to disable their controllers, where it was started beside them.
    ///
    /// # Errors
    /// What the kernel has against a bound; EOPNOTSUPP where the run has no group.
    pub fn restore_bounds(&self, run: Run, resources: &Resources) -> Result<(), Errno> {
        let group = self.table.lock().get(run).and_then(|entry| entry.group);
        match (group, &self.cgroups) {
            (Some((group, _)), Some(cgroups)) => cgroups.restore_bounds(group, resources),
            (None, _) | (_, None) => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Whether the kernel has killed something of a run for want of memory, as far as it counts that.
    #[must_use]
    pub fn has_run_out_of_memory(&self, run: Run) -> bool {
        let group = self.table.lock().get(run).and_then(|entry| entry.group);
        group
            .zip(self.cgroups.as_ref())
            .is_some_and(|((group, _), cgroups)| cgroups.has_killed_for_memory(group))
    }

    /// A child was spawned. [`Reaper::watch`](crate::os::process::reaper::Reaper::watch) has to be called before, with the same
    /// pidfd.
    pub fn adopt(&mut self, run: Run, pid: Pid, pidfd: OwnedFd) {
        self.table.lock().adopt(run, pid, Arc::new(pidfd));
    }

    /// What identifies the main process of a child for good, and its cgroup; none when it has none. It costs a
    /// system call or two for the first time.
    #[must_use]
    pub fn identity(&self, run: Run) -> Option<ProcessIdentity> {
        self.table.lock().identity(run)
    }

    /// The main processes that are not the broker's own children, and that have not ended as far as is known: once they
    /// have, nobody else could find out how.
    #[must_use]
    pub fn adopted_processes(&self) -> Vec<(ChildId, Arc<OwnedFd>)> {
        self.table.lock().adopted_leaders()
    }

    /// Whether some main process has ended, and been reaped, of which the worker has not reported it yet. Nobody else
    /// could find out how it ended.
    #[must_use]
    pub fn owes_ends(&self) -> bool {
        self.table.lock().owes_ends()
    }

    /// What receives a message when the worker has done, and reported, everything that it was asked for so far.
    #[must_use]
    pub fn settled(&self) -> Receiver<()> {
        let (answer, settled) = channel();
        self.orders.give(WorkerJob::Settle { answer });
        settled
    }

    /// What finds out what these children use, on another thread.
    #[must_use]
    pub fn meter(&self, runs: &[Run]) -> Meter {
        let table = self.table.lock();
        let subjects = runs.iter().filter_map(|run| Some(Subject::of(run.child, table.get(*run)?))).collect();
        Meter::new(self.cgroups.clone(), subjects)
    }

    /// The number of a child's cgroup in the [folder](Self::cgroup_folder).
    #[must_use]
    pub fn group_number(&self, run: Run) -> Option<u64> {
        self.table.lock().get(run)?.group.map(|(group, _)| group.number())
    }

    /// The folder that the cgroups of children are in.
    #[must_use]
    pub fn cgroup_folder(&self) -> Option<&Path> {
        self.cgroups.as_ref().map(|cgroups| cgroups.path())
    }

    /// A duplicate of its descriptor, which keeps it locked: for the next program of this process.
    #[must_use]
    pub fn pass_cgroup_folder(&self) -> Option<io::Result<OwnedFd>> {
        self.cgroups.as_ref().map(|cgroups| cgroups.pass_folder())
    }

    /// The main process of a child has ended: the input for the core, or none when the worker will report it.
    ///
    /// What it has left may be among what the reaper found the broker to have inherited since.
    pub fn exited(&mut self, run: Run, status: ExitStatus, groups: Groups, heirs: Heirs) -> Option<Input> {
        let mut table = self.table.lock();
        let entry = table.get(run)?;
        let search = entry.search;
        let has_left_nothing = match search {
            Search::Everywhere => self.is_group_empty(entry, groups),
            Search::Inherited => {
                self.has_left_nothing(entry, groups, heirs, table.has_children_from_before_upgrade())?
            }
        };
        if has_left_nothing {
            table.ended(run);
            return Some(Input::Exited { run, status, members: Members::Nothing });
        }
        table.drain(run, status);
        drop(table);
        self.orders.examine(search);
        None
    }

    /// Whether nothing can be left of an own child. A process that has left its cgroup is an orphan, if there is any
    /// left; but among thousands of children of the main thread it takes tens of milliseconds to find out. While there
    /// are such, the cgroup decides, as it does for the children of an earlier broker.
    fn has_left_nothing(
        &self,
        entry: &ProcessEntry,
        groups: Groups,
        heirs: Heirs,
        has_children_from_before_upgrade: bool,
    ) -> Option<bool> {
        let leader = entry.leader.as_ref()?;
        let left_group = pidfd::has_group(leader.pidfd.as_fd()) == Ok(true);
        let has_group_members = || entry.group.is_some() && !self.is_group_empty(entry, groups);
        let has_no_orphans = || {
            has_children_from_before_upgrade && entry.group.is_some()
                || heirs == Heirs::None
                || self.inheritance.is_empty()
        };
        Some(!left_group && has_no_orphans() && !has_group_members())
    }

    /// Whether a child has a cgroup in which nothing lives.
    fn is_group_empty(&self, entry: &ProcessEntry, groups: Groups) -> bool {
        let group = self.cgroups.as_ref().zip(entry.group);
        group.is_some_and(|(cgroups, (group, _))| match groups {
            Groups::Empty => true,
            Groups::Unknown => !cgroups.has_members(group),
        })
    }

    /// What one look says of the cgroups of all children: it is for when many have ended, and spares a look at each of
    /// theirs. It says nothing about a process that is started later.
    #[must_use]
    pub fn look_at_groups(&self) -> Groups {
        match &self.cgroups {
            Some(cgroups) if cgroups.are_all_empty() => Groups::Empty,
            Some(_) | None => Groups::Unknown,
        }
    }

    /// Orphans have been reaped: what is left of some child may have become less. Once for each batch is enough.
    pub fn orphan_reaped(&mut self) {
        if !self.table.lock().draining(Search::Inherited).is_empty() {
            self.orders.examine(Search::Inherited);
        }
    }

    /// Sends a signal: the input for the core, or none when the worker will report it.
    ///
    /// A process group without a leader that turns out to be empty is reported as well.
    pub fn signal(&mut self, run: Run, signal: Signal, scope: Scope, asked: Option<Asked>) -> Option<Input> {
        let by = asked.and_then(|asked| asked.by);
        let call = asked.map(|asked| asked.call);
        let (leader, is_alive, search, has_group) = {
            let table = self.table.lock();
            let entry = table.get(run);
            let is_alive = entry.is_some_and(|entry| entry.living().is_some());
            let has_group = entry.is_some_and(|entry| entry.group.is_some());
            (entry.and_then(|entry| entry.leader.clone()), is_alive, table.search(run), has_group)
        };
        // A stop may end the parent of what nothing else tells whose it is: the worker takes note of it before.
        if call.is_none() && is_alive && search == Search::Inherited && !has_group {
            return self.signal_later(run, signal, scope, asked);
        }
        let outcome = match (leader, scope) {
            (None, Scope::Group | Scope::All) if search == Search::Everywhere => {
                return self.signal_later(run, signal, scope, asked);
            }
            (None, Scope::Main | Scope::Group | Scope::All) => SignalOutcome::Gone,
            (Some(leader), Scope::Main) => right::send(leader.pid, leader.pidfd.as_fd(), signal, by),
            // The kernel asks for the broker's right, and not for another's: each one is looked at.
            (Some(_), Scope::Group) if by.is_some() => return self.signal_later(run, signal, scope, asked),
            // Only who reaps a leader can tell what its number means.
            (Some(leader), Scope::Group) => {
                match leader.signal_group(is_alive && search == Search::Inherited, signal) {
                    Some(outcome) => outcome,
                    None => return self.signal_later(run, signal, scope, asked),
                }
            }
            (Some(_), Scope::All) => return self.signal_later(run, signal, scope, asked),
        };
        if outcome == SignalOutcome::Gone {
            self.gone(run);
        }
        Some(Input::Signalled { run, call, outcome })
    }

    /// A process or a group turned out to be empty.
    fn gone(&self, run: Run) {
        let (is_draining, search) = {
            let table = self.table.lock();
            let search = table.search(run);
            (!table.draining(search).is_empty(), search)
        };
        if is_draining {
            self.orders.examine(search);
        }
    }

    fn signal_later(&self, run: Run, signal: Signal, scope: Scope, asked: Option<Asked>) -> Option<Input> {
        self.orders.give(WorkerJob::Signal(SignalOrder { run, signal, scope, asked }));
        None
    }

    /// Kills everything of a child. What is left of one whose main process has ended is reported when it changes.
    pub fn kill(&mut self, run: Run) {
        self.orders.give(WorkerJob::Kill { run });
    }

    /// Nothing of a child is left, or it was never spawned.
    pub fn release(&mut self, run: Run) {
        let Some(entry) = self.table.lock().release(run) else { return };
        if let Some(((group, taint), cgroups)) = entry.group.zip(self.cgroups.as_ref()) {
            cgroups.give_back(group, taint);
            if taint == Taint::Bounded {
                // It holds what its processes have left in memory.
                self.orders.tidy();
            }
        }
        self.released.push(entry);
    }

    /// Kills whatever descends from the broker, for when no child is left. Reports how much there is when that is
    /// nothing, or when the time is up. The reaper has to be kept going meanwhile.
    pub fn sweep(&mut self, deadline: Instant) {
        self.orders.give(WorkerJob::Sweep { deadline });
    }

    /// Lets go of what was released. Where that is much, the worker does it, which has the time.
    pub fn let_go(&mut self) {
        if self.released.len() >= MANY_RELEASED {
            self.orders.let_go(&mut self.released);
        }
        self.released.clear();
        self.released.shrink_to(RELEASED_KEPT);
    }

    /// Has cgroups made ahead, where they run low.
    pub fn refill(&mut self) {
        if self.cgroups.as_ref().is_some_and(|cgroups| cgroups.wants_tidying()) {
            self.orders.tidy();
        }
    }

    /// Waits for the worker to end, for so long at most, and removes all cgroups: the last thing that the broker
    /// does. Nobody may wait in the report callback any more: a channel that it fills has to be closed first.
    pub fn shut_down(self, patience: Duration) {
        drop(self.orders);
        // Nothing is ever sent: it closes when the worker has dropped all that it had.
        let _ended = self.worker.recv_timeout(patience);
        // Whoever has the last reference removes the groups: a worker that is still busy ends with the process,
        // and leaves them to the next broker.
        if let Some(cgroups) = self.cgroups {
            cgroups.leave();
            // To drop it would unlock the folder, which is whoever's that removes it now: the broker exits.
            std::mem::forget(cgroups);
        }
    }
}
