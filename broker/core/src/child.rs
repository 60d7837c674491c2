//! One child: its phase, with the data that belongs to it in the variants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::Until;
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{
    Child as ChildView, ChildState, Cleaned, CreateParams, Exit, ExitReason, ExitStatus, Name, Span,
    StepTaken, Timestamp,
};
use uuid::Uuid;

use crate::effect::SpawnOrder;
use crate::ids::{ConnectionId, Incarnation, Pid, Run, SubscriptionId};
use crate::input::Members;
use crate::pending::Ticket;
use crate::record::{Intent, Progress, Role, StoppingProgress};
use crate::time::{Instant, Now};

/// A child that the broker knows.
#[derive(Debug)]
pub(crate) struct Child {
    /// How it was asked for.
    pub(crate) order: Arc<SpawnOrder>,
    /// Which of its processes is meant.
    pub(crate) incarnation: Incarnation,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// How clients see it: kept in step with the phase by [`Child::show`].
    pub(crate) shown: Arc<ChildView>,
    /// Requests that wait for it to change.
    pub(crate) watchers: BTreeSet<Ticket>,
    /// Its timer.
    pub(crate) due: Option<Instant>,
    /// When its cleanup has to be over for the sake of others, in a shutdown.
    pub(crate) cleanup_by: Option<Instant>,
    /// What its create answers, when the same request comes again.
    pub(crate) outcome: Outcome,
    /// What it is to the broker.
    pub(crate) role: Role,
    /// Who follows its output.
    pub(crate) followers: BTreeSet<(ConnectionId, SubscriptionId)>,
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
    /// Nothing of it is left, and its cleanup is under way.
    Cleaning(Box<Cleaning>),
    /// It is over.
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
    pub(crate) kill_by: Option<Instant>,
}

/// A stop that is under way.
#[derive(Debug)]
pub(crate) struct Stopping {
    /// Why.
    pub(crate) reason: ExitReason,
    /// Whether the main process is alive.
    pub(crate) leader: Leader,
    /// The steps that are still to come.
    pub(crate) steps: VecDeque<StopStep>,
    /// What is waited for.
    pub(crate) stage: StopStage,
    /// The signals that were sent.
    pub(crate) taken: Vec<StepTaken>,
    /// Whether SIGKILL was needed.
    pub(crate) forced: bool,
    /// When it is to be killed whatever step it is at.
    pub(crate) kill_by: Option<Instant>,
}

/// The main process of a child that is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    /// Not reaped.
    Alive {
        /// Its number.
        pid: Pid,
    },
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
pub(crate) enum StopStage {
    /// The effect of a signal, until then.
    Asking {
        /// When the next step comes.
        until: Instant,
    },
    /// The effect of SIGKILL; it is sent again then.
    Killing {
        /// When it is sent again.
        again: Instant,
        /// How long that is after the last time.
        pause: Span,
    },
}

/// A cleanup that is under way.
#[derive(Debug)]
pub(crate) struct Cleaning {
    /// How the child ended.
    pub(crate) exit: Exit,
    /// How many times the cleanup has been begun.
    pub(crate) attempts: u32,
    /// How far this attempt is.
    pub(crate) stage: CleaningStage,
    /// Who sees it through.
    pub(crate) fate: Fate,
}

/// Who sees a cleanup through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// This broker.
    Finish,
    /// The next one: it stays on record, and is begun anew.
    Leave,
}

/// How far an attempt at a cleanup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CleaningStage {
    /// It is being recorded that it begins.
    Recording,
    /// It waits for its turn to be started.
    Queued,
    /// Its process is being started.
    Spawning,
    /// Its process runs, until then at most.
    Running {
        /// When its time is over.
        until: Instant,
    },
    /// What is left of it is being killed.
    Killing {
        /// What is left: of this attempt, or of one that an earlier broker began.
        remains: Remains,
        /// When it is killed again.
        again: Instant,
        /// How long that is after the last time.
        pause: Span,
    },
    /// Its outcome is being recorded.
    Closing {
        /// The outcome.
        cleaned: Cleaned,
    },
    /// It is on record for the next broker.
    Left,
}

