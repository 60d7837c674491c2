//! One client's connection: bytes in, facts for the driver out, and its answers back.
//!
//! A connection waits for nobody but its own client, and nobody waits for it: what its client does not
//! read stays here, within bounds, and requests are not read while answers are not.

mod codec;
mod subscribed;
#[cfg(test)]
mod tests;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use nix::unistd::geteuid;
use procbroker_core::{
    Accounts, AccountsFailure, Call, Caller, ConnectionId, Fresh, GROUPS_MAX, Input, Login,
};
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::{ChildId, CreateParams, Error, ErrorKind, Method, Request, Response};
use tokio::io::Interest;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use crate::answer_size::{encoded_bytes, is_large};
use crate::blocking_pool::{BlockingPool, PoolError, unavailable};
use crate::feed::FeedReader;
use crate::inbox;
use crate::limits::{
    ANSWERS_BEFORE_READING, MESSAGE_BYTES_UNCOUNTED, READ_CHUNK_BYTES, REFUSAL_BYTES, REFUSAL_PATIENCE,
    ROOM_PATIENCE, WRITE_BYTES_BEFORE_READING,
};
use crate::messages::{Fact, Outgoing, Paced};
use crate::os::host::accounts;
use crate::os::host::caller::{Sight, Standpoint};
use crate::os::host::client_socket::{ClientSocket, Readiness};
use crate::os::process::anchor;
use crate::transit::{Load, Transit};
use crate::turns;
use codec::{Codec, Incoming, RequestId};
use unanswered::{Effort, Unanswered};

/// What a connection needs from its surroundings.
#[derive(Debug)]
pub struct Surroundings {
    /// Its own number.
    pub id: ConnectionId,
    /// Where its facts go.
    pub facts: inbox::Sender<Fact>,
    /// Where its answers come from.
    pub outbox: mpsc::Receiver<Outgoing>,
    /// The user at its other end.
    pub user: u32,
    /// The process at its other end, where it has a number here.
    pub pid: Option<u32>,
    /// What that process is compared with.
    pub standpoint: Standpoint,
    /// How that process was found before.
    pub sight: Sight,
    /// What programs are told of the user, once it was looked up.
    pub login: Option<Arc<Login>>,
    /// Does what may block.
    pub pool: BlockingPool,
    /// Counts what is on its way to clients.
    pub transit: Transit,
    /// How long a message may stay unfinished.
    pub partial_message_timeout: Duration,
    /// How long it may read nothing while others need the room.
    pub stalled_patience: Duration,
    /// Who may take time to be refused. All others are refused at once.
    pub refusals: Arc<Semaphore>,
}

/// A connection at work.
struct Connection {
    socket: ClientSocket,
    surroundings: Surroundings,
    codec: Codec,
    /// The ids that the client gave to its unanswered requests, by our own number of them.
    unanswered: BTreeMap<u64, Unanswered>,
    next_number: u64,
    /// The subscriptions of which more may come.
    subscriptions: BTreeSet<u64>,
    /// Events, once the client has subscribed to any.
    feed: Option<FeedReader>,
    /// What children wrote, once the client has asked for any of it.
    paced: Option<mpsc::Receiver<Paced>>,
    /// Encoded, and not yet written.
    unwritten: Vec<u8>,
    /// As many bytes.
    load: Load,
    /// What is kept of messages that are not complete, where that is much.
    arriving: Load,
    /// When many bytes have waited for too long, if others need the room.
    stalled_at: Option<Instant>,
    /// When the unfinished message has to be complete.
    partial_until: Option<Instant>,
    reading: Reading,
}

/// Whether more requests can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// More requests may come.
    Open,
    /// The client has closed its side, or may not say more; it still gets its answers.
    Over,
}

/// Why a connection is closed.
#[derive(Debug, PartialEq, Eq)]
enum Closing {
    /// All is said.
    Done,
    /// The client is gone.
    Gone,
}

