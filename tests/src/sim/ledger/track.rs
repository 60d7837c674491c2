//! What is known of one child, from the orders and facts about it alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use procbroker_core::{Anchor, Call, ConnectionId, Members, Run, RunAs, Unready};
use procbroker_protocol::create::StopStep;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{
    Cleaned, CreateParams, Exit, ExitReason, ExitStatus, Outcome, Owner, Signal, StepTaken, Timestamp,
};

use crate::sim::ledger::by_command::{self, Command};
use crate::sim::ledger::cleaning::{Cleaning, Stage};
use crate::sim::ledger::readiness::Readiness;
use crate::sim::ledger::runs::Runs;
use crate::sim::ledger::told::Told;
use crate::sim::wall_clock::WallClock;

/// The part of a child's time in a shutdown that is kept for its cleanup, as a divisor.
const CLEANUP_SHARE_DIVISOR: u64 = 4;

/// How far the start of a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The intent is not on record yet.
    Recording,
    /// The record failed, or answered an intent that was taken back.
    Recorded {
        /// Whether it was written.
        written: bool,
    },
    /// The spawn was ordered.
    Ordered,
    /// It failed.
    Failed,
    /// Its process was killed on the way to its program.
    Killed,
    /// The process is there, or was.
    Done {
        /// When the broker heard of it.
        at: u64,
        /// Its number.
        pid: u32,
    },
}

/// Why a child has to be stopped, and how.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Why.
    pub reason: ExitReason,
    /// The steps to take.
    pub steps: Vec<StopStep>,
}

/// One child.
#[expect(clippy::struct_excessive_bools, reason = "facts that come one by one and do not exclude each other")]
#[derive(Clone, Debug)]
pub struct Track {
    /// Its present process, or that of its next run.
    pub run: Run,
    /// Its runs.
    pub runs: Runs,
    /// Which request asked for it.
    pub call: Call,
    /// Whose it is.
    pub owner: Owner,
    /// How it was asked for.
    pub params: Arc<CreateParams>,
    /// With whose rights it runs.
    pub run_as: RunAs,
    /// When its intent was ordered to be recorded.
    pub born: u64,
    /// What the wall clock shows at which time.
    pub clock: WallClock,
    /// How far its start is.
    pub start: Start,
    /// When the broker heard of the end of its main process, and how it ended.
    pub exit: Option<(u64, ExitStatus)>,
    /// Whether its main process ended before anybody wanted it to.
    pub ended_unasked: bool,
    /// Whether the kernel has killed something of its present run for want of memory.
    pub starved: bool,
    /// What was left of it, as the broker last heard.
    pub members: Members,
    /// The signals of its stop, and when they were ordered.
    pub sent: Vec<(u64, Signal)>,
    /// What the last of them has to be followed by: SIGCONT to the same processes.
    pub to_continue: Option<Scope>,
    /// Whether the last of them has gone to all that is left of it.
    pub widened: bool,
    /// When SIGKILL was ordered first, and last.
    pub killed: Option<(u64, u64)>,
    /// What it is stopped for; the first one decides how.
    pub demands: Vec<Demand>,
    /// Since when its process is on its way to its program though it is to be stopped.
    pub unwanted_since: Option<u64>,
    /// Whether that process was left by an earlier broker: it never gets there.
    pub is_left_behind: bool,
    /// Whether its first launch was cut short for another program, and it is to be let go of before it is launched anew.
    pub is_cut_short: bool,
    /// When the shutdown wants it killed, where time is short.
    pub kill_by: Option<u64>,
    /// When the step that an earlier broker took last has had its time: after so many signals.
    pub resumed: Option<(usize, u64)>,
    /// How it ended, once nothing of it is left.
    pub known_exit: Option<Exit>,
    /// Its cleanup, once nothing of it is left.
    pub cleaning: Option<Cleaning>,
    /// What became of its cleanup.
    pub cleaned: Option<Cleaned>,
    /// When it was over.
    pub released: Option<u64>,
    /// Whether it is not visible any more.
    pub forgotten: bool,
    /// Whether it never was.
    pub void: bool,
    /// What clients were told of it.
    pub told: Told,
    /// Whether the record says that it has ended.
    pub recorded_end: bool,
    /// Whether the record says that it was started.
    pub recorded_start: bool,
    /// Whether its create was answered with an error.
    pub refused: bool,
    /// Whether it was replaced before it was ready, so that its create gets what takes its place.
    pub superseded: bool,
    /// What its create was answered with.
    pub outcome: Option<Outcome>,
    /// Whether its stop began with the end of its main process.
    pub ended_by_itself: bool,
    /// How far it is on its way to be ready.
    pub readiness: Readiness,
    /// What finds out whether it is, where that is a command.
    pub command: Command,
    /// The connections that hold it, if it lives by connections.
    pub holders: BTreeSet<ConnectionId>,
    /// The process that it lives as long as.
    pub anchor: Option<Anchor>,
    /// When it is to end, if nobody comes or renews it.
    pub lives_until: Option<u64>,
    /// When it was noticed that this time was over.
    pub expired: Option<u64>,
}

