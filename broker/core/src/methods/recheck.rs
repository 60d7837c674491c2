//! Pending requests, looked at again after one of their children has changed.

use std::sync::Arc;

use procbroker_protocol::response::Created;
use procbroker_protocol::{ChildId, Response};

use crate::attempt::Stage;
use crate::broker::Broker;
use crate::effect::Effect;
use crate::ids::Ticket;
use crate::pending::WaitsFor;
use crate::turn::Turn;

impl Broker {
    /// Looks again at one request that waits, after one of its children has changed.
    pub(crate) fn recheck(&mut self, ticket: Ticket, id: ChildId, turn: &mut Turn<'_>) {
        let Some(child) = self.children.get(id) else {
            return;
        };
        let (live, ending) = (child.is_live(), child.is_ending());
        let takes_signals = child.takes_signals();
        let (shown, run) = (Arc::clone(child.view()), child.run());
        let Some(call) = self.pending.get(ticket).map(|pending| pending.call) else {
            return;
        };
        let asked = self.asked(call);
        let Some(pending) = self.pending.get_mut(ticket) else {
            return;
        };
        match &mut pending.waits_for {
            WaitsFor::Name { attempt, .. } => {
                let settled = child.has_come_to(Stage::of(&attempt.params));
                let is_answer = live && settled && !ending && attempt.claim.joins();
                if is_answer
                    && let Some(pending) = self.take_pending(ticket)
                    && let WaitsFor::Name { attempt, .. } = pending.waits_for
                {
                    self.decide(call, *attempt, turn);
                }
            }
            WaitsFor::Start { outcome, stage, .. } if child.has_come_to(*stage) => {
                let outcome = *outcome;
                self.take_pending(ticket);
                self.answer_created(call, Created { outcome, child: shown }, turn);
            }
            WaitsFor::Destroy { ended, left } if !live => {
                left.remove(&id);
                ended.insert(id, shown);
                let over = left.is_empty();
                let children: Vec<_> = if over { ended.values().cloned().collect() } else { Vec::new() };
                self.unwatch(ticket, id);
                if over {
                    self.answer_pending(ticket, Ok(Response::Children(children)), turn);
                }
            }
            WaitsFor::Restart { left, .. } => {
                let is_ready = child.is_settled() && !ending;
                let is_over =
                    left.get(&id).is_some_and(|restarts| !live || shown.restarts >= *restarts && is_ready);
                if is_over {
                    left.remove(&id);
                    self.unwatch(ticket, id);
                    self.conclude_restart(ticket, turn);
                }
            }
            WaitsFor::Wait { until, .. } => {
                if child.has_reached(*until) {
                    self.answer_pending(ticket, Ok(Response::Child(shown)), turn);
                }
            }
            WaitsFor::Signal { signal, scope, unspawned, sent, result, .. } if !child.is_unspawned() => {
                let (signal, scope) = (*signal, *scope);
                unspawned.remove(&id);
                if takes_signals {
                    sent.insert(id);
                    turn.order(Effect::Signal { run, signal, scope, call: Some(asked) });
                } else {
                    result.gone = Some(id);
                }
                self.unwatch(ticket, id);
                self.conclude_signal(ticket, turn);
            }
            WaitsFor::Start { .. }
            | WaitsFor::Place { .. }
            | WaitsFor::Tail { .. }
            | WaitsFor::Destroy { .. }
            | WaitsFor::Signal { .. }
            | WaitsFor::Logs { .. }
            | WaitsFor::Upgrade
            | WaitsFor::Shutdown => {}
        }
    }

    fn unwatch(&mut self, ticket: Ticket, id: ChildId) {
        if let Some(child) = self.children.get_mut(id) {
            child.unwatch(ticket);
        }
    }
}
