//! The orders that go out to the edge.

use std::sync::Arc;

use procbroker_protocol::request::Scope;
use procbroker_protocol::{Child, ChildId, CreateParams, Error, Response, Signal, Span};

use crate::authorize::RunAs;
use crate::ids::{Call, ConnectionId, Run};

/// One order. The edge carries it out and decides nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Let the client talk.
    Admit {
        /// Which one.
        connection: ConnectionId,
    },
    /// Tell the client why it is not served, and close.
    Refuse {
        /// Which one.
        connection: ConnectionId,
        /// Why.
        error: Error,
    },
    /// Send this answer.
    Answer {
        /// To which request.
        call: Call,
        /// The answer.
        result: Result<Response, Error>,
    },
    /// Write to the record. An `Intent` is answered with `Recorded`; the others are only kept in order.
    Record {
        /// Whose record.
        run: Run,
        /// What to write.
        record: Record,
    },
    /// Start the child's process. Answered with `Spawned` or `SpawnFailed`.
    Spawn {
        /// Whose process.
        run: Run,
        /// How.
        order: Arc<SpawnOrder>,
    },
    /// Send a signal. Answered with `Signalled`.
    Signal {
        /// To whose processes.
        run: Run,
        /// Which signal.
        signal: Signal,
        /// Which of the processes.
        scope: Scope,
        /// The request that asked for it, if one did.
        call: Option<Call>,
    },
    /// Send SIGKILL to everything that descends from the child. Answered with `Exited` if its main
    /// process was alive, and with `MembersLeft` else.
    Kill {
        /// Whose processes.
        run: Run,
    },
    /// Nothing of the child is left: stop watching, and take down what contained it.
    Release {
        /// Whose.
        run: Run,
    },
    /// The child is not visible any more: its output can go.
    Forget {
        /// Which one.
        child: ChildId,
    },
    /// Write a line for people.
    Report(Report),
    /// Tell the service's owner (systemd).
    Notify(ServiceState),
    /// Kill and reap whatever descends from the broker and belongs to no child. Answered with `Swept`.
    Sweep,
    /// Send the answers that are still waiting, and exit.
    Exit(ExitCause),
}

/// What is written to a child's record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// That it is about to be started; nothing is started before this is safe.
    Intent {
        /// How it will be started.
        order: Arc<SpawnOrder>,
        /// How clients see it.
        child: Arc<Child>,
    },
    /// That it has been started, is being stopped, or has ended.
    Progress {
        /// How clients see it now.
        child: Arc<Child>,
    },
    /// That there is nothing to remember: it was never started.
    Void,
}

/// How a child is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnOrder {
    /// What its creator asked for.
    pub params: Arc<CreateParams>,
    /// Whose rights it gets.
    pub run_as: RunAs,
}

/// A line for people.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A child was started.
    Started {
        /// Which one.
        child: Arc<Child>,
    },
    /// A child could not be started.
    StartFailed {
        /// Which one.
        child: Arc<Child>,
        /// Why.
        message: String,
    },
    /// A child has ended.
    Ended {
        /// Which one.
        child: Arc<Child>,
    },
    /// A child would not end by itself during the shutdown.
    Forced {
        /// Which one.
        child: Arc<Child>,
    },
    /// The broker begins to shut down.
    ShuttingDown {
        /// How many children there are.
        children: u32,
        /// How long it may take.
        timeout: Span,
    },
    /// The shutdown is hurried: everything left is killed now.
    Hurried {
        /// How many children are left.
        children: u32,
    },
    /// The shutdown is over.
    ShutDown {
        /// How many children it ended.
        children: u32,
        /// How many of them needed SIGKILL.
        forced: u32,
        /// How many processes are still there.
        left: u32,
        /// How long it took.
        took: Span,
    },
    /// Nobody was connected and no child alive for the time that was set.
    Idle,
}

/// What the service's owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// The shutdown began, and may take so long.
    Stopping {
        /// How long it may take.
        timeout: Span,
        /// How many children there are.
        children: u32,
    },
}

/// Why and how the broker exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// Everything is gone.
    Done,
    /// The time was up, and so many processes could not be ended.
    Left(u32),
}
