//! The parameters of `create`: everything that decides how a child starts, runs and stops.

mod account;
mod cpu_max;
mod ready;
mod resources;
mod rlimit;
mod umask;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

pub use account::{ACCOUNT_NAME_BYTES_MAX, Account, AccountError};
pub use cpu_max::{CpuMax, CpuMaxError};
pub use ready::{AddressError, Check, Probe, Ready};
pub use resources::Resources;
pub use rlimit::Rlimit;
pub use umask::{Umask, UmaskError};

use crate::duration;
use crate::name::Name;
use crate::nullable::{map_or_default, or_default, or_else};
use crate::signal::Signal;

/// What to start and how: one `create` request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateParams {
    /// The program and its arguments; the first is looked up in the child's PATH, with no shell.
    pub command: Vec<String>,
    /// The name that it holds while it lives; none has only its id.
    #[serde(default, deserialize_with = "or_default")]
    pub name: Option<Name>,
    /// What to do when a live child holds the name already.
    #[serde(default, deserialize_with = "or_default")]
    pub if_exists: IfExists,
    /// Makes the request safe to send again: the same one from the same user gets the first answer.
    #[serde(default, deserialize_with = "or_default")]
    pub request_id: Option<Uuid>,
    /// For selecting children together.
    #[serde(default, deserialize_with = "map_or_default")]
    pub labels: BTreeMap<String, String>,
    /// The working directory; `/` when none is given.
    #[serde(default, deserialize_with = "or_default")]
    pub cwd: Option<String>,
    /// Variables added to the environment, or the whole of it with `env_clear`.
    #[serde(default, deserialize_with = "map_or_default")]
    pub env: BTreeMap<String, String>,
    /// Whether to start from an empty environment instead of the broker's own.
    #[serde(default, deserialize_with = "or_default")]
    pub env_clear: bool,
    /// The mask of file permissions.
    #[serde(default, deserialize_with = "or_default")]
    pub umask: Umask,
    /// Who it runs as; the caller when none is given.
    #[serde(default, deserialize_with = "or_default")]
    pub user: Option<Account>,
    /// Its supplementary groups; the user's own when none are given.
    #[serde(default, deserialize_with = "or_default")]
    pub groups: Option<Vec<Account>>,
    /// Where it reads from.
    #[serde(default, deserialize_with = "or_default")]
    pub stdin: StandardInput,
    /// Where its output goes.
    #[serde(default, deserialize_with = "or_default")]
    pub stdout: StandardOutput,
    /// Where its errors go.
    #[serde(default, deserialize_with = "or_default")]
    pub stderr: StandardError,
    /// The signals that ask it to end, tried in turn; SIGKILL to all that is left always ends it.
    #[serde(default = "default_stop", deserialize_with = "stop_or_default")]
    pub stop: Vec<StopStep>,
    /// At shutdown, lower orders are stopped first, and entirely, before the next of the same user begins.
    #[serde(default, deserialize_with = "or_default")]
    pub stop_order: i32,
    /// When it counts as running.
    #[serde(default, deserialize_with = "or_default")]
    pub ready: Ready,
    /// How long it may take to become ready.
    #[serde(default, deserialize_with = "or_default")]
    pub ready_timeout: ReadyTimeout,
    /// Whether to answer as soon as it is spawned, without waiting for it to be ready.
    #[serde(default, deserialize_with = "or_default")]
    pub no_wait: bool,
    /// Whether it is started again when it ends by itself.
    #[serde(default, deserialize_with = "or_default")]
    pub restart: Restart,
    /// What its life is bound to.
    #[serde(default, deserialize_with = "or_default")]
    pub lifetime: Lifetime,
    /// With the lifetime `connection`: how long it lives on after the last one closes.
    #[serde(default, serialize_with = "duration::serialize", deserialize_with = "linger_or_default")]
    pub linger: Duration,
    /// The command that releases what it leaves behind; it does not run when the program was never started.
    #[serde(default, deserialize_with = "or_default")]
    pub cleanup: Option<Cleanup>,
    /// At most so many live children under one key.
    #[serde(default, deserialize_with = "or_default")]
    pub limit: Option<Limit>,
    /// Resource limits (setrlimit(2)), soft and hard alike, by lower-case name such as `nofile`.
    #[serde(default, deserialize_with = "map_or_default")]
    pub rlimits: BTreeMap<String, Rlimit>,
    /// Bounds set through control groups.
    #[serde(default, deserialize_with = "or_default")]
    pub resources: Option<Resources>,
    /// With `ready: notify`: the time within which it has to send `WATCHDOG=1`, again and again.
    #[serde(default, with = "duration::optional")]
    pub watchdog: Option<Duration>,
}

