//! Those who are told what is kept of a stream, now or as soon as there is more.

use tokio::sync::oneshot;

use crate::os::logs::output::KeptStream;

/// Somebody who is told what is kept.
#[derive(Debug)]
pub(super) struct Waiting {
    /// When so much has been moved, at the latest.
    pub(super) moved: u64,
    /// Whether an empty pipe is enough.
    pub(super) patience: Patience,
    pub(super) answer: oneshot::Sender<KeptStream>,
}

/// What an empty pipe means to somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    UntilItIsEmpty,
    UntilThereIsMore,
}
