//! One connection, shared by any number of callers at a time.
//!
//! A caller writes its request to the socket itself, so that a small one costs one system call and no
//! change of task. One task reads: it hands each answer to whoever waits for it, and writes what the
//! socket did not take at once. Everybody's wait ends when the connection does.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{Shutdown, shutdown};
use procbroker_protocol::binary::{EncodeError, ServerMessage, decode_server_message, encode_request};
use procbroker_protocol::frame::{Framed, Frames};
use procbroker_protocol::{Error as BrokerError, Request, Response};
use tokio::io::AsyncReadExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::dial::Wire;

/// How much may wait to be written, in bytes, before callers have to wait: one request of the largest size.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// How much is read at a time, in bytes: a list of a hundred children in one system call.
const READ_BYTES: usize = 32 << 10;

/// What the broker answers to a request.
pub(crate) type Answer = Result<Response, BrokerError>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The connection had ended before a byte of the request was written.
    NotSent,
    /// The connection ended while the request was on its way or being carried out.
    Lost,
    /// The broker sent something that makes no sense.
    Garbled(String),
    /// The request does not fit into a message; nothing was sent.
    Encode(EncodeError),
}

/// A connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Link {
    ends: Arc<Ends>,
    task: AbortHandle,
}

/// What callers and the reading task share.
#[derive(Debug)]
struct Ends {
    waiting: Mutex<Waiting>,
    closed: AtomicBool,
    write: OwnedWriteHalf,
    /// What the socket did not take yet. Its lock also keeps writes from mixing.
    backlog: Mutex<Vec<u8>>,
    /// Tells the task that there is a backlog.
    flush: Notify,
    /// Tells callers that there is room in the backlog, or that the connection has ended.
    room: Notify,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    /// Callers by the ids of their requests.
    Open(HashMap<u64, oneshot::Sender<Answer>>),
    /// The connection has ended; with what the broker sent last, if that made no sense.
    Ended(Option<String>),
}

impl Link {
    /// Starts to use a connection.
    pub(crate) fn start(wire: Wire) -> Self {
        let (read, write) = wire.stream.into_split();
        let ends = Arc::new(Ends {
            waiting: Mutex::new(Waiting::Open(HashMap::new())),
            closed: AtomicBool::new(false),
            write,
            backlog: Mutex::new(Vec::new()),
            flush: Notify::new(),
            room: Notify::new(),
        });
        let task = tokio::spawn(tend(OnEnd(Arc::clone(&ends)), read, wire.frames));
        Self { ends, task: task.abort_handle() }
    }

    /// Whether it is known to have ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.ends.closed.load(Ordering::Acquire)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.ending().come().await;
    }

    /// Its end, for who waits for it and does not keep it open.
    pub(crate) fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.ends))
    }

    /// Sends a request and waits for its answer. Dropping the future gives up the wait, and nothing else.
    pub(crate) async fn ask(&self, id: u64, request: &Request) -> Result<Answer, Unanswered> {
        let mut frame = Vec::new();
        encode_request(id, request, &mut frame).map_err(Unanswered::Encode)?;
        let (sender, answer) = oneshot::channel();
        let _leave_when_dropped = self.ends.enter(id, sender)?;
        self.ends.send(&frame).await?;
        drop(frame);
        answer.await.map_err(|_| self.ends.why_ended())
    }
}

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct Ending(Arc<Ends>);

impl Ending {
    /// Waits until it has come.
    pub(crate) async fn come(&self) {
        loop {
            let news = self.0.room.notified();
            tokio::pin!(news);
            // Enlisted before the look, so that no end is missed in between.
            news.as_mut().enable();
            if self.0.closed.load(Ordering::Acquire) {
                return;
            }
            news.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // At once, whether or not the runtime of the task runs at present.
        self.ends.end(None);
        self.task.abort();
    }
}

/// The place of a caller among those who wait.
struct Place<'a> {
    ends: &'a Ends,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Waiting::Open(callers) = &mut *lock(&self.ends.waiting) {
            callers.remove(&self.id);
        }
    }
}

