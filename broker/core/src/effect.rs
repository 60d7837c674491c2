//! The orders that go out to the edge.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::create::Resources;
use procbroker_protocol::event::Notification;
use procbroker_protocol::request::{LogStream, Scope};
use procbroker_protocol::{
    Child as ChildView, ChildId, CreateParams, Error, Exit, Response, Signal, Timestamp,
};

use crate::anchor::Anchor;
use crate::authorize::{Asker, RunAs};
use crate::ids::{Call, ConnectionId, Run, SubscriptionId};
use crate::launch::Launch;
use crate::main_process::MainExit;
use crate::record::{Answered, Intent, Progress};
use crate::time::Instant;

/// One order. The edge carries it out and decides nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Let the client talk.
    Admit {
        /// The connection of the client.
        connection: ConnectionId,
    },
    /// Tell the client why it is not served, and close.
    Refuse {
        /// The connection of the client.
        connection: ConnectionId,
        /// Tells the client why it is refused.
        error: Error,
    },
    /// Send an answer to a client.
    Answer {
        /// The request that is answered.
        call: Call,
        /// What the client is told.
        result: Result<Response, Error>,
        /// When it may go out.
        after: After,
        /// Whose usage it tells as well, if it does.
        usage: Option<UsageQuery>,
    },
    /// There are events that a client has subscribed to: ask for them with `EventsWanted` as soon as it has room for some.
    /// Nothing more is said of them before that.
    Unread {
        /// Whose subscriptions they are for.
        connection: ConnectionId,
    },
    /// Send these to a client, which has room for them: answers `EventsWanted`.
    Publish {
        /// Whose subscriptions they are for.
        connection: ConnectionId,
        /// What the client is told, in this order.
        notifications: Vec<Notification>,
    },
    /// Write to the record. What is written later is never safe before what was written earlier.
    Record {
        /// The process, and by it its child.
        run: Run,
        /// What the journal is to keep.
        record: Record,
        /// What it has to survive.
        safety: Safety,
        /// Whether `Recorded` is to follow.
        receipt: Receipt,
        /// When the child expires, if it has a time to live: it takes the place of what the intent says. Of one that lives by its
        /// connections: until when it lingers, if nobody holds it.
        expires: Option<Instant>,
    },
    /// Start a process for the child. Answered with `Spawned` or `SpawnFailed`.
    Spawn {
        /// The process, and by it its child.
        run: Run,
        /// What to execute, and with whose rights.
        order: Arc<SpawnOrder>,
        /// What the process is for.
        purpose: Purpose,
    },
    /// Send a signal. Answered with `Signalled`.
    Signal {
        /// The process, and by it its child.
        run: Run,
        /// The signal to send (signal(7)).
        signal: Signal,
        /// Which of the processes.
        scope: Scope,
        /// The request that asked for it, if one did; else it is the broker's own act.
        call: Option<Asked>,
    },
    /// Send SIGKILL to everything that descends from the child. Answered with `Exited` if its main
    /// process was alive, and with `MembersLeft` else.
    Kill {
        /// The process, and by it its child.
        run: Run,
    },
    /// Nothing of the child is left: stop watching, and take down what contained it.
    Release {
        /// The process, and by it its child.
        run: Run,
    },
    /// Another run of the child is to come, and no process of it is there: what tells a later broker that its program was
    /// executed tells that of the next run from now on.
    AwaitRun {
        /// The child that it is about.
        child: ChildId,
    },
    /// The child is not visible any more: its output and its record can go.
    Forget {
        /// The child that it is about.
        child: ChildId,
    },
    /// These answers are not remembered any more: what they are on record under can go.
    ForgetAnswers {
        /// What each is on record under.
        on_record: Vec<ChildId>,
    },
    /// Read a child's output and answer the request with it, no faster than its client takes it. Answered with
    /// `LogRead`.
    ReadLog {
        /// The request for it.
        call: Call,
        /// The child that it is about.
        child: ChildId,
        /// Which part of it is read.
        excerpt: LogExcerpt,
        /// The user who asks, in whose turn it is read.
        user: u32,
    },
    /// Read the last of a child's output, for a request that is to tell why its child has failed. Answered with
    /// `TailRead`.
    ReadTail {
        /// The request that waits for it.
        call: Call,
        /// The child that it is about.
        child: ChildId,
        /// Which of its streams it is in.
        kept_in: LastWords,
        /// The user who asks, in whose turn it is read.
        user: u32,
    },
    /// Find out whether a child is ready, by anything but a command. Answered with `Probed`.
    Probe {
        /// The process, and by it its child.
        run: Run,
        /// What shows it, and whose rights the child has.
        order: Arc<SpawnOrder>,
        /// When its present process was ordered to be started: what is older was written by another.
        since: Timestamp,
    },
    /// Watch a process that children's lives hang on. Answered with `AnchorEnded` when it has ended, at once where it has.
    Watch {
        /// The process that lives of children hang on.
        anchor: Anchor,
    },
    /// No child's life hangs on a process any more, which has not been told to have ended: stop watching it.
    Unwatch {
        /// The process that lives of children hang on.
        anchor: Anchor,
    },
    /// A child has ended: what it wrote last is the end, for those who follow its output too.
    EndLog {
        /// The child that it is about.
        child: ChildId,
    },
    /// Answer the request with the metrics: what the broker has counted, and what the edge has.
    Measure {
        /// The request that is answered.
        call: Call,
    },
    /// Find out whether another program could take over from this one. Answered with `UpgradeChecked`.
    CheckUpgrade,
    /// Become the other program: everything that is on record, and every process, is handed over. When that
    /// fails, nothing has changed, and `HandOverFailed` follows.
    HandOver,
    /// Write a line for people.
    Report(Report),
    /// Tell the service's owner (systemd).
    Notify(ServiceState),
    /// Kill and reap whatever descends from the broker and belongs to no child. Answered with `Swept`.
    Sweep,
    /// Send the answers that are still waiting, and exit.
    Exit(ExitCause),
}

