//! `destroy`: stops children, and answers when they have ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use procbroker_protocol::request::DestroyParams;
use procbroker_protocol::{ChildId, ExitReason, Response};

use crate::broker::Broker;
use crate::child::Child;
use crate::ids::Call;
use crate::pending::WaitsFor;
use crate::turn::Turn;

impl Broker {
    /// `destroy`: stops children, and answers when they have ended, or at once with `no_wait`.
    pub(crate) fn destroy(&mut self, call: Call, params: &DestroyParams, turn: &mut Turn<'_>) {
        let children = match self.resolve(call.connection, &params.target, Child::is_live) {
            Ok(children) => children,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let left: BTreeSet<ChildId> = children
            .iter()
            .copied()
            .filter(|id| self.children.get(*id).is_some_and(Child::is_live))
            .collect();
        if params.no_wait || left.is_empty() {
            let mut shown = self.children.views(&children);
            self.destroy_all(left, params, turn);
            // One that waited for its turn to be started is gone at once, and shown as it was.
            for view in &mut shown {
                if let Some(child) = self.children.get(view.id) {
                    *view = Arc::clone(child.view());
                }
            }
            return self.promise(call, Ok(Response::Children(shown)), turn);
        }
        let ended = self
            .children
            .views(&children)
            .into_iter()
            .filter(|child| !left.contains(&child.id))
            .map(|child| (child.id, child))
            .collect();
        self.wait_for(call, WaitsFor::Destroy { ended, left: left.clone() }, None);
        self.destroy_all(left, params, turn);
    }

    /// Stops those that end at once last: what they free goes to others right away, who would stop one of the rest for themselves.
    fn destroy_all(&mut self, children: BTreeSet<ChildId>, params: &DestroyParams, turn: &mut Turn<'_>) {
        let ends_at_once = |id: &ChildId| self.children.get(*id).is_some_and(Child::ends_when_stopped);
        let (at_once, others): (Vec<_>, Vec<_>) = children.into_iter().partition(ends_at_once);
        for id in others.into_iter().chain(at_once) {
            self.stop_child(id, ExitReason::Destroyed, params.stop.clone(), turn);
        }
    }
}
