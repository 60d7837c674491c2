//! Stopping: signals in turn to a child's process group, then SIGKILL to all that is left of it.

mod signalling;

use std::collections::VecDeque;
use std::time::Duration;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::{
    ChildState, EventKind, Exit, ExitReason, ExitStatus, Signal, StepTaken, Timestamp,
};

use crate::child::common::Common;
use crate::child::memory::{self, EndedBy};
use crate::effect::{Receipt, Safety};
use crate::ids::Pid;
use crate::input::Members;
use crate::limits::KILL_AGAIN_FIRST;
use crate::notice::Notice;
use crate::orders::Orders;
use crate::record::{Afterwards, Progress, StoppingProgress};
use crate::time::{Instant, Now};

/// Why and how a child is to be stopped.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// Why the child is stopped.
    pub(crate) reason: ExitReason,
    /// The signals to try.
    pub(crate) steps: Vec<StopStep>,
    /// When it is to be killed whatever step it is at.
    pub(crate) kill_by: Option<Instant>,
}

/// A stop that is under way.
#[derive(Debug)]
pub(super) struct Stopping {
    reason: ExitReason,
    cause: Cause,
    leader: Leader,
    /// The steps that are still to come.
    steps: VecDeque<StopStep>,
    stage: StopStage,
    /// The signals that were sent.
    taken: Vec<StepTaken>,
    /// Whether the last of them has gone to all that is left, because nothing of the process group was.
    widened: bool,
    /// Whether SIGKILL was needed.
    forced: bool,
    kill_by: Option<Instant>,
    afterwards: Afterwards,
}

/// What began a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its main process ended by itself, and left something behind.
    OwnEnd,
    /// Somebody, or a time that is over.
    Asked,
}

impl Cause {
    /// Returns what an earlier broker's stop was begun by.
    pub(super) fn of(reason: ExitReason) -> Self {
        if reason == ExitReason::Exited { Self::OwnEnd } else { Self::Asked }
    }
}

/// The main process of a child that is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// It is not reaped.
    Alive {
        /// The number of the main process.
        pid: Pid,
    },
    /// It has ended, and how is known.
    Gone {
        /// How the main process ended.
        status: ExitStatus,
        /// When the broker heard of its end, by the wall clock.
        at: Timestamp,
        /// What is left of its descendants.
        members: Members,
    },
}

/// What a stop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopStage {
    /// The effect of a signal, until then.
    Asking {
        /// When the next step comes.
        until: Instant,
    },
    /// The effect of SIGKILL.
    Killing {
        /// When it is sent again.
        again: Instant,
        /// How long that is after the last time.
        pause: Duration,
    },
}

/// What a look at a child that is being stopped has shown.
enum Outlook {
    /// Nothing of it is left.
    Over,
    /// Only processes that what was sent last has not reached are left.
    Unreached,
    /// Something is there, and what was sent to it last has its time.
    Alive,
}

impl Stop {
    /// Takes in a later stop, before this one has begun: the earlier bound on its time, or that the create has failed.
    /// Returns whether its reason is another one now.
    pub(super) fn join(&mut self, later: &Self) -> bool {
        if later.reason == ExitReason::StartFailed && self.reason != ExitReason::StartFailed {
            self.reason = ExitReason::StartFailed;
            return true;
        }
        self.kill_by = earliest(self.kill_by, later.kill_by);
        false
    }

    /// Takes a stop in, be it the first one. Returns whether that is news.
    pub(super) fn merge(pending: &mut Option<Self>, stop: Self) -> bool {
        if let Some(earlier) = pending {
            return earlier.join(&stop);
        }
        *pending = Some(stop);
        true
    }
}

impl Stopping {
    /// Makes a stop whose first step is due now.
    pub(super) fn new(stop: Stop, leader: Leader, afterwards: Afterwards, now: Instant) -> Self {
        let Stop { reason, steps, kill_by } = stop;
        Self {
            reason,
            cause: Cause::of(reason),
            leader,
            steps: steps.into(),
            stage: StopStage::Asking { until: now },
            taken: Vec::new(),
            widened: false,
            forced: false,
            kill_by,
            afterwards,
        }
    }

    /// Makes a stop of which nothing is to come: the run has ended in this way.
    pub(super) fn over_already(exit: &Exit, afterwards: Afterwards, now: Instant) -> Self {
        let Exit { status, reason, at, .. } = *exit;
        let stop = Stop { reason, steps: Vec::new(), kill_by: None };
        let leader = Leader::Gone { status, at, members: Members::Nothing };
        Self { cause: Cause::OwnEnd, ..Self::new(stop, leader, afterwards, now) }
    }

