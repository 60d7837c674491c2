//! Gathers the metrics.

use super::Driver;
use crate::metrics::{Counters, MetricsSnapshot};

impl Driver {
    /// Returns the metrics, as Prometheus reads them.
    pub(super) fn metrics(&self) -> String {
        let amounts = self.handler.logs.amounts();
        let metrics = MetricsSnapshot {
            version: env!("CARGO_PKG_VERSION"),
            counts: &self.broker.counts(),
            turns: &self.turns,
            output_bytes: amounts.kept(),
            answer_bytes: self.handler.clients.bytes(),
            log_dropped_bytes: amounts.dropped(),
            children_log_dropped_lines: amounts.lost_lines(),
        };
        metrics.text()
    }

    /// What was counted, for the program that takes over.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            counted: self.broker.counted(),
            turns: self.turns.observed(),
            log_dropped_bytes: self.handler.logs.amounts().dropped(),
            children_log_dropped_lines: self.handler.logs.amounts().lost_lines(),
        }
    }

    /// Goes on with what was counted by the program before this one.
    pub(crate) fn go_on_counting(&mut self, before: Counters) {
        let Counters { counted, turns, log_dropped_bytes, children_log_dropped_lines } = before;
        self.broker.go_on_counting(counted);
        self.turns.go_on(&turns);
        let amounts = self.handler.logs.amounts();
        amounts.drop_more(log_dropped_bytes);
        amounts.lose_lines(children_log_dropped_lines);
    }
}
