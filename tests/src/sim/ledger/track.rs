//! What is known of one child, from the orders and facts about it alone.

use std::sync::Arc;

use procbroker_core::{Call, Members, Run, RunAs};
use procbroker_protocol::create::StopStep;
use procbroker_protocol::{Child, CreateParams, ExitReason, ExitStatus, Outcome, Owner, Signal, Span};

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
    /// Its process.
    pub run: Run,
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
    /// How far its start is.
    pub start: Start,
    /// When the broker heard of the end of its main process, and how it ended.
    pub exit: Option<(u64, ExitStatus)>,
    /// What was left of it, as the broker last heard.
    pub members: Members,
    /// The signals of its stop, and when they were ordered.
    pub sent: Vec<(u64, Signal)>,
    /// When SIGKILL was ordered first, and last.
    pub killed: Option<(u64, u64)>,
    /// What it is stopped for; the first one decides how.
    pub demands: Vec<Demand>,
    /// When the shutdown wants it killed, where time is short.
    pub kill_by: Option<u64>,
    /// When it was given free.
    pub released: Option<u64>,
    /// Whether it is not visible any more.
    pub forgotten: bool,
    /// Whether its record was taken back.
    pub void: bool,
    /// Whether the record says that it has ended.
    pub recorded_end: bool,
    /// Whether the record says that it was started.
    pub recorded_start: bool,
    /// Whether its create was answered with an error.
    pub refused: bool,
    /// What its create was answered with.
    pub outcome: Option<Outcome>,
}

impl Track {
    /// A child whose intent is ordered to be recorded.
    #[must_use]
    pub fn new(
        run: Run,
        call: Call,
        child: &Child,
        params: Arc<CreateParams>,
        run_as: RunAs,
        born: u64,
    ) -> Self {
        Self {
            run,
            call,
            owner: child.owner,
            params,
            run_as,
            born,
            start: Start::Recording,
            exit: None,
            members: Members::Nothing,
            sent: Vec::new(),
            killed: None,
            demands: Vec::new(),
            kill_by: None,
            released: None,
            forgotten: false,
            void: false,
            recorded_end: false,
            recorded_start: false,
            refused: false,
            outcome: None,
        }
    }

    /// Whether it holds its name.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.released.is_none()
    }

    /// Whether its process was started.
    #[must_use]
    pub fn is_spawned(&self) -> bool {
        matches!(self.start, Start::Done { .. })
    }

    /// Whether its stop has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.killed.is_some() || !self.sent.is_empty()
    }

    /// The steps that its stop takes, when it takes its own time.
    #[must_use]
    pub fn steps(&self) -> &[StopStep] {
        self.demands.first().map_or(&self.params.stop, |demand| &demand.steps)
    }

    /// When the next signal of its stop is due, if that is under way and SIGKILL was not sent.
    #[must_use]
    pub fn next_step_at(&self) -> Option<u64> {
        if self.killed.is_some() {
            return None;
        }
        let (at, _) = self.sent.last()?;
        let grace = self.steps().get(self.sent.len() - 1).map_or(Span::ZERO, |step| step.grace);
        Some(at.saturating_add(grace.as_nanos()))
    }

    /// How long its stop still takes if nothing answers its signals.
    #[must_use]
    pub fn need(&self, now: u64) -> u64 {
        if self.killed.is_some() {
            return 0;
        }
        let to_come: u64 = self.steps().iter().skip(self.sent.len()).map(|step| step.grace.as_nanos()).sum();
        let present =
            self.next_step_at().map_or(0, |at| self.kill_by.map_or(at, |by| at.min(by)).saturating_sub(now));
        present + to_come
    }
}