impl Ends {
    fn enter(&self, id: u64, sender: oneshot::Sender<Answer>) -> Result<Place<'_>, Unanswered> {
        match &mut *lock(&self.waiting) {
            Waiting::Open(callers) => {
                callers.insert(id, sender);
                Ok(Place { ends: self, id })
            }
            Waiting::Ended(_) => Err(Unanswered::NotSent),
        }
    }

    /// Writes a frame, or leaves what the socket does not take to the task.
    async fn send(&self, frame: &[u8]) -> Result<(), Unanswered> {
        loop {
            {
                let mut backlog = lock(&self.backlog);
                if backlog.len() < BACKLOG_BYTES_MAX {
                    return self.send_or_keep(frame, &mut backlog);
                }
            }
            let room = self.room.notified();
            tokio::pin!(room);
            // Enlisted before the second look, so that no word of room is missed in between.
            room.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(Unanswered::NotSent);
            }
            if lock(&self.backlog).len() >= BACKLOG_BYTES_MAX {
                room.await;
            }
        }
    }

    fn send_or_keep(&self, frame: &[u8], backlog: &mut Vec<u8>) -> Result<(), Unanswered> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Unanswered::NotSent);
        }
        let written = if backlog.is_empty() { self.write_some(frame) } else { Ok(0) };
        match written {
            Ok(count) if count >= frame.len() => Ok(()),
            Ok(count) => {
                backlog.extend_from_slice(frame.get(count..).unwrap_or_default());
                self.flush.notify_one();
                Ok(())
            }
            Err(_) => {
                self.end(None);
                Err(Unanswered::NotSent)
            }
        }
    }

    /// Writes as much as the socket takes at once.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.write.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Writes the backlog whenever there is one, until the connection ends.
    async fn drain(&self) {
        loop {
            self.flush.notified().await;
            while self.has_backlog() {
                if self.write.writable().await.is_err() || self.write_backlog().is_err() {
                    return;
                }
            }
        }
    }

    /// Whether there is a backlog; if not, its memory is given back.
    fn has_backlog(&self) -> bool {
        let mut backlog = lock(&self.backlog);
        if backlog.is_empty() {
            *backlog = Vec::new();
        }
        !backlog.is_empty()
    }

    fn write_backlog(&self) -> io::Result<()> {
        let mut backlog = lock(&self.backlog);
        let count = self.write_some(&backlog)?;
        backlog.drain(..count);
        if backlog.len() < BACKLOG_BYTES_MAX {
            self.room.notify_waiters();
        }
        Ok(())
    }

    fn deliver(&self, id: u64, result: Answer) {
        let caller = match &mut *lock(&self.waiting) {
            Waiting::Open(callers) => callers.remove(&id),
            Waiting::Ended(_) => None,
        };
        // A caller that has given up does not want it any more.
        if let Some(caller) = caller {
            let _ = caller.send(result);
        }
    }

    /// Ends the wait of everybody; the first reason given stays.
    fn end(&self, garbled: Option<String>) {
        self.closed.store(true, Ordering::Release);
        let callers = {
            let mut waiting = lock(&self.waiting);
            match &*waiting {
                Waiting::Open(_) => std::mem::replace(&mut *waiting, Waiting::Ended(garbled)),
                Waiting::Ended(_) => return,
            }
        };
        drop(callers);
        self.room.notify_waiters();
        // Handles keep the socket open until their next call; the broker is not to wait for that. It can
        // only fail where the broker has gone already.
        let _ = shutdown(self.write.as_ref().as_raw_fd(), Shutdown::Both);
    }

    fn why_ended(&self) -> Unanswered {
        match &*lock(&self.waiting) {
            Waiting::Ended(Some(detail)) => Unanswered::Garbled(detail.clone()),
            Waiting::Ended(None) | Waiting::Open(_) => Unanswered::Lost,
        }
    }
}

/// Ends the connection for its callers however the task ends: also with the runtime that it runs in.
struct OnEnd(Arc<Ends>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// Reads answers and writes the backlog, until the connection ends.
async fn tend(ends: OnEnd, mut read: OwnedReadHalf, mut frames: Frames) {
    let OnEnd(shared) = &ends;
    let garbled = tokio::select! {
        biased;
        garbled = receive(shared, &mut read, &mut frames) => garbled,
        () = shared.drain() => None,
    };
    shared.end(garbled);
}

/// Hands out answers until the connection ends; returns what made no sense, if that was why.
async fn receive(ends: &Ends, read: &mut OwnedReadHalf, frames: &mut Frames) -> Option<String> {
    let mut chunk = vec![0; READ_BYTES];
    loop {
        while let Some(framed) = frames.next_message() {
            if let Err(detail) = dispatch(ends, framed) {
                return Some(detail);
            }
        }
        match read.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => frames.push(chunk.get(..count).unwrap_or_default()),
        }
    }
}

fn dispatch(ends: &Ends, framed: Framed<'_>) -> Result<(), String> {
    match message(framed)? {
        ServerMessage::Answer { id, result } => ends.deliver(id, result),
        // Subscriptions have connections of their own; whatever this is, nobody asked for it.
        ServerMessage::Notification(_) => {}
    }
    Ok(())
}

/// Reads a message of the broker; an error says what is wrong with it.
pub(crate) fn message(framed: Framed<'_>) -> Result<ServerMessage, String> {
    let message = match framed {
        Framed::Message(bytes) => decode_server_message(bytes).map_err(|error| error.to_string())?,
        Framed::Oversize { length, .. } => {
            return Err(format!("a message of {length} bytes, more than any that a broker sends"));
        }
    };
    match message {
        ServerMessage::Answer { id: procbroker_protocol::binary::NO_ID, result: Err(error) } => {
            Err(format!("the broker could not read what this program sent: {error}"))
        }
        other @ (ServerMessage::Answer { .. } | ServerMessage::Notification(_)) => Ok(other),
    }
}

/// Locks; what a panicking thread left behind is sound, since no update here is in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
