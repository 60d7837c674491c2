//! What is known of a child's readiness, by what was told of it and the contract: whether it is ready, until when it has to
//! be, when it is to be asked, and by when it has to say that it is well.

use std::time::Duration;

use procbroker_core::{Departure, Notice, Unready, WATCHDOG_LEFT_MIN};
use procbroker_protocol::ExitReason;
use procbroker_protocol::create::{Probe, Ready, StopStep};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::error::ProbeFailure;

use crate::sim::agenda::SECOND;
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::{Demand, Track};

/// The longest pause between two probes, in nanoseconds, unless a longer one was asked for.
const PAUSE_MAX: u64 = SECOND;

/// How long a child has after SIGABRT that names no steps of its own.
const GRACE: Duration = Duration::from_secs(10);

/// How far the present run of a child is on its way to be ready, and what is to be heard of it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// When it has failed to start; none where it is not to start yet, or is ready.
    pub by: Option<u64>,
    /// What is to be asked about it.
    pub question: Question,
    /// When it counts as hung.
    pub well_by: Option<u64>,
    /// Why the last command has said no.
    pub failure: Option<ProbeFailure>,
    /// Whether people are to be told of that.
    pub is_unreported: bool,
}

/// What is to be asked about a child that is starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing.
    None,
    /// Whether it is ready, at this time.
    Due {
        /// When.
        at: u64,
        /// The pause after it.
        pause: u64,
    },
    /// It was asked.
    Asked {
        /// The pause after it.
        pause: u64,
    },
}

impl Readiness {
    /// One that begins.
    #[must_use]
    pub fn awaited(by: Option<u64>) -> Self {
        Self { by, question: Question::None, well_by: None, failure: None, is_unreported: false }
    }
}

