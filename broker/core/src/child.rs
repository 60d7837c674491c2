//! One child: where it is in its life, and what each input does to it there.
//!
//! The data of every phase stand in `phase`, and what a phase with much to do does, in a file of its own below. Here stands the
//! whole of what happens, as one table; each row is one method of [`Child`], and each cell one arm of its match (that of `restart` stands in
//! `running_again`). `child/tests.rs` asks each pair. A dash means that
//! the input comes too late or too early there, and changes nothing.
//!
//! | input          | Recording      | Queued       | Spawning      | Starting      | Running       | Stopping      | Restarting    | Cleaning          | Ended |
//! | -------------- | -------------- | ------------ | ------------- | ------------- | ------------- | ------------- | ------------- | ----------------- | ----- |
//! | `recorded`     | Queued, or end | -            | -             | -             | -             | -             | pause, queue, or again | queue, or end | - |
//! | `start`        | -              | Spawning     | -             | -             | -             | -             | spawn         | spawn the cleanup | -     |
//! | `spawned`      | -              | -            | Starting, Running, or Stopping | - | -         | -             | Starting, Running, or Stopping | bound its time | - |
//! | `spawn_failed` | -              | -            | queue, or end | -             | -             | -             | queue, or release | record the outcome, or try again | - |
//! | `notified`     | -              | -            | -             | Running, Stopping, or more time | Running, or Stopping | more time | - | -               | -     |
//! | `probed`       | -              | -            | -             | Running, or rest | -          | -             | -             | -                 | -     |
//! | `exited`       | -              | -            | queue, or end | Stopping, or release | Stopping, or release | go on, or release | queue, or release | kill, or record the outcome | - |
//! | `ran_out_of_memory` | -          | -            | -             | remember it   | remember it   | remember it   | -             | -                 | -     |
//! | `members_left` | -              | -            | -             | -             | -             | go on, or release | -         | record the outcome| -     |
//! | `due`          | not ready      | not ready    | not ready, or kill | probe, or not ready | Stopping, or more time | next step, or kill | queue, record again, not ready, or kill | kill, leave, or try again | - |
//! | `stop`         | remember it    | end          | remember it   | Stopping      | Stopping      | join it       | conclude, or remember it | -      | -     |
//! | `restart`      | -              | -            | -             | Stopping      | Stopping      | Restarting after it | queue   | -                 | -     |
//! | `kill_now`     | as `stop`      | as `stop`    | as `stop`     | as `stop`     | as `stop`     | kill at once  | as `stop`     | -                 | -     |
//! | `leave_cleanup`| -              | -            | -             | -             | -             | -             | -             | leave, or kill    | -     |
//! | `bound_cleanup`| remember it    | remember it  | remember it   | remember it   | remember it   | remember it   | remember it   | bound its time    | -     |
//!
//! The command that finds out whether a child is ready has processes of its own, and goes through stages of its own beside
//! these (`ready_command`, with a table of its own). It begins in Starting, and nothing is released before it is gone.
//!
//! *Release* means that nothing of a run is left: what contained it is taken down, and Restarting follows where another run
//! is to come. Else it is *concluded*: Cleaning follows if it has a cleanup, Ended if not. *End* means that it is Ended and gives
//! free what it held.

mod by_command;
mod cleaning;
mod common;
mod cut_short;
mod ending;
mod launching;
mod memory;
mod next;
mod not_started;
mod phase;
mod probing;
mod progress;
mod questions;
mod readiness;
mod ready_command;
mod restarting;
mod resuming;
mod running_again;
mod same_spec;
mod starting;
mod stopping;
mod watchdog;

use std::collections::BTreeSet;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{ExitReason, ExitStatus};

use crate::child::common::Common;
use crate::child::launching::killed;
use crate::child::phase::Phase;
use crate::child::ready_command::ReadyCommand;
use crate::child::stopping::Leader;
use crate::child::watchdog::Watchdog;
use crate::effect::{Receipt, Safety};
use crate::ids::{ConnectionId, Pid, SubscriptionId};
use crate::input::{Members, RecordFailure};
use crate::notice::Notice;
use crate::orders::Orders;
use crate::record::Intent;
use crate::time::Instant;

pub(crate) use common::{exit_before_start, unstarted};
pub(crate) use next::Next;
pub(crate) use restarting::RestartWish;
pub(crate) use stopping::Stop;

/// A child that the broker knows.
#[derive(Debug)]
pub(crate) struct Child {
    common: Common,
    phase: Phase,
    /// What finds out whether it is ready, where that is a command.
    ready_command: ReadyCommand,
    /// What its create answers, when the same request comes again.
    outcome: Outcome,
    /// Who follows its output.
    followers: BTreeSet<(ConnectionId, SubscriptionId)>,
    /// Whether it was replaced before it was ready: its create is answered with what takes its place.
    superseded: bool,
}

