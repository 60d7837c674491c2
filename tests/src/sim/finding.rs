//! What a checker says when a promise is broken.

use std::fmt;

/// Which promise a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The order of the orders for one process: recorded, spawned, signalled, killed, released, forgotten.
    Orders,
    /// A name has one live holder, a limit's key no more than its bound, a request one child.
    OneOwner,
    /// Who waits for a place under a limit gets it in his turn.
    Places,
    /// Creates are answered with what happened to them.
    Creates,
    /// Each request gets one answer, on its connection, with what its method promises.
    Answers,
    /// Nobody sees or touches what is not his, and nobody gains rights.
    Privilege,
    /// A child lives as long as it is held or renewed, and no longer.
    Leases,
    /// A child is shown as it is.
    Children,
    /// Events are counted one after the other, across an upgrade too.
    Events,
    /// A child counts as ready when it is, and only so long is waited for that.
    Readiness,
    /// A child is restarted when its policy or somebody says so, when it is due, and no more often.
    Restarts,
    /// What was promised before a crash holds after it.
    Recovery,
    /// A cleanup runs after all of its child is gone, at least once, and no more often than it must.
    Cleanup,
    /// An upgrade begins when it is asked for, and hands over when nothing is in the air.
    Upgrade,
    /// Signals come in their order and with their graces, and SIGKILL after them.
    Stops,
    /// The waves of a shutdown, its deadline and its end.
    Shutdown,
    /// Ended children stay visible for as long as they are to, and no longer.
    Visibility,
    /// Bounds on connections and requests.
    Bounds,
    /// Nothing that could go on stands still, and nothing spins.
    Progress,
    /// What is over leaves nothing behind in the broker.
    Growth,
    /// The broker panicked.
    Panic,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which one.
    pub check: Check,
    /// What happened.
    pub what: String,
}

/// What a checker has to say.
pub type Checked = Result<(), Finding>;

impl Check {
    /// A finding, unless `kept`.
    ///
    /// # Errors
    /// When the promise is not kept.
    pub fn demand(self, kept: bool, what: impl FnOnce() -> String) -> Checked {
        if kept { Ok(()) } else { Err(self.broken(what())) }
    }

    /// A finding.
    #[must_use]
    pub fn broken(self, what: impl Into<String>) -> Finding {
        Finding { check: self, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.check, self.what)
    }
}
