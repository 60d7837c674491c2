//! What the broker tells without being asked again: events, and what a child writes.
//!
//! Each subscription has a connection of its own. A program that takes its time holds up no other call, the
//! broker counts what it misses, and dropping the subscription ends it.

use std::sync::Arc;

use procbroker_protocol::binary::{ServerMessage, encode_request};
use procbroker_protocol::event::{Event, Notification};
use procbroker_protocol::request::{EventsParams, LogStream, LogsParams, Method};
use procbroker_protocol::response::Logs;
use procbroker_protocol::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::broker::Broker;
use crate::dial::Wire;
use crate::error::Error;
use crate::link::message;
use crate::retry::unexpected;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 16 << 10;
/// How many connections a subscription may see lost before it is answered.
const ATTEMPTS_MAX: u32 = 5;
/// The id of the one request of such a connection.
const REQUEST_ID: u64 = 1;

/// A connection that carries one subscription.
#[derive(Debug)]
struct Feed {
    wire: Wire,
    chunk: Vec<u8>,
}

impl Feed {
    /// Connects and subscribes; returns the answer too. A connection that is lost meanwhile is made again.
    async fn open(broker: &Broker, request: &Request) -> Result<(Self, Response), Error> {
        let mut attempts = 1;
        loop {
            match Self::try_open(broker, request).await {
                Err(Error::ConnectionLost { .. }) if attempts < ATTEMPTS_MAX => attempts += 1,
                opened_or_failed => return opened_or_failed,
            }
        }
    }

    async fn try_open(broker: &Broker, request: &Request) -> Result<(Self, Response), Error> {
        let mut feed = Self { wire: broker.own_wire().await?, chunk: vec![0; READ_BYTES] };
        let mut frame = Vec::new();
        encode_request(REQUEST_ID, request, &mut frame)?;
        let lost = || Error::ConnectionLost { method: request.method() };
        feed.wire.stream.write_all(&frame).await.map_err(|_| lost())?;
        match feed.next().await?.ok_or_else(lost)? {
            ServerMessage::Answer { id: REQUEST_ID, result } => Ok((feed, result?)),
            ServerMessage::Answer { .. } | ServerMessage::Notification(_) => {
                Err(Error::Protocol { detail: format!("it did not answer {} first", request.method()) })
            }
        }
    }

    /// The next message; none when the connection has ended. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Option<ServerMessage>, Error> {
        loop {
            if let Some(framed) = self.wire.frames.next_message() {
                return message(framed).map(Some).map_err(|detail| Error::Protocol { detail });
            }
            match self.wire.stream.read(&mut self.chunk).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => self.wire.frames.push(self.chunk.get(..count).unwrap_or_default()),
            }
        }
    }

    /// The next notification; none when the connection has ended.
    async fn next_notification(&mut self) -> Result<Option<Notification>, Error> {
        match self.next().await? {
            Some(ServerMessage::Notification(notification)) => Ok(Some(notification)),
            Some(ServerMessage::Answer { id, .. }) => {
                Err(Error::Protocol { detail: format!("it answered request {id}, which was not made") })
            }
            None => Ok(None),
        }
    }
}

/// Something that a subscriber to events is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Something happened.
    Event(Arc<Event>),
    /// Events were missed: this program read too slowly, or they are older than what the broker keeps.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The broker was started anew and counts its events from the beginning. What happened meanwhile is
    /// not told; a list shows how things are.
    Restarted,
}

/// A subscription to events. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    broker: Broker,
    params: EventsParams,
    feed: Option<Feed>,
    next: u64,
    subscription: u64,
}

impl Events {
    pub(crate) async fn open(broker: Broker, params: EventsParams) -> Result<Self, Error> {
        let mut events = Self { broker, params, feed: None, next: 0, subscription: 0 };
        let next = events.subscribe(events.params.since).await?;
        // Of the kept events that were asked for, none has been seen yet.
        events.next = events.params.since.map_or(next, |since| since.min(next));
        Ok(events)
    }

