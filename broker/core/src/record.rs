//! What is kept of a child beyond the broker's own life, and what a later broker finds of it.
//!
//! The intent is written once, before there is a process. The progress is written anew at each turn of the child's
//! life, and is all that a later broker has to know to go on where this one was. What identifies the process is
//! added by the edge, which alone knows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::create::{Lifetime, StopStep};
use procbroker_protocol::{
    ChildId, Cleaned, Containment, CreateParams, Exit, ExitReason, ExitStatus, Outcome, Owner, StepTaken,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::anchor::Anchor;
use crate::authorize::RunAs;
use crate::ids::Pid;
use crate::input::Members;
use crate::launch::Launch;
use crate::time::Instant;

/// That a child is about to be started, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The child that is started.
    pub id: ChildId,
    /// What its creator asked for.
    pub params: Arc<CreateParams>,
    /// Whose rights it gets.
    pub run_as: RunAs,
    /// What its processes start with beside them.
    #[serde(default, skip_serializing_if = "Launch::is_plain")]
    pub launch: Launch,
    /// The user and the group that created it.
    pub owner: Owner,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its place in the order of the creations, from 1 on, which no clock changes that is set. A program that knew of none has
    /// left none, and what it has started came before all others.
    #[serde(default)]
    pub number: u64,
    /// What holds its descendants.
    pub containment: Containment,
    /// What its create is answered with, also when the same request comes again.
    pub outcome: Outcome,
    /// What it is to the broker.
    #[serde(default)]
    pub role: Role,
    /// What its life hangs on beside connections.
    #[serde(default, rename = "tie")]
    pub lease: RecordedLease,
}

/// That a request was answered with a child that was there: the same one once more gets that answer again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// What it is on record under: the id that is paired with that of a child that the request would have started else.
    pub id: ChildId,
    /// The child that it was answered with.
    pub child: ChildId,
    /// The user whose request it was.
    pub uid: u32,
    /// The id of the request.
    pub request: Uuid,
    /// Whether the child was created from an equal specification.
    pub same_spec: bool,
}

/// What a child's life hangs on beside the broker and its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordedLease {
    /// The broker's own life, and the connections that hold it.
    #[default]
    None,
    /// Its time, which ends then; of the boot that it was recorded in.
    Until(Instant),
    /// A process of somebody else: the child ends with it.
    Process(Anchor),
}

impl RecordedLease {
    /// Returns what the life of a child hangs on that is created now: on this process, if on one.
    pub(crate) fn of(lifetime: Lifetime, anchor: Option<Anchor>, now: Instant) -> Self {
        match (lifetime, anchor) {
            (Lifetime::Ttl(length), _) => Self::Until(now.plus(length)),
            (Lifetime::Pid(_), Some(anchor)) => Self::Process(anchor),
            (Lifetime::Broker | Lifetime::Connection | Lifetime::Pid(_), _) => Self::None,
        }
    }

    /// Returns when the child expires, if it has a time to live.
    #[must_use]
    pub fn expires(&self) -> Option<Instant> {
        match self {
            Self::None | Self::Process(_) => None,
            Self::Until(until) => Some(*until),
        }
    }

    /// Returns the process that the child's life hangs on, if it hangs on one.
    #[must_use]
    pub fn anchor(&self) -> Option<Anchor> {
        match self {
            Self::None | Self::Until(_) => None,
            Self::Process(anchor) => Some(*anchor),
        }
    }
}

/// What a process is to the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A child that somebody has created.
    #[default]
    Child,
    /// The main command of `procbroker run`, which is nobody's and which no request sees.
    Main,
}

