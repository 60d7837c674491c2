//! Where the driver takes facts from.

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::signals::Signals;
use crate::inbox;
use crate::messages::{Fact, FromThread};
use crate::os::host::clock::Alarm;

/// Where facts come from.
#[derive(Debug)]
pub struct Sources {
    /// What clients say, and what the tasks around them report.
    pub facts: inbox::Receiver<Fact>,
    /// From the edge's own threads.
    pub threads: mpsc::Receiver<FromThread>,
    /// The signals that mean something to the broker, SIGCHLD among them.
    pub signals: Signals,
    /// Readable when a watched process has ended: there only where some are not the broker's own children, of whose end
    /// no signal tells.
    pub announcer: Option<AsyncFd<OwnedFd>>,
    /// Readable when a child has told something of itself.
    pub notices: AsyncFd<OwnedFd>,
    /// Readable when a process has ended that children's lives hang on.
    pub anchors: AsyncFd<OwnedFd>,
    /// Readable when something has come of a process that is being started.
    pub launches: AsyncFd<OwnedFd>,
    /// Rings when something is due.
    pub alarm: Alarm,
}

/// Waits until a child has told something, or, where more was told than could be taken in, until others have had their
/// turns.
pub(super) async fn unheard(notices: &AsyncFd<OwnedFd>, has_more: bool) {
    if has_more { tokio::task::yield_now().await } else { announced(Some(notices)).await }
}

/// Waits until a descriptor of this kind is readable.
pub(super) async fn announced(announcer: Option<&AsyncFd<OwnedFd>>) {
    match announcer {
        Some(announcer) => match announcer.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The event loop itself has ended.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
