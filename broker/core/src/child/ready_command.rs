//! The command that finds out whether a child is ready: how far it is, and what each input does to it there.
//!
//! One runs at a time, for a bounded time, and none any more than it has a point: it is killed with all that it has started, and
//! its answer counts when nothing of it is left. Here stands the whole of what happens, as one table; each row is one method of
//! [`ReadyCommand`], and each cell one arm of its match. `ready_command/tests.rs` asks each pair. A dash means that the input
//! comes too late or too early there, and changes nothing. *Over* means that nothing of it is left: it is Idle, and its child is
//! told what it has found.
//!
//! | input         | Idle     | Queued   | Spawning | Unwanted | Running          | Killing          | Clearing         |
//! | ------------- | -------- | -------- | -------- | -------- | ---------------- | ---------------- | ---------------- |
//! | `enqueue`     | Queued   | -        | -        | -        | -                | -                | -                |
//! | `start`       | -        | Spawning | -        | -        | -                | -                | -                |
//! | `spawned`     | -        | -        | Running  | Killing  | -                | -                | -                |
//! | `not_spawned` | -        | -        | over: no | over: no | -                | -                | -                |
//! | `exited`      | -        | -        | -        | -        | over or Clearing | over: no, or Clearing | over or Clearing |
//! | `left`        | -        | -        | -        | -        | -                | -                | over             |
//! | `due`         | -        | -        | Unwanted | -        | Killing          | kill again       | kill again       |
//! | `end`         | -        | Idle     | Unwanted | -        | Killing          | -                | -                |
//! | `cut_short`   | -        | -        | Unwanted | -        | Killing          | -                | -                |
//! | `resume`      | Clearing | -        | -        | -        | -                | -                | -                |

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::create::{Check, Probe, Ready};
use procbroker_protocol::error::{ProbeFailure, SpawnFailure};
use procbroker_protocol::{ExitStatus, duration};

use crate::child::common::Common;
use crate::child::not_started::StartAttempt;
use crate::effect::{Effect, Purpose, Report};
use crate::ids::{Incarnation, Run, paired_id};
use crate::input::Members;
use crate::limits::{KILL_AGAIN_FIRST, PROBE_COMMAND_PATIENCE};
use crate::orders::Orders;
use crate::time::{Instant, doubled};

/// The command that finds out whether a child is ready, where one does.
#[derive(Debug)]
pub(super) struct ReadyCommand {
    stage: CommandStage,
    /// Which of its processes the last one was.
    incarnation: Incarnation,
    /// When its time is over, or it is killed again.
    due: Option<Instant>,
    /// Why the last one that has said no to the present run has.
    failure: Option<ProbeFailure>,
}

/// How far the command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandStage {
    /// None is under way.
    Idle,
    /// It waits for its turn to be started.
    Queued,
    /// Its process is on its way to its program.
    Spawning,
    /// Its process was killed on its way to its program, and is not gone so far.
    Unwanted,
    /// Its program was executed, and has its time to find out.
    Running,
    /// It is being killed, its process too: its answer is no.
    Killing {
        /// How long it is until it is killed again.
        pause: Duration,
    },
    /// Its process is gone, and what that has left behind is being killed.
    Clearing {
        /// What it has found.
        is_ready: bool,
        /// How long it is until that is killed again.
        pause: Duration,
    },
}

impl ReadyCommand {
    pub(super) fn new() -> Self {
        Self { stage: CommandStage::Idle, incarnation: Incarnation::FIRST, due: None, failure: None }
    }

    /// Returns its process, the last one where none is under way.
    pub(super) fn run(&self, common: &Common) -> Run {
        Run { child: paired_id(common.id()), incarnation: self.incarnation }
    }