    /// Goes on with a stop of an earlier broker. The signal of the step that it was at has been sent, and is not sent
    /// again.
    pub(super) fn resumed(stopping: StoppingProgress, leader: Leader, now: Instant) -> Self {
        let StoppingProgress {
            started_at: _,
            reason,
            ended: _,
            steps,
            until,
            taken,
            widened,
            forced,
            afterwards,
            runs: _,
        } = stopping;
        let stage = StopStage::Asking { until: until.max(now) };
        let steps = steps.into();
        Self {
            reason,
            cause: Cause::of(reason),
            leader,
            steps,
            stage,
            taken,
            widened,
            forced,
            kill_by: None,
            afterwards,
        }
    }

    /// SIGKILL was sent already, and no step comes before the next one.
    pub(super) fn killed_at(mut self, at: Timestamp) -> Self {
        self.steps.clear();
        self.taken = vec![StepTaken { signal: Signal::KILL, at }];
        Self { forced: true, ..self }
    }

    /// Has it begun by the end of the main process, whatever it is to be called.
    pub(super) fn by_its_own_end(self) -> Self {
        Self { cause: Cause::OwnEnd, ..self }
    }

    pub(super) fn is_forced(&self) -> bool {
        self.forced
    }

    pub(super) fn is_leader_alive(&self) -> bool {
        match self.leader {
            Leader::Alive { .. } => true,
            Leader::Gone { .. } => false,
        }
    }

    /// Takes in another stop of the same child: the bound on its time, and that nothing comes after it. Returns whether
    /// that is news.
    pub(super) fn join(&mut self, later: &Stop) -> bool {
        self.kill_by = earliest(self.kill_by, later.kill_by);
        // One whose main process ended by itself has ended by itself, whatever was to come after it.
        if self.afterwards == Afterwards::Restart && self.cause == Cause::Asked {
            self.reason = later.reason;
        }
        std::mem::replace(&mut self.afterwards, Afterwards::End) != Afterwards::End
    }

    /// Has another run come after it, unless the child is to end. Returns whether one comes.
    pub(super) fn restart(&mut self) -> bool {
        match self.afterwards {
            Afterwards::Policy => {
                self.afterwards = Afterwards::Restart;
                true
            }
            Afterwards::Restart => true,
            Afterwards::End => false,
        }
    }

    /// Whether nothing comes after it, as far as that is known: a policy decides at its end.
    pub(super) fn is_for_good(&self) -> bool {
        self.afterwards != Afterwards::Restart
    }

    /// What comes after it.
    pub(super) fn afterwards(&self) -> Afterwards {
        self.afterwards
    }

    /// Has the next kill come at this time, unless none has come yet or it is soon anyway.
    pub(super) fn kill_again_at(&mut self, now: Instant) {
        match self.stage {
            StopStage::Killing { pause, .. } if pause > KILL_AGAIN_FIRST => {
                self.stage = StopStage::Killing { again: now, pause: KILL_AGAIN_FIRST };
            }
            StopStage::Asking { .. } | StopStage::Killing { .. } => {}
        }
    }

    /// Brings what clients see in step with it.
    pub(super) fn show(&self, common: &mut Common) {
        let pid = match self.leader {
            Leader::Alive { pid } => Some(pid),
            Leader::Gone { .. } => None,
        };
        let exit = self.exit(common);
        common.show(ChildState::Stopping, pid, exit);
    }

    /// Sets the timer of the next step, or of the next kill.
    pub(super) fn set_timer(&self, common: &mut Common, orders: &mut Orders<'_>) {
        let due = self.over(common).is_none().then(|| self.due_at());
        common.set_due(due, orders);
    }

    fn due_at(&self) -> Instant {
        match self.stage {
            StopStage::Asking { until } => self.kill_by.map_or(until, |kill_by| until.min(kill_by)),
            StopStage::Killing { again, .. } => again,
        }
    }

    /// One of its processes has told something of itself: it may ask for more time before the next step.
    pub(super) fn told(&mut self, notice: &Notice, common: &mut Common, orders: &mut Orders<'_>) {
        match (notice, &mut self.stage) {
            (Notice::MoreTime(time), StopStage::Asking { until }) => {
                let longer = orders.now.instant.plus(*time);
                if *until < longer {
                    *until = longer;
                    self.set_timer(common, orders);
                    self.record(common, orders);
                }
            }
            (Notice::MoreTime(_), StopStage::Killing { .. })
            | (Notice::Ready | Notice::Status(_) | Notice::Stopping | Notice::Well | Notice::Unwell, _) => {}
        }
    }

    /// Its timer has run out.
    pub(super) fn due(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        match self.stage {
            StopStage::Killing { .. } => self.kill(common, orders),
            StopStage::Asking { .. } if self.kill_by.is_some_and(|by| by <= orders.now.instant) => {
                self.kill(common, orders);
            }
            StopStage::Asking { .. } => self.step(common, orders),
        }
    }

