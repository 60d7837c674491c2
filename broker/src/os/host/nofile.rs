//! The broker's own limit on open files.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

use crate::limits::{CALLER_STATUSES_MAX, REFUSED_AT_A_TIME, SLOTS, SPARE_GROUPS_MAX};

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

/// What the broker needs for itself whatever the limit: its record, folders, listeners, threads, and what a request opens
/// for a moment.
const OWN: u64 = 56;

/// What a broker with the fewest descriptors can work with: a handful of children and connections.
const HARD_MIN: u64 = 96;

/// What children and connections can take, beside the broker itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Children that can live at a time.
    pub children: u32,
    /// Connections that can be open at a time.
    pub connections: u32,
}

/// What is held ready beforehand, as many as there are descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provision {
    /// Places for children on their way, of two descriptors each.
    LaunchSlots,
    /// Control groups that wait for their children.
    SpareGroups,
    /// Places for clients that are told that they are refused.
    RefusedClients,
    /// The `/proc/PID/status` of clients, held open to be read again.
    CallerStatuses,
}

impl Provision {
    const ALL: [Self; 4] = [Self::LaunchSlots, Self::SpareGroups, Self::RefusedClients, Self::CallerStatuses];

    /// Returns how many there are where the limit on open files is this one: at least 1.
    #[must_use]
    pub fn count(self, limit: u64) -> usize {
        let (divisor, max) = match self {
            Self::LaunchSlots => (16, SLOTS),
            Self::SpareGroups => (32, SPARE_GROUPS_MAX),
            Self::RefusedClients => (16, REFUSED_AT_A_TIME),
            Self::CallerStatuses => (64, CALLER_STATUSES_MAX),
        };
        usize::try_from(limit / divisor).unwrap_or(max).clamp(1, max)
    }

    /// Returns how many there are under the limit that is in force now.
    #[must_use]
    pub fn at_hand(self) -> usize {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _hard)| soft);
        self.count(limit)
    }

    fn descriptors(self, limit: u64) -> u64 {
        let each = match self {
            Self::LaunchSlots => 2,
            Self::SpareGroups | Self::RefusedClients | Self::CallerStatuses => 1,
        };
        each * u64::try_from(self.count(limit)).unwrap_or(u64::MAX)
    }
}

impl Nofile {
    /// Shares the descriptors out: as many connections as are wanted, as long as there can be as many children.
    #[must_use]
    pub fn shares(self, connections_wanted: u32) -> Shares {
        let provisions: u64 = Provision::ALL.iter().map(|provision| provision.descriptors(self.hard)).sum();
        let left = self.hard.saturating_sub(OWN + provisions);
        let connections = u64::from(connections_wanted).min(left / (OF_A_CHILD + 1));
        let children = (left - connections) / OF_A_CHILD;
        let number = |count: u64| u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        Shares { children: number(children), connections: number(connections) }
    }
}

/// Why the limit on open files is of no use.
#[derive(Debug, Error)]
pub enum NofileError {
    /// The system refuses to tell or to raise it.
    #[error(
        "cannot {attempt} the limit on open files: {errno}; start the broker with a higher one (ulimit -n, LimitNOFILE=)"
    )]
    Refused {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// What the system said.
        #[source]
        errno: Errno,
    },
    /// There are too few for a broker with a handful of children and connections.
    #[error(
        "cannot work with at most {hard} open files, {HARD_MIN} are needed at least; start the broker with a higher limit \
         (ulimit -Hn, LimitNOFILE=)"
    )]
    TooLow {
        /// The hard limit on open files, which only root can raise.
        hard: u64,
    },
}

/// Raises the soft limit to the hard one, for the broker holds a descriptor for each child and each connection.
///
/// Returns what it was before: children get that, since programs that use `select(2)` fail above 1,024.
///
/// # Errors
/// When there are too few for any broker, or the system refuses, which it has no reason to.
pub fn raise_nofile() -> Result<Nofile, NofileError> {
    let failed = |attempt| move |errno| NofileError::Refused { attempt, errno };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("read"))?;
    if hard < HARD_MIN {
        return Err(NofileError::TooLow { hard });
    }
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
        let of = |hard, connections| Nofile { soft: 1_024, hard }.shares(connections);
        assert_eq!(of(HARD_MIN, 4_096), Shares { children: 6, connections: 6 });
        assert_eq!(of(128, 4_096), Shares { children: 14, connections: 14 });
        assert_eq!(of(1_024, 4_096), Shares { children: 243, connections: 242 });
        assert_eq!(of(1_024, 8), Shares { children: 360, connections: 8 });
        assert_eq!(of(u64::MAX, u32::MAX), Shares { children: u32::MAX, connections: u32::MAX });
        assert_eq!(of(0, 4_096), Shares { children: 1, connections: 1 });
        let wanted = of(1 << 15, 4_096);
        assert!(wanted.children >= 10_000 && wanted.connections == 4_096, "{wanted:?}");
    }

    #[test]
    fn what_is_held_ready_grows_with_the_limit_to_its_bound() {
        for (provision, few, many) in [
            (Provision::LaunchSlots, 6, SLOTS),
            (Provision::SpareGroups, 3, SPARE_GROUPS_MAX),
            (Provision::RefusedClients, 6, REFUSED_AT_A_TIME),
            (Provision::CallerStatuses, 1, CALLER_STATUSES_MAX),
        ] {
            assert_eq!(
                (provision.count(0), provision.count(HARD_MIN), provision.count(1 << 20)),
                (1, few, many)
            );
        }
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
