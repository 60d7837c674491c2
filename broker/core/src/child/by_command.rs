//! A command finds out whether a child is ready. One runs at a time, for a bounded time, and none any more than it has a point:
//! it is killed with all that it has started, and nothing follows for its child before it is gone.

use std::sync::Arc;

use procbroker_protocol::create::{Check, Probe, Ready};
use procbroker_protocol::error::{ProbeFailure, SpawnFailure};
use procbroker_protocol::{ExitStatus, duration};

use crate::child::asking::AskingStage;
use crate::child::not_started::Attempt;
use crate::child::{Child, Next, Phase};
use crate::effect::{Effect, Purpose, Report};
use crate::ids::{Pid, Run, counterpart};
use crate::input::Members;
use crate::limits::{KILL_AGAIN_FIRST, PROBE_COMMAND_PATIENCE};
use crate::orders::Orders;
use crate::time::{Instant, doubled};

impl Child {
    /// Returns the process of its probe, the last one where none is under way.
    pub(crate) fn probe_run(&self) -> Run {
        Run { child: counterpart(self.id()), incarnation: self.asking.incarnation }
    }

    /// Whether a process of a probe may be there.
    pub(crate) fn is_asked(&self) -> bool {
        self.asking.may_have_processes()
    }

    /// A command is to be started, in its turn.
    pub(super) fn enqueue_probe(&mut self, orders: &mut Orders<'_>) {
        self.asking.stage = AskingStage::Queued;
        orders.enqueue(self.common.uid(), counterpart(self.id()));
    }

    /// It is the turn of a command to be started.
    pub(crate) fn start_probe(&mut self, orders: &mut Orders<'_>) {
        self.asking.incarnation = self.asking.incarnation.next();
        self.asking.stage = AskingStage::Spawning { is_wanted: true };
        // Its time begins here: its program may be one that takes for ever to be executed.
        self.set_probe_timer(Some(orders.now.instant.plus(PROBE_COMMAND_PATIENCE)), orders);
        let order = Arc::clone(self.common.order());
        orders.order(Effect::Spawn { run: self.probe_run(), order, purpose: Purpose::Probe });
    }

    /// A command runs.
    pub(crate) fn probe_spawned(&mut self, _pid: Pid, orders: &mut Orders<'_>) -> Next {
        let AskingStage::Spawning { is_wanted } = self.asking.stage else {
            return Next::Nothing;
        };
        orders.launch_is_over(self.common.uid());
        self.asking.stage = AskingStage::Running;
        if !is_wanted {
            self.kill_probe(true, false, orders);
        }
        Next::Nothing
    }

    /// A command could not be started.
    pub(crate) fn probe_not_spawned(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) -> Next {
        let AskingStage::Spawning { is_wanted } = self.asking.stage else {
            return Next::Nothing;
        };
        orders.launch_is_over(self.common.uid());
        if is_wanted {
            self.note_not_started(failure, orders);
        }
        self.probe_is_over(false, orders)
    }

    /// The process of a command has ended.
    pub(crate) fn probe_exited(
        &mut self,
        status: ExitStatus,
        members: Members,
        orders: &mut Orders<'_>,
    ) -> Next {
        let is_ready = match self.asking.stage {
            AskingStage::Running if status == ExitStatus::Code(0) => true,
            AskingStage::Running => {
                self.asking.failure = Some(ProbeFailure::Ended(status));
                false
            }
            // Its time was over.
            AskingStage::Killing { is_ready, .. } => is_ready,
            AskingStage::Idle | AskingStage::Queued | AskingStage::Spawning { .. } => return Next::Nothing,
        };
        if members == Members::Nothing {
            return self.probe_is_over(is_ready, orders);
        }
        self.kill_probe(false, is_ready, orders);
        Next::Nothing
    }

    /// What a command has left behind has become less.
    pub(crate) fn probe_left(&mut self, members: Members, orders: &mut Orders<'_>) -> Next {
        match self.asking.stage {
            AskingStage::Killing { has_process: false, is_ready, .. } if members == Members::Nothing => {
                self.probe_is_over(is_ready, orders)
            }
            AskingStage::Idle
            | AskingStage::Queued
            | AskingStage::Spawning { .. }
            | AskingStage::Running
            | AskingStage::Killing { .. } => Next::Nothing,
        }
    }

