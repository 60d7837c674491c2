//! Cleaning: after a child and all its descendants are gone, a command releases what it held.
//!
//! That an attempt begins is on record before it does, and how it went before anybody is told that the child has
//! ended. So an attempt is repeated only where the broker itself died in its midst, and forgotten never.

mod launch;

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::{ChildState, Cleaned, Exit, ExitStatus};

use crate::child::common::Common;
use crate::child::next::Next;
use crate::effect::{Effect, Receipt, Report, Safety};
use crate::input::Members;
use crate::limits::{KILL_AGAIN_FIRST, SHORTAGE_PAUSE_FIRST};
use crate::orders::Orders;
use crate::record::Progress;
use crate::time::{Instant, Now, doubled};
use launch::CleanupLaunch;

/// A cleanup that is under way.
#[derive(Debug)]
pub(super) struct Cleaning {
    /// How the child ended.
    exit: Exit,
    /// How many times the cleanup has been begun.
    attempts: u32,
    stage: CleaningStage,
    fate: Fate,
    /// How long it waits after the next shortage.
    pause: Duration,
    /// When the time of an attempt is over that an earlier program has started and handed over.
    handed_over_until: Option<Instant>,
}

/// Who sees a cleanup through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// This broker does, to the end.
    Finish,
    /// The next one: it stays on record, and is begun anew.
    Leave,
}

/// How far an attempt at a cleanup is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CleaningStage {
    /// It is being recorded that it begins.
    Recording,
    /// It waits for its turn to be started.
    Queued,
    /// Its process is being started.
    Spawning {
        /// When its time is over.
        until: Instant,
        /// When that of its launch is: it has at least the moment in which every other gets to its program.
        launched_by: Instant,
        /// Whether it is left to get to its program.
        launch: CleanupLaunch,
    },
    /// It could not be started for a shortage, and is tried again.
    Short {
        /// When it is tried again.
        again: Instant,
    },
    /// Its process runs, until then at most.
    Running {
        /// When its time is over.
        until: Instant,
    },
    /// What is left of it is being killed.
    Killing {
        /// What that is: of this attempt, or of one that an earlier broker began.
        remains: Remains,
        /// When it is killed again.
        again: Instant,
        /// How long that is after the last time.
        pause: Duration,
    },
    /// Its outcome is being recorded.
    Closing {
        /// What became of the cleanup.
        cleaned: Cleaned,
    },
    /// It is on record for the next broker.
    Left,
}

/// What is left of a cleanup that is being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// Its process is there, with all that it has started.
    Process,
    /// What its process has left behind, which has ended in this way.
    Descendants(ExitStatus),
    /// Whatever there is of an attempt that was interrupted with an earlier broker.
    Interrupted,
}

impl Cleaning {
    /// Makes a cleanup that is about to be begun, after so many attempts.
    pub(super) fn new(exit: Exit, attempts: u32) -> Self {
        Self {
            exit,
            attempts,
            stage: CleaningStage::Recording,
            fate: Fate::Finish,
            pause: SHORTAGE_PAUSE_FIRST,
            handed_over_until: None,
        }
    }

    /// Keeps an attempt that an earlier program has started to the time that it has had there.
    pub(super) fn bounded_by(self, until: Option<Instant>) -> Self {
        Self { handed_over_until: until, ..self }
    }

    /// Brings what clients see in step with it.
    pub(super) fn show(&self, common: &mut Common) {
        common.show(ChildState::Cleaning, None, Some(self.exit.clone()));
    }

    pub(super) fn is_spawning(&self) -> bool {
        matches!(self.stage, CleaningStage::Spawning { .. })
    }

    /// Whether a process of it may be there.
    pub(super) fn may_have_processes(&self) -> bool {
        match self.stage {
            CleaningStage::Spawning { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. } => true,
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Short { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => false,
        }
    }

    /// Returns when the time of the attempt is over whose process is there.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            CleaningStage::Spawning { until, .. } | CleaningStage::Running { until } => Some(until),
            CleaningStage::Killing { remains: Remains::Process, .. } => Some(now),
            // What is left of an attempt that was interrupted is followed by another one, which has a time of its own.
            CleaningStage::Killing { remains: Remains::Descendants(_) | Remains::Interrupted, .. }
            | CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Short { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => None,
        }
    }

