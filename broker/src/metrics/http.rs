//! The smallest HTTP that Prometheus can fetch metrics by: one request a connection, within bounds of size, time and number.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::inbox::{self, NOBODY};
use crate::limits::{
    ACCEPT_PAUSE, METRICS_HEADERS_MAX, METRICS_PATIENCE, METRICS_READERS_MAX, METRICS_REQUEST_BYTES_MAX,
};
use crate::messages::Fact;

/// Where metrics are served.
const PATH: &str = "/metrics";

/// How long a client that was answered may take to close its side, before the connection is reset.
const LINGER: Duration = Duration::from_millis(500);

/// So many readers make room for others before those that are there have their moment: fewer than there are at a time.
const EVICTED_AT_A_TIME: usize = METRICS_READERS_MAX / 2;

/// How long that moment is.
const EVICTION_PAUSE: Duration = Duration::from_millis(1);

/// An address that metrics cannot be served at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it is neither a port, such as 9464, nor an address with one, such as 127.0.0.1:9464")]
pub struct MetricsAddressError;

/// Takes a port, which is one of this machine's own address, or an address with a port.
///
/// # Errors
/// When it is neither.
pub fn address(text: &str) -> Result<SocketAddr, MetricsAddressError> {
    let own = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    text.parse().map(own).or_else(|_| text.parse()).map_err(|_| MetricsAddressError)
}

/// Gives a listening socket to the event loop.
///
/// # Errors
/// When that does not take it.
pub fn listener(socket: TcpListener) -> std::io::Result<Listener> {
    socket.set_nonblocking(true)?;
    Listener::from_std(socket)
}

/// Answers those who ask, a few at a time, until the task is dropped. Nobody knows who connects here: so whoever has not been
/// answered for longest makes room for the next, and those who say nothing keep nobody out who asks at once.
pub async fn serve(listener: Listener, facts: inbox::Sender<Fact>) {
    let mut readers: VecDeque<AbortHandle> = VecDeque::new();
    let mut evicted = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                readers.retain(|reader| !reader.is_finished());
                if readers.len() >= METRICS_READERS_MAX
                    && let Some(oldest) = readers.pop_front()
                {
                    oldest.abort();
                    evicted += 1;
                }
                if evicted == EVICTED_AT_A_TIME {
                    // Who was let in has a moment to ask, and be answered, before those behind it are; and a flood takes a small
                    // part of the loop's time. The kernel tells no event for that.
                    evicted = 0;
                    tokio::time::sleep(EVICTION_PAUSE).await;
                }
                let facts = facts.of(NOBODY);
                // Whoever is slower than that, or has gone, gets no answer.
                let answered = async move { timeout(METRICS_PATIENCE, answer(stream, &facts)).await };
                readers.push_back(tokio::spawn(answered).abort_handle());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take in a reader of metrics; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, facts: &inbox::Sender<Fact>) -> std::io::Result<()> {
    let reply = match asked(&mut stream).await? {
        Asked::Metrics { body } => match measured(facts).await {
            Some(text) => reply("200 OK", &text, body),
            None => reply("503 Service Unavailable", "the broker is stopping\n", body),
        },
        Asked::Elsewhere => reply("404 Not Found", "metrics are at /metrics\n", Body::Wanted),
        Asked::Otherwise => reply("405 Method Not Allowed", "use GET\n", Body::Wanted),
        Asked::Nonsense => reply("400 Bad Request", "this is not HTTP/1\n", Body::Wanted),
        Asked::TooMuch => {
            reply("431 Request Header Fields Too Large", "the request is too long\n", Body::Wanted)
        }
    };
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await?;
    // What was sent is lost by a reset, which comes when something is left unread (RFC 9112, 9.6).
    let mut rest = [0; 512];
    let read_on = async {
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    timeout(LINGER, read_on).await.unwrap_or(Ok(()))
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// The metrics, or what their headers would be.
    Metrics {
        /// Whether they are to be sent.
        body: Body,
    },
    /// Something that is not there.
    Elsewhere,
    /// Something else than to be shown it.
    Otherwise,
    /// Nothing that can be read.
    Nonsense,
    /// More than is read.
    TooMuch,
}

/// Whether an answer has more than headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Wanted,
    NotWanted,
}

/// Reads a request up to the end of its headers.
async fn asked(stream: &mut TcpStream) -> std::io::Result<Asked> {
    let mut head = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        let length = stream.read(&mut chunk).await?;
        head.extend_from_slice(chunk.get(..length).unwrap_or_default());
        match read(&head) {
            Some(asked) => return Ok(asked),
            None if length == 0 => return Ok(Asked::Nonsense),
            None if head.len() > METRICS_REQUEST_BYTES_MAX => return Ok(Asked::TooMuch),
            None => {}
        }
    }
}

/// What a request says, once its headers are complete.
fn read(head: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; METRICS_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => None,
        Err(httparse::Error::TooManyHeaders) => Some(Asked::TooMuch),
        Err(_) => Some(Asked::Nonsense),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.map(|path| path.split_once('?').map_or(path, |(path, _)| path));
            Some(match (request.method, path) {
                (Some("GET"), Some(PATH)) => Asked::Metrics { body: Body::Wanted },
                (Some("HEAD"), Some(PATH)) => Asked::Metrics { body: Body::NotWanted },
                (Some("GET" | "HEAD"), _) => Asked::Elsewhere,
                _ => Asked::Otherwise,
            })
        }
    }
}

/// Asks the driver. None when it works no more.
async fn measured(facts: &inbox::Sender<Fact>) -> Option<String> {
    let (answer, text) = oneshot::channel();
    facts.send(Fact::Measure { answer }).await.ok()?;
    text.await.ok()
}

fn reply(status: &str, text: &str, body: Body) -> String {
    let length = text.len();
    let body = match body {
        Body::Wanted => text,
        Body::NotWanted => "",
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_machine_only() {
        assert_eq!(address("9464").unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(address("0.0.0.0:9464").unwrap().to_string(), "0.0.0.0:9464");
        assert_eq!(address("[::1]:9464").unwrap().to_string(), "[::1]:9464");
        for text in ["", "localhost", "127.0.0.1", ":9464", "65536", "-1"] {
            assert_eq!(address(text), Err(MetricsAddressError), "{text}");
        }
    }

    #[test]
    fn only_a_whole_request_for_the_metrics_gets_them() {
        let cases: [(&[u8], Option<Asked>); 9] = [
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(Asked::Metrics { body: Body::Wanted })),
            (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", Some(Asked::Metrics { body: Body::Wanted })),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", Some(Asked::Metrics { body: Body::NotWanted })),
            (b"GET / HTTP/1.1\r\n\r\n", Some(Asked::Elsewhere)),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Some(Asked::Otherwise)),
            (b"\x16\x03\x01\x02", Some(Asked::Nonsense)),
            (b"{\"jsonrpc\": 1}\r\n", Some(Asked::Nonsense)),
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n", None),
            (b"", None),
        ];
        for (head, expected) in cases {
            assert_eq!(read(head), expected, "{}", head.escape_ascii());
        }
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(METRICS_HEADERS_MAX + 1));
        assert_eq!(read(many.as_bytes()), Some(Asked::TooMuch));
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let whole = reply("200 OK", "äb\n", Body::Wanted);
        assert!(whole.contains("Content-Length: 4\r\n") && whole.ends_with("\r\n\r\näb\n"), "{whole}");
        let head = reply("200 OK", "äb\n", Body::NotWanted);
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
}
