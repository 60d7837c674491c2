//! Connects to the broker's socket and shakes hands.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use interprocess::local_socket::{ConnectOptions, GenericFilePath, ToFsName};
use interprocess::os::unix::uds_local_socket::tokio::Stream;
use procbroker_protocol::frame::Frames;
use procbroker_protocol::limits::ANSWER_BYTES_MAX;
use procbroker_protocol::socket_path::PATH_BYTES_MAX;
use procbroker_protocol::version::{PROTOCOL, Reply, decode_reply, encode_offer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Error;
use crate::route::{Patience, Route};

/// The pause before the second attempt; it doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// More than any reply to an offer but a refusal, which comes in several parts then.
const REPLY_CHUNK_BYTES: usize = 1024;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: UnixStream,
    /// With what came after the reply already in it.
    pub(crate) frames: Frames,
}

/// Why one attempt failed.
enum Failure {
    /// Nobody listens: there is no socket, or no process behind it.
    NotThere(io::Error),
    /// A broker in the midst of a start, a restart or a rush: its queue is full, or it closed the
    /// connection before it answered.
    Busy(io::Error),
    /// Another attempt would fail alike.
    Final(Error),
}

/// Connects, again and again where that may help, until the deadline.
pub(crate) async fn dial(route: &Route, patience: Patience, deadline: Instant) -> Result<Wire, Error> {
    // Such a path is cut, or refused, on its way to the system, and either looks as if nobody was there.
    if route.socket.as_os_str().len() > PATH_BYTES_MAX {
        return Err(Error::SocketPathTooLong { socket: route.socket.clone() });
    }
    let mut backoff = BACKOFF_FIRST;
    loop {
        let attempt = timeout_at(deadline, attempt(&route.socket)).await.map_err(|_| Error::Timeout {
            waiting_for: format!("connecting to the broker at {}", route.socket.display()),
            after: route.connect_timeout,
        })?;
        let source = match attempt {
            Ok(wire) => return Ok(wire),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NotThere(source)) if patience == Patience::AtOnce => {
                return Err(Error::NotThere { socket: route.socket.clone(), source });
            }
            Err(Failure::NotThere(source) | Failure::Busy(source)) => source,
        };
        if Instant::now() + backoff >= deadline {
            return Err(Error::NotThere { socket: route.socket.clone(), source });
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn attempt(socket: &Path) -> Result<Wire, Failure> {
    let failed = |source| sort(socket, source);
    let name = socket.to_fs_name::<GenericFilePath>().map_err(failed)?;
    let stream = ConnectOptions::new().name(name).connect_tokio_as::<Stream>().await.map_err(failed)?;
    shake_hands(stream.into(), socket).await
}

async fn shake_hands(mut stream: UnixStream, socket: &Path) -> Result<Wire, Failure> {
    let failed = |source| sort(socket, source);
    match stream.write_all(&encode_offer(PROTOCOL)).await {
        // A broker that refuses a connection does not wait for what the client says. The refusal is there
        // to read.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
        written => written.map_err(failed)?,
    }
    let mut bytes = Vec::new();
    let (reply, length) = loop {
        let read = decode_reply(&bytes, PROTOCOL)
            .map_err(|source| Failure::Final(Error::Handshake { socket: socket.to_owned(), source }))?;
        if let Some(read) = read {
            break read;
        }
        let mut chunk = [0; REPLY_CHUNK_BYTES];
        let count = stream.read(&mut chunk).await.map_err(failed)?;
        if count == 0 {
            let text = "the connection was closed before it was answered";
            return Err(Failure::Busy(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    };
    let socket = socket.to_owned();
    match reply {
        Reply::Chosen(_) => {
            let mut frames = Frames::new(ANSWER_BYTES_MAX);
            frames.push(bytes.get(length..).unwrap_or_default());
            Ok(Wire { stream, frames })
        }
        Reply::NoneInCommon(theirs) => Err(Failure::Final(Error::Version { socket, ours: PROTOCOL, theirs })),
        Reply::Refused(error) => Err(Failure::Final(Error::Refused { socket, error })),
    }
}

/// What an error of the socket means.
fn sort(path: &Path, source: io::Error) -> Failure {
    let socket = || path.to_owned();
    match source.kind() {
        // connect(2) refuses for want of a listener, and for a file that is no socket.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match other_than_socket(path) {
            Some(found) => Failure::Final(Error::NoSocket { socket: socket(), found }),
            None => Failure::NotThere(source),
        },
        io::ErrorKind::PermissionDenied => Failure::Final(Error::NoAccess { socket: socket(), source }),
        // A nonblocking connect(2) to a listener whose queue is full gives EAGAIN and leaves the stream
        // unconnected (unix(7)), which shows at its first use: ENOTCONN.
        io::ErrorKind::WouldBlock
        | io::ErrorKind::NotConnected
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Failure::Busy(source),
        // The kinds are open; whatever else there is will not go away by itself.
        _ => Failure::Final(Error::Socket { socket: socket(), source }),
    }
}

/// What is at a path that is no socket; nothing where there is one, or nothing at all.
fn other_than_socket(path: &Path) -> Option<&'static str> {
    let kind = std::fs::metadata(path).ok()?.file_type();
    (!kind.is_socket()).then_some(if kind.is_dir() { "a folder" } else { "a file" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_refused_with_its_length() {
        for (bytes, fits) in
            [(PATH_BYTES_MAX, true), (PATH_BYTES_MAX + 1, false), (PATH_BYTES_MAX + 2, false)]
        {
            let socket: std::path::PathBuf = format!("/{}", "x".repeat(bytes - 1)).into();
            let connect_timeout = Duration::from_secs(60);
            let route = Route { socket, connect_timeout, patience: Patience::AtOnce };
            let error = dial(&route, Patience::AtOnce, Instant::now() + connect_timeout).await.unwrap_err();
            if fits {
                assert!(matches!(error, Error::NotThere { .. }), "{error}");
            } else {
                let expected = format!("the path has {bytes} bytes, and that of a socket has at most 107");
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
    }

    #[test]
    fn errors_of_the_socket_are_told_apart() {
        let sorted = |kind: io::ErrorKind| sort(Path::new("/s"), kind.into());
        assert!(matches!(sorted(io::ErrorKind::NotFound), Failure::NotThere(_)));
        assert!(matches!(sorted(io::ErrorKind::ConnectionRefused), Failure::NotThere(_)));
        assert!(matches!(sorted(io::ErrorKind::NotConnected), Failure::Busy(_)));
        assert!(matches!(sorted(io::ErrorKind::BrokenPipe), Failure::Busy(_)));
        assert!(matches!(sorted(io::ErrorKind::InvalidInput), Failure::Final(Error::Socket { .. })));
        let Failure::Final(error @ Error::NoAccess { .. }) = sorted(io::ErrorKind::PermissionDenied) else {
            panic!("no access is final")
        };
        for flag in ["--socket-mode", "--allow-user", "--allow-group"] {
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