/// How far a child is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Its process is not there yet, and is to be stopped as soon as it is.
    Unwanted {
        /// Why it is to be stopped.
        reason: ExitReason,
        /// The signals to try.
        steps: Vec<StopStep>,
    },
    /// Its process was started, and is not ready yet.
    Starting {
        /// When its process was started.
        started_at: Timestamp,
        /// When it has failed to start, if it is not ready.
        ready_by: Instant,
        /// The runs before this one.
        #[serde(default)]
        runs: Runs,
    },
    /// Its process was started, and is ready.
    Running {
        /// When its process was started.
        started_at: Timestamp,
        /// The runs before this one.
        #[serde(default)]
        runs: Runs,
        /// Whether it has said that it is about to end.
        #[serde(default, skip_serializing_if = "Departure::is_unannounced")]
        departure: Departure,
    },
    /// A run has ended, and the next one is to come. Its process may be there already.
    Restarting {
        /// When the last run was started.
        started_at: Option<Timestamp>,
        /// How the last run ended.
        exit: Exit,
        /// When the next one is due; of the boot that it was recorded in.
        until: Instant,
        /// Why and by which signals its process is to be stopped as soon as it is there, if it is.
        unwanted: Option<(ExitReason, Vec<StopStep>)>,
        /// The runs so far.
        runs: Runs,
    },
    /// It is being brought to an end, or what it left behind is.
    Stopping(StoppingProgress),
    /// Nothing of it is left, and its cleanup has not succeeded or failed so far.
    Cleaning {
        /// When the child was started.
        started_at: Option<Timestamp>,
        /// How the child ended.
        exit: Exit,
        /// How many times the cleanup has been begun.
        attempts: u32,
        /// How the process of this attempt has ended, if only what it left behind is still there.
        #[serde(default)]
        ended: Option<ExitStatus>,
        /// How often the child was restarted.
        #[serde(default)]
        restarts: u32,
        /// How much of the child has not been ready.
        #[serde(default)]
        unready: Unready,
    },
    /// Nothing of it is left, and its cleanup, if it has one, has had its outcome.
    Ended {
        /// When the child was started.
        started_at: Option<Timestamp>,
        /// How the child ended.
        exit: Exit,
        /// What became of its cleanup, where there was one.
        cleanup: Option<Cleaned>,
        /// When it was over.
        at: Timestamp,
        /// How often the child was restarted.
        #[serde(default)]
        restarts: u32,
        /// How much of the child has not been ready.
        #[serde(default)]
        unready: Unready,
    },
}

impl Progress {
    /// Returns when it was over, if it is.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Ended { at, .. } => Some(*at),
            Self::Unwanted { .. }
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Restarting { .. }
            | Self::Stopping(_)
            | Self::Cleaning { .. } => None,
        }
    }
}

/// A stop that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppingProgress {
    /// When the child was started.
    pub started_at: Option<Timestamp>,
    /// Why it is stopped.
    pub reason: ExitReason,
    /// How and when its main process ended, if it has.
    pub ended: Option<(ExitStatus, Timestamp)>,
    /// The steps that are still to come.
    pub steps: Vec<StopStep>,
    /// When the step that was taken last has had its time; of the boot that it was recorded in.
    pub until: Instant,
    /// The signals that were sent.
    pub taken: Vec<StepTaken>,
    /// Whether the last of them has gone to all that is left, because nothing of the process group was.
    #[serde(default)]
    pub widened: bool,
    /// Whether SIGKILL was needed.
    pub forced: bool,
    /// What comes after it.
    #[serde(default)]
    pub afterwards: Afterwards,
    /// The runs before this one.
    #[serde(default)]
    pub runs: Runs,
}

/// What comes after a run, when nothing of it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Afterwards {
    /// What the child's policy says.
    #[default]
    Policy,
    /// No run follows: the child is cleaned up, and ends.
    End,
    /// Another run: somebody has asked for a restart.
    Restart,
}

/// Whether a child with a watchdog has said that it is about to end by itself, and is not watched any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    /// It has not, and is watched.
    #[default]
    Unannounced,
    /// It has, and is not watched any more.
    Announced,
}

impl Departure {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_unannounced(&self) -> bool {
        match self {
            Self::Unannounced => true,
            Self::Announced => false,
        }
    }
}

