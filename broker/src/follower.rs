//! Sends clients the output of children: once, or piece by piece to its end.
//!
//! The file is the only buffer. Each request has a task of its own, which reads no further than its client does and so
//! holds up nobody else, and sleeps while the child is silent. The disk is waited for on other threads.

mod last_words;
mod reader;
mod source;

use std::collections::BTreeMap;

use procbroker_core::{Call, Follow, Input, LastWords, LogExcerpt, LogOutcome};
use procbroker_protocol::event::Notification;
use procbroker_protocol::request::LogStream;
use procbroker_protocol::response::Logs;
use procbroker_protocol::{ChildId, Error, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::blocking_pool::BlockingPool;
use crate::inbox;
use crate::limits::{
    LINE_BYTES, LOG_PIECE_BYTES, LOG_PIECE_REST, LOG_TAIL_PATIENCE, LOG_TEXT_BYTES_MAX, ROOM_PATIENCE,
};
use crate::messages::{Fact, Paced};
use crate::os::logs::output::KeptStream;
use crate::os::logs::stamps::Stamps;
use crate::os::logs::{Continuation, Excerpt, ExcerptRange, LogHandle, StreamId};
use crate::transit::{Load, Transit};
use reader::OutputReader;
use source::{Seen, Source};

/// Everybody who is being sent output.
#[derive(Debug)]
pub struct Followers {
    logs: LogHandle,
    pool: BlockingPool,
    transit: Transit,
    facts: inbox::Sender<Fact>,
    /// Those who are to be told when a child has ended.
    waiting: BTreeMap<ChildId, Vec<oneshot::Sender<Ended>>>,
}

/// A child has ended, and nothing of it is left that could write.
#[derive(Clone, Copy, Debug)]
struct Ended;

/// A request for output.
#[derive(Debug)]
pub struct LogQuery {
    /// The request, by its connection and number.
    pub call: Call,
    /// The child whose output is read.
    pub child: ChildId,
    /// Which part of it, and what is to follow.
    pub excerpt: LogExcerpt,
    /// The user who asks, in whose turn it is read.
    pub user: u32,
    /// Where the pieces go: the connection that has asked.
    pub to: mpsc::Sender<Paced>,
}

impl Followers {
    /// Nobody yet. That a request was answered is told as a fact.
    #[must_use]
    pub fn new(logs: &LogHandle, pool: BlockingPool, transit: Transit, facts: inbox::Sender<Fact>) -> Self {
        Self { logs: logs.clone(), pool, transit, facts, waiting: BTreeMap::new() }
    }

    /// Answers a request as soon as its client has room for it, tells the core, and sends what follows. Of a client that
    /// has gone before there is nothing to tell. To be called in the event loop.
    pub fn serve(&mut self, query: LogQuery) {
        let ending = match query.excerpt.follow {
            Follow::No | Follow::Rest(_) => Ending::Past,
            Follow::UntilItEnds(_) => {
                let (tell, ended) = oneshot::channel();
                let waiting = self.waiting.entry(query.child).or_default();
                waiting.retain(|follower| !follower.is_closed());
                waiting.push(tell);
                Ending::ToCome(ended)
            }
        };
        let reader = OutputReader { pool: self.pool.clone(), user: query.user };
        let means = (self.facts.of(query.user), self.logs.clone(), self.transit.clone());
        tokio::spawn(serve(query, ending, means, reader));
    }

    /// Has the last of a child's output read, and the core told of it: nothing, where that takes too long. To be called in
    /// the event loop.
    pub fn read_tail(&self, call: Call, (child, kept_in): (ChildId, LastWords), user: u32) {
        let (logs, facts) = (self.logs.clone(), self.facts.of(user));
        let reader = OutputReader { pool: self.pool.clone(), user };
        tokio::spawn(async move {
            let tail = timeout(LOG_TAIL_PATIENCE, last_words::read(child, kept_in, &logs, &reader)).await;
            let tail = tail.unwrap_or_default();
            // A driver that has gone needs no report any more.
            let _ = facts.send(Fact::Input(Input::TailRead { call, tail })).await;
        });
    }

    /// A child has ended, and nothing of it is left that could write: its followers are sent the rest, and told that
    /// this is the end.
    pub fn child_ended(&mut self, child: ChildId) {
        for follower in self.waiting.remove(&child).unwrap_or_default() {
            // One that is gone needs to know nothing.
            let _ = follower.send(Ended);
        }
    }
}

/// Whether more can be written.
#[derive(Debug)]
enum Ending {
    /// Until this says that the child has ended.
    ToCome(oneshot::Receiver<Ended>),
    /// The child has ended.
    Past,
}

/// When a follower looks for more output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Now,
    WhenThereIsMore,
}

