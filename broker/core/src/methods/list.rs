//! `list`: the caller's children, oldest first.

use std::sync::Arc;

use procbroker_protocol::request::ListParams;
use procbroker_protocol::{Field, PartialChildren, Response};

use crate::authorize;
use crate::broker::Broker;
use crate::child::Child;
use crate::ids::Call;
use crate::labels::has_labels;
use crate::turn::Turn;

impl Broker {
    /// `list`: the caller's children, oldest first.
    pub(crate) fn list(&mut self, call: Call, params: &ListParams, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else {
            return;
        };
        let wanted = |child: &&Child| {
            authorize::may_act_on(&self.config, connection.peer().uid, child.owner().uid)
                && has_labels(child.view(), &params.labels)
        };
        let is_measured = params.fields.is_some_and(|fields| fields.contains(Field::Usage));
        let mut runs = Vec::new();
        let shown = |child: &Child| {
            runs.extend(child.measured_run().filter(|_| is_measured));
            Arc::clone(child.view())
        };
        let children: Vec<_> = if params.all {
            self.children.all().filter(wanted).map(shown).collect()
        } else {
            self.children.live_children().filter(wanted).map(shown).collect()
        };
        let listed = match params.fields {
            None => Response::Children(children),
            Some(fields) => Response::PartialChildren(PartialChildren::new(fields, children)),
        };
        self.answer_with_usage(call, listed, runs, turn);
    }
}
