//! Pending requests, looked at again after one of their children has changed.

use std::sync::Arc;

use procbroker_protocol::response::Created;
use procbroker_protocol::{ChildId, Response};

use crate::attempt::Stage;
use crate::broker::Broker;
use crate::effect::Effect;
use crate::ids::Ticket;
use crate::pending::{PendingRequest, WaitsFor};
use crate::turn::Turn;

impl Broker {
    /// Looks again at one request that waits, after one of its children has changed.
    pub(crate) fn recheck(&mut self, ticket: Ticket, id: ChildId, turn: &mut Turn<'_>) {
        let Some((child, pending)) = self.children.get(id).zip(self.pending.get(ticket)) else {
            return;
        };
        let (call, shown) = (pending.call, Arc::clone(child.view()));
        match &pending.waits_for {
            WaitsFor::Name { attempt, .. } => {
                let is_settled = child.is_live() && child.has_come_to(Stage::of(&attempt.params));
                if is_settled && !child.is_ending() && attempt.claim.joins() {
                    self.decide_again(ticket, turn);
                }
            }
            WaitsFor::Start { outcome, stage, .. } if child.has_come_to(*stage) => {
                let outcome = *outcome;
                self.take_pending(ticket);
                self.answer_created(call, Created { outcome, child: shown }, turn);
            }
            WaitsFor::Destroy { .. } if !child.is_live() => {
                if let Some(children) = self.pending.child_ended(ticket, &shown) {
                    self.answer_pending(ticket, Ok(Response::Children(children)), turn);
                }
            }
            WaitsFor::Restart { left, .. }
                if left.get(&id).is_some_and(|restarts| child.is_restarted(*restarts)) =>
            {
                if let Some(children) = self.pending.child_restarted(ticket, id) {
                    let shown = self.children.views(&children);
                    self.answer_pending(ticket, Ok(Response::Children(shown)), turn);
                }
            }
            WaitsFor::Wait { until, .. } if child.has_reached(*until) => {
                self.answer_pending(ticket, Ok(Response::Child(shown)), turn);
            }
            WaitsFor::Signal(request) if !child.is_unspawned() => {
                let ((signal, scope), run) = (request.what(), child.run());
                let takes_signals = child.takes_signals();
                if takes_signals {
                    let call = Some(self.asked(call));
                    turn.order(Effect::Signal { run, signal, scope, call });
                }
                let verdict = self.pending.child_spawned(ticket, id, takes_signals);
                self.conclude_signal(ticket, verdict, turn);
            }
            WaitsFor::Start { .. }
            | WaitsFor::Place { .. }
            | WaitsFor::Tail { .. }
            | WaitsFor::Destroy { .. }
            | WaitsFor::Restart { .. }
            | WaitsFor::Wait { .. }
            | WaitsFor::Signal(_)
            | WaitsFor::Logs { .. }
            | WaitsFor::Upgrade
            | WaitsFor::Shutdown => {}
        }
    }

    /// Decides about a create that has waited for the name of a child, and joins that.
    fn decide_again(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let waiting = self.take_pending(ticket).and_then(PendingRequest::into_create);
        if let Some(waiting) = waiting {
            self.decide(waiting.call, waiting.attempt, turn);
        }
    }
}
