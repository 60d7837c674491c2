//! The bounds that several modules share, or that an administrator sets. What bounds one check alone stands beside that.

use std::time::Duration;

use procbroker_protocol::limits::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use procbroker_protocol::status::Limits;

use crate::kept::Budget;

/// The shortest pause before a restart: a child that cannot live is no reason to do nothing else.
pub(crate) const RESTART_PAUSE_MIN: Duration = Duration::from_millis(10);

/// After how long it is tried again to record that a child is about to be restarted.
pub(crate) const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How many restarts of one child are counted at most. A `max` above that is no bound.
pub(crate) const RESTARTS_COUNTED_MAX: usize = 1_000;

/// How many ended children stay visible unless set otherwise.
pub const ENDED_KEPT: u32 = 1_024;

/// How long ended children stay visible unless set otherwise.
pub const ENDED_KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// How long a shutdown may take unless set otherwise.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// After how long, at most, SIGKILL is sent once more to what has not ended of it: a process can be forked
/// at the very moment, and one in uninterruptible sleep takes its time.
pub const KILL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The first of these pauses, which double: what was forked at the very moment is gone soon, and what
/// cannot be ended keeps nobody busy.
pub(crate) const KILL_AGAIN_FIRST: Duration = Duration::from_millis(10);

/// After how long a cleanup is tried again that could not be started for a shortage; the pauses double.
pub(crate) const SHORTAGE_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// See [`SHORTAGE_PAUSE_FIRST`]: no pause is longer.
pub(crate) const SHORTAGE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// From so long after the first on, SIGTERM and SIGINT hurry a shutdown.
pub(crate) const SECOND_SIGNAL_AFTER: Duration = Duration::from_secs(1);

/// The longest pause between two probes of a child that is starting, unless a longer one was asked for.
pub(crate) const PROBE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a command may take to find out whether a child is ready.
pub(crate) const PROBE_COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// The shortest time that a shutdown takes, if it has to: what is killed has to be reaped as well.
pub(crate) const SHUTDOWN_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// Processes that are being started at a time, in all. The edge has a slot for each, so that nobody waits behind spawns that
/// hang: far more than there are processors, since it is those of users whose programs do not answer that fill them.
pub const SPAWNS_IN_FLIGHT_MAX: u32 = 256;
/// Processes that are being started at a time for one user: more than there are processors keep them busy.
pub(crate) const SPAWNS_IN_FLIGHT_PER_USER_MAX: u32 = 16;
/// How many places have to be free for each process that is being started for a user, beyond the first.
pub(crate) const FREE_FOR_EACH_OF_A_USER: u32 = 8;

/// The part of a shutdown's time that is kept for the last kill, as a divisor, and at most so much.
pub(crate) const KILL_RESERVE_DIVISOR: u32 = 10;
/// See [`KILL_RESERVE_DIVISOR`]: at least so much of a short time, or half of it, because even one process
/// takes its time to die on a busy machine.
pub(crate) const KILL_RESERVE_MIN: Duration = Duration::from_millis(250);
/// See [`KILL_RESERVE_DIVISOR`]: ten thousand processes are killed and reaped in half a second.
pub(crate) const KILL_RESERVE_MAX: Duration = Duration::from_secs(1);

/// How long the cleanups of a shutdown may take together once it is hurried.
pub(crate) const HURRIED_CLEANUPS_MAX: Duration = Duration::from_secs(5);

/// The part of a child's time in a shutdown that is kept for its cleanup, as a divisor, if that takes so long.
pub(crate) const CLEANUP_SHARE_DIVISOR: u32 = 4;

/// How long the holders of a child have at the least to come back, after their connections were lost with the broker.
pub(crate) const LINGER_AFTER_A_CRASH_MIN: Duration = Duration::from_secs(10);

/// Bytes of what children say of themselves that an upgrade passes on, at most; what is over is shown when it is said again.
pub(crate) const STATUS_TEXTS_HANDED_OVER_BYTES_MAX: usize = 4 << 20;

/// How long a child has at the least to say that it is well after an upgrade: what it has said meanwhile is read within that.
pub const WATCHDOG_LEFT_MIN: Duration = Duration::from_millis(250);

/// How long something is overdue where the broker itself was kept from running: what somebody was to say by then may have been
/// said, or have been kept back with it.
pub(crate) const STOOD_STILL_AFTER: Duration = Duration::from_millis(5);

/// How long a process that is to be stopped may take to get to its program before it is killed: most get there within it,
/// and end in order.
pub const LAUNCH_MOMENT: Duration = Duration::from_millis(100);

/// How long processes that are being started have to get to their programs before they are killed for an upgrade: an
/// ordinary one takes some milliseconds, also on a busy machine.
pub const LAUNCH_MOMENT_IN_AN_UPGRADE: Duration = Duration::from_secs(1);

