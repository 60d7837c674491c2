//! Answers that wait until what they tell is on record, lest a crash takes it back.
//!
//! They go out in the order in which they were held, each as soon as an attempt to write everything that was submitted
//! by the end of its turn has ended. One that has failed releases them too: what runs can be looked after on a full disk.
//! So they wait for two group commits at the most.
//!
//! There are never more than the connections have unanswered requests, which each of them bounds by what its outbox
//! takes: those of a connection that has closed are dropped at once.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use procbroker_core::{Call, ConnectionId};
use procbroker_protocol::{Error, Response};

use super::clients::Clients;
use super::records::Records;
use crate::os::journal::Position;

/// Room for so many is kept when none is held.
const ROOM_KEPT: usize = 64;

/// The answers that are held.
#[derive(Debug, Default)]
pub(super) struct DurableAnswers {
    /// Those of the turn that is being carried out, which may have more to record.
    turn: Vec<Answer>,
    /// Those of earlier turns, each with how far the record has to be.
    waiting: VecDeque<(Position, Answer)>,
}

#[derive(Debug)]
struct Answer {
    call: Call,
    result: Result<Response, Error>,
}

impl DurableAnswers {
    /// Holds an answer until the end of the turn, at least.
    pub(super) fn add(&mut self, call: Call, result: Result<Response, Error>) {
        self.turn.push(Answer { call, result });
    }

    /// Everything that the turn has to record is submitted.
    pub(super) fn end_turn(&mut self, records: &Records, clients: &mut Clients) {
        if self.turn.is_empty() {
            return;
        }
        match records.await_attempt() {
            None => self.turn.drain(..).for_each(|answer| answer.send(clients)),
            Some(position) => {
                self.waiting.extend(self.turn.drain(..).map(|answer| (position, answer)));
            }
        }
        self.turn.shrink_to(ROOM_KEPT);
    }

    /// An attempt has ended that covers everything up to here.
    pub(super) fn attempted(&mut self, up_to: Position, clients: &mut Clients) {
        let covered = self.waiting.iter().take_while(|(position, _)| *position <= up_to).count();
        self.waiting.drain(..covered).for_each(|(_, answer)| answer.send(clients));
        if self.waiting.is_empty() {
            self.waiting.shrink_to(ROOM_KEPT);
        }
    }

    /// A client has gone, and nobody reads its answers any more.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        self.waiting.retain(|(_, answer)| answer.call.connection != connection);
    }

    /// Nothing is written any more: all of them go out as they are.
    pub(super) fn release_all(&mut self, clients: &mut Clients) {
        let waiting = self.waiting.drain(..).map(|(_, answer)| answer);
        waiting.chain(self.turn.drain(..)).for_each(|answer| answer.send(clients));
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.turn.is_empty()
    }
}

impl Answer {
    fn send(self, clients: &mut Clients) {
        clients.answer(self.call, self.result);
    }
}
