//! What can go wrong between a program and the broker.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procbroker_protocol::binary::EncodeError;
use procbroker_protocol::duration::DurationError;
use procbroker_protocol::name::NameError;
use procbroker_protocol::request::Method;
use procbroker_protocol::signal::SignalError;
use procbroker_protocol::socket_path::PATH_BYTES_MAX;
use procbroker_protocol::status::ProtocolRange;
use procbroker_protocol::version::HandshakeError;
use procbroker_protocol::{Error as BrokerError, ErrorKind};

use crate::route::default_socket;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker answered that it could not be done.
    #[error(transparent)]
    Broker(Box<BrokerError>),
    /// Nobody listens at the socket.
    #[error(
        "no broker is there at {}; start one with {}, or name its socket in PROCBROKER_SOCKET",
        socket.display(), start_at(socket)
    )]
    NotThere {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is there is no socket: no broker can be there, nor be started there.
    #[error(
        "no broker can be at {}: there is {found}, and no socket; name the broker's socket, in PROCBROKER_SOCKET for instance",
        socket.display()
    )]
    NoSocket {
        /// The path that was named.
        socket: PathBuf,
        /// What is there instead of a socket.
        found: &'static str,
    },
    /// The path has more bytes than the address of a socket can hold: no broker can be there.
    #[error(
        "no broker can be at {}: the path has {} bytes, and that of a socket has at most {PATH_BYTES_MAX}; name a shorter \
         path, in PROCBROKER_SOCKET for instance",
        socket.display(), socket.as_os_str().len()
    )]
    SocketPathTooLong {
        /// The path that was named.
        socket: PathBuf,
    },
    /// The permissions of the socket, or of a folder on the way to it, keep this user out.
    #[error(
        "this user may not use the socket {}; the broker's --socket-mode and --socket-group open it to others, and its \
         --allow-user or --allow-group lets them in",
        socket.display()
    )]
    NoAccess {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The broker does not take connections of this user, or not at present.
    #[error("the broker at {} refused the connection: {error}", socket.display())]
    Refused {
        /// The broker's socket.
        socket: PathBuf,
        /// What the broker said.
        error: Box<BrokerError>,
    },
    /// This library and the broker have no version of the protocol in common.
    #[error(
        "the broker at {} speaks the protocol's versions {} to {}, and this program {} to {}; update the older one",
        socket.display(), theirs.lowest, theirs.highest, ours.lowest, ours.highest
    )]
    Version {
        /// The broker's socket.
        socket: PathBuf,
        /// What this library speaks.
        ours: ProtocolRange,
        /// What the broker speaks.
        theirs: ProtocolRange,
    },
    /// What listens there is no broker.
    #[error("what listens at {} does not answer as a broker does", socket.display())]
    Handshake {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with its answer.
        source: HandshakeError,
    },
    /// The socket could not be connected to, for a reason other than the above.
    #[error("could not connect to the broker at {}", socket.display())]
    Socket {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection ended before the answer came, and the request is not one that may be sent twice, or
    /// the connection was lost again and again. **Whether the broker carried it out is not known.** After
    /// a `shutdown` this is ambiguous: the broker may have gone as it was asked to.
    #[error(
        "the connection to the broker was lost during {method}; whether it was carried out is not known, \
         look before you repeat it"
    )]
    ConnectionLost {
        /// What was asked for.
        method: Method,
    },
    /// It took longer than this program wanted to wait. The broker may still carry the request out. (The
    /// broker's own `timeout` is [`Error::Broker`].)
    #[error("{waiting_for} took longer than {after:?}")]
    Timeout {
        /// What was waited for.
        waiting_for: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The broker sent something that makes no sense; the connection was closed.
    #[error("the broker's answer makes no sense: {detail}")]
    Protocol {
        /// What is wrong with it.
        detail: String,
    },
    /// The request does not fit into a message.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// What the program gave is not what a request can carry; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no tokio runtime to run in; use the `blocking` module in programs without one.
    #[error("a broker is called from within a tokio runtime; use the blocking module where there is none")]
    NoRuntime,
    /// The runtime of the `blocking` module could not be made.
    #[error("could not set up the event loop of the blocking client")]
    Runtime(#[source] io::Error),
}

/// What a program gave that no request can carry.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Not a name of a child.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// Not a length of time that the broker takes.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// Text in another encoding; the protocol carries UTF-8.
    #[error("{what} is not UTF-8: {value:?}")]
    NotUtf8 {
        /// What it was given as.
        what: &'static str,
        /// The text as it was given.
        value: OsString,
    },
    /// A relative working directory could not be made absolute.
    #[error("the working directory {} could not be made absolute: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A selection by no label, where it would mean every child.
    #[error("no label was given; to mean every child, say Target::All")]
    EmptyLabels,
    /// A request whose answers go on and on, given to `call`.
    #[error("{method} goes on until it is dropped; use Broker::{instead} for it")]
    Subscription {
        /// The method of the request.
        method: Method,
        /// The method of [`Broker`](crate::Broker) that takes it.
        instead: &'static str,
    },
}

/// The command that starts a broker where this client looks for it: one that listens at the usual place needs no telling.
fn start_at(socket: &Path) -> String {
    if socket == default_socket() {
        return "'procbroker serve'".to_owned();
    }
    format!("'procbroker serve --socket {}'", socket.display())
}

impl Error {
    /// What kind of refusal or failure the broker reported, if it was the broker that did.
    #[must_use]
    pub fn kind(&self) -> Option<&ErrorKind> {
        match self {
            Self::Broker(error) | Self::Refused { error, .. } => Some(&error.kind),
            Self::NotThere { .. }
            | Self::NoSocket { .. }
            | Self::SocketPathTooLong { .. }
            | Self::NoAccess { .. }
            | Self::Version { .. }
            | Self::Handshake { .. }
            | Self::Socket { .. }
            | Self::ConnectionLost { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::Encode(_)
            | Self::Invalid(_)
            | Self::NoRuntime
            | Self::Runtime(_) => None,
        }
    }

    /// Whether a live child holds the name already.
    #[must_use]
    pub fn is_name_taken(&self) -> bool {
        matches!(self.kind(), Some(ErrorKind::NameTaken(_)))
    }

    /// Whether there is no such child, or none that this user may see.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == Some(&ErrorKind::NotFound)
    }

    /// Whether time ran out, here or at the broker.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. }) || matches!(self.kind(), Some(ErrorKind::Timeout(_)))
    }
}

impl From<BrokerError> for Error {
    fn from(error: BrokerError) -> Self {
        Self::Broker(Box::new(error))
    }
}