impl CreateParams {
    /// A request for this command line with every other parameter at its default.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            name: None,
            if_exists: IfExists::default(),
            request_id: None,
            labels: BTreeMap::new(),
            cwd: None,
            env: BTreeMap::new(),
            env_clear: false,
            umask: Umask::default(),
            user: None,
            groups: None,
            stdin: StandardInput::default(),
            stdout: StandardOutput::default(),
            stderr: StandardError::default(),
            stop: default_stop(),
            stop_order: 0,
            ready: Ready::default(),
            ready_timeout: ReadyTimeout::default(),
            no_wait: false,
            restart: Restart::default(),
            lifetime: Lifetime::default(),
            linger: Duration::ZERO,
            cleanup: None,
            limit: None,
            rlimits: BTreeMap::new(),
            resources: None,
            watchdog: None,
        }
    }
}

fn linger_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration::deserialize_or(deserializer, Duration::ZERO)
}

/// What `create` does when a live child holds the name already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfExists {
    /// Refuse with `name_taken`.
    #[default]
    Fail,
    /// Answer with the live child; one that is still stopping is waited for, then created anew.
    Reuse,
    /// Destroy it, then create.
    Replace,
}

/// Where standard input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardInput {
    /// `/dev/null`.
    #[default]
    Null,
}

/// Where standard output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardOutput {
    /// To the child's log.
    #[default]
    Log,
    /// Nowhere.
    Null,
    /// To the broker's own.
    Inherit,
}

/// Where standard error goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandardError {
    /// To where standard output goes.
    #[default]
    Stdout,
    /// To a log of its own.
    Log,
    /// Nowhere.
    Null,
    /// To the broker's own.
    Inherit,
}

/// One step of a stop: a signal, and how long to wait for its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a step such as {\"signal\": \"SIGTERM\", \"grace\": 10}")]
pub struct StopStep {
    /// What is sent to the child's process group.
    pub signal: Signal,
    /// How long the group may take to end before the next step.
    #[serde(
        default = "default_grace",
        serialize_with = "duration::serialize",
        deserialize_with = "grace_or_default"
    )]
    pub grace: Duration,
}

/// How long a step waits when its grace is not given: 10 seconds.
fn default_grace() -> Duration {
    Duration::from_secs(10)
}

fn grace_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration::deserialize_or(deserializer, default_grace())
}

/// The stop of a child that was created without one: SIGTERM, then 10 seconds.
#[must_use]
pub fn default_stop() -> Vec<StopStep> {
    vec![StopStep { signal: Signal::TERM, grace: default_grace() }]
}

fn stop_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StopStep>, D::Error> {
    or_else(deserializer, default_stop)
}

/// How long a child may take to become ready: 30 seconds unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadyTimeout(#[serde(with = "duration")] pub Duration);

