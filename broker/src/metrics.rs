//! The broker's metrics in the Prometheus text format, and the HTTP that they are fetched by.

pub mod http;
mod text;

use procbroker_core::{Counted, Observed};
use serde::{Deserialize, Serialize};

pub use text::MetricsSnapshot;

/// What only grows, handed over to the program that takes this one's place: who watches sees no restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// What the core has counted.
    pub counted: Counted,
    /// How long the driver took for each input.
    pub turns: Observed,
    /// How many bytes of output could not be kept.
    pub log_dropped_bytes: u64,
    /// How many lines of output could not be passed on.
    #[serde(default)]
    pub children_log_dropped_lines: u64,
}