impl Track {
    /// A child whose intent is ordered to be recorded.
    #[must_use]
    pub fn new(
        run: Run,
        call: Call,
        owner: Owner,
        params: Arc<CreateParams>,
        run_as: RunAs,
        born: u64,
        clock: WallClock,
    ) -> Self {
        let ready_by = born.saturating_add(nanos(params.ready_timeout.0));
        Self {
            run,
            runs: Runs { unready: Unready::Ever, ..Runs::default() },
            call,
            owner,
            params,
            run_as,
            born,
            clock,
            start: Start::Recording,
            exit: None,
            ended_unasked: false,
            starved: false,
            members: Members::Nothing,
            sent: Vec::new(),
            to_continue: None,
            widened: false,
            killed: None,
            demands: Vec::new(),
            unwanted_since: None,
            is_left_behind: false,
            is_cut_short: false,
            kill_by: None,
            resumed: None,
            known_exit: None,
            cleaning: None,
            cleaned: None,
            released: None,
            forgotten: false,
            void: false,
            told: Told::default(),
            recorded_end: false,
            recorded_start: false,
            refused: false,
            superseded: false,
            outcome: None,
            ended_by_itself: false,
            readiness: Readiness::awaited(Some(ready_by)),
            command: Command::absent(),
            holders: BTreeSet::new(),
            anchor: None,
            lives_until: None,
            expired: None,
        }
    }