/// How a rest or a wait was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Go {
    /// There may be more to read.
    On,
    /// Nobody wants it any more.
    Home,
}

/// Answers a request, and sends what follows.
async fn serve(
    query: LogQuery,
    ending: Ending,
    (facts, logs, transit): (inbox::Sender<Fact>, LogHandle, Transit),
    reader: OutputReader,
) {
    let LogQuery {
        call,
        child,
        excerpt: LogExcerpt { stream, kept_in, tail, since, timestamps, position, follow },
        user: _,
        to,
    } = query;
    let subscription = match follow {
        Follow::No => None,
        Follow::UntilItEnds(subscription) | Follow::Rest(subscription) => Some(subscription.0),
    };
    // Nothing is read, and held, before it can be sent.
    let Ok(room) = to.reserve().await else { return };
    // A log thread that has gone goes with the broker.
    let Some(kept) = logs.kept(StreamId { child, stream: kept_in }).await else { return };
    let continuation = subscription.map_or(Continuation::Nothing, |_| Continuation::Follows);
    let wanted = ExcerptRange {
        tail,
        since,
        from: position,
        stamps: if timestamps { Stamps::LineBegins } else { Stamps::Unwanted },
        continuation,
        text_bytes_max: LOG_TEXT_BYTES_MAX,
    };
    let (excerpt, load) = match transit.room(reader.user, most_bytes(&kept, &wanted), ROOM_PATIENCE).await {
        Ok(load) => (reader.excerpt(kept.clone(), wanted).await, Some(load)),
        Err(error) => (Err(error), None),
    };
    let (next, stamps) =
        excerpt.as_ref().map_or_else(|_| Default::default(), |read| (read.next, read.stamps));
    let load = load.map(|mut load| {
        load.resize(excerpt.as_ref().map_or(0, |excerpt| COPIES * excerpt.text.len()));
        load
    });
    let result = answer(child, excerpt, subscription);
    let outcome = result.as_ref().map_or(LogOutcome::Error, |_| LogOutcome::Text);
    room.send(Paced::Answer { number: call.number, result, load });
    if facts.send(Fact::Input(Input::LogRead { call, outcome })).await.is_err() {
        // The driver has gone, and with it the broker.
        return;
    }
    drop(facts);
    if let (LogOutcome::Text, Some(subscription)) = (outcome, subscription) {
        let source = Source::new(kept, next, stamps);
        Follower { subscription, stream, to, ending, logs, reader, transit }.follow(source).await;
    }
}

/// An output that is answered with is there once as it is, and once more as it is sent.
const COPIES: usize = 2;

/// Returns how many bytes an excerpt of an output takes at most, as far as can be told before it is read.
fn most_bytes(kept: &KeptStream, wanted: &ExcerptRange) -> u64 {
    if wanted.from.is_some() {
        // A page, or nothing where it is followed.
        return COPIES as u64 * LOG_PIECE_BYTES as u64;
    }
    let all = kept.end().saturating_sub(kept.first_kept()).min(LOG_TEXT_BYTES_MAX as u64);
    // The lines of most outputs are shorter.
    let of_lines = wanted.tail.map_or(all, |lines| u64::from(lines) * LINE_BYTES);
    COPIES as u64 * all.min(of_lines)
}

fn answer(
    id: ChildId,
    excerpt: Result<Excerpt, Error>,
    subscription: Option<u64>,
) -> Result<Response, Error> {
    let Excerpt { text, truncated, dropped, next, stamps: _ } = excerpt?;
    Ok(Response::Logs(Logs { text, truncated, subscription, dropped, position: next, id }))
}

/// A client that is sent what a child writes.
struct Follower {
    subscription: u64,
    stream: LogStream,
    to: mpsc::Sender<Paced>,
    ending: Ending,
    logs: LogHandle,
    reader: OutputReader,
    transit: Transit,
}

/// A place for a piece on its way to the client.
struct Place {
    permit: mpsc::OwnedPermit<Paced>,
    /// The room that it takes.
    load: Load,
    /// How many bytes it may have.
    bytes: u64,
}

