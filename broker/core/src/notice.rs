//! What a process of a child tells of itself (`sd_notify(3)`), as far as it means something.

use std::time::Duration;

/// One thing that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`: it has started up.
    Ready,
    /// `EXTEND_TIMEOUT_USEC=`: what it is at takes at least so much longer from now on.
    MoreTime(Duration),
}
