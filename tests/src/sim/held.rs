//! Answers on their way to their clients: those on which a client may rely wait until an attempt to write all that was
//! ordered to be recorded by the end of their turn has ended. What a client was told is taken down when it is told.

use std::collections::VecDeque;

use procbroker_core::{After, Call, Safety};
use procbroker_protocol::{ChildId, Error, Outcome, Response};
use uuid::Uuid;

use crate::sim::disk::Place;
use crate::sim::event::Event;
use crate::sim::ledger::told::Word;
use crate::sim::machine::Means;
use crate::sim::run::Simulation;

/// One answer, as far as it tells what a client may rely on.
#[derive(Clone, Debug)]
pub struct Answer {
    call: Call,
    words: Vec<(ChildId, Word)>,
    /// The request that it tells of a child that was there.
    found: Option<(u32, Uuid)>,
}

/// The answers that are held, in the order of their turns, each with what has to be written before.
#[derive(Debug, Default)]
pub struct Held {
    waiting: VecDeque<(u64, Place, Answer)>,
    count: u64,
}

impl Simulation<'_> {
    /// An answer is ordered: it goes out at once, or at the end of its turn at the earliest.
    pub(super) fn answer(
        &mut self,
        call: Call,
        result: &Result<Response, Error>,
        after: After,
    ) -> Option<Answer> {
        let asked = self.ledger.calls.get(&call)?;
        let found = asked.request_key().filter(|_| tells_of_one_that_was_there(result));
        let answer = Answer { call, words: self.ledger.words(asked, result), found };
        match after {
            After::Nothing => {
                self.deliver(&answer);
                None
            }
            After::Records => Some(answer),
        }
    }

    /// All that a turn has to record is ordered: its answers wait for that.
    pub(super) fn hold(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let Some(place) = self.machine.disk.outstanding() else {
                self.deliver(&answer);
                continue;
            };
            self.held.count += 1;
            let ticket = self.held.count;
            self.held.waiting.push_back((ticket, place, answer));
            let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
            means.attempt(ticket);
        }
    }

    /// An attempt to write has ended which covers this answer, and all that were held before it.
    pub(super) fn attempted(&mut self, ticket: u64, written: bool) {
        while self.held.waiting.front().is_some_and(|(first, _, _)| *first <= ticket) {
            let Some((_, place, answer)) = self.held.waiting.pop_front() else { return };
            // One that has failed lets the answers go too, and nothing is promised with them.
            if written {
                self.machine.disk.attempted(place);
                self.deliver(&answer);
            }
        }
    }

    /// The broker leaves in order, and completes the record before; or it dies, and nobody hears of what was held.
    pub(super) fn let_go(&mut self, in_order: bool) {
        if in_order {
            self.attempted(u64::MAX, true);
        }
        self.held.waiting.clear();
    }

    /// A client gets its answer, if it is there still.
    fn deliver(&mut self, answer: &Answer) {
        let Self { ledger, machine, .. } = self;
        if ledger.links.get(&answer.call.connection).is_none_or(|link| !link.open) {
            return;
        }
        ledger.told_found.extend(answer.found);
        for (child, word) in &answer.words {
            let outlives_power = match word {
                Word::Known => machine.disk.outlives_power(*child),
                Word::Ended(_) => machine.disk.end_outlives_power(*child),
                Word::Failed | Word::Stopped(_) | Word::Renewed(_) | Word::Ready(_) => false,
            };
            let safety = if outlives_power { Safety::Power } else { Safety::Process };
            if let Some(track) = ledger.tracks.get_mut(child) {
                track.told.hear(word, safety);
            }
        }
    }
}

/// Whether a create is answered with a child that was there.
fn tells_of_one_that_was_there(result: &Result<Response, Error>) -> bool {
    matches!(result, Ok(Response::Created(created)) if matches!(created.outcome, Outcome::Existing { .. }))
}

impl Means<'_> {
    /// An attempt to write begins.
    fn attempt(&mut self, ticket: u64) {
        let trouble = self.trouble();
        let within = if self.dice.chance(trouble) { 40_000 } else { 4 };
        let written = !self.dice.chance(trouble / 2);
        let delay = self.dice.within_millis(within);
        self.agenda.after(delay, Event::Attempted { ticket, written });
    }
}