impl Follower {
    /// Sends everything from the source's position on, until the child has ended or the client is gone.
    async fn follow(mut self, mut source: Source) {
        let mut next = Look::Now;
        loop {
            // What is read after the end is known is all there is.
            let over = self.has_ended();
            let logs = self.logs.clone();
            let kept = match next {
                Look::Now => logs.kept(source.id()).await,
                Look::WhenThereIsMore => {
                    let mut more = None;
                    let sign = async { more = logs.more_than(source.kept()).await };
                    if self.wait(sign).await == Go::Home {
                        return;
                    }
                    match more {
                        Some(more) => Some(more),
                        None => logs.kept(source.id()).await,
                    }
                }
            };
            // A log thread that has gone goes with the broker.
            let Some(kept) = kept else { return };
            let mut place = None;
            if source.next_bytes(&kept) > 0 {
                place = self.place(source.next_bytes(&kept)).await;
                if place.is_none() {
                    return;
                }
            }
            let most = place.as_ref().map_or(LOG_PIECE_BYTES as u64, |place| place.bytes);
            let (back, seen) = source.look(kept, most, &self.reader).await;
            source = back;
            let go = match seen {
                Seen::Output { missed, text, more } => {
                    next = Look::Now;
                    if self.send(missed, text, source.position(), place).await == Go::Home {
                        return;
                    }
                    if more { Go::On } else { self.rest().await }
                }
                Seen::Nothing if over => {
                    drop(place);
                    return self.conclude(source).await;
                }
                Seen::Nothing => {
                    next = Look::WhenThereIsMore;
                    Go::On
                }
                Seen::Failed(error) => {
                    tracing::warn!(%error, "output cannot be followed further");
                    drop(place);
                    return self.conclude(source).await;
                }
            };
            if go == Go::Home {
                return;
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let ended = match &mut self.ending {
            Ending::Past => true,
            Ending::ToCome(ended) => ended.try_recv().is_ok(),
        };
        if ended {
            self.ending = Ending::Past;
        }
        ended
    }

    /// Waits for a sign of more output, for the end of the child, or for the client to go.
    async fn wait(&mut self, sign: impl Future<Output = ()>) -> Go {
        let Ending::ToCome(ended) = &mut self.ending else { return Go::On };
        tokio::select! {
            () = sign => Go::On,
            result = ended => match result {
                Ok(Ended) => {
                    self.ending = Ending::Past;
                    Go::On
                }
                // The broker has let go of its followers: it ends.
                Err(_) => Go::Home,
            },
            () = self.to.closed() => Go::Home,
        }
    }

    /// Lets a child write some more before the next piece.
    async fn rest(&mut self) -> Go {
        let rest = timeout(LOG_PIECE_REST, self.wait(std::future::pending()));
        rest.await.unwrap_or(Go::On)
    }

    /// Waits for a place for the next piece: nothing is read, and held, before it can be sent. Where there is no room for
    /// all of it, it is as short as the connection has room for by itself. There is no place any more where the client has
    /// gone.
    async fn place(&self, bytes: u64) -> Option<Place> {
        let permit = self.to.clone().reserve_owned().await.ok()?;
        let (load, bytes) = self.transit.room_or_share(self.reader.user, bytes);
        Some(Place { permit, load, bytes })
    }

    /// Sends a piece, at the place that it has, as soon as the client has room for it.
    async fn send(&self, missed: bool, text: String, position: u64, place: Option<Place>) -> Go {
        let Self { subscription, stream, .. } = *self;
        let (mut permit, mut load) = place.map(|Place { permit, load, bytes: _ }| (permit, load)).unzip();
        if missed {
            let notification = Notification::Lagged { subscription, missed: 1 };
            let lagged = Paced::Notification { notification, load: None };
            if let Some(load) = &mut load {
                load.leave_share(text.len());
            }
            if self.put(lagged, permit.take()).await == Go::Home {
                return Go::Home;
            }
        }
        if text.is_empty() {
            return Go::On;
        }
        if let Some(load) = &mut load {
            load.resize(text.len());
        }
        let notification = Notification::Log { subscription, stream, text, ended: false, position };
        self.put(Paced::Notification { notification, load }, permit).await
    }

    async fn put(&self, paced: Paced, permit: Option<mpsc::OwnedPermit<Paced>>) -> Go {
        match permit {
            Some(permit) => {
                permit.send(paced);
                Go::On
            }
            None => self.to.send(paced).await.map_or(Go::Home, |()| Go::On),
        }
    }

    /// Sends the last piece.
    async fn conclude(self, mut source: Source) {
        let Self { subscription, stream, .. } = self;
        let text = source.finish();
        let position = source.position();
        let notification = Notification::Log { subscription, stream, text, ended: true, position };
        // A client that is gone has missed nothing that it wanted.
        let _ = self.to.send(Paced::Notification { notification, load: None }).await;
    }
}

#[cfg(test)]
mod tests;