/// How long processes that are being started have before an upgrade is given up.
pub(crate) const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// How many creates that wait for a place are decided about in one turn: each may be refused, and nobody else waits for them all.
pub(crate) const OFFERS_A_TURN_MAX: usize = 64;

/// Events that are kept for those who ask for them later.
pub(crate) const EVENTS_KEPT: usize = 10_000;

/// How many of each ten thousand events that are kept are kept while somebody who was told that there are some has not read
/// them. What a broker of ten thousand children says at once fits.
const EVENTS_KEPT_FOR_READERS: usize = 16_384;

/// Events that a connection is sent at a time, of all of its subscriptions.
pub(crate) const EVENTS_A_READ: usize = 64;
/// See [`EVENTS_A_READ`]: at most so many are looked at for them.
pub(crate) const EVENTS_LOOKED_AT_A_READ: usize = 512;
/// See [`EVENTS_A_READ`]: they take about so many bytes, or are one of each subscription.
pub(crate) const EVENT_BYTES_A_READ: usize = 64 << 10;

/// Events of a turn that are looked at for each subscriber who has read all, to see whether it wants any: more than are told of
/// one child at once.
pub(crate) const FRESH_EVENTS_LOOKED_AT: usize = 8;

/// The steps of a stop, at most: each is a signal and a wait, and nobody needs more.
pub(crate) const STOP_STEPS_MAX: usize = 32;

/// Groups that a create can name. More are not looked up either, which may take long for each.
pub const GROUPS_MAX: usize = 256;

/// Labels of a child, at most, and bytes of all of them together.
pub(crate) const LABELS_MAX: usize = 64;
/// See [`LABELS_MAX`].
pub(crate) const LABEL_BYTES_MAX: usize = 16 << 10;

/// How much of a child's command line lists, events and the log show, in bytes. `get` shows all of it.
pub(crate) const COMMAND_SHOWN_BYTES_MAX: usize = 4 << 10;

/// How much the children of an answer may take, in bytes: what a message may have, less its other members.
pub(crate) const ANSWER_TEXT_BYTES_MAX: usize = ANSWER_BYTES_MAX - (4 << 10);

/// What an answer takes, in bytes, that is remembered for the same request to get it again.
pub(crate) const ANSWER_KEPT_BYTES: u64 = 192;

/// Bytes of a limit's key.
pub(crate) const LIMIT_KEY_BYTES_MAX: usize = 256;

/// What a request that waits takes, in bytes, beside what it says.
pub(crate) const REQUEST_KEPT_BYTES: u64 = 256;

/// What it takes for each child that it waits for, in bytes.
pub(crate) const WATCHED_KEPT_BYTES: u64 = 128;

/// What an event takes beside the texts of its child, in bytes.
pub(crate) const EVENT_KEPT_BYTES: usize = 512;

/// How much may be on its way on each connection whatever else is on its way to its user, in bytes: what the kernel leaves to
/// each TCP connection when memory is short (tcp(7), `tcp_wmem`).
const CONNECTION_BYTES: u64 = 4 << 10;

/// The part of what may be on its way that is left for that at most, as a divisor.
const CONNECTIONS_DIVISOR: u64 = 2;

/// Returns how many places of a total one user may have unless set otherwise: half of them, and one at least.
#[must_use]
pub const fn part_of_one_user(total: u32) -> u32 {
    if total < 2 { 1 } else { total / 2 }
}

/// Returns how many of the bytes that are kept in all are kept for one user unless set otherwise: a quarter.
#[must_use]
pub const fn bytes_of_one_user(total: u64) -> u64 {
    total / 4
}

/// The bounds of a broker, most of which are flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Live children in all.
    pub max_children: u32,
    /// Live children of one user.
    pub max_children_per_user: u32,
    /// How many connections there may be, of all users together.
    pub max_connections: u32,
    /// Connections of one user.
    pub max_connections_per_user: u32,
    /// Processes that are being started at a time, in all.
    pub max_spawns_in_flight: u32,
    /// Requests of one connection that are not answered yet.
    pub max_pipelined: u32,
    /// Bytes of a command line and environment.
    pub max_command_bytes: u32,
    /// Subscriptions of one connection.
    pub max_subscriptions: u32,
    /// Bytes that are kept for clients, in all.
    pub max_kept_bytes: u64,
    /// Bytes that are kept for one user.
    pub max_kept_bytes_per_user: u64,
    /// How long a message may stay unfinished; enforced where messages are read.
    pub partial_message_timeout: Duration,
    /// Ended children that stay visible, of all users together; where there are more, the first one of the user goes who has
    /// the most.
    pub ended_kept: u32,
    /// How long they stay visible.
    pub ended_kept_for: Duration,
    /// Events that are kept for those who ask for them later.
    pub events_kept: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_children: 10_000,
            max_children_per_user: part_of_one_user(10_000),
            max_connections: 4_096,
            max_connections_per_user: part_of_one_user(4_096),
            max_spawns_in_flight: SPAWNS_IN_FLIGHT_MAX,
            max_pipelined: 1_024,
            max_command_bytes: 256 << 10,
            max_subscriptions: 16,
            max_kept_bytes: 256 << 20,
            max_kept_bytes_per_user: bytes_of_one_user(256 << 20),
            partial_message_timeout: Duration::from_secs(10),
            ended_kept: ENDED_KEPT,
            ended_kept_for: ENDED_KEPT_FOR,
            events_kept: EVENTS_KEPT,
        }
    }
}