    /// Returns how many attempts were begun, where the one that is on record was not.
    pub(super) fn begun_before(&self) -> Option<u32> {
        match self.stage {
            CleaningStage::Recording | CleaningStage::Queued | CleaningStage::Short { .. } => {
                Some(self.attempts.saturating_sub(1))
            }
            CleaningStage::Spawning { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => None,
        }
    }

    /// Has the next attempt recorded, and begun then.
    pub(super) fn begin_attempt(&mut self, common: &mut Common, orders: &mut Orders<'_>) -> Next {
        common.set_due(common.cleanup_by(), orders);
        common.next_run();
        self.attempts = self.attempts.saturating_add(1);
        self.stage = CleaningStage::Recording;
        self.record(Safety::Process, Receipt::Wanted, common, orders);
        Next::Changed
    }

    /// Its record is safe, or cannot be written: a resource is not held for that. Returns how the child ended and what
    /// became of its cleanup, once that is on record.
    pub(super) fn recorded(&mut self, common: &Common, orders: &mut Orders<'_>) -> Option<(Exit, Cleaned)> {
        match &self.stage {
            CleaningStage::Recording => {
                self.stage = CleaningStage::Queued;
                orders.enqueue(common.uid(), common.id());
                None
            }
            CleaningStage::Closing { cleaned } => Some((self.exit.clone(), cleaned.clone())),
            CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. }
            | CleaningStage::Left => None,
        }
    }