impl Default for ReadyTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// Whether and how a child that ends by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// After which ends it is started again.
    #[serde(default, deserialize_with = "or_default")]
    pub policy: RestartPolicy,
    /// At most so many times within `window`.
    #[serde(default = "Restart::default_max", deserialize_with = "Restart::max_or_default")]
    pub max: u32,
    /// The time over which restarts are counted.
    #[serde(
        default = "Restart::default_window",
        serialize_with = "duration::serialize",
        deserialize_with = "Restart::window_or_default"
    )]
    pub window: Duration,
    /// The pause before the first restart; it doubles with each.
    #[serde(
        default = "Restart::default_backoff",
        serialize_with = "duration::serialize",
        deserialize_with = "Restart::backoff_or_default"
    )]
    pub backoff: Duration,
    /// The longest pause, however often it has ended.
    #[serde(
        default = "Restart::default_backoff_max",
        serialize_with = "duration::serialize",
        deserialize_with = "Restart::backoff_max_or_default"
    )]
    pub backoff_max: Duration,
}

impl Restart {
    /// It is not started again.
    #[must_use]
    pub fn never() -> Self {
        Self::default()
    }

    /// It is started again after any end but exit code 0.
    #[must_use]
    pub fn on_failure() -> Self {
        Self { policy: RestartPolicy::OnFailure, ..Self::default() }
    }

    /// It is started again however it ends.
    #[must_use]
    pub fn always() -> Self {
        Self { policy: RestartPolicy::Always, ..Self::default() }
    }

    /// Bounds how often it is started again within a time; 5 times in a minute unless set.
    #[must_use]
    pub fn at_most(self, max: u32, window: Duration) -> Self {
        Self { max, window, ..self }
    }

    /// Sets the first pause, which doubles with each restart, and the longest; 0.1 and 30 seconds unless set.
    #[must_use]
    pub fn pausing(self, first: Duration, longest: Duration) -> Self {
        Self { backoff: first, backoff_max: longest, ..self }
    }

    fn default_max() -> u32 {
        5
    }

    fn default_window() -> Duration {
        Duration::from_secs(60)
    }

    fn default_backoff() -> Duration {
        Duration::from_millis(100)
    }

    fn default_backoff_max() -> Duration {
        Duration::from_secs(30)
    }

    fn max_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        or_else(deserializer, Self::default_max)
    }

    fn window_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        duration::deserialize_or(deserializer, Self::default_window())
    }

    fn backoff_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        duration::deserialize_or(deserializer, Self::default_backoff())
    }

    fn backoff_max_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        duration::deserialize_or(deserializer, Self::default_backoff_max())
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::Never,
            max: Self::default_max(),
            window: Self::default_window(),
            backoff: Self::default_backoff(),
            backoff_max: Self::default_backoff_max(),
        }
    }
}

/// After which ends a child is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// After none: it has ended for good.
    #[default]
    Never,
    /// After any but exit code 0.
    OnFailure,
    /// After any, success or not.
    Always,
}

/// What a child's life is bound to, apart from its own end and a destroy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// To the broker's.
    #[default]
    Broker,
    /// To the connections that created or reused it.
    Connection,
    /// To the process with this pid, which has ended as soon as all of its threads have, be it reaped or not.
    ///
    /// The number counts in the pid namespace of the client. Anybody but root names a process whose real or saved user he is,
    /// as `kill(2)` asks for it. One that gets the number later is another process, after a crash of the broker too.
    Pid(u32),
    /// To this length of time, unless it is renewed.
    Ttl(#[serde(with = "duration")] Duration),
}

/// A command that runs after a child and all its descendants are gone, unless its program was never started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cleanup {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may run before it is killed; 30 seconds unless given.
    #[serde(
        default = "default_cleanup_timeout",
        serialize_with = "duration::serialize",
        deserialize_with = "cleanup_timeout_or_default"
    )]
    pub timeout: Duration,
}

fn default_cleanup_timeout() -> Duration {
    Duration::from_secs(30)
}

fn cleanup_timeout_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration::deserialize_or(deserializer, default_cleanup_timeout())
}

/// At most `max` live children under `key`, counted over all users of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What the children have in common.
    pub key: String,
    /// How many of them may live at a time.
    pub max: u32,
    /// How long a create waits for a place, in the order of arrival; none is refused at once.
    #[serde(default, with = "duration::optional")]
    pub wait: Option<Duration>,
}

#[cfg(test)]
mod tests;
