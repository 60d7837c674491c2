//! One call of the broker: the time that it happens at, and the orders that come of it.

use crate::effect::Effect;
use crate::time::Now;

/// One call of [`Broker::handle`](crate::Broker::handle): the time that it happens at, and where its orders go.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    effects: &'a mut Vec<Effect>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Now, effects: &'a mut Vec<Effect>) -> Self {
        Self { now, effects }
    }

    /// Returns the same turn, for what it is lent to.
    pub(crate) fn lend(&mut self) -> Turn<'_> {
        Turn { now: self.now, effects: self.effects }
    }

    /// Orders something from the edge.
    pub(crate) fn order(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}