    /// Its process has ended.
    pub(super) fn exited(
        &mut self,
        common: &mut Common,
        status: ExitStatus,
        members: Members,
        orders: &mut Orders<'_>,
    ) -> Next {
        let remains = match self.stage {
            CleaningStage::Running { .. } | CleaningStage::Killing { remains: Remains::Process, .. } => {
                Remains::Descendants(status)
            }
            CleaningStage::Killing { remains: Remains::Interrupted, .. } => Remains::Interrupted,
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Killing { remains: Remains::Descendants(_), .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => return Next::Nothing,
        };
        if members == Members::Nothing {
            return self.attempt_is_over(remains, common, orders);
        }
        match &mut self.stage {
            // It is being killed already, and the timer does it again.
            CleaningStage::Killing { remains: killed, .. } => *killed = remains,
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => self.kill(remains, common, orders),
        }
        // Its outcome is known, though it is not over: another program that takes over now does not repeat it.
        self.record(Safety::Process, Receipt::NotWanted, common, orders);
        Next::Nothing
    }

    /// What it has left behind has become less.
    pub(super) fn members_left(
        &mut self,
        common: &mut Common,
        members: Members,
        orders: &mut Orders<'_>,
    ) -> Next {
        match self.stage {
            CleaningStage::Killing { remains: Remains::Descendants(_) | Remains::Interrupted, .. }
                if members != Members::Nothing =>
            {
                Next::Nothing
            }
            CleaningStage::Killing {
                remains: remains @ (Remains::Descendants(_) | Remains::Interrupted),
                ..
            } => self.attempt_is_over(remains, common, orders),
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { remains: Remains::Process, .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => Next::Nothing,
        }
    }

    /// Its timer has run out: its time is over, or what was killed is still there.
    pub(super) fn due(&mut self, common: &mut Common, orders: &mut Orders<'_>) -> Next {
        match self.stage {
            CleaningStage::Running { until } if until <= orders.now.instant => {
                self.kill(Remains::Process, common, orders);
                Next::Nothing
            }
            CleaningStage::Short { again }
                if again <= orders.now.instant
                    && common.cleanup_by().is_none_or(|by| by > orders.now.instant) =>
            {
                self.try_again(common, orders);
                Next::Nothing
            }
            CleaningStage::Spawning { launched_by, .. } if launched_by <= orders.now.instant => {
                self.kill_launch(CleanupLaunch::Late, common, orders);
                self.follow_bound(common, orders);
                Next::Nothing
            }
            // The shutdown has no more time for it, whatever its own time is.
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. } => self.leave(common, orders),
            CleaningStage::Killing { remains, .. } => {
                self.kill(remains, common, orders);
                Next::Nothing
            }
            CleaningStage::Closing { .. } | CleaningStage::Left => Next::Nothing,
        }
    }

    /// Sends SIGKILL to everything of it, and again after a while.
    pub(super) fn kill(&mut self, remains: Remains, common: &mut Common, orders: &mut Orders<'_>) {
        let pause = match self.stage {
            CleaningStage::Killing { pause, .. } => doubled(pause),
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => KILL_AGAIN_FIRST,
        };
        let again = orders.now.instant.plus(pause);
        self.stage = CleaningStage::Killing { remains, again, pause };
        common.set_due(Some(again), orders);
        orders.order(Effect::Kill { run: common.run() });
    }

    /// Nothing of an attempt is left.
    pub(super) fn attempt_is_over(
        &mut self,
        remains: Remains,
        common: &mut Common,
        orders: &mut Orders<'_>,
    ) -> Next {
        common.set_due(None, orders);
        orders.order(Effect::Release { run: common.run() });
        match remains {
            Remains::Interrupted if orders.permits.may_clean_up => self.begin_attempt(common, orders),
            Remains::Interrupted => self.is_left(common, orders),
            Remains::Process => self.conclude(Some(ExitStatus::Unknown), common, orders),
            Remains::Descendants(status) => self.conclude(Some(status), common, orders),
        }
    }

    /// An attempt has had its outcome, or was cut short by the shutdown.
    pub(super) fn conclude(
        &mut self,
        status: Option<ExitStatus>,
        common: &mut Common,
        orders: &mut Orders<'_>,
    ) -> Next {
        let ok = status == Some(ExitStatus::Code(0));
        if self.fate == Fate::Leave && !ok {
            return self.is_left(common, orders);
        }
        let cleaned = Cleaned { ok, exit: status, attempts: self.attempts };
        self.stage = CleaningStage::Closing { cleaned };
        if let Some(status) = status.filter(|_| !ok) {
            let (child, message) = (Arc::clone(common.view()), format!("it ended with {status}"));
            orders.order(Effect::Report(Report::CleanupFailed { child, message }));
        }
        // It would be run again if the machine lost this.
        self.record(Safety::Power, Receipt::Wanted, common, orders);
        Next::Nothing
    }

    /// The shutdown goes on without it: the next broker begins it anew.
    pub(super) fn leave(&mut self, common: &mut Common, orders: &mut Orders<'_>) -> Next {
        self.fate = Fate::Leave;
        match self.stage {
            CleaningStage::Recording | CleaningStage::Short { .. } => self.is_left(common, orders),
            CleaningStage::Queued => {
                orders.withdraw(common.uid(), common.id());
                self.is_left(common, orders)
            }
            CleaningStage::Running { .. } => {
                self.kill(Remains::Process, common, orders);
                Next::Nothing
            }
            CleaningStage::Spawning { .. } => {
                self.kill_launch(CleanupLaunch::Late, common, orders);
                self.follow_bound(common, orders);
                Next::Nothing
            }
            CleaningStage::Killing { .. } | CleaningStage::Closing { .. } | CleaningStage::Left => {
                Next::Nothing
            }
        }
    }

    /// Nothing of an attempt is there, and none will be begun.
    pub(super) fn is_left(&mut self, common: &mut Common, orders: &mut Orders<'_>) -> Next {
        common.set_due(None, orders);
        self.stage = CleaningStage::Left;
        self.record(Safety::Process, Receipt::NotWanted, common, orders);
        orders.order(Effect::Report(Report::CleanupLeft { child: Arc::clone(common.view()) }));
        Next::LeftBehind
    }

    /// The bound on its time has changed.
    pub(super) fn follow_bound(&self, common: &mut Common, orders: &mut Orders<'_>) {
        let by = common.cleanup_by();
        match self.stage {
            CleaningStage::Recording | CleaningStage::Queued => common.set_due(by, orders),
            CleaningStage::Running { until }
            | CleaningStage::Short { again: until }
            | CleaningStage::Spawning { launched_by: until, launch: CleanupLaunch::Wanted, .. } => {
                common.set_due(Some(by.map_or(until, |by| until.min(by))), orders);
            }
            // It is killed already, and comes to its end when it can.
            CleaningStage::Spawning { launch: CleanupLaunch::Late | CleanupLaunch::PutOff, .. } => {
                common.set_due(None, orders);
            }
            CleaningStage::Killing { .. } | CleaningStage::Closing { .. } | CleaningStage::Left => {}
        }
    }

    fn record(&self, safety: Safety, receipt: Receipt, common: &Common, orders: &mut Orders<'_>) {
        common.record(self.progress(common, orders.now), safety, receipt, orders);
    }

    /// Returns what a later broker has to know to go on from here.
    pub(super) fn progress(&self, common: &Common, now: Now) -> Progress {
        let (started_at, exit) = (common.view().started_at, self.exit.clone());
        let (restarts, unready) = (common.runs().restarts, common.unready());
        let ended = match &self.stage {
            CleaningStage::Closing { cleaned } => {
                return Progress::Ended {
                    started_at,
                    exit,
                    cleanup: Some(cleaned.clone()),
                    at: now.wall,
                    restarts,
                    unready,
                };
            }
            CleaningStage::Killing { remains: Remains::Descendants(status), .. } => {
                // One that was cut short has not had its outcome.
                let is_outcome = self.fate == Fate::Finish || *status == ExitStatus::Code(0);
                is_outcome.then_some(*status)
            }
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { remains: Remains::Process | Remains::Interrupted, .. }
            | CleaningStage::Left => None,
        };
        Progress::Cleaning { started_at, exit, attempts: self.attempts, ended, restarts, unready }
    }
}
