//! How connections begin, and how they do not.

use std::error::Error as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use procbroker_client::protocol::ErrorKind;
use procbroker_client::protocol::json_lines;
use procbroker_client::protocol::status::ProtocolRange;
use procbroker_client::protocol::version::{PROTOCOL, answer_offer};
use procbroker_client::{Broker, Error, Select};
use tokio::io::AsyncWriteExt;
use tokio::join;

use crate::fake::{Fake, Peer, failure, none, nowhere};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_missing_socket_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = nowhere(folder.path());
    let error = Broker::at(&path).await.unwrap_err();
    assert!(matches!(&error, Error::NotThere { socket, .. } if *socket == path), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "no broker is there at {0}; start one with 'procbroker serve --socket {0}', or name its socket in PROCBROKER_SOCKET",
            path.display()
        )
    );
    assert!(error.source().is_some());
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_no_broker() {
    let folder = Fake::new();
    let path = folder.socket();
    let left_behind = tempfile::tempdir().unwrap();
    let stale = left_behind.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(path.exists() && stale.exists());
    assert!(matches!(Broker::at(stale).await, Err(Error::NotThere { .. })));
}

#[tokio::test]
async fn what_is_no_socket_is_said_to_be_none_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (path, what) in [(folder.path(), "a folder"), (&file, "a file")] {
        let error = Broker::builder().socket(path).wait_for_broker().connect().await.unwrap_err();
        assert!(matches!(&error, Error::NoSocket { socket, .. } if socket == path), "{error:?}");
        let expected = format!("no broker can be at {}: there is {what}, and no socket; ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_an_error() {
    let error = Broker::at("/tmp/".to_owned() + &"x".repeat(200)).await.unwrap_err();
    assert!(matches!(error, Error::SocketPathTooLong { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broker_that_is_started_meanwhile_is_waited_for() {
    let folder = Fake::new().stop();
    let builder = Broker::builder().socket(folder.path().join("s")).wait_for_broker();
    let (broker, _peer) = join!(builder.connect(), async {
        let fake = Fake::again(folder);
        (fake.accept().await, fake)
    });
    broker.unwrap();
}

#[tokio::test]
async fn a_refusal_in_place_of_the_handshake_is_told() {
    let fake = Fake::new();
    let (broker, ()) = join!(Broker::at(fake.socket()), async {
        let mut line = Vec::new();
        json_lines::encode_answer(None, &failure(ErrorKind::PermissionDenied), &mut line);
        fake.accept_raw().await.write_all(&line).await.unwrap();
    });
    let error = broker.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(error.kind(), Some(&ErrorKind::PermissionDenied));
    assert!(error.to_string().ends_with("refused the connection: the test says so"), "{error}");
}

#[tokio::test]
async fn a_broker_of_another_time_is_told() {
    let fake = Fake::new();
    let (broker, ()) = join!(Broker::at(fake.socket()), async {
        let theirs = ProtocolRange { lowest: 8, highest: 9 };
        let (reply, _) = answer_offer(theirs, PROTOCOL);
        fake.accept_raw().await.write_all(&reply).await.unwrap();
    });
    let error = broker.unwrap_err();
    assert!(matches!(&error, Error::Version { theirs, .. } if theirs.lowest == 8), "{error:?}");
    assert!(error.to_string().contains("versions 8 to 9, and this program 1 to 1"), "{error}");
}

#[tokio::test]
async fn another_server_is_no_broker() {
    let fake = Fake::new();
    let (broker, ()) = join!(Broker::at(fake.socket()), async {
        fake.accept_raw().await.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
    });
    assert!(matches!(broker.unwrap_err(), Error::Handshake { .. }));
}

#[tokio::test]
async fn a_broker_that_accepts_and_never_answers_is_given_up() {
    let fake = Fake::new();
    let builder = Broker::builder().socket(fake.socket()).connect_timeout(SHORT);
    let (broker, _open) = join!(builder.connect(), fake.accept_raw());
    let error = broker.unwrap_err();
    assert!(matches!(error, Error::Timeout { after: SHORT, .. }), "{error:?}");
    assert!(error.to_string().starts_with("connecting to the broker at "), "{error}");
}

#[tokio::test]
async fn callers_that_wait_for_one_connection_are_not_kept_longer_than_one_alone() {
    let fake = Fake::new();
    let broker = Broker::builder().socket(fake.socket()).connect_timeout(SHORT).lazy();
    let live = Select::live();
    let (a, b, _open) = join!(broker.list(&live), broker.list(&live), fake.accept_raw());
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_before_the_answer_is_tried_again() {
    let fake = Fake::new();
    let (broker, _peer) = join!(Broker::at(fake.socket()), async {
        drop(fake.accept_raw().await);
        fake.accept().await
    });
    broker.unwrap();
}

#[tokio::test]
async fn an_answer_in_pieces_is_read() {
    let fake = Fake::new();
    let (broker, _stream) = join!(Broker::at(fake.socket()), async {
        let mut stream = fake.accept_raw().await;
        for byte in answer_offer(PROTOCOL, PROTOCOL).0 {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream
    });
    broker.unwrap();
}

#[tokio::test]
async fn a_full_queue_of_connections_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    // The smallest queue holds one connection.
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();

    let builder = Broker::builder().socket(&path);
    let connecting = builder.connect();
    tokio::pin!(connecting);
    // One turn: the first attempt finds the queue full.
    tokio::select! {
        biased;
        early = &mut connecting => panic!("{early:?}"),
        () = std::future::ready(()) => {}
    }
    let (broker, mut peer) = join!(connecting, async {
        listener.accept().await.unwrap();
        Peer::shake_hands(listener.accept().await.unwrap().0).await
    });
    let broker = broker.unwrap();
    let live = Select::live();
    let (list, _) = join!(broker.list(&live), peer.answer_next(none()));
    assert!(list.unwrap().is_empty());
}

#[tokio::test]
async fn the_longest_timeouts_are_taken() {
    let fake = Fake::new();
    let builder =
        Broker::builder().socket(fake.socket()).connect_timeout(Duration::MAX).call_timeout(Duration::MAX);
    let (broker, mut peer) = join!(builder.connect(), fake.accept());
    let (broker, live) = (broker.unwrap(), Select::live());
    let (list, _) = join!(broker.list(&live), peer.answer_next(none()));
    assert!(list.unwrap().is_empty());
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let fake = tempfile::tempdir().unwrap();
    let mut connecting = Box::pin(Broker::at(fake.path().join("s")));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(outcome) = connecting.as_mut().poll(&mut context) else {
        panic!("it waits for what is not there")
    };
    assert!(matches!(outcome, Err(Error::NoRuntime)), "{outcome:?}");
}