/// Serves one connection to its end, and tells the driver of it.
pub async fn serve(stream: Stream, mut surroundings: Surroundings) {
    let socket = match watched(stream) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "cannot wait for what a client sends; closing"),
    };
    let (id, facts) = (surroundings.id, surroundings.facts.clone());
    let verdict = surroundings.outbox.recv().await;
    match verdict {
        Some(Outgoing::Admitted) => {
            let mut connection = Connection::new(socket, surroundings);
            if let Some(closing) = unless_it_panics(connection.run()).await {
                tracing::debug!(connection = id.0, ?closing, "connection closed");
            } else {
                tracing::error!(connection = id.0, "serving a client has panicked; its connection is closed");
            }
            // The driver outlives its connections, except at its own exit, when nobody needs to know.
            let _ = facts.send(Fact::Input(Input::Disconnected { connection: id })).await;
        }
        Some(Outgoing::Refused(error)) => {
            tracing::debug!(connection = id.0, %error, "connection refused");
            Connection::new(socket, surroundings).refuse(error).await;
        }
        Some(Outgoing::Answer { .. } | Outgoing::Feed(_) | Outgoing::Paced(_)) | None => {}
    }
}

/// Returns what a task comes to, or nothing where it panics: whoever waits for its end is told all the same.
async fn unless_it_panics<T>(task: impl Future<Output = T>) -> Option<T> {
    let mut task = pin!(task);
    poll_fn(|context| {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}

/// The client's socket, as it is waited for here.
fn watched(stream: Stream) -> io::Result<ClientSocket> {
    let Stream::UdSocket(stream) = stream;
    ClientSocket::new(OwnedFd::try_from(stream)?)
}

impl Connection {
    fn new(socket: ClientSocket, surroundings: Surroundings) -> Self {
        let [load, arriving] = [(); 2].map(|()| surroundings.transit.add(surroundings.user, 0));
        Self {
            load,
            arriving,
            stalled_at: None,
            socket,
            surroundings,
            codec: Codec::default(),
            unanswered: BTreeMap::new(),
            next_number: 1,
            subscriptions: BTreeSet::new(),
            feed: None,
            paced: None,
            unwritten: Vec::new(),
            partial_until: None,
            reading: Reading::Open,
        }
    }

    async fn run(&mut self) -> Closing {
        loop {
            while let Some(incoming) = self.next_incoming() {
                if self.take(incoming).await == Some(Closing::Gone) {
                    return Closing::Gone;
                }
                turns::pause_if_over().await;
            }
            let held_back = !self.may_read();
            self.collect_answers().await;
            if self.write().is_err() {
                return Closing::Gone;
            }
            if held_back && self.may_read() {
                // There is room again, and what the client has sent may be here entirely: no event tells.
                continue;
            }
            if self.reading == Reading::Over && !self.owes_anything() {
                return Closing::Done;
            }
            turns::pause_if_over().await;
            if let Some(closing) = self.wait().await {
                return closing;
            }
        }
    }

    /// Whether there is, or may come, something for the client to read.
    fn owes_anything(&self) -> bool {
        !self.unanswered.is_empty() || !self.unwritten.is_empty() || !self.subscriptions.is_empty()
    }

    /// The next message that the client has sent entirely, unless it has to read first.
    fn next_incoming(&mut self) -> Option<Incoming> {
        if !self.may_read() {
            return None;
        }
        let incoming = self.codec.next();
        if incoming.is_some() {
            self.partial_until = None;
        }
        incoming
    }

    /// Answers may wait for the record before they come, and then come all at once: each finds its place.
    fn may_read(&self) -> bool {
        let outbox = &self.surroundings.outbox;
        self.may_encode()
            && outbox.len() < ANSWERS_BEFORE_READING
            && self.unanswered.len() + ANSWERS_BEFORE_READING < outbox.max_capacity()
    }

    /// Whether more may wait to be written: of a user who has more on its way than its part, one answer at a time.
    fn may_encode(&self) -> bool {
        let Surroundings { transit, user, .. } = &self.surroundings;
        self.unwritten.is_empty()
            || self.unwritten.len() < WRITE_BYTES_BEFORE_READING && transit.has_room(*user, 0)
    }

    /// How much more of a message that is not complete may be kept. A little always may, so that others of its user's
    /// connections can go on.
    fn readable_bytes(&self) -> usize {
        let Surroundings { transit, user, .. } = &self.surroundings;
        if transit.has_room(*user, READ_CHUNK_BYTES as u64) || self.arriving.is_alone() {
            READ_CHUNK_BYTES
        } else if self.codec.kept() < MESSAGE_BYTES_UNCOUNTED {
            MESSAGE_BYTES_UNCOUNTED
        } else {
            0
        }
    }

    /// Whether what waits to be written takes room that others need: it is much, or its user has much on its way by many
    /// connections.
    fn takes_room(&self) -> bool {
        let Surroundings { transit, user, .. } = &self.surroundings;
        let is_much = self.unwritten.len() >= WRITE_BYTES_BEFORE_READING || transit.check(*user).is_err();
        is_much && transit.is_crowded()
    }

    /// Counts what is kept of messages that are not complete, where that is much.
    fn count_arriving(&mut self) {
        let bytes = self.codec.kept();
        self.arriving.resize(if bytes > MESSAGE_BYTES_UNCOUNTED { bytes } else { 0 });
    }

    /// Waits until there is something to do, and reads what there is to read.
    async fn wait(&mut self) -> Option<Closing> {
        self.count_arriving();
        let freed = self.surroundings.transit.clone();
        let freed = freed.freed();
        let is_crammed = self.readable_bytes() == 0;
        let mut interest = None;
        if self.reading == Reading::Open && self.may_read() && !is_crammed {
            interest = Some(Interest::READABLE);
        }
        if !self.unwritten.is_empty() {
            interest = Some(interest.map_or(Interest::WRITABLE, |interest| interest | Interest::WRITABLE));
        }
        if !self.codec.is_partial() || !self.may_read() {
            // What is not read for lack of room for answers is not late.
            self.partial_until = None;
        } else if self.partial_until.is_none() {
            self.partial_until = Some(Instant::now() + self.surroundings.partial_message_timeout);
        }
        if self.unwritten.is_empty() {
            self.stalled_at = None;
        } else if self.stalled_at.is_none() {
            self.stalled_at = Some(Instant::now() + self.surroundings.stalled_patience);
        }
        let (partial_until, stalled_at) = (self.partial_until, self.stalled_at);
        let writing = self.may_encode();
        tokio::select! {
            outgoing = self.surroundings.outbox.recv(), if writing => {
                let Some(outgoing) = outgoing else { return self.let_go().await };
                self.encode(outgoing).await;
            }
            notification = subscribed::next_event(&mut self.feed), if writing && self.feed.is_some() => {
                self.notify(&notification);
            }
            paced = subscribed::next_paced(&mut self.paced), if writing && self.paced.is_some() => {
                self.encode_paced(paced).await;
            }
            ready = self.socket.ready(interest) => match ready {
                Ok(Readiness::Readable) => return self.read(),
                Ok(Readiness::Writable) => {}
                Ok(Readiness::Gone) | Err(_) => return Some(Closing::Gone),
            },
            () = freed, if is_crammed => {}
            () = sleep_until(stalled_at), if stalled_at.is_some() => {
                self.stalled_at = None;
                if self.takes_room() {
                    tracing::warn!(connection = self.surroundings.id.0, "a client does not read its answers; closing");
                    return Some(Closing::Gone);
                }
            }
            () = sleep_until(partial_until), if partial_until.is_some() => {
                self.reading = Reading::Over;
                let Surroundings { transit, user, .. } = &self.surroundings;
                let error = if is_crammed { transit.refusal(*user, READ_CHUNK_BYTES as u64) } else { too_slow() };
                self.codec.abandon(error, &mut self.unwritten);
                self.partial_until = None;
            }
        }
        None
    }

    /// The driver has let go of this client: it is shutting down, or the client has read nothing.
    async fn let_go(&mut self) -> Option<Closing> {
        self.reading = Reading::Over;
        if self.finish_subscriptions().await.is_none() {
            return Some(Closing::Gone);
        }
        self.unanswered.clear();
        self.flush().await
    }

    /// Takes what the client has sent.
    fn read(&mut self) -> Option<Closing> {
        let most = self.readable_bytes();
        if most == 0 {
            // There was room for it just now.
            return None;
        }
        match self.codec.read_from(&self.socket, most) {
            Ok(0) => {
                self.reading = Reading::Over;
                self.codec.finish();
                None
            }
            Ok(length) => {
                if length < most {
                    // The socket is empty, and what comes now is a new event: there is no need to ask again.
                    self.socket.is_empty_now();
                }
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Closing::Gone),
        }
    }

    /// Hands a request to the driver, or answers what is none.
    async fn take(&mut self, incoming: Incoming) -> Option<Closing> {
        match incoming {
            Incoming::Request { id, request } => {
                let number = self.next_number;
                self.next_number += 1;
                let effort = Effort::of(&request);
                // One for output waits for its room where that is read.
                let is_read_later = request.method() == Method::Logs;
                if effort == Effort::Question
                    && !is_read_later
                    && let Err(error) = self.surroundings.transit.check(self.surroundings.user)
                {
                    codec::encode(&id, &Err(error), &mut self.unwritten);
                    return None;
                }
                self.unanswered.insert(number, Unanswered { id, effort });
                let call = Call { connection: self.surroundings.id, number };
                let fresh = match self.fresh(&request).await {
                    Ok(fresh) => fresh,
                    Err(error) => {
                        self.encode_answer(number, Err(unavailable(error)), None).await;
                        return None;
                    }
                };
                let input = Input::Called { call, request, fresh };
                self.surroundings.facts.send(Fact::Input(input)).await.err().map(|_| Closing::Gone)
            }
            Incoming::Refused { id, error } => {
                codec::encode(&id, &Err(error), &mut self.unwritten);
                None
            }
            Incoming::Bytes(bytes) => {
                self.unwritten.extend_from_slice(&bytes);
                None
            }
            Incoming::Fatal(bytes) => {
                self.unwritten.extend_from_slice(&bytes);
                self.reading = Reading::Over;
                None
            }
        }
    }

    /// What the decision about a request needs from outside: a new id, accounts and processes that are looked up.
    async fn fresh(&mut self, request: &Request) -> Result<Fresh, PoolError> {
        let Request::Create(params) = request else {
            let (accounts, caller) = (Ok(Accounts::default()), Ok(Caller::default()));
            let child = ChildId::from_uuid(Uuid::nil());
            return Ok(Fresh { child, accounts, caller, anchor: None });
        };
        let child = ChildId::from_uuid(Uuid::now_v7());
        let accounts = self.accounts(params).await?;
        let Surroundings { standpoint, sight, pid, login, .. } = &mut self.surroundings;
        let login = login.clone();
        let confinement = standpoint.confinement(self.socket.descriptor(), *pid, sight);
        let anchor = match params.lifetime {
            Lifetime::Pid(number) => Some(Box::new(anchor::find(number, self.socket.descriptor(), *pid))),
            Lifetime::Broker | Lifetime::Connection | Lifetime::Ttl(_) => None,
        };
        let caller = confinement.map(|confinement| Caller { login, confinement });
        Ok(Fresh { child, accounts, caller, anchor })
    }

    /// Looks up the accounts that a create names, and the caller's own if its child is told of it.
    async fn accounts(
        &mut self,
        params: &CreateParams,
    ) -> Result<Result<Accounts, AccountsFailure>, PoolError> {
        let Surroundings { pool, user, login, .. } = &mut self.surroundings;
        let user = *user;
        let needs_login = login.is_none() && user != 0 && params.user.is_none() && geteuid().is_root();
        if !needs_login && params.user.is_none() && params.groups.is_none() {
            return Ok(Ok(Accounts::default()));
        }
        if params.groups.as_ref().is_some_and(|groups| groups.len() > GROUPS_MAX) {
            // The core refuses it, whatever they are.
            return Ok(Ok(Accounts::default()));
        }
        // A look-up may ask a server (nsswitch.conf(5)), which nobody else has to wait for.
        let wanted = params.clone();
        let look_up = move || {
            let own = if needs_login { Some(Arc::new(accounts::login(user)?)) } else { None };
            Ok((own, accounts::look_up(&wanted)?))
        };
        let found = pool.run(user, look_up).await?;
        Ok(found.map(|(own, accounts)| {
            *login = own.or(login.take());
            accounts
        }))
    }

    /// Encodes the answers that are there, as long as the client keeps up.
    async fn collect_answers(&mut self) {
        while self.may_encode() && !turns::is_over() {
            let Ok(outgoing) = self.surroundings.outbox.try_recv() else { return self.collect_events() };
            self.encode(outgoing).await;
        }
    }

    async fn encode(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Admitted | Outgoing::Refused(_) => {}
            Outgoing::Answer { number, result, load } => self.encode_answer(number, result, load).await,
            Outgoing::Feed(feed) => self.feed = Some(feed),
            Outgoing::Paced(paced) => self.paced = Some(paced),
        }
    }

    /// Encodes an answer. A large one needs room: where there is none, a question is refused.
    async fn encode_answer(&mut self, number: u64, result: Result<Response, Error>, load: Option<Load>) {
        let Some(Unanswered { id, effort }) = self.unanswered.remove(&number) else { return };
        self.subscriptions.extend(subscribed::subscription(&result));
        if is_large(&result) {
            let Surroundings { pool, user, transit, .. } = &self.surroundings;
            let bytes = encoded_bytes(&result);
            let room = match transit.room(*user, bytes, ROOM_PATIENCE).await {
                Ok(room) => room,
                Err(_) if effort == Effort::Act => transit.add(*user, bytes),
                Err(error) => return codec::encode(&id, &Err(error), &mut self.unwritten),
            };
            let spare = id.clone();
            let work = move || {
                // A buffer that grows is copied, and each of its pages cleared, again and again.
                let mut bytes = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
                codec::encode(&id, &result, &mut bytes);
                bytes
            };
            match pool.run(*user, work).await {
                Ok(bytes) if self.unwritten.is_empty() => self.unwritten = bytes,
                Ok(bytes) => self.unwritten.extend_from_slice(&bytes),
                Err(error) => codec::encode(&spare, &Err(unavailable(error)), &mut self.unwritten),
            }
            self.count_unwritten();
            drop(room);
        } else {
            codec::encode(&id, &result, &mut self.unwritten);
        }
        drop(load);
    }

    /// Counts what waits to be written.
    fn count_unwritten(&mut self) {
        self.load.resize(self.unwritten.len());
    }

    /// Writes as much as the client takes now.
    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = self.unwritten.get(written..).filter(|rest| !rest.is_empty()) {
            match self.socket.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unwritten.drain(..written);
        if written > 0 {
            self.stalled_at = None;
        }
        self.count_unwritten();
        if self.unwritten.is_empty() {
            self.socket.all_is_written()?;
        }
        if self.unwritten.is_empty() && self.unwritten.capacity() > WRITE_BYTES_BEFORE_READING {
            self.unwritten = Vec::new();
        }
        Ok(())
    }

    /// Writes everything that is left, for as long as the client reads.
    async fn flush(&mut self) -> Option<Closing> {
        while !self.unwritten.is_empty() {
            if self.write().is_err() {
                return Some(Closing::Gone);
            }
            if !self.unwritten.is_empty() && self.socket.writable().await.is_err() {
                return Some(Closing::Gone);
            }
        }
        Some(Closing::Done)
    }

    /// Answers the first request with a refusal, in the client's encoding, and closes.
    async fn refuse(&mut self, error: Error) {
        // A client that sends nothing is told all the same, and a crowd of them holds nobody's place.
        let patient = Arc::clone(&self.surroundings.refusals).try_acquire_owned().ok();
        let patience = patient.as_ref().map_or(Duration::ZERO, |_| REFUSAL_PATIENCE);
        let id = tokio::time::timeout(patience, self.first_id()).await.ok().flatten();
        self.unwritten.clear();
        codec::refusal(id, error, &mut self.unwritten);
        // One that does not even take its refusal gets none.
        let _ = tokio::time::timeout(patience, self.flush()).await;
    }

    /// The id of the first request that comes, if it has one that can be answered in JSON.
    async fn first_id(&mut self) -> Option<RequestId> {
        let mut seen = 0;
        while seen < REFUSAL_BYTES {
            match self.codec.next() {
                Some(Incoming::Request { id, .. } | Incoming::Refused { id, .. }) => return Some(id),
                // A binary client is refused in the place of the answer to its offer: it is prepared for a
                // line of JSON there.
                Some(Incoming::Bytes(_) | Incoming::Fatal(_)) => return None,
                None => {}
            }
            match self.codec.read_from(&self.socket, REFUSAL_BYTES) {
                Ok(0) => return None,
                Ok(length) => seen += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.readable().await.ok()?;
                }
                Err(_) => return None,
            }
        }
        None
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The error for a message that did not end in time.
fn too_slow() -> Error {
    Error::new(
        ErrorKind::Timeout(None),
        "a message was begun and not finished in time; send messages whole, each ended by its line's end",
    )
}