    /// The time of a command is over, or what was killed of it is still there.
    pub(crate) fn probe_due(&mut self, orders: &mut Orders<'_>) -> Next {
        self.asking.due = None;
        match self.asking.stage {
            AskingStage::Spawning { .. } | AskingStage::Running => {
                self.asking.failure = Some(ProbeFailure::TimedOut);
                self.cut_probe_short(orders);
            }
            AskingStage::Killing { has_process, is_ready, .. } => {
                self.kill_probe(has_process, is_ready, orders);
            }
            AskingStage::Idle | AskingStage::Queued => {}
        }
        Next::Nothing
    }

    /// Nobody needs an answer any more.
    pub(super) fn end_probe(&mut self, orders: &mut Orders<'_>) {
        match self.asking.stage {
            AskingStage::Queued => {
                orders.withdraw(self.common.uid(), counterpart(self.id()));
                self.asking.stage = AskingStage::Idle;
            }
            AskingStage::Idle
            | AskingStage::Spawning { .. }
            | AskingStage::Running
            | AskingStage::Killing { .. } => self.cut_probe_short(orders),
        }
    }

    /// Whatever runs of a command is to be gone soon: the answer is no.
    pub(crate) fn cut_probe_short(&mut self, orders: &mut Orders<'_>) {
        match self.asking.stage {
            AskingStage::Spawning { is_wanted: true } => {
                self.asking.stage = AskingStage::Spawning { is_wanted: false };
                self.set_probe_timer(None, orders);
                // It has no program so far, and may never get to it.
                orders.order(Effect::Kill { run: self.probe_run() });
            }
            AskingStage::Running => self.kill_probe(true, false, orders),
            AskingStage::Idle
            | AskingStage::Queued
            | AskingStage::Spawning { is_wanted: false }
            | AskingStage::Killing { .. } => {}
        }
    }

    /// An earlier broker has left something of a command.
    pub(crate) fn resume_probe(&mut self, members: Members, orders: &mut Orders<'_>) {
        if members != Members::Nothing {
            self.kill_probe(false, false, orders);
        }
    }

    /// Sends SIGKILL to everything of a command, and again after a while.
    fn kill_probe(&mut self, has_process: bool, is_ready: bool, orders: &mut Orders<'_>) {
        let pause = match self.asking.stage {
            AskingStage::Killing { pause, .. } => doubled(pause),
            AskingStage::Idle | AskingStage::Queued | AskingStage::Spawning { .. } | AskingStage::Running => {
                KILL_AGAIN_FIRST
            }
        };
        self.asking.stage = AskingStage::Killing { has_process, is_ready, pause };
        self.set_probe_timer(Some(orders.now.instant.plus(pause)), orders);
        orders.order(Effect::Kill { run: self.probe_run() });
    }

    /// Nothing of a command is left: its answer counts, or its child goes on without.
    fn probe_is_over(&mut self, is_ready: bool, orders: &mut Orders<'_>) -> Next {
        self.set_probe_timer(None, orders);
        orders.order(Effect::Release { run: self.probe_run() });
        self.asking.stage = AskingStage::Idle;
        match &mut self.phase {
            Phase::Starting { probing, .. } if probing.is_asking() => {
                self.probed_while_starting(is_ready, orders)
            }
            Phase::Stopping(stopping) => {
                let over = stopping.over(&self.common);
                self.stop_is_over(over, orders)
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => Next::Nothing,
        }
    }

    /// Keeps in mind that a command could not be started, and has the log say so unless it has said the same before.
    fn note_not_started(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) {
        let failure = ProbeFailure::NotStarted(failure.clone());
        if self.asking.failure.as_ref() == Some(&failure) {
            return;
        }
        self.asking.failure = Some(failure);
        if let Some(message) = self.why_not_ready() {
            orders.order(Effect::Report(Report::ProbeFailed { child: Arc::clone(self.view()), message }));
        }
    }

    /// Returns why the last command that asked the present run has said no, if that is known.
    pub(crate) fn probe_failure(&self) -> Option<&ProbeFailure> {
        self.asking.failure.as_ref()
    }

    /// Says so for people.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        let Ready::Probe(Probe { check: Check::Command(words), .. }) = &self.params().ready else {
            return None;
        };
        let attempt = Attempt::probe(words, self.common.order());
        let program = attempt.program();
        Some(match self.probe_failure()? {
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

    fn set_probe_timer(&mut self, due: Option<Instant>, orders: &mut Orders<'_>) {
        orders.set_probe_timer(self.id(), self.asking.due, due);
        self.asking.due = due;
    }
}
