//! One child: its phase, with the data that belongs to it in the variants.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{
    Child, ChildId, ChildState, Containment, CreateParams, Exit, ExitReason, ExitStatus, Owner, Span,
    StepTaken, Timestamp,
};
use uuid::Uuid;

use crate::calls::Ticket;
use crate::effect::SpawnOrder;
use crate::ids::{Incarnation, Pid, Run};
use crate::input::Members;
use crate::moment::Moment;

/// A child that the broker knows.
#[derive(Debug)]
pub(crate) struct Entry {
    /// How it was asked for.
    pub(crate) order: Arc<SpawnOrder>,
    /// Which of its processes is meant.
    pub(crate) incarnation: Incarnation,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// How clients see it: kept in step with the phase by [`Entry::show`].
    pub(crate) shown: Arc<Child>,
    /// Requests that wait for it to change.
    pub(crate) watchers: BTreeSet<Ticket>,
    /// Its timer.
    pub(crate) due: Option<Moment>,
    /// What its create answers, when the same request comes again.
    pub(crate) outcome: Outcome,
    /// The requests of users that were answered with it when it was there already.
    pub(crate) reuses: VecDeque<(u32, Uuid)>,
}

/// Where a child is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The intent to start it is being recorded.
    Recording {
        /// It is to end before it begins.
        cancelled: Option<Stop>,
    },
    /// It is on record, and waits for its turn to be started.
    Queued,
    /// Its process is being started.
    Spawning {
        /// It is to be stopped as soon as there is something to stop.
        stop: Option<Stop>,
    },
    /// Its process runs and is ready.
    Running {
        /// The process.
        pid: Pid,
    },
    /// It is being brought to an end, or what it left behind is.
    Stopping(Box<Stopping>),
    /// Nothing of it is left.
    Ended,
}

/// Why and how a child is to be stopped.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// Why.
    pub(crate) reason: ExitReason,
    /// The signals to try.
    pub(crate) steps: Vec<StopStep>,
    /// When it is to be killed whatever step it is at.
    pub(crate) kill_by: Option<Moment>,
}

/// A stop that is under way.
#[derive(Debug)]
pub(crate) struct Stopping {
    /// The main process, by the number that it has or had.
    pub(crate) pid: Pid,
    /// Why.
    pub(crate) reason: ExitReason,
    /// Whether the main process is alive.
    pub(crate) leader: Leader,
    /// The steps that are still to come.
    pub(crate) steps: VecDeque<StopStep>,
    /// What is waited for.
    pub(crate) stage: Stage,
    /// The signals that were sent.
    pub(crate) taken: Vec<StepTaken>,
    /// Whether SIGKILL was needed.
    pub(crate) forced: bool,
    /// When it is to be killed whatever step it is at.
    pub(crate) kill_by: Option<Moment>,
}

/// The main process of a child that is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    /// Not reaped.
    Alive,
    /// Reaped.
    Gone {
        /// How it ended.
        status: ExitStatus,
        /// When.
        at: Timestamp,
        /// What is left of its descendants.
        members: Members,
    },
}

/// What a stop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The effect of a signal, until then.
    Asking {
        /// When the next step comes.
        until: Moment,
    },
    /// The effect of SIGKILL; it is sent again then.
    Killing {
        /// When it is sent again.
        again: Moment,
        /// How long that is after the last time.
        pause: Span,
    },
}

impl Entry {
    /// A child that is about to be recorded.
    pub(crate) fn new(
        id: ChildId,
        order: Arc<SpawnOrder>,
        owner: Owner,
        created_at: Timestamp,
        containment: Containment,
        outcome: Outcome,
    ) -> Self {
        let params = &order.params;
        let shown = Child {
            id,
            name: params.name.clone(),
            labels: params.labels.clone(),
            command: params.command.clone(),
            pid: None,
            owner,
            state: ChildState::Starting,
            created_at,
            started_at: None,
            restarts: 0,
            lifetime: params.lifetime,
            stop_order: params.stop_order,
            exit: None,
            cleanup: None,
            containment,
        };
        Self {
            incarnation: Incarnation::FIRST,
            phase: Phase::Recording { cancelled: None },
            shown: Arc::new(shown),
            watchers: BTreeSet::new(),
            due: None,
            outcome,
            reuses: VecDeque::new(),
            order,
        }
    }

    /// What its creator asked for.
    pub(crate) fn params(&self) -> &CreateParams {
        &self.order.params
    }

    /// Its present process.
    pub(crate) fn run(&self) -> Run {
        Run { child: self.shown.id, incarnation: self.incarnation }
    }

    /// Whether anything of it may be there: it then holds its name and its place under a limit.
    pub(crate) fn is_live(&self) -> bool {
        match self.phase {
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_) => true,
            Phase::Ended => false,
        }
    }

    /// Whether it is on its way to its end, or there.
    pub(crate) fn is_ending(&self) -> bool {
        match &self.phase {
            Phase::Recording { cancelled: stop } | Phase::Spawning { stop } => stop.is_some(),
            Phase::Queued | Phase::Running { .. } => false,
            Phase::Stopping(_) | Phase::Ended => true,
        }
    }

    /// Whether there is no process yet.
    pub(crate) fn is_unspawned(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => true,
            Phase::Running { .. } | Phase::Stopping(_) | Phase::Ended => false,
        }
    }

    /// Whether a `wait` for it to be ready is over: it has been ready, or will never be.
    pub(crate) fn is_settled(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => false,
            Phase::Running { .. } | Phase::Stopping(_) | Phase::Ended => true,
        }
    }

    /// Brings what clients see in step with the phase.
    pub(crate) fn show(&mut self) {
        let (state, pid) = match &self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => (ChildState::Starting, None),
            Phase::Running { pid } => (ChildState::Running, Some(pid.get())),
            Phase::Stopping(stopping) => (ChildState::Stopping, stopping.shown_pid()),
            Phase::Ended => (ChildState::Ended, None),
        };
        let exit = match &self.phase {
            Phase::Stopping(stopping) => stopping.exit(),
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } | Phase::Running { .. } => None,
            Phase::Ended => self.shown.exit.clone(),
        };
        let shown = Arc::make_mut(&mut self.shown);
        shown.state = state;
        shown.pid = pid;
        shown.exit = exit;
    }
}

impl Stopping {
    /// The main process while it lives.
    fn shown_pid(&self) -> Option<u32> {
        match self.leader {
            Leader::Alive => Some(self.pid.get()),
            Leader::Gone { .. } => None,
        }
    }

    /// How the child ended, as far as is known once its main process has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.leader {
            Leader::Alive => None,
            Leader::Gone { status, at, .. } => {
                Some(Exit { status, reason: self.reason, forced: self.forced, steps: self.taken.clone(), at })
            }
        }
    }

    /// When something is to be done about it.
    pub(crate) fn due(&self) -> Moment {
        match self.stage {
            Stage::Asking { until } => self.kill_by.map_or(until, |kill_by| until.min(kill_by)),
            Stage::Killing { again, .. } => again,
        }
    }
}
