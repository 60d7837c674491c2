//! The process broker's decisions, as a pure state machine.
//!
//! [`Broker::handle`] takes one fact at a time (a request, an exit, a clock that has moved on) and
//! appends the orders that follow from it. There is no clock, no randomness, no file, no process and
//! no lock in here: times and ids come in with the facts, and what has to be done goes out as
//! [`Effect`]s, each of which the edge answers with an [`Input`]. Everything that the broker promises
//! is decided here, can be read here, and is proved on this very code by the simulator.
#![warn(clippy::wildcard_enum_match_arm)]

mod authorize;
mod broker;
mod child;
mod children;
mod config;
mod connections;
mod effect;
mod event_log;
mod handle;
mod ids;
mod input;
mod labels;
mod life;
mod limits;
mod main_process;
mod methods;
mod orders;
mod pending;
mod record;
mod shutdown;
mod spawn_queue;
mod time;
mod timers;
mod turn;
mod validate;

pub use authorize::{Accounts, AccountsFailure, Peer, RunAs, UserAccount};
pub use broker::Broker;
pub use config::Config;
pub use effect::{
    After, Effect, ExitCause, Follow, LogExcerpt, Purpose, Receipt, Record, Report, Safety, ServiceState,
    SpawnOrder,
};
pub use ids::{Call, ConnectionId, Incarnation, Pid, Run, SubscriptionId};
pub use input::{
    Fresh, Input, LogOutcome, Members, RecordFailure, ShutdownCause, SignalOutcome, UpgradeFailure,
};
pub use limits::{
    Bounds, ENDED_KEPT, ENDED_KEPT_FOR, KILL_AGAIN_AFTER, SHUTDOWN_TIMEOUT, SPAWNS_IN_FLIGHT_MAX,
};
pub use main_process::{MainCommand, MainExit};
pub use record::{Finding, Intent, Kinship, Progress, Recovered, Role, StoppingProgress};
pub use time::{Instant, Now};
