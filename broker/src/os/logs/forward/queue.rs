//! Pieces of output on their way to the thread that passes them on: bounded for each user and in all, in turns by user.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::author::Author;
use crate::limits::{FORWARD_BYTES_OF_A_USER_MAX, FORWARD_BYTES_WAITING_MAX};
use crate::os::logs::stream::StreamId;
use crate::os::logs::turns::RoundRobin;

/// What a piece takes beside its bytes.
const PIECE_BYTES: usize = 128;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Item {
    /// There is more of a stream.
    Piece(Piece),
    /// The line of this stream that has begun is over.
    Cut(StreamId),
    /// So are those of all streams.
    CutAll,
}

/// Some bytes of a stream.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) id: StreamId,
    pub(super) author: Arc<Author>,
    bytes: Vec<u8>,
    /// How many of them have been taken.
    taken: usize,
    /// Whether what was written before it is lost, so that it goes on with no line.
    pub(super) follows_gap: bool,
}

impl Piece {
    pub(super) fn new(id: StreamId, author: Arc<Author>, bytes: Vec<u8>, follows_gap: bool) -> Self {
        Self { id, author, bytes, taken: 0, follows_gap }
    }

    /// What has not been taken.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// So many bytes more have been taken.
    pub(super) fn take(&mut self, length: usize) {
        self.taken = self.taken.saturating_add(length);
    }

    fn size(&self) -> usize {
        self.bytes.len().saturating_add(PIECE_BYTES)
    }

    /// How many lines it has that are not empty, parts of some included.
    fn lines(&self) -> u64 {
        let lines = self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.count() as u64
    }
}

/// The queue of one forwarder.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to do, or nothing any more.
    work: Condvar,
    /// Nothing waits, and nothing is being passed on.
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    turns: RoundRobin<(u32, Item)>,
    bytes: usize,
    of_users: HashMap<u32, usize>,
    /// Lines that found no room since it was asked last.
    refused: u64,
    /// Whether the thread waits for something to do.
    sleeps: bool,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        let state = State {
            turns: RoundRobin::new(),
            bytes: 0,
            of_users: HashMap::new(),
            refused: 0,
            sleeps: false,
            is_closed: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new() }
    }

    /// Lets a piece wait, if there is room for it.
    ///
    /// # Errors
    /// How many lines it has, when there is none.
    pub(super) fn offer(&self, user: u32, piece: Piece) -> Result<(), u64> {
        let mut state = self.lock();
        let of_user = state.of_users.get(&user).copied().unwrap_or_default().saturating_add(piece.size());
        let in_all = state.bytes.saturating_add(piece.size());
        if of_user > FORWARD_BYTES_OF_A_USER_MAX || in_all > FORWARD_BYTES_WAITING_MAX {
            let lines = piece.lines();
            state.refused = state.refused.saturating_add(lines);
            return Err(lines);
        }
        state.of_users.insert(user, of_user);
        state.bytes = in_all;
        self.add(state, user, Item::Piece(piece));
        Ok(())
    }

    /// Lets a word wait. There are a few for each child.
    pub(super) fn push(&self, user: u32, item: Item) {
        self.add(self.lock(), user, item);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, user: u32, item: Item) {
        state.turns.push(user, (user, item));
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.work.notify_one();
        }
    }

    /// Waits for something to do, and takes what comes next. `None` when nothing more comes.
    pub(super) fn take(&self) -> Option<(u32, Item)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.turns.next() {
                return Some(next);
            }
            if state.is_closed {
                return None;
            }
            state.sleeps = true;
            self.idle.notify_all();
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// All of a piece has been taken.
    pub(super) fn done(&self, user: u32, piece: &Piece) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(piece.size());
        if let Some(bytes) = state.of_users.get_mut(&user) {
            *bytes = bytes.saturating_sub(piece.size());
            if *bytes == 0 {
                state.of_users.remove(&user);
            }
        }
    }

    /// The rest of a piece comes next when it is that user's turn again.
    pub(super) fn put_back(&self, user: u32, piece: Piece) {
        self.lock().turns.put_back(user, (user, Item::Piece(piece)));
    }

    /// How many lines found no room since it was asked last.
    pub(super) fn refused(&self) -> u64 {
        std::mem::take(&mut self.lock().refused)
    }

    /// Waits until nothing is left to do, at most so long, and says whether it came to that.
    pub(super) fn drained(&self, patience: Duration) -> bool {
        let state = self.lock();
        let is_busy = |state: &mut State| !(state.turns.is_empty() && state.sleeps);
        let (_state, waited) =
            self.idle.wait_timeout_while(state, patience, is_busy).unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is half done at any point at which a holder could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::request::LogStream;
    use procbroker_protocol::{ChildId, CreateParams};
    use uuid::Uuid;

    use super::*;

    fn piece(child: u128, bytes: &[u8]) -> Piece {
        let id = StreamId { child: ChildId::from_uuid(Uuid::from_u128(child)), stream: LogStream::Stdout };
        let author = Author::new(7, Arc::new(CreateParams::new(vec!["one".to_owned()])), None);
        Piece::new(id, Arc::new(author), bytes.to_vec(), false)
    }

    fn taken(queue: &Queue) -> (u32, Piece) {
        match queue.take() {
            Some((user, Item::Piece(piece))) => (user, piece),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_one_user_leaves_unread_takes_no_room_from_another() {
        let queue = Queue::new();
        let flood = b"x\n".repeat(FORWARD_BYTES_OF_A_USER_MAX / 8);
        let accepted = (0..8).filter(|_| queue.offer(1, piece(1, &flood)).is_ok()).count();
        assert_eq!(accepted, 3);
        assert_eq!(queue.offer(1, piece(1, &flood)), Err(flood.len() as u64 / 2));
        assert_eq!(queue.refused(), 3 * flood.len() as u64);
        assert_eq!(queue.offer(2, piece(2, b"a line\n")), Ok(()));
        let (user, first) = taken(&queue);
        assert_eq!((user, first.rest()), (1, flood.as_slice()));
        queue.put_back(user, first);
        let (user, other) = taken(&queue);
        assert_eq!((user, other.rest()), (2, b"a line\n".as_slice()));
        queue.done(user, &other);
        for _ in 0..3 {
            let (user, piece) = taken(&queue);
            queue.done(user, &piece);
        }
        let state = queue.lock();
        assert_eq!((state.bytes, state.of_users.len()), (0, 0));
        drop(state);
        assert_eq!(queue.offer(1, piece(1, &flood)), Ok(()));
    }

    #[test]
    fn many_users_together_are_bounded_too() {
        let queue = Queue::new();
        let share = vec![b'x'; FORWARD_BYTES_OF_A_USER_MAX - PIECE_BYTES];
        let accepted = (0..20).filter(|user| queue.offer(*user, piece(1, &share)).is_ok()).count();
        assert_eq!(accepted, FORWARD_BYTES_WAITING_MAX / FORWARD_BYTES_OF_A_USER_MAX);
    }

    #[test]
    fn it_is_drained_only_when_the_last_one_has_been_passed_on() {
        let queue = Arc::new(Queue::new());
        queue.push(1, Item::CutAll);
        assert!(!queue.drained(Duration::ZERO));
        assert!(matches!(queue.take(), Some((1, Item::CutAll))));
        assert!(!queue.drained(Duration::ZERO), "it is being passed on");
        let taker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take().is_none()
        });
        assert!(queue.drained(Duration::from_secs(60)));
        queue.close();
        assert!(taker.join().unwrap());
    }
}