/// What is known of a child's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// How often the child was restarted, by itself and by hand.
    pub restarts: u32,
    /// When it was restarted by itself, as far as that still counts, oldest first; of the boot that it was recorded in.
    pub recent: VecDeque<Instant>,
    /// The pause before the next restart; none before the first.
    pub pause: Option<Duration>,
    /// When the present run has begun; of the boot that it was recorded in.
    pub since: Option<Instant>,
    /// When it was ordered that the present run begins, by the wall clock; none for the first run. Nothing that it has written
    /// is older.
    #[serde(default)]
    pub ordered_at: Option<Timestamp>,
    /// How much of it has not been ready.
    #[serde(default)]
    pub unready: Unready,
}

/// How much of a child has not been ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unready {
    /// Nothing: its present run has been ready, or its last one was.
    #[default]
    No,
    /// Its present run, but its create was answered well before: an earlier run was ready, or need not be.
    Now,
    /// All of it: its create waits for that, or was told that it has failed.
    Ever,
}

impl Unready {
    /// Returns what is on record of a child that ends, by a broker that did not write it down too.
    pub(crate) fn as_told(self, reason: ExitReason, restarts: u32) -> Self {
        match (self, reason, restarts) {
            (Self::No, ExitReason::StartFailed, 0) => Self::Ever,
            (Self::No, ExitReason::StartFailed, _) => Self::Now,
            (told, _, _) => told,
        }
    }
}

/// One child on record, and what is found of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// How it was asked for.
    pub intent: Intent,
    /// How far it was, if it was more than intended.
    pub progress: Option<Progress>,
    /// What is found of it.
    pub finding: Finding,
    /// What is left of a command that was to find out whether it is ready, held under the first run of its
    /// [`paired_id`](crate::paired_id). Of any but `Nothing`, an [`Input::MembersLeft`](crate::Input::MembersLeft) will
    /// tell when it becomes less.
    pub probe: Members,
    /// Whether the kernel has killed something of its present run for want of memory.
    pub out_of_memory: bool,
    /// What an earlier program has passed on in an upgrade; nothing after a crash.
    pub handed_over: HandedOver,
}

/// What one program tells the next one of a child in an upgrade, beside what is on record: what changes too often to be
/// recorded, and is lost in a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// What it has said of itself, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_text: Option<String>,
    /// How long it had left to say that it is well. The time in which no program listens does not count, because what it says
    /// then waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_left: Option<Duration>,
    /// How many attempts at its cleanup were begun, where one more is on record: that one waits, since no process is started while
    /// another program takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_attempts: Option<u32>,
    /// When the time of the attempt at its cleanup is over whose process is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_until: Option<Instant>,
}

impl HandedOver {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose child a process is, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// This broker's own: the program was replaced in place, and nothing has died.
    Own,
    /// Somebody else's, since the broker that started it has died.
    Foreign,
}

/// How far a process is that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs, or can again: one that is suspended too.
    Running,
    /// It has ended, and waits to be reaped.
    Zombie,
}

/// What is found of a child's process, be it its main process or that of its cleanup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there, and no other that got its number. If it has ended, or ends, an
    /// [`Input::Exited`](crate::Input::Exited) will tell how.
    Process {
        /// The number of the process.
        pid: Pid,
        /// Whose child it is.
        kinship: Kinship,
        /// How far it is.
        state: ProcessState,
    },
    /// It is not there any more.
    Gone {
        /// How it ended, where somebody keeps that.
        status: ExitStatus,
        /// What is left of its descendants. Of any but `Nothing`, an
        /// [`Input::MembersLeft`](crate::Input::MembersLeft) will tell when it becomes less.
        members: Members,
    },
    /// It is there, has not executed its program, and never will: it is held where it is until it is killed. An
    /// [`Input::Exited`](crate::Input::Exited) will follow that.
    Unexecuted {
        /// The number of the process.
        pid: Pid,
    },
    /// It was never there: the broker ended between the intent and the deed.
    NeverStarted,
    /// The machine was started anew since.
    Rebooted,
}