    /// Subscribes, and returns the number of the broker's next event.
    async fn subscribe(&mut self, since: Option<u64>) -> Result<u64, Error> {
        let request = Request::Events(EventsParams { since, ..self.params.clone() });
        let (feed, response) = Feed::open(&self.broker, &request).await?;
        let Response::Subscribed(subscribed) = response else {
            return Err(unexpected(Method::Events, &response));
        };
        self.feed = Some(feed);
        self.subscription = subscribed.subscription;
        Ok(subscribed.next)
    }

    /// The sequence number of the first event that was not returned by [`next`](Self::next) yet, as far
    /// as is known.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// The broker's number of the subscription, which changes when the connection is made again.
    #[must_use]
    pub fn subscription(&self) -> u64 {
        self.subscription
    }

    /// The next thing that happens. When the connection is lost, it is made again, and events go on where
    /// they were. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the broker cannot be reached again; a later call tries once more.
    pub async fn next(&mut self) -> Result<Happening, Error> {
        loop {
            let Some(feed) = &mut self.feed else {
                if let Some(restarted) = self.resume().await? {
                    return Ok(restarted);
                }
                continue;
            };
            match feed.next_notification().await? {
                None => self.feed = None,
                Some(Notification::Event { event, .. }) => {
                    self.next = event.seq.saturating_add(1);
                    return Ok(Happening::Event(event));
                }
                Some(Notification::Lagged { missed, .. }) => {
                    self.next = self.next.saturating_add(missed);
                    return Ok(Happening::Lagged { missed });
                }
                Some(Notification::Log { .. }) => {
                    return Err(Error::Protocol {
                        detail: "it sent a log to a subscriber to events".to_owned(),
                    });
                }
            }
        }
    }

    /// Subscribes again after a loss, from the first event that was not seen.
    async fn resume(&mut self) -> Result<Option<Happening>, Error> {
        let wanted = self.next;
        let next = self.subscribe(Some(wanted)).await?;
        if next >= wanted {
            return Ok(None);
        }
        // A broker that has yet to reach the wanted number has begun to count anew.
        self.feed = None;
        self.next = 0;
        self.subscribe(Some(0)).await?;
        Ok(Some(Happening::Restarted))
    }
}

/// Something that a reader of a log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChunk {
    /// The child wrote something.
    Text {
        /// Where it wrote.
        stream: LogStream,
        /// What it wrote; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// Parts were missed: this program read too slowly.
    Lagged {
        /// How many parts.
        missed: u64,
    },
}

/// What a child wrote, and goes on to write. Dropping it ends the subscription.
#[derive(Debug)]
pub struct LogFollow {
    feed: Feed,
    first: Logs,
    ended: bool,
}

impl LogFollow {
    pub(crate) async fn open(broker: &Broker, params: LogsParams) -> Result<Self, Error> {
        let request = Request::Logs(LogsParams { follow: true, ..params });
        let (feed, response) = Feed::open(broker, &request).await?;
        let Response::Logs(first) = response else { return Err(unexpected(Method::Logs, &response)) };
        let ended = first.subscription.is_none();
        Ok(Self { feed, first, ended })
    }

    /// What the child had written when this began.
    #[must_use]
    pub fn first(&self) -> &Logs {
        &self.first
    }

    /// What it writes next; none when it has ended and all is shown. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`] when the connection ended first.
    pub async fn next(&mut self) -> Result<Option<LogChunk>, Error> {
        while !self.ended {
            let lost = Error::ConnectionLost { method: Method::Logs };
            match self.feed.next_notification().await?.ok_or(lost)? {
                Notification::Log { stream, text, ended, .. } => {
                    self.ended = ended;
                    if !text.is_empty() {
                        return Ok(Some(LogChunk::Text { stream, text }));
                    }
                }
                Notification::Lagged { missed, .. } => return Ok(Some(LogChunk::Lagged { missed })),
                Notification::Event { .. } => {
                    let detail = "it sent an event to a reader of a log".to_owned();
                    return Err(Error::Protocol { detail });
                }
            }
        }
        Ok(None)
    }
}