impl Child {
    /// Makes a child whose intent is about to be recorded.
    pub(crate) fn new(intent: &Intent) -> Self {
        Self {
            common: Common::new(intent),
            phase: Phase::Recording { cancelled: None },
            ready_command: ReadyCommand::new(),
            outcome: intent.outcome,
            followers: BTreeSet::new(),
            superseded: false,
        }
    }

    // The table: one method a row.

    /// A record whose receipt was wanted is safe, or cannot be written.
    pub(crate) fn recorded(&mut self, result: Result<(), RecordFailure>, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Recording { cancelled } => {
                let cancelled = cancelled.take();
                self.intent_recorded(cancelled, result, orders)
            }
            Phase::Restarting(restarting) => {
                restarting.recorded(result.is_ok(), &mut self.common, orders);
                Next::Nothing
            }
            Phase::Cleaning(cleaning) => match cleaning.recorded(&self.common, orders) {
                Some((exit, cleaned)) => self.end(exit, Some(cleaned), orders),
                None => Next::Nothing,
            },
            Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// It is its turn to be started, or that of its cleanup.
    pub(crate) fn start(&mut self, orders: &mut Orders<'_>) {
        match &mut self.phase {
            Phase::Queued => self.spawn(orders),
            Phase::Cleaning(cleaning) => cleaning.spawn(&mut self.common, orders),
            Phase::Restarting(_) => self.start_again(orders),
            Phase::Recording { .. }
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Ended => {}
        }
    }

    /// A program was executed.
    pub(crate) fn spawned(&mut self, pid: Pid, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Spawning(launching) => {
                let launching = std::mem::take(launching);
                self.main_spawned(pid, launching, orders)
            }
            Phase::Restarting(restarting) if restarting.is_spawning() => {
                let launching = restarting.take_launching();
                self.main_spawned(pid, launching, orders)
            }
            Phase::Cleaning(cleaning) => {
                if cleaning.is_spawning() {
                    orders.launch_is_over(self.common.uid());
                    cleaning.spawned(&mut self.common, orders);
                }
                Next::Nothing
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// There is no process, and there will be none.
    pub(crate) fn spawn_failed(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Spawning(_) => self.main_not_spawned(failure, orders),
            Phase::Restarting(_) => self.not_started_again(failure, orders),
            Phase::Cleaning(cleaning) if cleaning.is_spawning() => {
                orders.launch_is_over(self.common.uid());
                cleaning.spawn_failed(&mut self.common, failure, orders)
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// The main process has ended, or that of the cleanup.
    pub(crate) fn exited(&mut self, status: ExitStatus, members: Members, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Starting { .. } => self.exited_by_itself(ExitReason::StartFailed, status, members, orders),
            Phase::Running { .. } => self.exited_by_itself(ExitReason::Exited, status, members, orders),
            Phase::Stopping(stopping) => {
                let over = stopping.exited(&mut self.common, status, members, orders);
                self.stop_is_over(over, orders)
            }
            Phase::Cleaning(cleaning) => cleaning.exited(&mut self.common, status, members, orders),
            // One that an earlier broker has left on the way to its program.
            Phase::Spawning(_) => self.main_not_spawned(&killed(), orders),
            Phase::Restarting(_) => self.not_started_again(&killed(), orders),
            Phase::Recording { .. } | Phase::Queued | Phase::Ended => Next::Nothing,
        }
    }

    /// A process of it has told something of itself.
    pub(crate) fn notified(&mut self, notice: &Notice, orders: &mut Orders<'_>) -> Next {
        match (&mut self.phase, notice) {
            (Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping(_), Notice::Status(text)) => {
                self.common.show_status(text);
                Next::Nothing
            }
            (Phase::Starting { .. }, notice) => self.told_while_starting(notice, orders),
            (Phase::Running { watchdog, .. }, notice) => {
                let (before, watchdog) = (*watchdog, watchdog.told(notice, orders.now.instant));
                let next = self.keep_watch(watchdog, orders);
                if watchdog == Watchdog::Off && before != watchdog {
                    // A later broker does not watch it either.
                    self.record_progress(Safety::Process, Receipt::NotWanted, orders);
                }
                next
            }
            (Phase::Stopping(stopping), notice) => {
                stopping.told(notice, &mut self.common, orders);
                Next::Nothing
            }
            (
                Phase::Recording { .. }
                | Phase::Queued
                | Phase::Spawning(_)
                | Phase::Restarting(_)
                | Phase::Cleaning(_)
                | Phase::Ended,
                _,
            ) => Next::Nothing,
        }
    }

    /// It was found ready, or not.
    pub(crate) fn probed(&mut self, is_ready: bool, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Starting { .. } => self.probed_while_starting(is_ready, orders),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// The kernel has killed something of its present run for want of memory.
    pub(crate) fn ran_out_of_memory(&mut self) {
        match &self.phase {
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping(_) => self.common.lacks_memory(),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => {}
        }
    }

    /// What was left behind has, or may have, become less.
    pub(crate) fn members_left(&mut self, left: Members, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Stopping(stopping) => {
                let over = stopping.members_left(&mut self.common, left, orders);
                self.stop_is_over(over, orders)
            }
            Phase::Cleaning(cleaning) => cleaning.members_left(&mut self.common, left, orders),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Restarting(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// Its timer has run out.
    pub(crate) fn due(&mut self, orders: &mut Orders<'_>) -> Next {
        self.common.timer_ran_out();
        match &mut self.phase {
            Phase::Recording { .. } | Phase::Queued => Next::NotReady,
            Phase::Spawning(_) => self.launch_due(orders),
            Phase::Starting { .. } => self.due_while_starting(orders),
            Phase::Stopping(stopping) => {
                stopping.due(&mut self.common, orders);
                Next::Nothing
            }
            Phase::Restarting(_) => self.restart_due(orders),
            Phase::Cleaning(cleaning) => cleaning.due(&mut self.common, orders),
            Phase::Running { watchdog, .. } => {
                let watchdog = watchdog.due(orders.now.instant);
                self.keep_watch(watchdog, orders)
            }
            Phase::Ended => Next::Nothing,
        }
    }

    /// It is to end: by its own steps, or by others.
    pub(crate) fn stop(
        &mut self,
        reason: ExitReason,
        steps: Option<Vec<StopStep>>,
        orders: &mut Orders<'_>,
    ) -> Next {
        let steps = steps.unwrap_or_else(|| self.params().stop.clone());
        self.begin_stop(Stop { reason, steps, kill_by: None }, orders)
    }

    /// Begins a stop, or joins the one that is under way: that one keeps its reason and its steps, and the earlier of
    /// both bounds on its time. Only that its create has failed becomes the reason of one that waits for its process.
    pub(crate) fn begin_stop(&mut self, stop: Stop, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Recording { cancelled: pending } => {
                if Stop::merge(pending, stop) {
                    // A later broker has to know, too, that it is to be stopped, and why.
                    self.record_progress(Safety::Process, Receipt::NotWanted, orders);
                }
                Next::Nothing
            }
            Phase::Spawning(launching) => {
                launching.hasten(&stop, orders.now.instant);
                if Stop::merge(&mut launching.stop, stop) {
                    self.record_progress(Safety::Process, Receipt::NotWanted, orders);
                }
                self.set_launch_timer(orders);
                Next::Nothing
            }
            Phase::Queued => {
                orders.withdraw(self.common.uid(), self.common.id());
                Next::NeverStarted { reason: stop.reason, killed: None, error: None }
            }
            Phase::Starting { pid, .. } | Phase::Running { pid, .. } => {
                let pid = *pid;
                self.enter_stop(stop, Leader::Alive { pid }, orders);
                Next::Nothing
            }
            Phase::Stopping(stopping) => {
                let is_news = stopping.join(&stop);
                stopping.set_timer(&mut self.common, orders);
                if is_news {
                    stopping.show(&mut self.common);
                    stopping.record(&self.common, orders);
                    // Who waits for the next run waits for none any more.
                    return Next::Changed;
                }
                Next::Nothing
            }
            Phase::Restarting(_) => self.stop_between_runs(stop, orders),
            Phase::Cleaning(_) | Phase::Ended => Next::Nothing,
        }
    }

    /// The shutdown leaves its processes no more time.
    pub(crate) fn kill_now(&mut self, orders: &mut Orders<'_>) -> Next {
        let now = orders.now.instant;
        match &mut self.phase {
            // One that is being killed may have been left alone for a while: its next kill comes now too.
            Phase::Stopping(stopping) => stopping.kill_again_at(now),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => {}
        }
        let stop = Stop { reason: ExitReason::Shutdown, steps: Vec::new(), kill_by: Some(now) };
        self.begin_stop(stop, orders)
    }

    /// The shutdown goes on without its cleanup: the next broker begins it anew.
    pub(crate) fn leave_cleanup(&mut self, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Cleaning(cleaning) => cleaning.leave(&mut self.common, orders),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// Bounds the time of its cleanup, for the sake of those that are stopped after it.
    pub(crate) fn bound_cleanup(&mut self, by: Instant, orders: &mut Orders<'_>) {
        match &self.phase {
            Phase::Cleaning(cleaning) => {
                self.common.bound_cleanup(by);
                cleaning.follow_bound(&mut self.common, orders);
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_) => self.common.bound_cleanup(by),
            Phase::Ended => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
