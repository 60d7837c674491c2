//! What the driver tells those who watch the broker.

use super::Driver;
use crate::metrics::Metrics;

impl Driver {
    /// Returns the metrics, as Prometheus reads them.
    pub(super) fn metrics(&self) -> String {
        let amounts = self.hands.logs.amounts();
        let metrics = Metrics {
            version: env!("CARGO_PKG_VERSION"),
            counts: &self.broker.counts(),
            turns: &self.turns,
            output_bytes: amounts.kept(),
            answer_bytes: self.hands.clients.bytes(),
            log_dropped_bytes: amounts.dropped(),
        };
        metrics.text()
    }
}
