//! Why a value of the command line cannot be read.

use procbroker_protocol::create::{AddressError, CpuMaxError};
use procbroker_protocol::duration::DurationError;
use procbroker_protocol::name::NameError;
use procbroker_protocol::since::SinceError;
use thiserror::Error;

use crate::cli::size::ByteSizeError;

/// Why a value of the command line cannot be read.
#[derive(Debug, Error)]
pub(in crate::cli) enum ValueError {
    /// No `=` with something in front of it.
    #[error("it is not of the form {form}")]
    Pair {
        /// What it is to look like.
        form: &'static str,
    },
    /// What should be a number is not one, or too large.
    #[error("{text:?} is not a number from 0 to {max}")]
    Number {
        text: String,
        /// The largest number that is taken.
        max: u64,
    },
    /// What should be a whole number is not one.
    #[error("{text:?} is not a whole number from {min} to {max}")]
    Whole {
        text: String,
        /// The smallest number that is taken.
        min: i64,
        /// The largest number that is taken.
        max: i64,
    },
    /// What should be the id of a request is not one.
    #[error("{text:?} is not a UUID, such as 67e55044-10b1-426f-9247-bb680e5fe0c8; uuidgen(1) makes one")]
    Uuid { text: String },
    /// What should be a pattern is not one.
    #[error("{text:?} is not a pattern such as 'render-*': {problem}")]
    Glob {
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No user and no group.
    #[error("it is empty; give the name or the number of one")]
    Account,
    /// What should be the number of an event is not one.
    #[error("{text:?} is not the number of an event; each line of events has one, such as 42")]
    Event { text: String },
    /// A pattern where none is taken.
    #[error("{text:?} is a pattern; names and ids are taken, and --label for those that have a label")]
    Pattern { text: String },
    #[error(transparent)]
    Name(#[from] NameError),
    /// A lifetime of another form.
    #[error("a lifetime is broker, connection, pid:N or ttl:DURATION")]
    Lifetime,
    /// A lifetime that is a time alone.
    #[error("a lifetime of so long is ttl:{text}")]
    LifetimeIsTime {
        /// The time that was given.
        text: String,
    },
    /// A readiness of another form.
    #[error(
        "it is spawn, notify, tcp:[ADDRESS:]PORT, unix:PATH or log:TEXT; a command is given with --ready-command"
    )]
    Ready,
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A size of another form.
    #[error(transparent)]
    Size(#[from] ByteSizeError),
    #[error(transparent)]
    CpuMax(#[from] CpuMaxError),
    /// A resource that is not one of ours.
    #[error(
        "{name:?} is no resource; there are memory_max, memory_high, cpu_weight, cpu_max, pids_max and io_weight"
    )]
    Resource { name: String },
    /// A file mode of another form.
    #[error("a mode is three octal digits, such as 660")]
    Mode,
    /// The same key was given twice.
    #[error("{key:?} is given twice with {flag}; give each key once")]
    Twice {
        key: String,
        /// The flag that it was given with.
        flag: &'static str,
    },
    #[error(transparent)]
    Signal(#[from] procbroker_protocol::signal::SignalError),
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// A number of months, where minutes were likely meant.
    #[error("{text:?} has M, which is a month; {minutes:?} is minutes, and 'months' says the other")]
    Months {
        text: String,
        /// The same with minutes.
        minutes: String,
    },
    #[error(transparent)]
    Since(#[from] SinceError),
}