    /// Whether one is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.stage != CommandStage::Idle
    }

    /// Whether a process of one may be there.
    pub(super) fn may_have_processes(&self) -> bool {
        match self.stage {
            CommandStage::Idle | CommandStage::Queued => false,
            CommandStage::Spawning
            | CommandStage::Unwanted
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => true,
        }
    }

    /// Returns why the last one that asked the present run has said no, if that is known.
    pub(super) fn failure(&self) -> Option<&ProbeFailure> {
        self.failure.as_ref()
    }

    /// Another run of its child is to come, which nobody has asked.
    pub(super) fn forget_failure(&mut self) {
        self.failure = None;
    }

    // The table: one method a row.

    /// It is to be started, in its turn.
    pub(super) fn enqueue(&mut self, common: &Common, orders: &mut Orders<'_>) {
        match self.stage {
            CommandStage::Idle => {
                self.stage = CommandStage::Queued;
                orders.enqueue(common.uid(), paired_id(common.id()));
            }
            CommandStage::Queued
            | CommandStage::Spawning
            | CommandStage::Unwanted
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => {}
        }
    }

    /// It is its turn to be started.
    pub(super) fn start(&mut self, common: &Common, orders: &mut Orders<'_>) {
        match self.stage {
            CommandStage::Queued => {
                self.incarnation = self.incarnation.next();
                self.stage = CommandStage::Spawning;
                // Its time begins here: its program may be one that takes for ever to be executed.
                self.set_timer(Some(orders.now.instant.plus(PROBE_COMMAND_PATIENCE)), common, orders);
                let order = Arc::clone(common.order());
                orders.order(Effect::Spawn { run: self.run(common), order, purpose: Purpose::Probe });
            }
            CommandStage::Idle
            | CommandStage::Spawning
            | CommandStage::Unwanted
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => {}
        }
    }

    /// Its program was executed.
    pub(super) fn spawned(&mut self, common: &Common, orders: &mut Orders<'_>) {
        match self.stage {
            CommandStage::Spawning => {
                orders.launch_is_over(common.uid());
                self.stage = CommandStage::Running;
            }
            CommandStage::Unwanted => {
                orders.launch_is_over(common.uid());
                self.kill_process(common, orders);
            }
            CommandStage::Idle
            | CommandStage::Queued
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => {}
        }
    }

    /// There is no process, and there will be none. Returns what it has found, if it was under way.
    pub(super) fn not_spawned(
        &mut self,
        failure: &SpawnFailure,
        common: &Common,
        orders: &mut Orders<'_>,
    ) -> Option<bool> {
        match self.stage {
            CommandStage::Spawning => {
                orders.launch_is_over(common.uid());
                self.note_not_started(failure, common, orders);
                Some(self.over(false, common, orders))
            }
            CommandStage::Unwanted => {
                orders.launch_is_over(common.uid());
                Some(self.over(false, common, orders))
            }
            CommandStage::Idle
            | CommandStage::Queued
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => None,
        }
    }

    /// Its process has ended. Returns what it has found, once nothing of it is left.
    pub(super) fn exited(
        &mut self,
        status: ExitStatus,
        members: Members,
        common: &Common,
        orders: &mut Orders<'_>,
    ) -> Option<bool> {
        let is_ready = match self.stage {
            CommandStage::Running if status == ExitStatus::Code(0) => true,
            CommandStage::Running => {
                self.failure = Some(ProbeFailure::Ended(status));
                false
            }
            // Its time was over.
            CommandStage::Killing { .. } => false,
            CommandStage::Clearing { is_ready, .. } => is_ready,
            CommandStage::Idle | CommandStage::Queued | CommandStage::Spawning | CommandStage::Unwanted => {
                return None;
            }
        };
        if members == Members::Nothing {
            return Some(self.over(is_ready, common, orders));
        }
        self.kill_remains(is_ready, common, orders);
        None
    }

    /// What it has left behind has, or may have, become less. Returns what it has found, once nothing of it is left.
    pub(super) fn left(
        &mut self,
        members: Members,
        common: &Common,
        orders: &mut Orders<'_>,
    ) -> Option<bool> {
        match self.stage {
            CommandStage::Clearing { is_ready, .. } if members == Members::Nothing => {
                Some(self.over(is_ready, common, orders))
            }
            CommandStage::Idle
            | CommandStage::Queued
            | CommandStage::Spawning
            | CommandStage::Unwanted
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => None,
        }
    }

    /// Its time is over, or what was killed of it is still there.
    pub(super) fn due(&mut self, common: &Common, orders: &mut Orders<'_>) {
        self.due = None;
        match self.stage {
            CommandStage::Spawning | CommandStage::Running => {
                self.failure = Some(ProbeFailure::TimedOut);
                self.cut_short(common, orders);
            }
            CommandStage::Killing { .. } => self.kill_process(common, orders),
            CommandStage::Clearing { is_ready, .. } => self.kill_remains(is_ready, common, orders),
            CommandStage::Idle | CommandStage::Queued | CommandStage::Unwanted => {}
        }
    }

    /// Nobody needs its answer any more.
    pub(super) fn end(&mut self, common: &Common, orders: &mut Orders<'_>) {
        match self.stage {
            CommandStage::Queued => {
                orders.withdraw(common.uid(), paired_id(common.id()));
                self.stage = CommandStage::Idle;
            }
            CommandStage::Spawning | CommandStage::Running => self.cut_short(common, orders),
            CommandStage::Idle
            | CommandStage::Unwanted
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => {}
        }
    }

    /// Whatever runs of it is to be gone soon: the answer is no.
    pub(super) fn cut_short(&mut self, common: &Common, orders: &mut Orders<'_>) {
        match self.stage {
            CommandStage::Spawning => {
                self.stage = CommandStage::Unwanted;
                self.set_timer(None, common, orders);
                // It has no program so far, and may never get to it.
                orders.order(Effect::Kill { run: self.run(common) });
            }
            CommandStage::Running => self.kill_process(common, orders),
            CommandStage::Idle
            | CommandStage::Queued
            | CommandStage::Unwanted
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => {}
        }
    }

    /// An earlier broker has left these processes of one, if any.
    pub(super) fn resume(&mut self, members: Members, common: &Common, orders: &mut Orders<'_>) {
        match self.stage {
            CommandStage::Idle if members != Members::Nothing => self.kill_remains(false, common, orders),
            CommandStage::Idle
            | CommandStage::Queued
            | CommandStage::Spawning
            | CommandStage::Unwanted
            | CommandStage::Running
            | CommandStage::Killing { .. }
            | CommandStage::Clearing { .. } => {}
        }
    }

    /// Sends SIGKILL to everything of it, and again after a while.
    fn kill_process(&mut self, common: &Common, orders: &mut Orders<'_>) {
        let pause = self.next_pause();
        self.kill(CommandStage::Killing { pause }, pause, common, orders);
    }

    /// Sends SIGKILL to what it has left behind, and again after a while.
    fn kill_remains(&mut self, is_ready: bool, common: &Common, orders: &mut Orders<'_>) {
        let pause = self.next_pause();
        self.kill(CommandStage::Clearing { is_ready, pause }, pause, common, orders);
    }

    fn kill(&mut self, stage: CommandStage, pause: Duration, common: &Common, orders: &mut Orders<'_>) {
        self.stage = stage;
        self.set_timer(Some(orders.now.instant.plus(pause)), common, orders);
        orders.order(Effect::Kill { run: self.run(common) });
    }

    fn next_pause(&self) -> Duration {
        match self.stage {
            CommandStage::Killing { pause } | CommandStage::Clearing { pause, .. } => doubled(pause),
            CommandStage::Idle
            | CommandStage::Queued
            | CommandStage::Spawning
            | CommandStage::Unwanted
            | CommandStage::Running => KILL_AGAIN_FIRST,
        }
    }

    /// Nothing of it is left. Returns what it has found.
    fn over(&mut self, is_ready: bool, common: &Common, orders: &mut Orders<'_>) -> bool {
        self.set_timer(None, common, orders);
        orders.order(Effect::Release { run: self.run(common) });
        self.stage = CommandStage::Idle;
        is_ready
    }

    /// Keeps in mind that it could not be started, and has the log say so unless it has said the same before.
    fn note_not_started(&mut self, failure: &SpawnFailure, common: &Common, orders: &mut Orders<'_>) {
        let failure = ProbeFailure::NotStarted(failure.clone());
        if self.failure.as_ref() == Some(&failure) {
            return;
        }
        self.failure = Some(failure);
        if let Some(message) = self.why_not_ready(common) {
            orders.order(Effect::Report(Report::ProbeFailed { child: Arc::clone(common.view()), message }));
        }
    }

    /// Says for people why the last one that asked the present run has said no, if that is known.
    pub(super) fn why_not_ready(&self, common: &Common) -> Option<String> {
        let Ready::Probe(Probe { check: Check::Command(words), .. }) = &common.params().ready else {
            return None;
        };
        let attempt = StartAttempt::probe(words, common.order());
        let program = attempt.program();
        Some(match self.failure()? {
            ProbeFailure::NotStarted(failure) => {
                let why = attempt.why(failure, None);
                format!("the ready command {program} could not be started: {why}")
            }
            ProbeFailure::Ended(status) => {
                format!("the ready command {program} ended with {status} the last time")
            }
            ProbeFailure::TimedOut => {
                let patience = duration::display(PROBE_COMMAND_PATIENCE);
                format!("the ready command {program} took longer than {patience} the last time")
            }
        })
    }

    fn set_timer(&mut self, due: Option<Instant>, common: &Common, orders: &mut Orders<'_>) {
        orders.set_probe_timer(common.id(), self.due, due);
        self.due = due;
    }
}

#[cfg(test)]
mod tests;
