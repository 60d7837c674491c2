//! One client's connection: bytes in, facts for the driver out, and its answers back.
//!
//! A connection waits for nobody but its own client, and nobody waits for it: what its client does not
//! read stays here, within bounds, and requests are not read while answers are not.

mod answers;
mod buffer;
mod codec;
mod refusal;
mod requests;
mod subscribed;
#[cfg(test)]
mod tests;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use procbroker_core::{ConnectionId, Input, Login, UnreadEvents};
use procbroker_protocol::{Error, ErrorKind};
use tokio::io::Interest;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::blocking_pool::BlockingPool;
use crate::feed::Fed;
use crate::inbox;
use crate::limits::{ANSWERS_BEFORE_READING, READ_CHUNK_BYTES};
use crate::messages::{Fact, Outgoing, Paced};
use crate::os::host::caller::{Baseline, StatusCache};
use crate::os::host::client_socket::{ClientSocket, Readiness};
use crate::os::host::exposed_socket::ExposedSocket;
use crate::transit::{Load, Transit};
use crate::turns;
use codec::Codec;
use unanswered::Unanswered;

/// What a connection needs beside its socket.
#[derive(Debug)]
pub struct ConnectionContext {
    /// The number by which the core knows the connection.
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
    pub baseline: Baseline,
    /// How that process was found before.
    pub status_cache: StatusCache,
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
    context: ConnectionContext,
    codec: Codec,
    /// The ids that the client gave to its unanswered requests, by our own number of them.
    unanswered: BTreeMap<u64, Unanswered>,
    next_number: u64,
    /// The subscriptions of which more may come.
    subscriptions: BTreeSet<u64>,
    /// Events, once the client has subscribed to any.
    feed: Option<mpsc::Receiver<Fed>>,
    /// The events that it had not read when the broker exits.
    last_events: Option<Box<UnreadEvents>>,
    /// What children wrote, once the client has asked for any of it.
    paced: Option<mpsc::Receiver<Paced>>,
    /// Encoded, and not yet written.
    unwritten: Vec<u8>,
    /// The room that these take, counted as on their way to the client.
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
    Done,
    /// The client is gone.
    Gone,
}

/// Serves one connection to its end, and tells the driver of it.
pub async fn serve(socket: ExposedSocket, mut context: ConnectionContext) {
    let socket = match ClientSocket::new(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "cannot wait for what a client sends; closing"),
    };
    let (id, facts) = (context.id, context.facts.clone());
    let verdict = context.outbox.recv().await;
    match verdict {
        Some(Outgoing::Admitted) => {
            let mut connection = Connection::new(socket, context);
            // By its place: what is handed on itself has room in both tasks.
            if let Some(closing) = unless_it_panics(Box::pin(connection.run())).await {
                tracing::debug!(connection = id.0, ?closing, "connection closed");
            } else {
                tracing::error!(connection = id.0, "serving a client has panicked; its connection is closed");
            }
            // The driver outlives its connections, except at its own exit, when nobody needs to know.
            let _ = facts.send(Fact::Input(Input::Disconnected { connection: id })).await;
        }
        Some(Outgoing::Refused(error)) => {
            tracing::debug!(connection = id.0, %error, "connection refused");
            Connection::new(socket, context).refuse(error).await;
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

impl Connection {
    fn new(socket: ClientSocket, context: ConnectionContext) -> Self {
        let (transit, user) = (&context.transit, context.user);
        let (load, arriving) = (transit.share(user), transit.add(user, 0));
        Self {
            load,
            arriving,
            stalled_at: None,
            socket,
            context,
            codec: Codec::default(),
            unanswered: BTreeMap::new(),
            next_number: 1,
            subscriptions: BTreeSet::new(),
            feed: None,
            last_events: None,
            paced: None,
            unwritten: Vec::new(),
            partial_until: None,
            reading: Reading::Open,
        }
    }

    async fn run(&mut self) -> Closing {
        loop {
            self.lend_buffer();
            while let Some(incoming) = self.next_incoming() {
                self.take(incoming).await;
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

    /// Has a buffer with room for what is encoded next, as far as there is one.
    fn lend_buffer(&mut self) {
        if self.unwritten.capacity() == 0 {
            self.unwritten = buffer::lend();
        }
    }

    /// Whether there is, or may come, something for the client to read.
    fn owes_anything(&self) -> bool {
        !self.unanswered.is_empty() || !self.unwritten.is_empty() || !self.subscriptions.is_empty()
    }

    /// Answers may wait for the record before they come, and then come all at once: each finds its place.
    fn may_read(&self) -> bool {
        let outbox = &self.context.outbox;
        self.may_encode()
            && outbox.len() < ANSWERS_BEFORE_READING
            && self.unanswered.len() + ANSWERS_BEFORE_READING < outbox.max_capacity()
    }

    /// Waits until there is something to do, and reads what there is to read.
    async fn wait(&mut self) -> Option<Closing> {
        self.count_arriving();
        let freed = self.context.transit.clone();
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
            self.partial_until = Some(Instant::now() + self.context.partial_message_timeout);
        }
        if self.unwritten.is_empty() {
            self.stalled_at = None;
        } else if self.stalled_at.is_none() {
            self.stalled_at = Some(Instant::now() + self.context.stalled_patience);
        }
        let (partial_until, stalled_at) = (self.partial_until, self.stalled_at);
        let writing = self.may_encode();
        tokio::select! {
            outgoing = self.context.outbox.recv(), if writing => {
                let Some(outgoing) = outgoing else { return self.let_go().await };
                self.encode(outgoing).await;
            }
            fed = next_fed(&mut self.feed), if writing && self.feed.is_some() => self.take_fed(fed).await,
            paced = next_paced(&mut self.paced), if writing && self.paced.is_some() => {
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
                    tracing::warn!(connection = self.context.id.0, "a client does not read its answers; closing");
                    return Some(Closing::Gone);
                }
            }
            () = sleep_until(partial_until), if partial_until.is_some() => {
                self.reading = Reading::Over;
                let ConnectionContext { transit, user, .. } = &self.context;
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

/// What is said about events next; nothing any more once the driver has gone.
async fn next_fed(feed: &mut Option<mpsc::Receiver<Fed>>) -> Fed {
    if let Some(feed) = feed
        && let Some(fed) = feed.recv().await
    {
        return fed;
    }
    std::future::pending().await
}

async fn next_paced(paced: &mut Option<mpsc::Receiver<Paced>>) -> Option<Paced> {
    match paced {
        Some(paced) => paced.recv().await,
        None => std::future::pending().await,
    }
}
