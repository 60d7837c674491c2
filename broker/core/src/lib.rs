//! The process broker's decisions, as a pure state machine.
//!
//! [`Broker::handle`] takes one [`Input`] at a time (a request, an exit, a clock that has moved on) and appends the
//! [`Effect`]s that follow from it, each of which the edge answers with another input. There is no clock, no
//! randomness, no file, no process and no lock in here, which `broker/core/tests/layers` checks: times and ids come in with
//! the inputs. Everything that the
//! broker promises is decided here, can be read here, and is proved on this very code by the simulator.
//!
//! # Layers
//!
//! No module imports one that stands above it: `broker/core/tests/layers` reads this table and the imports, and fails on a ring too.
//! What is above is reached from below by nothing but a method of [`Broker`].
//!
//! | layer | modules | what they may touch |
//! | --- | --- | --- |
//! | the one way in | `handle`, and `life::recovery` for what an earlier broker has left | everything: it gives each input to what is below |
//! | what happens | `methods` (what clients ask for, one file each), `life` (what a child goes through), `shutdown` (the broker's own end) | the broker's state, through the methods of its types |
//! | the owner | `broker` | holds all state; answers, and lets requests wait |
//! | the state of a shutdown | `waves` (who is stopped next, and how long that may take) | the children |
//! | all children | `children` | its own private fields |
//! | one child | `child`: the table of every phase and every input; a file a phase below it | itself, and what its orders hold |
//! | what a child may order | `orders` | its timer, its place in the spawn queue, its events, what is counted of it |
//! | state | `answers`, `attempt`, `leases`, `pending`, `places`, `connections`, `event_log`, `metrics`, `rivals`, `room`, `spawn_queue`, `timers`, `idleness`, `upgrade` | each its own fields |
//! | vocabulary | `turn` (the effects of one input), `input`, `effect`, `record`, `ids`, `time`, `config`, `limits`, `histogram`, `labels`, `launch`, `main_process`, `notice`, `resources`, `shown`, `kept`, `anchor`, `authorize`, `validate` | nothing |
//!
//! A method is a file `methods/NAME.rs` that `Broker::call` calls, in `handle`; an input is taken in `Broker::take`, and has a
//! row in the table of `child`. `.github/CONTRIBUTING.md` lists all that a new method, a new member of a child's view and a
//! new probe of readiness need, from the wire to the clients.
//!
//! # The walk of a create
//!
//! 1. `Called` comes in. `handle` checks that the connection has a place for one more request, that its user may call
//!    the method (`authorize`) and that the parameters make sense (`validate`).
//! 2. `methods::create` decides, now and wholly: whether the request was answered before, who holds the name, and
//!    whether the bounds leave a place. The child is taken in (`children`), in the phase *Recording*; the request waits
//!    (`pending`); `Record` of the intent goes out.
//! 3. `Recorded` comes in: before, no create was answered with the child and no event told of it, though `list` shows it.
//!    It is *Queued* (`child::starting`), and `created` is published.
//! 4. At the end of the turn `life::start` takes from the `spawn_queue` whose turn it is: *Spawning*, `Spawn` goes out.
//! 5. `Spawned` comes in. Its progress is recorded, and `started` is published. With `ready: spawn` it is *Running*, `ready`
//!    is published, and the request that waits is looked at again (`methods::recheck`) and answered; else it is *Starting*.
//! 6. `Notified` or `Probed` comes in, of a child that is *Starting* (`child::readiness`), or the `Exited` of a command that
//!    asks it (`child::ready_command`): *Running*, and all the rest of 5.
//!
//! A create that has to wait (for a place under its `limit`, or for who holds its name) is kept in `places` or `pending`, and is
//! decided anew when that changes (`life::places`, `methods::recheck`); it goes with its connection (`methods::connect`).
//!
//! A process that does not get to its program (its file system does not answer) keeps its child *Spawning*. Whatever would stop it
//! kills it after a moment (`child::cut_short`), and it was never started. The edge gives it up after half a minute, as it
//! would a system call that hangs, and says that its spawn has failed.
//!
//! # The walk of a destroy
//!
//! 1. `Called` comes in. `methods::destroy` finds the children that are meant (`methods::targets`), waits for them
//!    (`pending`) and stops each: *Stopping* (`child::stopping`). In one turn the first step's `Record` goes out, and its
//!    `Signal` after that. No phase waits for that record: a child that exits meanwhile is *Stopping* as any other.
//! 2. For each step that has had its time, the child's timer runs out and the next one is sent. After the last `Kill`
//!    goes out, and again with pauses until nothing is left.
//! 3. `Exited` comes in: the main process is gone. The steps go on while anything of its group is alive, as each
//!    `MembersLeft` tells.
//! 4. Nothing is left: `Release` goes out. With a cleanup the child is *Cleaning* (`child::cleaning`): the attempt is
//!    recorded, takes its turn, runs within its time, and its outcome is recorded before anybody is told.
//! 5. It is *Ended* (`life::stop`): name and limit are free, `ended` is published, followers of its output are told, the
//!    next wave of a shutdown may begin, and the destroy is answered as soon as all this is on record.
//!
//! # The promises
//!
//! | promise | decided in | carried out by (the edge) | proved by (`tests/src/sim/checks`) |
//! | --- | --- | --- | --- |
//! | one owner of a name | `methods::create`, `children` | — (it is one decision in one turn) | `orders`, `creates` |
//! | nothing is started that is not on record | `child::starting`: only `Recorded` leads to `Spawn` | the journal, which answers once it is written | `orders`, `lives` |
//! | what a client was told holds after a crash | `pending`: [`After`] says what an answer waits for | the driver, which holds answers back | `promises` |
//! | nothing outlives an orderly stop | `shutdown`, `waves` | `os::tree`: signals, kills, the last sweep | `shutdown` |
//! | the steps of a stop are kept, then all is killed | `child::stopping` | `os::tree` | `stops` |
//! | a child is restarted as its policy says, and never twice at a time | `child::restarting`, `child::running_again` | the spawn, as for a first run | `runs` |
//! | nothing is lost in a crash | `life::recovery`, `child::resuming` | the journal, and recovery, which finds each process | `lives` |
//! | a cleanup always runs, after all of the child is gone | `child::cleaning` | `os::spawn`, as for a main process | `cleanups` |
//! | nobody gains privilege | `authorize` (who may call what, and act on whose children), `methods::targets` (whose children a request finds) | the peer's credentials, the spawn, which takes them on, and `os::tree::right`, which asks of each process whether the caller could signal it | `orders`, `children` |
//! | nobody holds up anybody else | `spawn_queue` (users take turns), `connections`, `pending` and `children::bounds` (bounds) | bounded queues to each client | `standstill`, `queries` |
//! | a subscriber is told of each event once and in order, or how many it has missed | `event_log` | the connection, which asks for events when its client has room | `events` |
//! | what hangs on the way to its program holds nobody up | `child::cut_short`, `methods::upgrade` | the launcher; recovery, which holds what it finds there | `stops`, `cleanups` |
//! | an upgrade loses no process | `methods::upgrade` | the hand-over, which passes on what is held | `upgrades` |
//!
//! That these checkers find anything is proved by `tests/planted`: the simulator has to find each bug there.
//!
//! # Three words for the end of a life
//!
//! A child's *processes* are **released** when nothing of them is left. The *child* **ends**: what it held is free. Its
//! *record* is **forgotten** when it is not visible any more.
#![warn(clippy::wildcard_enum_match_arm)]