    /// The main process has ended: the stop goes on while anything of its group is alive.
    pub(super) fn exited(
        &mut self,
        common: &mut Common,
        status: ExitStatus,
        members: Members,
        orders: &mut Orders<'_>,
    ) -> Option<Exit> {
        self.leader = Leader::Gone { status, at: orders.now.wall, members };
        self.show(common);
        common.publish(EventKind::Exited, orders);
        if members != Members::Nothing {
            self.record(common, orders);
        }
        self.look(common, orders)
    }

    /// What is left of the descendants has, or may have, become less.
    pub(super) fn members_left(
        &mut self,
        common: &mut Common,
        left: Members,
        orders: &mut Orders<'_>,
    ) -> Option<Exit> {
        match &mut self.leader {
            Leader::Alive { .. } => None,
            Leader::Gone { members, .. } => {
                *members = left;
                self.look(common, orders)
            }
        }
    }

    /// Goes on as far as what is left of the child allows. Returns how it ended, once nothing is.
    pub(super) fn look(&mut self, common: &mut Common, orders: &mut Orders<'_>) -> Option<Exit> {
        let outlook = match (&self.leader, self.stage) {
            (Leader::Gone { members: Members::Nothing, .. }, _) => Outlook::Over,
            (Leader::Gone { members: Members::Outside, .. }, StopStage::Asking { .. })
                if self.cause == Cause::Asked && !self.widened =>
            {
                Outlook::Unreached
            }
            // Every kill is followed by such a report, so that to kill again at once would go round and
            // round: the timer does it.
            (Leader::Alive { .. }, _)
            | (Leader::Gone { .. }, StopStage::Asking { .. } | StopStage::Killing { .. }) => Outlook::Alive,
        };
        match outlook {
            Outlook::Over => self.exit(common),
            Outlook::Unreached => {
                self.widen(common, orders);
                None
            }
            Outlook::Alive => None,
        }
    }

    /// Returns how the child ended, if nothing of its run is left.
    pub(super) fn over(&self, common: &Common) -> Option<Exit> {
        match self.leader {
            Leader::Gone { members: Members::Nothing, .. } => self.exit(common),
            Leader::Gone { members: Members::Outside | Members::Group, .. } | Leader::Alive { .. } => None,
        }
    }

    /// Returns how the child ended, as far as is known once its main process has.
    pub(super) fn exit(&self, common: &Common) -> Option<Exit> {
        match self.leader {
            Leader::Alive { .. } => None,
            Leader::Gone { status, at, .. } => {
                let forced = self.forced;
                let exit = Exit { forced, steps: self.taken.clone(), ..Exit::new(status, self.reason, at) };
                let ended_by = match self.cause {
                    Cause::OwnEnd => EndedBy::Itself,
                    Cause::Asked if forced => EndedBy::Force,
                    Cause::Asked => EndedBy::Steps,
                };
                Some(memory::told(exit, ended_by, common))
            }
        }
    }

    /// Returns how long it takes if nothing answers its signals.
    pub(super) fn need(&self, now: Instant) -> Duration {
        match self.stage {
            StopStage::Asking { .. } => sum(self.due_at().since(now), self.steps.iter()),
            // The steps that are left are not taken any more.
            StopStage::Killing { .. } => Duration::ZERO,
        }
    }

    /// Has it recorded how far it is.
    pub(super) fn record(&self, common: &Common, orders: &mut Orders<'_>) {
        common.record(self.progress(common, orders.now), Safety::Process, Receipt::NotWanted, orders);
    }

    /// Returns what a later broker has to know to go on from here.
    pub(super) fn progress(&self, common: &Common, now: Now) -> Progress {
        let until = match self.stage {
            StopStage::Asking { until } => until,
            StopStage::Killing { .. } => now.instant,
        };
        Progress::Stopping(StoppingProgress {
            started_at: common.view().started_at,
            reason: self.reason,
            ended: match self.leader {
                Leader::Alive { .. } => None,
                Leader::Gone { status, at, .. } => Some((status, at)),
            },
            steps: self.steps.iter().copied().collect(),
            until,
            taken: self.taken.clone(),
            widened: self.widened,
            forced: self.forced,
            afterwards: self.afterwards,
            runs: common.runs().clone(),
        })
    }
}

/// Returns a time with the graces of some steps added to it.
pub(super) fn sum<'a>(time: Duration, steps: impl Iterator<Item = &'a StopStep>) -> Duration {
    steps.fold(time, |sum, step| sum.saturating_add(step.grace))
}

/// Returns the earlier of two bounds, either of which may be absent.
fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (bound, None) | (None, bound) => bound,
    }
}
