//! What is wrong with what is kept of children's output.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Output cannot be kept, read or removed.
#[derive(Debug, Error)]
#[error("cannot {attempt} {path}: {source}; the broker needs to read and write its own folders")]
pub struct LogsError {
    attempt: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LogsError {
    pub(super) fn new(attempt: &'static str, path: PathBuf, source: io::Error) -> Self {
        Self { attempt, path, source }
    }
}
