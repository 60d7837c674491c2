//! What the driver and the tasks and threads around it say to each other.

use procbroker_core::{Call, ConnectionId, Input, Peer, UpgradeFailure};
use procbroker_protocol::{Error, Notification, Response};
use tokio::sync::{mpsc, oneshot};

use crate::feed::Fed;
use crate::flagged_accounts::FlaggedAccounts;
use crate::os::journal::Position;
use crate::transit::Load;

/// Something for the core to know, and what the edge needs to act on the answer.
#[derive(Debug)]
pub enum Fact {
    /// An input as it is.
    Input(Input),
    /// A client has connected.
    Connected {
        /// The number that its connection has from the listener.
        connection: ConnectionId,
        /// Who it is, as the kernel tells (`SO_PEERCRED`, unix(7)).
        who: Who,
        /// Where its answers go.
        outbox: Outbox,
    },
    /// Somebody wants the metrics.
    Measure {
        /// Where their text goes.
        answer: oneshot::Sender<String>,
    },
}

/// Who has connected, as far as the broker's user namespace has a number for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user, as the kernel tells it.
    Known(Peer),
    /// One who has no number in the broker's user namespace.
    Unmapped,
}

/// What threads of the edge report.
#[derive(Debug)]
pub enum FromThread {
    /// A walk over the processes of children has shown something, or the journal has written it.
    Input(Input),
    /// What children use has been found out, and added to the answer.
    Measured {
        /// The request that is answered.
        call: Call,
        /// The answer, with what its children use.
        answer: Box<Response>,
    },
    /// Everything that was submitted to the journal up to here is written, or could not be: somebody waits for it.
    Attempted(Position),
    /// Whether another program can take over, with the accounts that it needs.
    UpgradeChecked(Result<FlaggedAccounts, UpgradeFailure>),
}

/// One message from the driver to a connection.
#[derive(Debug)]
pub enum Outgoing {
    /// The client may talk; always the first message, unless it is [`Outgoing::Refused`].
    Admitted,
    /// The client is not served.
    Refused(Error),
    /// The answer to a request.
    Answer {
        /// Which one, by the connection's own number.
        number: u64,
        /// What came of it.
        result: Result<Response, Error>,
        /// The room that it has, if it is large by itself.
        load: Option<Load>,
    },
    /// Where the events come from that the client has subscribed to.
    Feed(mpsc::Receiver<Fed>),
    /// Where what children wrote comes from, at the client's own pace.
    Paced(mpsc::Receiver<Paced>),
}

/// The driver's end of a connection.
pub type Outbox = mpsc::Sender<Outgoing>;

/// What a connection is sent no faster than its client reads.
#[derive(Debug)]
pub enum Paced {
    /// The answer to a request.
    Answer {
        /// Which one, by the connection's own number.
        number: u64,
        /// What came of it.
        result: Result<Response, Error>,
        /// The room that it has, if it is large.
        load: Option<Load>,
    },
    /// A piece of what is followed.
    Notification {
        /// The event or the piece of output, as the client gets it.
        notification: Notification,
        /// The room that it has, if it holds any output.
        load: Option<Load>,
    },
}