mod anchor;
mod answers;
mod attempt;
mod authorize;
mod broker;
mod child;
mod children;
mod config;
mod connections;
mod effect;
mod event_log;
mod handle;
mod histogram;
mod idleness;
mod ids;
mod input;
mod kept;
mod labels;
mod launch;
mod leases;
mod life;
mod limits;
mod main_process;
mod methods;
mod metrics;
mod notice;
mod orders;
mod pending;
mod places;
mod record;
mod resources;
mod rivals;
mod room;
mod shown;
mod shutdown;
mod spawn_queue;
mod time;
mod timers;
mod turn;
mod upgrade;
mod validate;
mod waves;

pub use anchor::{Anchor, AnchorFound, AnchorSeen, AnchorUnknown, Birthmark};
pub use authorize::{Accounts, AccountsFailure, Asker, Peer, RunAs, UserAccount};
pub use broker::Broker;
pub use config::{Config, UserRange};
pub use effect::{
    After, Asked, Effect, ExitCause, Follow, LastWords, LogExcerpt, Purpose, Receipt, Record, Report, Safety,
    ServiceState, SpawnOrder, UsageQuery,
};
pub use event_log::{DroppedEvents, EventHistory, UnreadEvents};
pub use histogram::{Histogram, Observed};
pub use ids::{Call, ConnectionId, Incarnation, Pid, Run, SubscriptionId, paired_id};
pub use input::{
    Fresh, Input, LogOutcome, Members, RecordFailure, ShutdownCause, SignalOutcome, UpgradeFailure,
};
pub use kept::{Budget, Exceeded, QuotaUsage, QuotaUser, bytes_of};
pub use launch::{Caller, CallerUnknown, Confinement, HardLimit, Launch, Login, Shortage};
pub use limits::{
    Bounds, ENDED_KEPT, ENDED_KEPT_FOR, GROUPS_MAX, KILL_AGAIN_AFTER, LAUNCH_MOMENT,
    LAUNCH_MOMENT_IN_AN_UPGRADE, SHUTDOWN_TIMEOUT, SPAWNS_IN_FLIGHT_MAX, WATCHDOG_LEFT_MIN,
    bytes_of_one_user, part_of_one_user,
};
pub use main_process::{MainCommand, MainExit};
pub use metrics::{Cleanups, Counted, Counts, Creates, KeptBytes, Totals};
pub use notice::{Notice, Unreadable};
pub use record::{
    Afterwards, Answered, Departure, Finding, HandedOver, Intent, Kinship, ProcessState, Progress,
    RecordedLease, Recovered, Role, Runs, StoppingProgress, Unready,
};
pub use resources::ResourceBound;
pub use time::{Instant, Now};
pub use waves::steps_within;