impl Bounds {
    /// How many bytes live children may take, and with them ended ones as long as there is room.
    #[must_use]
    pub fn children_bytes(&self) -> Budget {
        self.parts(12)
    }

    /// How many bytes requests may take that wait.
    #[must_use]
    pub fn request_bytes(&self) -> Budget {
        self.parts(4)
    }

    /// How many events are kept while somebody who was told that there are some has not read them.
    #[must_use]
    pub fn events_kept_for_readers(&self) -> usize {
        self.events_kept.saturating_mul(EVENTS_KEPT_FOR_READERS) / 10_000
    }

    /// How many bytes the events may take that are kept, whoever may see them.
    #[must_use]
    pub fn event_bytes(&self) -> u64 {
        self.parts(3).all
    }

    /// How many bytes the answers may take that are remembered for the same requests to get them again.
    #[must_use]
    pub fn remembered_bytes(&self) -> Budget {
        self.parts(1)
    }

    /// How many bytes may be on their way to clients, answers, events and output, beside what each connection has for
    /// itself.
    #[must_use]
    pub fn answer_bytes(&self) -> Budget {
        let Budget { user, all } = self.parts(12);
        let (of_a_user, of_all) = self.connections();
        let own = self.connection_bytes();
        Budget { user: user - own * of_a_user, all: all - own * of_all }
    }

    /// How many bytes may be on their way on one connection whatever else is: clients of a user that do not read keep none
    /// of its others from getting on.
    #[must_use]
    pub fn connection_bytes(&self) -> u64 {
        let Budget { user, all } = self.parts(12);
        let (of_a_user, of_all) = self.connections();
        let most = |bytes: u64, connections: u64| bytes / CONNECTIONS_DIVISOR / connections.max(1);
        CONNECTION_BYTES.min(most(user, of_a_user)).min(most(all, of_all))
    }

    /// How many connections there are at most, of one user and in all.
    fn connections(&self) -> (u64, u64) {
        let of_a_user = self.max_connections_per_user.min(self.max_connections);
        (of_a_user.into(), self.max_connections.into())
    }

    /// Returns so many of the thirty-two parts of the bytes that may be kept.
    fn parts(&self, count: u64) -> Budget {
        let part = |bytes: u64| bytes / 32 * count + bytes % 32 * count / 32;
        Budget { user: part(self.max_kept_bytes_per_user), all: part(self.max_kept_bytes) }
    }

    /// The bounds as `status` shows them.
    pub(crate) fn shown(&self, shutdown_timeout: Duration) -> Limits {
        Limits {
            max_children: self.max_children,
            max_children_per_user: self.max_children_per_user,
            max_connections: self.max_connections,
            max_connections_per_user: self.max_connections_per_user,
            max_pipelined: self.max_pipelined,
            max_command_bytes: self.max_command_bytes,
            max_subscriptions: self.max_subscriptions,
            max_kept_bytes: self.max_kept_bytes,
            max_kept_bytes_per_user: self.max_kept_bytes_per_user,
            max_message_bytes: u32::try_from(REQUEST_BYTES_MAX).unwrap_or(u32::MAX),
            partial_message_timeout: self.partial_message_timeout,
            ended_kept: self.ended_kept,
            ended_kept_for: self.ended_kept_for,
            shutdown_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_have_for_themselves_is_within_what_may_be_on_its_way() {
        let usual = Bounds::default();
        let crowded = Bounds { max_connections: 1_000_000, max_connections_per_user: u32::MAX, ..usual };
        let lonely = Bounds { max_connections: 1, max_connections_per_user: 1, ..usual };
        let short = Bounds { max_kept_bytes: 1 << 20, max_kept_bytes_per_user: 1 << 18, ..usual };
        let none = Bounds { max_connections: 0, max_connections_per_user: 0, ..usual };
        for bounds in [usual, crowded, lonely, short, none] {
            let (Budget { user, all }, own) = (bounds.answer_bytes(), bounds.connection_bytes());
            let (of_a_user, of_all) = bounds.connections();
            let whole = bounds.parts(12);
            assert_eq!((user + own * of_a_user, all + own * of_all), (whole.user, whole.all), "{bounds:?}");
            assert!(user >= whole.user / 2 && all >= whole.all / 2, "{bounds:?}");
        }
        assert_eq!(
            (usual.connection_bytes(), lonely.connection_bytes()),
            (CONNECTION_BYTES, CONNECTION_BYTES)
        );
    }
}
