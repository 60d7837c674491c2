//! What is known of a child's runs: how often it was restarted, and what follows the present one, by the contract.

use std::collections::VecDeque;

use procbroker_core::{Afterwards, Instant, Runs as OnRecord, Unready};
use procbroker_protocol::create::{Restart, RestartPolicy};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{Exit, ExitReason, ExitStatus, Timestamp};

use crate::sim::agenda::MILLISECOND;
use crate::sim::ledger::cleaning::{Cleaning, Stage};
use crate::sim::ledger::readiness::Readiness;
use crate::sim::ledger::track::{Demand, Start, Track};

/// The shortest pause before an automatic restart, in nanoseconds.
const PAUSE_MIN: u64 = 10 * MILLISECOND;

/// The runs of one child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often it was restarted.
    pub count: u32,
    /// When the automatic restarts were due that still count, oldest first.
    pub recent: VecDeque<u64>,
    /// The pause before the next automatic restart, where it is not the first.
    pub pause: Option<u64>,
    /// When the present run began.
    pub since: Option<u64>,
    /// When the present run was ordered, if it is not the first.
    pub ordered_at: Option<Timestamp>,
    /// Whether it has been ready.
    pub unready: Unready,
    /// Whether somebody wants another run after this one.
    pub wish: bool,
    /// Whether somebody wants the child to end, though its run was ending anyway.
    pub called_off: bool,
    /// What there is of the last run until the next one begins.
    pub between: Option<Between>,
}

/// A child between two of its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between {
    /// How the last run ended.
    pub exit: Exit,
    /// When the last run began.
    pub started_at: u64,
    /// When the next one is due.
    pub due: u64,
    /// When it could not be recorded that the next one is to come.
    pub unrecorded: Option<u64>,
}

/// What comes after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// Another run, when it is due.
    Run(u64),
    /// The end.
    End,
    /// The end, after too many restarts.
    GivingUp,
}

impl Runs {
    /// What is on record of them.
    #[must_use]
    pub fn from_record(runs: &OnRecord) -> Self {
        Self {
            count: runs.restarts,
            recent: runs.recent.iter().copied().map(Instant::as_nanos).collect(),
            pause: runs.pause.map(nanos),
            since: runs.since.map(Instant::as_nanos),
            ordered_at: runs.ordered_at,
            unready: runs.unready,
            ..Self::default()
        }
    }

    /// Whether what is recorded of them is so.
    #[must_use]
    pub fn are(&self, recorded: &OnRecord) -> bool {
        let other = Self::from_record(recorded);
        let same = (self.count, &self.recent, self.pause, self.since)
            == (other.count, &other.recent, other.pause, other.since);
        same && (self.ordered_at, self.unready) == (other.ordered_at, other.unready)
    }

    /// Counts one more automatic restart: answers when it is due, if it is not one too many.
    fn automatic(&mut self, policy: &Restart, now: u64) -> Option<u64> {
        let window = nanos(policy.window);
        if self.since.is_some_and(|since| now.saturating_sub(since) >= window) {
            self.pause = None;
        }
        let longest = nanos(policy.backoff_max).max(PAUSE_MIN);
        let pause = self.pause.unwrap_or_else(|| nanos(policy.backoff)).clamp(PAUSE_MIN, longest);
        let due = now.saturating_add(pause);
        self.recent.retain(|earlier| due.saturating_sub(*earlier) < window);
        if self.recent.len() >= usize::try_from(policy.max).unwrap_or(usize::MAX) {
            return None;
        }
        self.recent.push_back(due);
        self.pause = Some(pause.saturating_mul(2).min(longest));
        Some(due)
    }
}

