//! `shutdown`: the orderly end of the broker, answered when it has come.

use procbroker_protocol::request::ShutdownParams;

use crate::broker::Broker;
use crate::ids::Call;
use crate::pending::WaitsFor;
use crate::turn::Turn;

impl Broker {
    /// `shutdown`: as a signal to the broker, but with its own time, and with an answer.
    pub(crate) fn shutdown(&mut self, call: Call, params: &ShutdownParams, turn: &mut Turn<'_>) {
        self.wait_for(call, WaitsFor::Shutdown, None);
        self.shut_down(params.timeout, false, turn);
    }
}
