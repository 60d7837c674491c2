//! What the broker tells without being asked again: events, and what a child writes.
//!
//! Each subscription has a connection of its own. A program that takes its time holds up no other call, the
//! broker counts what it misses, and dropping the subscription ends it.

use std::sync::Arc;

use procbroker_protocol::binary::{ServerMessage, encode_request};
use procbroker_protocol::event::{Event, Notification};
use procbroker_protocol::request::{EventsParams, LogStream, LogsParams, Method, NoParams};
use procbroker_protocol::response::{Logs, Subscribed};
use procbroker_protocol::{Request, Response, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::broker::Broker;
use crate::dial::Wire;
use crate::error::Error;
use crate::link::message;
use crate::retry::unexpected;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 16 << 10;
/// How many connections a subscription may see lost before it is answered.
const ATTEMPTS_MAX: u32 = 5;

/// A connection that carries one subscription.
#[derive(Debug)]
struct Feed {
    wire: Wire,
    chunk: Vec<u8>,
    /// The id of the last request.
    last_id: u64,
}

impl Feed {
    async fn connect(broker: &Broker) -> Result<Self, Error> {
        Ok(Self { wire: broker.own_wire().await?, chunk: vec![0; READ_BYTES], last_id: 0 })
    }

    /// Makes a request, before there is a subscription.
    async fn ask(&mut self, request: &Request) -> Result<Response, Error> {
        self.last_id += 1;
        let mut frame = Vec::new();
        encode_request(self.last_id, request, &mut frame)?;
        let lost = || Error::ConnectionLost { method: request.method() };
        self.wire.stream.write_all(&frame).await.map_err(|_| lost())?;
        match self.next().await?.ok_or_else(lost)? {
            ServerMessage::Answer { id, result } if id == self.last_id => Ok(result?),
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

/// The connections that a subscription has seen lost before it was answered.
#[derive(Debug, Default)]
struct Losses(u32);

impl Losses {
    /// Whether the subscription is to be made over another connection.
    fn excuse(&mut self, error: &Error) -> bool {
        self.0 += 1;
        matches!(error, Error::ConnectionLost { .. }) && self.0 < ATTEMPTS_MAX
    }
}

/// Something that a subscriber to events is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Something happened, to a child or to the broker itself.
    Event(Arc<Event>),
    /// Events were missed: this program read too slowly, or they are older than what the broker keeps.
    Lagged {
        /// How many events were missed.
        missed: u64,
    },
    /// The broker was started anew, and counts its events from the beginning; an upgrade goes on with the numbers. All that
    /// it still has of these follow. What happened before, and was not told yet, is lost; a list shows how
    /// things are.
    Restarted,
}

/// Where a subscription to events begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    /// At this number, or at whatever happens next.
    At(Option<u64>),
    /// At the first event of this instance that was not seen yet. Its numbers mean nothing to another one, which may
    /// have counted beyond them already: there it is the beginning.
    Resume { instance: Uuid, next: u64 },
}

impl Begin {
    /// The first number that is wanted of this instance.
    fn since(self, present: Uuid) -> Option<u64> {
        match self {
            Self::At(since) => since,
            Self::Resume { instance, next } if instance == present => Some(next),
            Self::Resume { .. } => Some(0),
        }
    }
}

/// A subscription that the broker has confirmed.
#[derive(Debug)]
struct Subscription {
    feed: Feed,
    number: u64,
    /// The instance of the broker that began to count.
    instance: Uuid,
    /// The first event that it was not asked for, and has not counted to yet.
    next: u64,
}

impl Subscription {
    /// Subscribes. A connection that is lost meanwhile is made again.
    async fn open(broker: &Broker, params: &EventsParams, begin: Begin) -> Result<Self, Error> {
        let mut losses = Losses::default();
        loop {
            match Self::try_open(broker, params, begin).await {
                Err(error) if losses.excuse(&error) => {}
                opened_or_failed => return opened_or_failed,
            }
        }
    }

    /// Which instance began to count is asked over the same connection, which never leads to two of them.
    async fn try_open(broker: &Broker, params: &EventsParams, begin: Begin) -> Result<Self, Error> {
        let mut feed = Feed::connect(broker).await?;
        let instance = match feed.ask(&Request::Status(NoParams {})).await? {
            Response::Status(status) => status.events_instance,
            other => return Err(unexpected(Method::Status, &other)),
        };
        let request = Request::Events(EventsParams { since: begin.since(instance), ..params.clone() });
        match feed.ask(&request).await? {
            Response::Subscribed(Subscribed { subscription, next }) => {
                Ok(Self { feed, number: subscription, instance, next })
            }
            other => Err(unexpected(Method::Events, &other)),
        }
    }
}

/// A subscription to events. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    broker: Broker,
    params: EventsParams,
    feed: Option<Feed>,
    subscription: u64,
    /// The instance of the broker that began to count to `next`.
    instance: Uuid,
    next: u64,
}

impl Events {
    pub(crate) async fn open(broker: Broker, params: EventsParams) -> Result<Self, Error> {
        let begin = Begin::At(params.since);
        let Subscription { feed, number: subscription, instance, next } =
            Subscription::open(&broker, &params, begin).await?;
        // Of the kept events that were asked for, none has been seen yet.
        let next = params.since.map_or(next, |since| since.min(next));
        Ok(Self { broker, params, feed: Some(feed), subscription, instance, next })
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
    /// they were; those of a broker that was started anew, after [`Happening::Restarted`], where they begin. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// When the broker cannot be reached again; a later call tries once more.
    pub async fn next(&mut self) -> Result<Happening, Error> {
        loop {
            if let Some(happening) = self.next_until_lost().await? {
                return Ok(happening);
            }
            match self.resume().await? {
                Resumed::SameInstance => {}
                Resumed::OtherInstance => return Ok(Happening::Restarted),
            }
        }
    }

    /// The next thing that happens; none when the connection is lost, which is not made again: for who has been told that
    /// the broker is shutting down, and does not wait for the next one. [`next`](Self::next) goes on after that, too.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the broker sends something that makes no sense.
    pub async fn next_until_lost(&mut self) -> Result<Option<Happening>, Error> {
        let Some(feed) = &mut self.feed else { return Ok(None) };
        match feed.next_notification().await? {
            None => {
                self.feed = None;
                Ok(None)
            }
            Some(Notification::Event { event, .. }) => {
                self.next = event.seq.saturating_add(1);
                Ok(Some(Happening::Event(event)))
            }
            Some(Notification::Lagged { missed, .. }) => {
                self.next = self.next.saturating_add(missed);
                Ok(Some(Happening::Lagged { missed }))
            }
            Some(Notification::Log { .. }) => {
                Err(Error::Protocol { detail: "it sent a log to a subscriber to events".to_owned() })
            }
        }
    }

    /// Subscribes again after a loss, from the first event that was not seen. Nothing changes before it is done, so
    /// that a future that is dropped meanwhile takes no restart with it.
    async fn resume(&mut self) -> Result<Resumed, Error> {
        let begin = Begin::Resume { instance: self.instance, next: self.next };
        let resumed = Subscription::open(&self.broker, &self.params, begin).await?;
        self.feed = Some(resumed.feed);
        self.subscription = resumed.number;
        if resumed.instance == self.instance {
            return Ok(Resumed::SameInstance);
        }
        self.instance = resumed.instance;
        self.next = 0;
        Ok(Resumed::OtherInstance)
    }
}

/// Where a subscription goes on.
#[derive(Clone, Copy, Debug)]
enum Resumed {
    /// Behind what it has told, in the same start of the broker.
    SameInstance,
    /// At the beginning of another start of the broker.
    OtherInstance,
}

/// Something that a reader of a log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChunk {
    /// The child wrote something.
    Text {
        /// Which of its two streams it wrote to.
        stream: LogStream,
        /// What it wrote; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// Parts were missed: this program read too slowly.
    Lagged {
        /// How many parts were missed.
        missed: u64,
    },
}

/// What a child wrote, and goes on to write. Dropping it ends the subscription.
#[derive(Debug)]
pub struct LogFollow {
    broker: Broker,
    /// What is asked for when the connection has been lost.
    params: LogsParams,
    feed: Option<Feed>,
    first: Logs,
    ended: bool,
}

impl LogFollow {
    pub(crate) async fn open(broker: &Broker, params: LogsParams) -> Result<Self, Error> {
        let params = LogsParams { follow: true, ..params };
        let (feed, first) = Self::subscribe(broker, &params).await?;
        let ended = first.subscription.is_none();
        // The very child: its name may be another one's by then.
        let (target, position) = (Target::Id(first.id), Some(first.position));
        let params = LogsParams { target, tail: None, since: None, position, ..params };
        Ok(Self { broker: broker.clone(), params, feed: Some(feed), first, ended })
    }

    /// Subscribes. A connection that is lost meanwhile is made again.
    async fn subscribe(broker: &Broker, params: &LogsParams) -> Result<(Feed, Logs), Error> {
        let request = Request::Logs(params.clone());
        let mut losses = Losses::default();
        loop {
            match Self::try_subscribe(broker, &request).await {
                Err(error) if losses.excuse(&error) => {}
                opened_or_failed => return opened_or_failed,
            }
        }
    }

    async fn try_subscribe(broker: &Broker, request: &Request) -> Result<(Feed, Logs), Error> {
        let mut feed = Feed::connect(broker).await?;
        match feed.ask(request).await? {
            Response::Logs(first) => Ok((feed, first)),
            other => Err(unexpected(Method::Logs, &other)),
        }
    }

    /// Subscribes again after a loss, from where the text had come. Nothing changes before it is done.
    async fn resume(&mut self) -> Result<(), Error> {
        let (feed, next) = Self::subscribe(&self.broker, &self.params).await?;
        self.feed = Some(feed);
        self.ended = next.subscription.is_none();
        Ok(())
    }

    /// What the child had written when this began.
    #[must_use]
    pub fn first(&self) -> &Logs {
        &self.first
    }

    /// Where the stream goes on behind all that was returned so far, for [`LogsParams::position`] of a later subscription.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.params.position.unwrap_or(self.first.position)
    }

    /// What it writes next; none when it has ended and all is shown. When the connection is lost, it is made again, and the
    /// text goes on where it was, no byte twice and none missing, as far as it is still kept. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// When the broker cannot be reached again, or does not know the child any more; a later call tries once more.
    pub async fn next(&mut self) -> Result<Option<LogChunk>, Error> {
        while !self.ended {
            let Some(feed) = &mut self.feed else {
                self.resume().await?;
                continue;
            };
            match feed.next_notification().await? {
                None => self.feed = None,
                Some(Notification::Log { stream, text, ended, position, .. }) => {
                    self.ended = ended;
                    self.params.position = Some(position);
                    if !text.is_empty() {
                        return Ok(Some(LogChunk::Text { stream, text }));
                    }
                }
                Some(Notification::Lagged { missed, .. }) => return Ok(Some(LogChunk::Lagged { missed })),
                Some(Notification::Event { .. }) => {
                    let detail = "it sent an event to a reader of a log".to_owned();
                    return Err(Error::Protocol { detail });
                }
            }
        }
        Ok(None)
    }
}