/// A request that asks for a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request that wants the signal sent.
    pub call: Call,
    /// Who has to have the right to send it; none where the kernel's word to the broker is enough.
    pub by: Option<Asker>,
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing: it tells what is, and promises nothing.
    Nothing,
    /// Everything that was ordered to be written to the record or removed from it up to the end of this turn: that it
    /// is as safe as it was asked to be, or that it could not be written. What the client has been told holds then,
    /// even if the broker dies at once.
    Records,
}

/// The children whose usage goes with an answer. The edge finds it out beside its other work, and adds it before the answer
/// goes out, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// The user who asks, in whose turn it is found out.
    pub user: u32,
    /// The main processes whose usage is asked for.
    pub runs: Vec<Run>,
}

/// What is written to a child's record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// That it is about to be started; nothing is started before this is safe.
    Intent(Arc<Intent>),
    /// How far it is, in the place of what was written of that before. The edge adds what identifies the present
    /// process for good.
    Progress(Progress),
    /// How a request was answered that has started nothing.
    Answered(Answered),
}

/// What a record has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// The sudden death of the broker.
    Process,
    /// The sudden death of the machine.
    Power,
}

/// Whether the core waits for a record to be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The core waits for `Recorded`.
    Wanted,
    /// The core goes on without it.
    NotWanted,
}

/// What a process of a child is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// It is the child's main process.
    Main,
    /// It finds out whether the child is ready, by its exit status. Its run is one of the child's [`paired_id`](crate::paired_id).
    Probe,
    /// It releases what the child held.
    Cleanup {
        /// How the child ended.
        exit: Exit,
    },
}

/// Which part of a child's output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExcerpt {
    /// The stream that is asked for.
    pub stream: LogStream,
    /// The stream whose file it is in.
    pub kept_in: LogStream,
    /// The last lines only.
    pub tail: Option<u32>,
    /// Only what was written at this time or later.
    pub since: Option<Timestamp>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
    /// Where it is gone on from, instead of the beginning of what is kept.
    pub position: Option<u64>,
    /// What is to follow.
    pub follow: Follow,
}

/// Which of a child's streams have what it wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWords {
    /// This one alone.
    In(LogStream),
    /// Both: they are kept apart, and told in the order in which they came, as far as that is known.
    InBoth,
}

/// What follows an excerpt of a child's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The text is the whole answer.
    No,
    /// What the child writes from then on, until `EndLog`.
    UntilItEnds(SubscriptionId),
    /// What there is beyond the excerpt: the child has ended.
    Rest(SubscriptionId),
}

/// How a child is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnOrder {
    /// What its creator asked for.
    pub params: Arc<CreateParams>,
    /// Whose rights it gets.
    pub run_as: RunAs,
    /// What its process starts with beside them.
    pub launch: Launch,
}

impl SpawnOrder {
    /// Returns the bounds that a process with this purpose has to keep to.
    ///
    /// A command that finds out whether the child is ready has them for itself. A cleanup has none: it releases what the child held even where the child has used up all that it was given, and its own
    /// timeout bounds it.
    #[must_use]
    pub fn resources_for(&self, purpose: &Purpose) -> Option<&Resources> {
        match purpose {
            Purpose::Main | Purpose::Probe => self.params.resources.as_ref(),
            Purpose::Cleanup { .. } => None,
        }
    }
}

/// A line for people.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A child was started.
    Started {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
    },
    /// A child could not be started.
    StartFailed {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
        /// Tells people what went wrong.
        message: String,
    },
    /// A command that was to find out whether a child is ready could not be started.
    ProbeFailed {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
        /// Tells people what went wrong.
        message: String,
    },
    /// A run of a child has ended, and another one follows.
    Restarting {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
        /// How long it is until then.
        pause: Duration,
    },
    /// A child has ended.
    Ended {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
    },
    /// A cleanup has failed, or could not be started.
    CleanupFailed {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
        /// What became of it.
        message: String,
    },
    /// A cleanup is not over at the end of the shutdown, and is left to the next broker.
    CleanupLeft {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
    },
    /// An earlier broker's children were taken over.
    Recovered {
        /// How many have a main process that is there.
        alive: u32,
        /// How many have ended meanwhile.
        ended: u32,
        /// How many had not been started.
        void: u32,
    },
    /// Another program will not take over from this one.
    UpgradeRefused {
        /// Tells people what went wrong.
        message: String,
    },
    /// Another program takes over from this one.
    HandingOver,
    /// A child would not end by itself during the shutdown.
    Forced {
        /// The child, as clients see it at this moment.
        child: Arc<ChildView>,
    },
    /// The broker begins to shut down.
    ShuttingDown {
        /// How many children there are.
        children: u32,
        /// How long it may take.
        timeout: Duration,
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
        took: Duration,
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
        timeout: Duration,
        /// How many children there are.
        children: u32,
    },
}

/// Why and how the broker exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// The main command is over, and everything with it.
    Main(MainExit),
    /// No process is left, and the exit status is 0.
    Done,
    /// The time was up, and so many processes could not be ended.
    Left(u32),
}
