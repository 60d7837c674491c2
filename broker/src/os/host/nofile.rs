//! The broker's own limit on open files.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

/// A limit on open files (`RLIMIT_NOFILE`); `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nofile {
    /// The one in force.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// The limit could not be raised.
#[derive(Debug, Error)]
#[error(
    "cannot {attempt} the limit on open files: {errno}; start the broker with a higher one (ulimit -n, LimitNOFILE=)"
)]
pub struct NofileError {
    attempt: &'static str,
    #[source]
    errno: Errno,
}

/// Raises the soft limit to the hard one, for the broker holds a descriptor for each child and each connection.
///
/// Returns what it was before: children get that, since programs that use `select(2)` fail above 1,024.
///
/// # Errors
/// When the system refuses, which it has no reason to.
pub fn raise_nofile() -> Result<Nofile, NofileError> {
    let failed = |attempt| move |errno| NofileError { attempt, errno };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("read"))?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed("raise"))?;
    }
    Ok(Nofile { soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_the_original_is_told() {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let original = raise_nofile().unwrap();
        // Another test of the same process may have raised it already.
        assert!(original.soft == before.0 || original.soft == original.hard);
        assert_eq!(original.hard, before.1);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (original.hard, original.hard));
        assert_eq!(raise_nofile().unwrap(), Nofile { soft: original.hard, hard: original.hard });
    }
}
