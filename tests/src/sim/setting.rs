//! The circumstances of one run: the broker's settings, and what its world is like.

use std::time::Duration;

use procbroker_core::{Bounds, Config, ResourceBound, UserRange};
use procbroker_protocol::Containment;
use procbroker_protocol::status::Facilities;
use uuid::Uuid;

use crate::sim::agenda::SECOND;
use crate::sim::dice::Dice;
use crate::sim::wall_clock;

/// The broker's own user, where it is not root.
pub const BROKER_USER: u32 = 500;
/// Two users that may connect.
pub const USERS: [u32; 2] = [1001, 1002];
/// A group whose members may connect.
pub const ALLOWED_GROUP: u32 = 77;
/// A user that may connect by his group only.
pub const GROUP_USER: u32 = 1003;
/// A user that may not connect.
pub const STRANGER: u32 = 1666;

/// How a run comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By a signal to the broker.
    Signal,
    /// By something inside, with its own bound on time.
    Limited(Duration),
    /// By a client's request.
    Request(Option<Duration>),
    /// After everything was ended and forgotten: nothing must be left in the broker then.
    Quiet,
}

/// The circumstances of one run.
#[expect(clippy::struct_excessive_bools, reason = "traits of a world, any of which goes with any other")]
#[derive(Clone, Debug)]
pub struct Setting {
    /// What the broker is told.
    pub config: Config,
    /// How many clients there are.
    pub clients: u64,
    /// How often each of them does something, at most.
    pub acts: u64,
    /// How many names they fight for.
    pub names: u64,
    /// Whether processes are mostly such as do not want to end.
    pub unwilling: bool,
    /// Whether some cannot be ended, or signalled, at all.
    pub undying: bool,
    /// Whether spawns and records fail or hang more often than not.
    pub failing: bool,
    /// Whether clients hurry, so that much happens at once.
    pub crowded: bool,
    /// How it ends.
    pub ending: Ending,
    /// When that begins, at the latest.
    pub end_at: u64,
    /// After how long the broker is told to stop once more, if ever.
    pub again_after: Option<u64>,
    /// Whether clients send the same few requests again and again.
    pub insistent: bool,
    /// Whether some children are heavy, and the bytes that are kept of them are scarce.
    pub scarce: bool,
    /// Whether many clients want the few places under one or two limits.
    pub contended: bool,
    /// How many children of a hundred have a cleanup.
    pub cleanups: u64,
    /// How many children of a hundred are restarted by a policy.
    pub restarting: u64,
    /// How many children of a hundred are not ready as soon as they run.
    pub readying: u64,
    /// How often the broker dies at most.
    pub crashes: u64,
    /// How many deaths of a hundred are those of the machine.
    pub power_cuts: u64,
    /// How often the broker is told to let another program take over.
    pub upgrades: u64,
    /// How often it is started again after it has left in order.
    pub restarts: u64,
}

impl Setting {
    /// Rolls the circumstances of a run.
    pub fn roll(dice: &mut Dice) -> Self {
        let config = config(dice);
        let ending = match dice.below(10) {
            0 => Ending::Limited(timeout(dice)),
            1 | 2 => Ending::Request(if dice.chance(50) { Some(timeout(dice)) } else { None }),
            3 | 4 => Ending::Quiet,
            _ => Ending::Signal,
        };
        let crowded = dice.chance(60);
        let crashes = if dice.chance(45) { 1 + dice.below(4) } else { 0 };
        let most = if crowded { 4 * SECOND } else { 90 * SECOND };
        let (bounds, usual) = (config.bounds, Bounds::default());
        let scarce = bounds.max_kept_bytes < usual.max_kept_bytes
            || bounds.max_kept_bytes_per_user < usual.max_kept_bytes_per_user;
        let contended = dice.chance(15);
        Self {
            config,
            scarce,
            contended,
            clients: if contended { 3 + dice.below(6) } else { 1 + dice.below(5) },
            acts: 4 + dice.below(12),
            names: 1 + dice.below(3),
            unwilling: dice.chance(40),
            undying: dice.chance(15),
            failing: dice.chance(12),
            crowded,
            ending,
            end_at: SECOND + dice.below(most),
            again_after: if dice.chance(30) { Some(dice.below(40 * SECOND)) } else { None },
            insistent: dice.chance(15),
            cleanups: dice.choose([0, 30, 30, 90]),
            restarting: dice.choose([0, 30, 30, 90]),
            readying: dice.choose([0, 30, 30, 90]),
            crashes,
            power_cuts: dice.choose([0, 0, 30, 100]),
            upgrades: dice.choose([0, 0, 0, 1, 3]),
            restarts: dice.choose([0, 0, 0, 1, 2]),
        }
    }
}

fn timeout(dice: &mut Dice) -> Duration {
    Duration::from_millis(dice.choose([0, 20, 1_000, 2_000, 5_000, 30_000, 30_000, 120_000]))
}

fn config(dice: &mut Dice) -> Config {
    Config {
        version: "0".to_owned(),
        pid: 4_000_000,
        instance: Uuid::from_u128(7),
        started_at: wall_clock::START,
        failed_upgrade: None,
        broker_uid: if dice.chance(60) { 0 } else { BROKER_USER },
        allow_users: USERS.to_vec(),
        allow_groups: vec![ALLOWED_GROUP],
        subordinates: if dice.aside().chance(20) {
            vec![UserRange { first: GROUP_USER, count: 2 }]
        } else {
            Vec::new()
        },
        bounds: bounds(dice),
        shutdown_timeout: Duration::from_secs(dice.choose([1, 5, 30, 30, 30, 120])),
        main: None,
        exit_when_idle: if dice.chance(12) {
            Some(Duration::from_millis(dice.choose([1, 100, 5_000])))
        } else {
            None
        },
        log_folder: "/logs".to_owned(),
        containment: Containment::Subreaper,
        lacking: [(ResourceBound::MemoryMax, "it is not there".to_owned())].into(),
        facilities: Facilities::default(),
    }
}

/// How long the working directories of some children are where bytes are scarce.
pub const HEAVY: usize = 60_000;

fn bounds(dice: &mut Dice) -> Bounds {
    // So many heavy children fill their part, which is three eighths.
    let filled_by = |children: u64| children * HEAVY as u64 / 3 * 8 + HEAVY as u64;
    let Bounds { max_kept_bytes, max_kept_bytes_per_user, .. } = Bounds::default();
    Bounds {
        max_kept_bytes: dice.choose([filled_by(4), max_kept_bytes, max_kept_bytes, max_kept_bytes]),
        max_kept_bytes_per_user: dice.choose([
            filled_by(2),
            max_kept_bytes_per_user,
            max_kept_bytes_per_user,
        ]),
        max_children: dice.choose([2, 10, 100, 100]),
        max_children_per_user: dice.choose([1, 4, 100, 100]),
        max_connections: dice.choose([2, 10, 100, 100]),
        max_connections_per_user: dice.choose([1, 2, 100, 100]),
        max_spawns_in_flight: dice.aside().choose([2, 3, 10, 30, 256, 256]),
        max_pipelined: dice.choose([1, 3, 100, 100]),
        max_command_bytes: 64,
        ended_kept: dice.choose([0, 1, 3, 1_000, 1_000]),
        ended_kept_for: Duration::from_millis(dice.choose([0, 500, 60_000, 3_600_000])),
        events_kept: dice.aside().choose([3, 12, 10_000, 10_000]),
        ..Bounds::default()
    }
}
