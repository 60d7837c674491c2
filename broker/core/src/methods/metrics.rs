//! `metrics`: what was counted since the start.

use crate::broker::Broker;
use crate::effect::Effect;
use crate::ids::Call;
use crate::metrics::Counted;
use crate::turn::Turn;

impl Broker {
    /// `metrics`: the edge, which counts too, answers with [`Broker::counts`] and its own.
    pub(crate) fn measure(&mut self, call: Call, turn: &mut Turn<'_>) {
        if self.connection(call.connection).is_some() {
            turn.order(Effect::Measure { call });
        }
    }

    /// What was counted, for a program that takes over.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.metrics.counted()
    }

    /// Goes on with what was counted by the program that this one has taken over from.
    pub fn go_on_counting(&mut self, before: Counted) {
        self.metrics.go_on(before);
    }
}
