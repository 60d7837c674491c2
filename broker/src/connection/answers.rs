//! What a client is answered: it is encoded as far as the client keeps up, and written.

use std::io;
use std::sync::Arc;

use procbroker_protocol::{Error, Response};

use super::unanswered::{Effort, Unanswered};
use super::{Closing, Connection, ConnectionContext, buffer, codec, subscribed};
use crate::answer_size::{encoded_bytes, is_large};
use crate::blocking_pool::unavailable;
use crate::limits::{ROOM_PATIENCE, SMALL_ANSWER_BYTES, WRITE_BYTES_BEFORE_READING};
use crate::messages::Outgoing;
use crate::transit::Load;
use crate::turns;

impl Connection {
    /// Whether more may wait to be written: of a user who has more on its way than its part, one answer at a time.
    pub(super) fn may_encode(&self) -> bool {
        let ConnectionContext { transit, user, .. } = &self.context;
        self.unwritten.is_empty()
            || self.unwritten.len() < WRITE_BYTES_BEFORE_READING && transit.has_room(*user, 0)
    }

    /// Whether what waits to be written takes room that others need: other users, where it is much or its user has much on
    /// its way by many connections; other connections of its user, where it is much of what that has.
    pub(super) fn takes_room(&self) -> bool {
        let ConnectionContext { transit, user, .. } = &self.context;
        let is_much = self.unwritten.len() >= WRITE_BYTES_BEFORE_READING;
        let has_much = transit.check(*user).is_err();
        is_much && has_much || (is_much || has_much) && transit.is_crowded()
    }

    /// Encodes the answers that are there, as long as the client keeps up.
    pub(super) async fn collect_answers(&mut self) {
        while self.may_encode() && !turns::is_over() {
            let Ok(outgoing) = self.context.outbox.try_recv() else { return self.collect_events().await };
            self.encode(outgoing).await;
        }
    }

    pub(super) async fn encode(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Admitted | Outgoing::Refused(_) => {}
            Outgoing::Answer { number, result, load } => self.encode_answer(number, result, load).await,
            Outgoing::Feed(feed) => self.feed = Some(feed),
            Outgoing::Paced(paced) => self.paced = Some(paced),
        }
    }

    /// Encodes an answer. A large one needs room: where there is none, a question is refused.
    pub(super) async fn encode_answer(
        &mut self,
        number: u64,
        result: Result<Response, Error>,
        load: Option<Load>,
    ) {
        let Some(Unanswered { id, effort }) = self.unanswered.remove(&number) else { return };
        self.subscriptions.extend(subscribed::subscription(&result));
        self.lend_buffer();
        if is_large(&result) {
            let ConnectionContext { pool, user, transit, .. } = &self.context;
            let bytes = encoded_bytes(&result);
            let room = match transit.room(*user, bytes, ROOM_PATIENCE).await {
                Ok(room) => room,
                Err(_) if effort == Effort::Act => transit.add(*user, bytes),
                Err(error) => return codec::encode(&id, &Err(error), &mut self.unwritten),
            };
            let (spare, result) = (id.clone(), Arc::new(result));
            let shared = Arc::clone(&result);
            let work = move || {
                // A buffer that grows is copied, and each of its pages cleared, again and again.
                let mut bytes = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
                codec::encode(&id, &shared, &mut bytes);
                bytes
            };
            match pool.run(*user, work).await {
                Ok(bytes) if self.unwritten.is_empty() => {
                    buffer::give_back(std::mem::replace(&mut self.unwritten, bytes));
                }
                Ok(bytes) => self.unwritten.extend_from_slice(&bytes),
                // What was done is told of, in the user's own turn where there is no other.
                Err(_) if effort == Effort::Act => codec::encode(&spare, &result, &mut self.unwritten),
                Err(error) => codec::encode(&spare, &Err(unavailable(error)), &mut self.unwritten),
            }
            self.count_unwritten();
            drop(room);
        } else {
            self.encode_inline(&id, &result, effort);
        }
        drop(load);
    }

    /// Encodes what is not large. Where much is on its way to its user, a question is refused unless its answer is on the
    /// client's side at once: each of thousands of connections may ask one, and read nothing.
    fn encode_inline(&mut self, id: &codec::RequestId, result: &Result<Response, Error>, effort: Effort) {
        let has_read_all = self.unwritten.is_empty() && self.socket.is_all_read();
        let begin = self.unwritten.len();
        codec::encode(id, result, &mut self.unwritten);
        let bytes = self.unwritten.len() - begin;
        let costs_nothing =
            bytes <= SMALL_ANSWER_BYTES || has_read_all && bytes <= WRITE_BYTES_BEFORE_READING;
        if effort == Effort::Question
            && !costs_nothing
            && let Err(error) = self.context.transit.check(self.context.user)
        {
            self.unwritten.truncate(begin);
            self.unwritten.shrink_to_fit();
            codec::encode(id, &Err(error), &mut self.unwritten);
        }
    }

    /// Counts what waits to be written.
    fn count_unwritten(&mut self) {
        self.load.resize(self.unwritten.len());
    }

    /// Writes as much as the client takes now.
    pub(super) fn write(&mut self) -> io::Result<()> {
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
        if self.unwritten.is_empty() {
            buffer::give_back(std::mem::take(&mut self.unwritten));
        }
        Ok(())
    }

    /// Writes everything that is left, for as long as the client reads.
    pub(super) async fn flush(&mut self) -> Option<Closing> {
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
}
