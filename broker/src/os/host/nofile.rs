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

/// Descriptors that a child takes: its pidfd, and the pipe of its output.
const OF_A_CHILD: u64 = 2;

/// What the broker needs for itself at most: the slots of children on their way, control groups made ahead, records.
const OWN_MAX: u64 = 192;

/// What connections can take where there are few, and what is left to children beside them: one of so many.
const CONNECTIONS_SHARE: u64 = 8;
/// See [`CONNECTIONS_SHARE`].
const CHILDREN_SHARE: u64 = 8;

impl Nofile {
    /// Returns how many children can live at a time, beside so many connections: one at least.
    #[must_use]
    pub fn children_max(self, connections_max: u32) -> u32 {
        let connections = u64::from(connections_max).min(self.hard / CONNECTIONS_SHARE);
        let share = self.hard / CHILDREN_SHARE;
        let own = OWN_MAX.min(self.hard.saturating_sub(share).saturating_sub(connections));
        let children = self.hard.saturating_sub(own).saturating_sub(connections) / OF_A_CHILD;
        u32::try_from(children.max(1)).unwrap_or(u32::MAX)
    }
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
    fn children_share_the_descriptors_with_the_broker_and_its_connections() {
        let of = |hard, connections| Nofile { soft: 1_024, hard }.children_max(connections);
        assert_eq!(of(96, 4_096), 6);
        assert_eq!(of(128, 4_096), 8);
        assert_eq!(of(1_024, 4_096), 352);
        assert_eq!(of(1_024, 8), 412);
        assert!(of(1 << 15, 4_096) >= 10_000);
        assert_eq!(of(u64::MAX, u32::MAX), u32::MAX);
        assert_eq!(of(0, 4_096), 1);
    }

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