/// What is left of a cleanup that is being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Its process, too.
    Process,
    /// What its process has left behind, which has ended in this way.
    Descendants(ExitStatus),
    /// Whatever there is of an attempt that was interrupted with an earlier broker.
    Interrupted,
}

impl Child {
    /// A child that is about to be recorded.
    pub(crate) fn new(intent: &Intent) -> Self {
        let Intent { id, params, run_as, owner, created_at, containment, outcome, role } = intent.clone();
        let shown = ChildView {
            id,
            name: label(role, &params),
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
            cleanup_by: None,
            role,
            outcome,
            followers: BTreeSet::new(),
            reuses: VecDeque::new(),
            order: Arc::new(SpawnOrder { params, run_as }),
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
            | Phase::Stopping(_)
            | Phase::Cleaning(_) => true,
            Phase::Ended => false,
        }
    }

    /// Whether it is not on record yet, so that nobody was told of it.
    pub(crate) fn is_being_recorded(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } => true,
            Phase::Queued
            | Phase::Spawning { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => false,
        }
    }

    /// Whether a signal may find something of it: there is a process, or will be.
    pub(crate) fn takes_signals(&self) -> bool {
        match self.phase {
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_) => true,
            Phase::Cleaning(_) | Phase::Ended => false,
        }
    }

    /// Whether a process of it may be there, of its cleanup too.
    pub(crate) fn may_have_processes(&self) -> bool {
        match &self.phase {
            Phase::Spawning { .. } | Phase::Running { .. } | Phase::Stopping(_) => true,
            Phase::Cleaning(cleaning) => match cleaning.stage {
                CleaningStage::Spawning | CleaningStage::Running { .. } | CleaningStage::Killing { .. } => {
                    true
                }
                CleaningStage::Recording
                | CleaningStage::Queued
                | CleaningStage::Closing { .. }
                | CleaningStage::Left => false,
            },
            Phase::Recording { .. } | Phase::Queued | Phase::Ended => false,
        }
    }

    /// Whether it is on its way to its end, or there.
    pub(crate) fn is_ending(&self) -> bool {
        match &self.phase {
            Phase::Recording { cancelled: stop } | Phase::Spawning { stop } => stop.is_some(),
            Phase::Queued | Phase::Running { .. } => false,
            Phase::Stopping(_) | Phase::Cleaning(_) | Phase::Ended => true,
        }
    }

    /// Whether there is no process yet.
    pub(crate) fn is_unspawned(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => true,
            Phase::Running { .. } | Phase::Stopping(_) | Phase::Cleaning(_) | Phase::Ended => false,
        }
    }

    /// Whether a `wait` for it to be ready is over: it has been ready, or will never be.
    pub(crate) fn is_settled(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => false,
            Phase::Running { .. } | Phase::Stopping(_) | Phase::Cleaning(_) | Phase::Ended => true,
        }
    }

    /// Whether what a `wait` waits for has come.
    pub(crate) fn has_reached(&self, until: Until) -> bool {
        match until {
            Until::Ready => self.is_settled(),
            Until::Ended => !self.is_live(),
        }
    }

    /// Brings what clients see in step with the phase.
    pub(crate) fn show(&mut self) {
        let (state, pid) = match &self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => (ChildState::Starting, None),
            Phase::Running { pid } => (ChildState::Running, Some(pid.get())),
            Phase::Stopping(stopping) => (ChildState::Stopping, stopping.shown_pid()),
            Phase::Cleaning(_) => (ChildState::Cleaning, None),
            Phase::Ended => (ChildState::Ended, None),
        };
        let exit = match &self.phase {
            Phase::Stopping(stopping) => stopping.exit(),
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } | Phase::Running { .. } => None,
            Phase::Cleaning(cleaning) => Some(cleaning.exit.clone()),
            Phase::Ended => self.shown.exit.clone(),
        };
        let shown = Arc::make_mut(&mut self.shown);
        shown.state = state;
        shown.pid = pid;
        shown.exit = exit;
    }

    /// What a later broker has to know to go on from here; nothing more than the intent before there is a process.
    pub(crate) fn progress(&self, now: Now) -> Option<Progress> {
        let started_at = self.shown.started_at;
        Some(match &self.phase {
            Phase::Recording { cancelled: stop } | Phase::Spawning { stop } => {
                let Stop { reason, steps, kill_by: _ } = stop.clone()?;
                Progress::Unwanted { reason, steps }
            }
            Phase::Queued => return None,
            Phase::Running { .. } => Progress::Running { started_at: started_at? },
            Phase::Stopping(stopping) => Progress::Stopping(stopping.progress(started_at, now)),
            Phase::Cleaning(cleaning) => cleaning.progress(started_at, now),
            Phase::Ended => Progress::Ended {
                started_at,
                exit: self.shown.exit.clone()?,
                cleanup: self.shown.cleanup.clone(),
                at: now.wall,
            },
        })
    }
}

