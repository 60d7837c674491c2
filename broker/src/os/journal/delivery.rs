//! What the thread of the journal tells the driver.

use std::sync::Arc;

use procbroker_core::{RecordFailure, Run};

use super::entry::Position;

/// What the thread of the journal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// What has become of an entry with a receipt: once for each.
    Receipt {
        /// Who waits for it.
        run: Run,
        /// Whether it is written.
        result: Result<(), RecordFailure>,
    },
    /// An attempt to write has ended that somebody [waits for](super::Journal::await_attempt).
    Attempted {
        /// Everything up to here is written, as safely as it was asked for, or could not be.
        up_to: Position,
    },
}

/// Where that goes, in the thread of the journal. It may block for a moment.
pub type Deliver = Arc<dyn Fn(Delivery) + Send + Sync>;