impl Track {
    /// Whether its present run is ready, or was.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.runs.unready == Unready::No
    }

    /// Whether what its create waits for has not come: no run of it was ever ready.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.runs.unready == Unready::Ever
    }

    /// Whether it is as far as a create wants it that waits until it is ready, or only spawned.
    #[must_use]
    pub fn has_come_to(&self, only_spawned: bool) -> bool {
        if only_spawned { self.is_spawned() && !self.is_to_run_again() } else { self.is_settled() }
    }

    /// Whether it waits to become ready, and nothing else.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        let goes_on = self.demands.is_empty() && !self.is_ending() && self.known_exit.is_none();
        self.is_live() && self.is_spawned() && goes_on && !self.is_ready()
    }

    /// Its process is there.
    pub(super) fn comes_up(&mut self, now: u64) {
        let is_late = self.demands.first().is_some_and(|demand| demand.reason == ExitReason::StartFailed);
        // What its create gets is what takes its place.
        let is_late = is_late || self.superseded;
        if self.params.no_wait && !is_late {
            self.runs.unready = Unready::Now;
        }
        match &self.params.ready {
            Ready::Spawn if !is_late => self.becomes_ready(now),
            Ready::Spawn | Ready::Notify => {}
            Ready::Probe(Probe { interval, .. }) => {
                self.readiness.question = Question::Due { at: now, pause: nanos(*interval) };
            }
        }
    }

    /// It is ready: its watchdog begins.
    pub(super) fn becomes_ready(&mut self, now: u64) {
        self.runs.unready = Unready::No;
        let well_by = self.params.watchdog.map(|period| now.saturating_add(nanos(period)));
        self.readiness = Readiness { well_by, ..Readiness::awaited(None) };
    }

    /// It was ready under an earlier broker. An upgrade changes nothing of its watchdog, and its time does not count: what it
    /// says meanwhile waits. After a crash there is a whole period again, unless it is on record that it is about to end.
    pub(super) fn is_watched_on(
        &mut self,
        before: &Self,
        departure: Departure,
        (handed_over_at, now): (Option<u64>, u64),
    ) {
        match handed_over_at {
            Some(then) => {
                let least = self.params.watchdog.map_or(0, nanos).min(nanos(WATCHDOG_LEFT_MIN));
                let left = before.readiness.well_by.map(|by| by.saturating_sub(then).max(least));
                self.readiness.well_by = left.map(|left| now.saturating_add(left));
            }
            None if departure == Departure::Announced => self.readiness.well_by = None,
            None => {}
        }
    }

    /// It tells something of itself.
    pub(super) fn tells(&mut self, notice: &Notice, now: u64) {
        if !self.is_live() || !self.is_spawned() || self.known_exit.is_some() {
            return;
        }
        if self.is_stopping() {
            return self.tells_while_it_stops(notice, now);
        }
        if !self.demands.is_empty() || self.exit.is_some() {
            return;
        }
        match notice {
            Notice::Ready if !self.is_ready() => self.becomes_ready(now),
            Notice::MoreTime(time) if !self.is_ready() => {
                let longer = now.saturating_add(nanos(*time));
                self.readiness.by = self.readiness.by.map(|by| by.max(longer));
            }
            Notice::Well => {
                let period = self.params.watchdog.filter(|_| self.readiness.well_by.is_some());
                self.readiness.well_by = period.map(|period| now.saturating_add(nanos(period)));
            }
            Notice::Unwell if !self.is_ready() && self.params.watchdog.is_some() => self.is_hung(),
            Notice::Unwell if self.readiness.well_by.is_some() => self.is_hung(),
            Notice::Stopping if self.is_ready() => self.readiness.well_by = None,
            Notice::Ready | Notice::MoreTime(_) | Notice::Unwell | Notice::Stopping | Notice::Status(_) => {}
        }
    }

    /// The step that was taken last may get more time.
    fn tells_while_it_stops(&mut self, notice: &Notice, now: u64) {
        if let (Notice::MoreTime(time), Some(until)) = (notice, self.next_step_at()) {
            let longer = now.saturating_add(nanos(*time));
            if until < longer {
                self.resumed = Some((self.sent.len(), longer));
            }
        }
    }

    /// It is to be stopped, and to leave a trace of where it hung.
    fn is_hung(&mut self) {
        self.readiness.well_by = None;
        let grace = self.params.stop.first().map_or(GRACE, |step| step.grace);
        let abort = StopStep { signal: procbroker_protocol::Signal::ABRT, grace };
        let steps = std::iter::once(abort).chain(self.params.stop.iter().copied()).collect();
        self.demands.push(Demand { reason: ExitReason::Watchdog, steps });
    }

    /// A question about it was answered.
    pub(super) fn is_found(&mut self, is_ready: bool, now: u64) {
        if !self.is_starting() {
            return;
        }
        if is_ready {
            self.becomes_ready(now);
        } else if let Question::Asked { pause } = self.readiness.question {
            let next = pause.saturating_mul(2).min(PAUSE_MAX.max(pause));
            self.readiness.question = Question::Due { at: now.saturating_add(pause), pause: next };
        }
    }

    /// A question about it is asked.
    pub(super) fn is_asked_about(&mut self) {
        if let Question::Due { pause, .. } = self.readiness.question {
            self.readiness.question = Question::Asked { pause };
        }
    }

    /// Its time to get ready is over: it has to be stopped, and its create has failed if it waits.
    fn notice_late(&mut self, now: u64) {
        // What was to be first while no broker was there is first.
        let expires = self.lives_until.filter(|until| self.is_starting() && *until <= now);
        let is_late =
            self.readiness.by.is_some_and(|by| by <= now && expires.is_none_or(|until| by <= until));
        if !is_late || self.is_ready() || self.known_exit.is_some() {
            return;
        }
        let demand = Demand { reason: ExitReason::StartFailed, steps: self.params.stop.clone() };
        if self.is_spawned() {
            if !self.is_starting() {
                return;
            }
            self.demands.push(demand);
        } else if self.runs.between.is_some() {
            if !self.demands.is_empty() {
                return;
            }
            self.demands.push(demand);
        } else if let Some(first) = self.demands.first_mut() {
            // How it is stopped was decided before.
            first.reason = ExitReason::StartFailed;
        } else {
            self.demands.push(demand);
        }
        self.refused |= self.is_unanswered();
    }

    /// It is to be asked by a command, and something of an earlier one is there: that comes later, as if it had not come so far.
    fn put_off(&mut self, now: u64) {
        if let Question::Due { at, pause } = self.readiness.question
            && at <= now
            && self.is_starting()
            && self.is_asked_by_command()
            && self.has_command()
        {
            self.readiness.question = Question::Due { at: now.saturating_add(pause), pause };
        }
    }

    /// It has not said in time that it is well.
    fn notice_hung(&mut self, now: u64) {
        let is_hung = self.readiness.well_by.is_some_and(|by| by <= now);
        if is_hung && self.is_live() && self.demands.is_empty() && !self.is_ending() {
            self.is_hung();
        }
    }
}

impl Ledger {
    /// Children whose time to get ready, or to say that they are well, is over have to be stopped.
    pub fn notice_unready(&mut self) {
        let now = self.now;
        for id in &self.live {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            track.notice_late(now);
            track.notice_hung(now);
            track.put_off(now);
        }
    }
}