impl Cleaning {
    fn progress(&self, started_at: Option<Timestamp>, now: Now) -> Progress {
        let exit = self.exit.clone();
        let ended = match &self.stage {
            CleaningStage::Closing { cleaned } => {
                return Progress::Ended { started_at, exit, cleanup: Some(cleaned.clone()), at: now.wall };
            }
            CleaningStage::Killing { remains: Remains::Descendants(status), .. } => {
                // One that was cut short has not had its outcome.
                let is_outcome = self.fate == Fate::Finish || *status == ExitStatus::Code(0);
                is_outcome.then_some(*status)
            }
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { remains: Remains::Process | Remains::Interrupted, .. }
            | CleaningStage::Left => None,
        };
        Progress::Cleaning { started_at, exit, attempts: self.attempts, ended }
    }
}

impl Stopping {
    /// The main process while it lives.
    fn shown_pid(&self) -> Option<u32> {
        match self.leader {
            Leader::Alive { pid } => Some(pid.get()),
            Leader::Gone { .. } => None,
        }
    }

    /// How the child ended, as far as is known once its main process has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.leader {
            Leader::Alive { .. } => None,
            Leader::Gone { status, at, .. } => {
                Some(Exit { status, reason: self.reason, forced: self.forced, steps: self.taken.clone(), at })
            }
        }
    }

    fn progress(&self, started_at: Option<Timestamp>, now: Now) -> StoppingProgress {
        let until = match self.stage {
            StopStage::Asking { until } => until,
            StopStage::Killing { .. } => now.instant,
        };
        StoppingProgress {
            started_at,
            reason: self.reason,
            ended: match self.leader {
                Leader::Alive { .. } => None,
                Leader::Gone { status, at, .. } => Some((status, at)),
            },
            steps: self.steps.iter().copied().collect(),
            until: now.wall_at(until),
            taken: self.taken.clone(),
            forced: self.forced,
        }
    }

    /// When something is to be done about it.
    pub(crate) fn due(&self) -> Instant {
        match self.stage {
            StopStage::Asking { until } => self.kill_by.map_or(until, |kill_by| until.min(kill_by)),
            StopStage::Killing { again, .. } => again,
        }
    }
}

/// What people call it, in the log. No client ever sees it.
const LABEL: &str = "main";

/// What a process is called: a child as its creator says.
pub(crate) fn label(role: Role, params: &CreateParams) -> Option<Name> {
    match role {
        Role::Child => params.name.clone(),
        Role::Main => LABEL.parse().ok(),
    }
}

pub(crate) fn has_labels(child: &ChildView, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| child.labels.get(key) == Some(value))
}