impl Track {
    /// Whether it is between two runs, and no process is being started.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.runs.between.is_some() && self.start != Start::Ordered
    }

    /// Whether its next run is not due yet, or not on record.
    #[must_use]
    pub fn is_pausing(&self, now: u64) -> bool {
        let waits = |between: &Between| self.start == Start::Recording || now < between.due;
        self.is_between() && self.runs.between.as_ref().is_some_and(waits)
    }

    /// Whether a `wait` for it to be ready is over.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_ready() && !self.is_to_run_again()
    }

    /// Whether its present run is being stopped for the sake of another one.
    #[must_use]
    pub fn is_to_run_again(&self) -> bool {
        self.runs.wish && self.cleaning.is_none() && self.known_exit.is_none()
    }

    /// What has to come after its present stop, as far as that is decided.
    #[must_use]
    pub fn afterwards(&self) -> Afterwards {
        if self.runs.wish {
            Afterwards::Restart
        } else if self.ends_by_itself() {
            Afterwards::Policy
        } else {
            Afterwards::End
        }
    }

    /// Whether nobody wanted its present run to end.
    fn ends_by_itself(&self) -> bool {
        let own =
            |reason| [ExitReason::Exited, ExitReason::StartFailed, ExitReason::Watchdog].contains(&reason);
        // Who created one that was never ready is told that it has failed.
        let is_known = !self.is_unanswered() && !self.runs.called_off;
        is_known && self.demands.iter().all(|demand| own(demand.reason))
    }

    /// Whether nobody has wanted it to end for good.
    #[must_use]
    pub fn is_to_go_on(&self) -> bool {
        let late = self.demands.first().is_some_and(|demand| demand.reason == ExitReason::StartFailed);
        let is_late = self.runs.between.is_some() && late && !self.runs.called_off;
        let is_late = is_late && !self.is_unanswered();
        self.demands.is_empty() || self.runs.wish || is_late
    }

    /// Somebody wants it to end.
    pub fn demand(&mut self, demand: Demand) {
        if let Some(first) = self.demands.first_mut() {
            let is_late = self.runs.between.is_some() && first.reason == ExitReason::StartFailed;
            let is_late = is_late && self.runs.unready != Unready::Ever;
            let is_asked = std::mem::take(&mut self.runs.wish) && !self.ended_by_itself;
            if is_asked || is_late {
                first.reason = demand.reason;
            }
            self.runs.called_off = true;
        }
        let reason = demand.reason;
        self.demands.push(demand);
        if self.is_between()
            && let Some(between) = self.runs.between.take()
        {
            self.conclude(Exit { reason, ..between.exit }, between.started_at);
        }
    }

    /// Nothing comes after its last run.
    pub fn conclude(&mut self, exit: Exit, started_at: u64) {
        self.start = Start::Done { at: started_at, pid: 0 };
        self.known_exit = Some(exit);
        self.begin_cleaning();
    }

    /// Whether it was between two runs until something of this turn has ended it, and is not known to be over so far.
    #[must_use]
    pub fn is_about_to_be_over(&self) -> bool {
        let is_due = |cleaning: &Cleaning| cleaning.stage == Stage::Due;
        let is_told = self.exit.is_some() || !self.cleaning.as_ref().is_none_or(is_due);
        self.is_live() && self.known_exit.is_some() && !is_told
    }

    /// Its cleanup is due, if it has one.
    pub fn begin_cleaning(&mut self) {
        if self.params.cleanup.is_some() {
            self.cleaning = Some(Cleaning { incarnation: self.run.incarnation, ..Cleaning::due(0) });
        }
    }

    /// Somebody wants another run of it: answers how often it will have been restarted then, if that may be.
    pub fn wish_for_a_run(&mut self, now: u64) -> Option<u32> {
        if !self.is_live() || self.cleaning.is_some() || self.known_exit.is_some() {
            return None;
        }
        let pauses = self.is_pausing(now);
        if let Some(between) = &mut self.runs.between {
            if pauses {
                between.due = now;
                self.runs.recent.clear();
                self.runs.pause = None;
            }
            return self.demands.is_empty().then_some(self.runs.count);
        }
        if !self.is_spawned() {
            let goes_on = self.demands.is_empty() && !self.is_put_off();
            return goes_on.then_some(self.runs.count);
        }
        if self.demands.is_empty() {
            let steps = self.params.stop.clone();
            self.demands.push(Demand { reason: ExitReason::Destroyed, steps });
        } else if !self.runs.wish && !self.ends_by_itself() {
            return None;
        }
        self.runs.wish = true;
        Some(self.runs.count + 1)
    }

    /// The process of its next run is there.
    pub fn run_begins(&mut self, now: u64) {
        self.runs.between = None;
        self.runs.since = Some(now);
        self.comes_up(now);
    }

    /// It got to its program as it was killed for another program that takes over.
    pub fn is_turned_away(&mut self) {
        let is_again = self.runs.between.is_some();
        let reason = if is_again { ExitReason::Destroyed } else { ExitReason::StartFailed };
        self.demands.push(Demand { reason, steps: Vec::new() });
        self.runs.wish = is_again;
    }

    /// The process of its next run could not be started: that is a run that has failed.
    pub fn restart_fails(&mut self, now: u64) {
        self.exit = Some((now, ExitStatus::Unknown));
        if self.demands.is_empty() {
            self.demands.push(Demand { reason: ExitReason::StartFailed, steps: Vec::new() });
        }
    }

    /// Nothing of its present run is left.
    pub fn run_is_over(&mut self, now: u64, closes: bool) {
        let Some(exit) = self.exit_now() else { return };
        let started_at = match (&self.runs.between, self.start) {
            (Some(between), _) => between.started_at,
            (None, Start::Done { at, .. }) => at,
            (None, _) => self.born,
        };
        match self.follows(&exit, now, closes) {
            Follows::Run(due) => self.pause(exit, started_at, due),
            Follows::End => {
                self.runs.between = None;
                self.conclude(exit, started_at);
            }
            Follows::GivingUp => {
                self.runs.between = None;
                self.conclude(Exit { gave_up: true, ..exit }, started_at);
            }
        }
    }

    fn follows(&mut self, exit: &Exit, now: u64, closes: bool) -> Follows {
        // Whatever was wished for, nothing comes after what a shutdown finds.
        let is_asked = std::mem::take(&mut self.runs.wish);
        if closes || self.known_exit.is_some() {
            return Follows::End;
        }
        if is_asked {
            self.runs.recent.clear();
            self.runs.pause = None;
            return Follows::Run(now);
        }
        let policy = self.params.restart;
        let wants = match policy.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => {
                matches!(exit.reason, ExitReason::Watchdog | ExitReason::StartFailed)
                    || exit.status != ExitStatus::Code(0)
            }
            RestartPolicy::Always => true,
        };
        if !wants || !self.ends_by_itself() {
            return Follows::End;
        }
        self.runs.automatic(&policy, now).map_or(Follows::GivingUp, Follows::Run)
    }

    fn pause(&mut self, exit: Exit, started_at: u64, due: u64) {
        self.run.incarnation = self.run.incarnation.next();
        self.runs.count += 1;
        self.runs.called_off = false;
        if self.is_ready() {
            self.runs.unready = Unready::Now;
        }
        self.runs.between = Some(Between { exit, started_at, due, unrecorded: None });
        let before = self.clone();
        let fresh = Track::new(
            before.run,
            before.call,
            before.owner,
            before.params,
            before.run_as,
            before.born,
            before.clock,
        );
        *self = Track {
            runs: before.runs,
            told: before.told,
            recorded_start: before.recorded_start,
            outcome: before.outcome,
            readiness: Readiness::awaited(None),
            command: before.command,
            holders: before.holders,
            anchor: before.anchor,
            lives_until: before.lives_until,
            ..fresh
        };
    }
}
