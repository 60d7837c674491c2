//! `get`: one child, live or ended.

use std::sync::Arc;

use procbroker_protocol::Response;
use procbroker_protocol::request::OneParams;

use crate::broker::Broker;
use crate::ids::Call;
use crate::turn::Turn;

impl Broker {
    /// `get`: one child, live or ended.
    pub(crate) fn get(&mut self, call: Call, params: &OneParams, turn: &mut Turn<'_>) {
        let result =
            self.find(call.connection, &params.target).map(|child| Response::Child(Arc::clone(child.view())));
        self.answer(call, result, turn);
    }
}
