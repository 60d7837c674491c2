//! The first answer to a request: the same one once more gets it again, and starts nothing.

use procbroker_protocol::{ChildId, CreateParams, Outcome};
use uuid::Uuid;

use crate::authorize::Peer;
use crate::broker::Broker;
use crate::effect::{Effect, Receipt, Record, Safety};
use crate::ids::{Incarnation, Run, paired_id};
use crate::record::Answered;
use crate::turn::Turn;

impl Broker {
    /// The child that the same request has been answered with before, or is to be, and how. For one that was replaced before it
    /// was ready that is what takes its place: where nothing has, its create has failed, and is told so before the same request
    /// starts another one.
    pub(crate) fn first_answer(&self, peer: &Peer, params: &CreateParams) -> Option<(ChildId, Outcome)> {
        let (uid, request) = (peer.uid, params.request_id?);
        let found = self.answers.of(uid, request);
        let (id, outcome) = found.or_else(|| self.children.answered_with(uid, request))?;
        self.children.get(id).map(|_| (id, outcome))
    }

    /// Keeps in mind, and on record, that the request of a user is answered with a child that was there. `attempt` is the
    /// child that it would have started else: what stands for that is what the answer is on record under.
    pub(crate) fn remember_existing(
        &mut self,
        (uid, request): (u32, Uuid),
        attempt: ChildId,
        (child, same_spec): (ChildId, bool),
        turn: &mut Turn<'_>,
    ) {
        if self.answers.of(uid, request).is_some() {
            return;
        }
        let answered = Answered { id: paired_id(attempt), child, uid, request, same_spec };
        self.answers.add(&answered);
        let run = Run { child: answered.id, incarnation: Incarnation::FIRST };
        let (record, safety, receipt) = (Record::Answered(answered), Safety::Process, Receipt::NotWanted);
        turn.order(Effect::Record { run, record, safety, receipt, expires: None });
        let forgotten = self.answers.make_room(uid, self.config.bounds.remembered_bytes());
        forget_answers(forgotten, turn);
    }

    /// Takes in what an earlier broker has answered, as far as the children are there.
    pub(crate) fn remember_again(&mut self, answers: Vec<Answered>, turn: &mut Turn<'_>) {
        let mut forgotten = Vec::new();
        for answered in answers {
            if self.children.get(answered.child).is_none() {
                forgotten.push(answered.id);
                continue;
            }
            self.answers.add(&answered);
            forgotten.extend(self.answers.make_room(answered.uid, self.config.bounds.remembered_bytes()));
        }
        forget_answers(forgotten, turn);
    }

    /// A child is not visible any more, and what was answered with it is not remembered.
    pub(crate) fn forget_answers_with(&mut self, child: ChildId, turn: &mut Turn<'_>) {
        forget_answers(self.answers.forget_child(child), turn);
    }
}

fn forget_answers(on_record: Vec<ChildId>, turn: &mut Turn<'_>) {
    if !on_record.is_empty() {
        turn.order(Effect::ForgetAnswers { on_record });
    }
}

/// Whether a create was answered with a child that was there.
pub(crate) fn is_existing(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Existing { .. } => true,
        Outcome::Created | Outcome::Replaced => false,
    }
}
