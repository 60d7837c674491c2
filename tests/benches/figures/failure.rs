//! What ends a benchmark before its figure.

use std::io;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A signal asked to end.
    #[error("interrupted by a signal")]
    Interrupted,
    /// The system refused.
    #[error("could not {attempt}: {source}")]
    System {
        /// What was attempted, on what.
        attempt: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The broker refused.
    #[error("could not {attempt}: the broker answered: {source}")]
    Refused {
        /// What was attempted, on what.
        attempt: String,
        /// The broker's reason.
        source: procbroker_protocol::Error,
    },
    /// The Rust client failed.
    #[error("could not {attempt}: the client reports: {source}")]
    Client {
        /// What was attempted, on what.
        attempt: String,
        /// The client's reason.
        source: Box<procbroker_client::Error>,
    },
    /// Something is not as it must be for a figure that means anything.
    #[error("could not {attempt}: {found}")]
    Unexpected {
        /// What was attempted, on what.
        attempt: String,
        /// What was found instead, and what to do.
        found: String,
    },
}

impl Failure {
    pub(crate) fn unexpected(attempt: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unexpected { attempt: attempt.into(), found: found.into() }
    }
}

/// Says what was attempted when the system refused.
pub(crate) trait Attempt<T> {
    /// Gives the error its context.
    fn attempting(self, attempt: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempting(self, attempt: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::System { attempt: attempt.into(), source: error.into() })
    }
}
