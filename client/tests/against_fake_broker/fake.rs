//! A socket and connections at which a test plays the broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use procbroker_client::protocol::binary::{decode_request, encode_answer, encode_notification};
use procbroker_client::protocol::child::{Containment, Owner};
use procbroker_client::protocol::frame::{Framed, Frames};
use procbroker_client::protocol::limits::REQUEST_BYTES_MAX;
use procbroker_client::protocol::response::{Created, Got, Subscribed};
use procbroker_client::protocol::status::{ChildCounts, Facilities, Limits, ProtocolRange, Status};
use procbroker_client::protocol::version::{OFFER_BYTES, PROTOCOL, answer_offer};
use procbroker_client::protocol::{Error, ErrorKind, Fields, Notification, Timestamp};
use procbroker_client::{
    Broker, ChildId, ChildInfo, ChildState, Lifetime, Outcome, Request, Response, Target,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

/// A listening socket in a folder of its own.
pub(crate) struct Fake {
    folder: TempDir,
    listener: UnixListener,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        Self { folder, listener }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::builder().socket(self.socket()).lazy()
    }

    /// The next connection, before a byte was read.
    pub(crate) async fn accept_raw(&self) -> UnixStream {
        self.listener.accept().await.unwrap().0
    }

    /// The next connection, after its handshake.
    pub(crate) async fn accept(&self) -> Peer {
        Peer::shake_hands(self.accept_raw().await).await
    }

    /// Stops listening, and takes the socket away.
    pub(crate) fn stop(self) -> TempDir {
        std::fs::remove_file(self.socket()).unwrap();
        self.folder
    }

    /// Listens again in the same place.
    pub(crate) fn again(folder: TempDir) -> Self {
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        Self { folder, listener }
    }
}

/// The broker's side of a connection.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    frames: Frames,
}

impl Peer {
    pub(crate) async fn shake_hands(mut stream: UnixStream) -> Self {
        let mut offer = [0; OFFER_BYTES];
        stream.read_exact(&mut offer).await.unwrap();
        stream.write_all(&answer_offer(PROTOCOL, PROTOCOL).0).await.unwrap();
        Self { stream, frames: Frames::new(REQUEST_BYTES_MAX) }
    }

    /// The next request; none when the client has closed the connection.
    pub(crate) async fn try_next(&mut self) -> Option<(u64, Request)> {
        loop {
            if let Some(Framed::Message(bytes)) = self.frames.next_message() {
                return Some(decode_request(bytes).unwrap());
            }
            let mut chunk = vec![0; 64 << 10];
            let count = self.stream.read(&mut chunk).await.unwrap();
            if count == 0 {
                return None;
            }
            self.frames.push(&chunk[..count]);
        }
    }

    pub(crate) async fn next(&mut self) -> (u64, Request) {
        self.try_next().await.expect("a request")
    }

    pub(crate) async fn answer(&mut self, id: u64, result: Result<Response, Error>) {
        let mut out = Vec::new();
        encode_answer(Some(id), &result, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// Answers the next request, which is returned.
    pub(crate) async fn answer_next(&mut self, result: Result<Response, Error>) -> Request {
        let (id, request) = self.next().await;
        self.answer(id, result).await;
        request
    }

    pub(crate) async fn tell(&mut self, notification: Notification) {
        let mut out = Vec::new();
        encode_notification(&notification, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// Answers a question for the status as this instance of the broker.
    pub(crate) async fn answer_status(&mut self, instance: Uuid) {
        let request = self.answer_next(Ok(Response::Status(Box::new(status(instance))))).await;
        assert!(matches!(request, Request::Status(_)), "{request:?} instead of status");
    }

    /// Answers a subscriber to events as this instance, whose next event has this number; returns the first number that
    /// was asked for.
    pub(crate) async fn subscribe(&mut self, instance: Uuid, next: u64) -> Option<u64> {
        self.answer_status(instance).await;
        match self.answer_next(Ok(Response::Subscribed(Subscribed { subscription: 3, next }))).await {
            Request::Events(params) => params.since,
            other => panic!("{other:?} instead of events"),
        }
    }

    /// Answers each `get` with a child of the name asked for, until the client closes the connection.
    pub(crate) async fn answer_gets(mut self) {
        while let Some((id, request)) = self.try_next().await {
            self.answer(id, got_of(got(&request))).await;
        }
    }
}

/// The answer to a `get` that shows this child.
pub(crate) fn got_of(child: impl Into<Arc<ChildInfo>>) -> Result<Response, Error> {
    Ok(Response::Got(Got { child: child.into(), spec: None }))
}

/// The child that a `get` by name asks for.
pub(crate) fn got(request: &Request) -> ChildInfo {
    match request {
        Request::Get(params) => match &params.target {
            Target::Name(name) => child(name.as_str()),
            other => panic!("a get by {other}"),
        },
        other => panic!("{other:?} instead of a get"),
    }
}

/// An idle broker.
pub(crate) fn status(instance: Uuid) -> Status {
    Status {
        version: "1.2.3".to_owned(),
        protocol: ProtocolRange { lowest: PROTOCOL.lowest, highest: PROTOCOL.highest },
        pid: 7,
        instance,
        events_instance: instance,
        started_at: SystemTime::now().into(),
        shutting_down: false,
        failed_upgrade: None,
        children: ChildCounts::default(),
        connections: 1,
        facilities: Facilities::default(),
        limits: Limits::default(),
    }
}

/// A child that lives.
pub(crate) fn child(name: &str) -> ChildInfo {
    ChildInfo {
        id: ChildId::from_uuid(Uuid::now_v7()),
        name: Some(name.parse().unwrap()),
        labels: [].into(),
        command: vec!["sleep".into(), "60".into()],
        pid: Some(7),
        owner: Owner { uid: 0, gid: 0 },
        state: ChildState::Running,
        created_at: SystemTime::now().into(),
        started_at: None,
        restarts: 0,
        lifetime: Lifetime::Broker,
        stop_order: 0,
        exit: None,
        cleanup: None,
        containment: Containment::Subreaper,
        status_text: None,
        usage: None,
        shortened: Fields::default(),
    }
}

/// A child that was created at this time.
pub(crate) fn child_of(name: &str, created_at: Timestamp) -> Arc<ChildInfo> {
    Arc::new(ChildInfo { created_at, ..child(name) })
}

pub(crate) fn created(name: &str) -> Result<Response, Error> {
    Ok(Response::Created(Created { outcome: Outcome::Created, child: Arc::new(child(name)) }))
}

pub(crate) fn none() -> Result<Response, Error> {
    Ok(Response::Children(Vec::new()))
}

pub(crate) fn failure(kind: ErrorKind) -> Result<Response, Error> {
    Err(Error::new(kind, "the test says so"))
}

/// A path at which nobody listens.
pub(crate) fn nowhere(folder: &Path) -> PathBuf {
    folder.join("nobody-listens-here")
}
