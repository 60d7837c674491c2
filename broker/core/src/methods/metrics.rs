//! `metrics`: what was counted since the start.

use crate::broker::Broker;
use crate::effect::Effect;
use crate::ids::Call;
use crate::turn::Turn;

impl Broker {
    /// `metrics`: the edge, which counts too, answers with [`Broker::counts`] and its own.
    pub(crate) fn measure(&mut self, call: Call, turn: &mut Turn<'_>) {
        if self.connection(call.connection).is_some() {
            turn.order(Effect::Measure { call });
        }
    }
}
