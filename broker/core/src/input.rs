//! The facts that come in from the edge.

use std::time::Duration;

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ChildId, ExitStatus, Request, Signal};

use crate::anchor::{Anchor, AnchorFound};
use crate::authorize::{Accounts, AccountsFailure, Peer};
use crate::ids::{Call, ConnectionId, Pid, Run};
use crate::launch::{Caller, CallerUnknown};
use crate::notice::Notice;

/// One fact. Those that answer an [`crate::Effect`] name it.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A client connected, and the kernel says who it is. Answered by `Admit` or `Refuse`.
    Connected {
        /// The number that the edge has given to the connection.
        connection: ConnectionId,
        /// Who is at its other end.
        peer: Peer,
    },
    /// A client connected whose user has no number in the broker's user namespace, so that it is none that was ever
    /// allowed. Answered by `Refuse`.
    ConnectedUnmapped {
        /// The number that the edge has given to the connection.
        connection: ConnectionId,
    },
    /// A connection is gone; nobody reads its answers any more.
    Disconnected {
        /// The connection that is gone.
        connection: ConnectionId,
    },
    /// A client asks for something. Answered by exactly one `Answer`, unless it disconnects before.
    Called {
        /// Where the answer goes.
        call: Call,
        /// What it asks for.
        request: Request,
        /// What the decision needs from outside.
        fresh: Fresh,
    },
    /// A client has room for events: answers `Unread`.
    EventsWanted {
        /// The connection of the client.
        connection: ConnectionId,
    },
    /// Answers a `Record` whose receipt is wanted: it is as safe as it was asked to be, or could not be written.
    Recorded {
        /// The process, and by it its child.
        run: Run,
        /// Whether it is written.
        result: Result<(), RecordFailure>,
    },
    /// Answers `Spawn`: the program was executed.
    Spawned {
        /// The process, and by it its child.
        run: Run,
        /// The number of the process.
        pid: Pid,
    },
    /// Answers `Spawn`: there is no process.
    SpawnFailed {
        /// Whose process it would have been.
        run: Run,
        /// What failed, and how.
        failure: SpawnFailure,
    },
    /// A process of a child has told something of itself.
    Notified {
        /// The process, and by it its child.
        run: Run,
        /// What it has told, in its order.
        notices: Vec<Notice>,
    },
    /// A probe has an answer: answers [`Effect::Probe`](crate::Effect::Probe).
    Probed {
        /// The process, and by it its child.
        run: Run,
        /// Whether it was found ready.
        is_ready: bool,
    },
    /// The last output of a child is read: answers [`Effect::ReadTail`](crate::Effect::ReadTail).
    TailRead {
        /// The request that waits for it.
        call: Call,
        /// The last of what the child wrote.
        tail: String,
    },
    /// The main process of a child has ended and has been reaped; its pid may mean another from now on.
    Exited {
        /// The process, and by it its child.
        run: Run,
        /// How the process ended.
        status: ExitStatus,
        /// What was left of its descendants right after.
        members: Members,
    },
    /// The kernel has killed something of a child for want of memory. It comes before the `Exited` of its main process, and is
    /// never said of what an earlier process of the child has lost.
    OutOfMemory {
        /// The process, and by it its child.
        run: Run,
    },
    /// What is left of a child's descendants, after its main process has ended: sent when something of
    /// it may have changed, and after each `Kill`.
    MembersLeft {
        /// The process, and by it its child.
        run: Run,
        /// What is left of the descendants.
        members: Members,
    },
    /// The kernel has taken a signal, or refused it: answers [`Effect::Signal`](crate::Effect::Signal).
    Signalled {
        /// The process, and by it its child.
        run: Run,
        /// The request that it was sent for, if for one.
        call: Option<Call>,
        /// Whether it was delivered.
        outcome: SignalOutcome,
    },
    /// The broker itself is told to stop.
    ShutdownAsked {
        /// What told the broker to stop.
        cause: ShutdownCause,
    },
    /// Answers `ReadLog`: the request was answered.
    LogRead {
        /// The request that was answered.
        call: Call,
        /// Whether it was answered with the text.
        outcome: LogOutcome,
    },
    /// A process has ended that is watched by a `Watch`, or has ended before it could be.
    AnchorEnded {
        /// The process that has ended, as [`Effect::Watch`](crate::Effect::Watch) has named it.
        anchor: Anchor,
    },
    /// A signal has come that is meant for the main command.
    PassOn {
        /// The signal that came.
        signal: Signal,
    },
    /// The broker is told to let another program take over.
    UpgradeAsked,
    /// The other program has said whether it can take over: answers [`Effect::CheckUpgrade`](crate::Effect::CheckUpgrade).
    UpgradeChecked {
        /// Why it cannot be, if it cannot.
        result: Result<(), UpgradeFailure>,
    },
    /// Answers `HandOver`, when this program is still the broker.
    HandOverFailed {
        /// What failed, and how.
        failure: UpgradeFailure,
    },
    /// Answers `Sweep`: how many processes that descend from the broker could not be ended.
    Swept {
        /// How many could not be ended.
        left: u32,
    },
    /// The clock has reached `next_deadline`.
    Due,
}

/// What a decision about a request needs from outside: names that were looked up, an id that is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// The id of the child that the request may create: never used before, and later than all others.
    pub child: ChildId,
    /// The accounts that a `create` names, as the system knows them.
    pub accounts: Result<Accounts, AccountsFailure>,
    /// The process that a `create` came from, looked into after the request was read.
    pub caller: Result<Caller, CallerUnknown>,
    /// The process that a `create` names for its child to live as long.
    pub anchor: AnchorFound,
}

/// What is left of a child's descendants when its main process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Members {
    /// No process that descends from it is left.
    Nothing,
    /// Some, and none of its process group.
    Outside,
    /// Some of its process group, whatever else there is.
    Group,
}

/// Why a record could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailure {
    /// What the storage said, with what was attempted.
    pub message: String,
}

/// How a request for a child's output was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutcome {
    /// With the text; what is followed comes from now on.
    Text,
    /// With an error; nothing is followed.
    Error,
}

/// Why no other program can take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeFailure {
    /// What was attempted, on what, and what to do.
    pub message: String,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignalOutcome {
    /// At least one process got it.
    Delivered,
    /// There is no such process any more.
    Gone,
    /// The kernel does not let the broker signal it.
    Refused,
}

/// What told the broker to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// SIGTERM, SIGINT or SIGHUP; one more of the former two, a second or more after the first, ends all that is left
    /// at once.
    Signal {
        /// Its name is for the log only: SIGHUP does not hurry a shutdown that is under way.
        hurries: bool,
    },
    /// Something inside, with its own bound on time.
    Limited {
        /// How long it may take.
        timeout: Duration,
    },
}