    /// Whether it holds its name.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.released.is_none()
    }

    /// Whether its process is on its way to its program.
    #[must_use]
    pub fn is_launching(&self) -> bool {
        self.is_live() && self.start == Start::Ordered && self.cleaning.is_none()
    }

    /// Whether an earlier broker has left its process on the way to its program, and its create is not to be answered with it.
    #[must_use]
    pub fn never_was(&self) -> bool {
        self.is_launching() && self.is_left_behind && self.refused
    }

    /// Whether its process was killed on its way, for another program that takes over: nobody wants it to end.
    #[must_use]
    pub fn is_put_off(&self) -> bool {
        self.is_launching() && self.killed.is_some() && self.demands.is_empty()
    }

    /// When its process is to be killed if it has not got to its program.
    #[must_use]
    pub fn launch_over_at(&self) -> Option<u64> {
        let since = self.unwanted_since.filter(|_| self.is_launching())?;
        let by = since.saturating_add(nanos(procbroker_core::LAUNCH_MOMENT));
        Some(self.kill_by.map_or(by, |kill_by| by.min(kill_by)))
    }

    /// Its process is not there, and was not.
    pub fn launch_fails(&mut self, was_killed: bool, now: u64) {
        if was_killed && self.demands.is_empty() && self.killed.is_some() {
            self.is_cut_short = self.runs.between.is_none();
            // Nothing has run that could have failed.
            (self.start, self.killed, self.is_left_behind) = (Start::Recorded { written: true }, None, false);
            // The next one is wanted, and a create has no more time for it.
            self.unwanted_since = None;
            if !self.is_cut_short {
                self.readiness = Readiness::awaited(None);
            }
            return;
        }
        self.start = if was_killed { Start::Killed } else { Start::Failed };
        if self.runs.between.is_some() {
            self.restart_fails(now);
        }
    }

    /// Whether a process that does not get to its program is a restart that has failed: nobody wanted it to end, and it is not begun
    /// anew.
    #[must_use]
    pub fn is_restart_to_fail(&self, was_killed: bool) -> bool {
        let is_put_off = was_killed && self.demands.is_empty() && self.killed.is_some();
        let is_wanted = self.demands.first().is_none_or(|demand| demand.reason == ExitReason::StartFailed);
        self.is_launching() && self.runs.between.is_some() && is_wanted && !is_put_off
    }

    /// Whether its process was started.
    #[must_use]
    pub fn is_spawned(&self) -> bool {
        matches!(self.start, Start::Done { .. })
    }

    /// Whether it ends because it is replaced.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        let demanded = self.demands.first().map(|demand| demand.reason);
        let exit = self.known_exit.as_ref().map(|exit| exit.reason);
        // Its end may be known as another one: with the machine.
        [exit, demanded].contains(&Some(ExitReason::Replaced))
    }

    /// Whether its stop has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        let is_killed = self.killed.is_some_and(|(_, last)| match self.start {
            Start::Ordered => false,
            // One that got to its program as it was killed is stopped from then on.
            Start::Done { at, .. } => last >= at,
            Start::Recording | Start::Recorded { .. } | Start::Failed | Start::Killed => true,
        });
        is_killed || !self.sent.is_empty() || self.resumed.is_some()
    }

    /// Whether it is on its way to its end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_stopping() || self.exit.is_some() || self.cleaning.is_some()
    }

    /// Whether a signal may find something of it, now or later.
    #[must_use]
    pub fn takes_signals(&self, now: u64) -> bool {
        self.is_live() && self.cleaning.is_none() && !self.is_pausing(now)
    }

    /// How many spawns for it are under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let is_ordered = |cleaning: &Cleaning| matches!(cleaning.stage, Stage::Ordered { .. });
        let is_cleaned = self.cleaning.as_ref().is_some_and(is_ordered);
        let is_asked = matches!(self.command.stage, by_command::Stage::Ordered { .. });
        u32::from(self.start == Start::Ordered || is_cleaned) + u32::from(is_asked)
    }

    /// Whether its cleanup is left to the next broker.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.cleaning.as_ref().is_some_and(|cleaning| cleaning.stage == Stage::Left)
    }

    /// The last time up to `now` at which the wall clock showed this. What it never showed is taken for the first of all.
    #[must_use]
    pub fn moment(&self, shown: Timestamp, now: u64) -> u64 {
        self.clock.moment(shown, now).unwrap_or_default()
    }

    /// How it has ended, as far as it has.
    #[must_use]
    pub fn exit_now(&self) -> Option<Exit> {
        let last = self.runs.between.as_ref().filter(|_| self.exit.is_none());
        if let Some(between) = last {
            return Some(between.exit.clone());
        }
        if let Some(exit) = &self.known_exit {
            return Some(exit.clone());
        }
        let (at, status) = self.exit?;
        Some(self.exit_with(at, status))
    }

    /// How it ends that ends in this way.
    #[must_use]
    pub fn exit_with(&self, at: u64, status: ExitStatus) -> Exit {
        let mut steps: Vec<StepTaken> = self
            .sent
            .iter()
            .map(|(at, signal)| StepTaken { signal: *signal, at: self.clock.wall(*at) })
            .collect();
        if let Some((first, _)) = self.killed {
            steps.push(StepTaken { signal: Signal::KILL, at: self.clock.wall(first) });
        }
        let reason = self.demands.first().map_or(ExitReason::Exited, |demand| demand.reason);
        let (forced, oom) = (self.killed.is_some(), self.ends_for_want_of_memory(status));
        Exit { forced, steps, oom, ..Exit::new(status, reason, self.clock.wall(at)) }
    }

    /// Whether an end in this way is one for want of memory, as far as a kill leaves such a one.
    fn ends_for_want_of_memory(&self, status: ExitStatus) -> bool {
        let was_forced = self.killed.is_some() && !self.ended_unasked;
        self.starved
            && match status {
                ExitStatus::Code(code) => code != 0 && self.ended_unasked,
                ExitStatus::Signal(signal) => signal == Signal::KILL && !was_forced,
                ExitStatus::Unknown => !was_forced,
            }
    }

    /// When the time of an attempt at its cleanup is over.
    #[must_use]
    pub fn cleanup_over_at(&self, since: u64) -> u64 {
        let timeout = self.params.cleanup.as_ref().map_or(0, |cleanup| nanos(cleanup.timeout));
        since.saturating_add(timeout)
    }

    /// When the process of an attempt at its cleanup has to have its program.
    #[must_use]
    pub fn cleanup_launched_by(&self, since: u64) -> u64 {
        self.cleanup_over_at(since).max(since.saturating_add(nanos(procbroker_core::LAUNCH_MOMENT)))
    }

    /// The part of so much time that a shutdown keeps for its cleanup.
    #[must_use]
    pub fn cleanup_share(&self, time: u64) -> u64 {
        let share = time / CLEANUP_SHARE_DIVISOR;
        self.params.cleanup.as_ref().map_or(0, |cleanup| nanos(cleanup.timeout).min(share))
    }

    /// The steps that its stop takes, when it takes its own time.
    #[must_use]
    pub fn steps(&self) -> &[StopStep] {
        self.demands.first().map_or(&self.params.stop, |demand| &demand.steps)
    }

    /// Whether its descendants outside the group are still to get the signal of the present step.
    #[must_use]
    pub fn is_to_be_widened(&self) -> bool {
        let reason = self.demands.first().map(|demand| demand.reason);
        let is_asked = !self.ended_by_itself && reason.is_some_and(|reason| reason != ExitReason::Exited);
        let is_outside = self.exit.is_some() && self.members == Members::Outside;
        is_asked && is_outside && !self.widened && !self.sent.is_empty() && self.killed.is_none()
    }

    /// When the next signal of its stop is due, if that is under way and SIGKILL was not sent.
    #[must_use]
    pub fn next_step_at(&self) -> Option<u64> {
        if self.killed.is_some() {
            return None;
        }
        if let Some((sent, until)) = self.resumed
            && sent == self.sent.len()
        {
            return Some(until);
        }
        let (at, _) = self.sent.last()?;
        let grace = self.steps().get(self.sent.len() - 1).map_or(Duration::ZERO, |step| step.grace);
        Some(at.saturating_add(nanos(grace)))
    }

    /// How long its stop still takes if nothing answers its signals.
    #[must_use]
    pub fn need(&self, now: u64) -> u64 {
        if self.killed.is_some() || self.cleaning.is_some() || self.is_between() || self.is_outlived() {
            return 0;
        }
        let to_come: u64 = self.steps().iter().skip(self.sent.len()).map(|step| nanos(step.grace)).sum();
        let present =
            self.next_step_at().map_or(0, |at| self.kill_by.map_or(at, |by| at.min(by)).saturating_sub(now));
        present + to_come
    }
}
