//! `wait`: answers when a child is ready, or has ended.

use std::sync::Arc;

use procbroker_protocol::Response;
use procbroker_protocol::request::WaitParams;

use crate::broker::Broker;
use crate::ids::Call;
use crate::pending::WaitsFor;
use crate::turn::Turn;

impl Broker {
    /// `wait`: answers when a child is ready, or has ended.
    pub(crate) fn wait(&mut self, call: Call, params: &WaitParams, turn: &mut Turn<'_>) {
        let child = match self.find(call.connection, &params.target) {
            Ok(child) => child,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        if child.has_reached(params.until) {
            let child = Arc::clone(child.view());
            return self.promise(call, Ok(Response::Child(child)), turn);
        }
        let child = child.id();
        let due = params.timeout.map(|timeout| turn.now.instant.plus(timeout));
        self.wait_for(call, WaitsFor::Wait { child, until: params.until }, due);
    }
}
