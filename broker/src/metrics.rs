//! The broker's metrics in the Prometheus text format, and the HTTP that they are fetched by.

pub mod http;
mod text;

use procbroker_core::{Counted, Counts, Histogram, Observed};
use serde::{Deserialize, Serialize};

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

/// What is measured.
#[derive(Debug)]
pub struct Metrics<'a> {
    /// The version of the program.
    pub version: &'a str,
    /// What the core has counted.
    pub counts: &'a Counts,
    /// How long the driver took for each input, with all that followed from it.
    pub turns: &'a Histogram,
    /// How many bytes the kept output of children takes on the disk.
    pub output_bytes: u64,
    /// How many bytes are on their way to clients.
    pub answer_bytes: u64,
    /// How many bytes of output could not be kept.
    pub log_dropped_bytes: u64,
    /// How many lines of output could not be passed on.
    pub children_log_dropped_lines: u64,
}

impl Metrics<'_> {
    /// Returns them as Prometheus reads them: its text-based format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        text::text(self)
    }
}
