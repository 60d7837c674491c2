//! What follows from a transition of a child for others.

use procbroker_protocol::{Error, ExitReason, Timestamp};

/// What follows from a child's transition for others: the broker sees to it.
#[must_use]
#[derive(Debug)]
pub(crate) enum Next {
    /// No request, name, limit or shutdown has to be looked at.
    Nothing,
    /// The requests that wait for it are looked at again.
    Changed,
    /// It was not ready in time: its creator is told, and it is stopped.
    NotReady,
    /// It ended before it was started: its creator gets the error, and nobody sees it any more.
    NeverStarted {
        /// Why the child ends that never ran.
        reason: ExitReason,
        /// When its process was killed on the way to its program, if it was.
        killed: Option<Timestamp>,
        /// What its creator is told, where that does not follow from the reason.
        error: Option<Error>,
    },
    /// Its program could not be executed again: who has asked for this very restart gets the error.
    NotStartedAgain {
        /// What they are told.
        error: Error,
        /// What follows beside that.
        then: Box<Next>,
    },
    /// Its cleanup is left to the next broker, and the shutdown goes on without it.
    LeftBehind,
    /// It is over: what it held is given free, and everybody who waits for it is told.
    Over,
}
