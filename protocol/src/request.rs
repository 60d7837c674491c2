//! What clients ask for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::create::{CreateParams, StopStep};
use crate::duration;
use crate::nullable::{map_or_default, or_default};
use crate::partial::Fields;
use crate::signal::Signal;
use crate::since::Since;
use crate::target::Target;

/// One request, with its parameters.
///
/// The order of the variants is part of the binary encoding: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start a child.
    Create(Box<CreateParams>),
    /// Stop children, and answer when they have ended and are cleaned up.
    Destroy(DestroyParams),
    /// Show the caller's children.
    List(ListParams),
    /// Show one child.
    Get(OneParams),
    /// Answer when one child is ready or has ended.
    Wait(WaitParams),
    /// Send a signal to children.
    Signal(SignalParams),
    /// Stop children and start them again.
    Restart(ManyParams),
    /// Give children with a time to live their whole time again.
    Renew(ManyParams),
    /// Show what one child wrote.
    Logs(LogsParams),
    /// Be told what happens.
    Events(EventsParams),
    /// Show the broker itself.
    Status(NoParams),
    /// Stop every child and the broker.
    Shutdown(ShutdownParams),
    /// Put a new binary in the broker's place.
    Upgrade(NoParams),
    /// Show what the broker counts.
    Metrics(NoParams),
}

/// The name of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// See [`Request::Create`].
    Create,
    /// See [`Request::Destroy`].
    Destroy,
    /// See [`Request::List`].
    List,
    /// See [`Request::Get`].
    Get,
    /// See [`Request::Wait`].
    Wait,
    /// See [`Request::Signal`].
    Signal,
    /// See [`Request::Restart`].
    Restart,
    /// See [`Request::Renew`].
    Renew,
    /// See [`Request::Logs`].
    Logs,
    /// See [`Request::Events`].
    Events,
    /// See [`Request::Status`].
    Status,
    /// See [`Request::Shutdown`].
    Shutdown,
    /// See [`Request::Upgrade`].
    Upgrade,
    /// See [`Request::Metrics`].
    Metrics,
}

impl Method {
    /// Every method, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::Create,
        Self::Destroy,
        Self::List,
        Self::Get,
        Self::Wait,
        Self::Signal,
        Self::Restart,
        Self::Renew,
        Self::Logs,
        Self::Events,
        Self::Status,
        Self::Metrics,
        Self::Shutdown,
        Self::Upgrade,
    ];

    /// The method as it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::List => "list",
            Self::Get => "get",
            Self::Wait => "wait",
            Self::Signal => "signal",
            Self::Restart => "restart",
            Self::Renew => "renew",
            Self::Logs => "logs",
            Self::Events => "events",
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Shutdown => "shutdown",
            Self::Upgrade => "upgrade",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Request {
    /// Which method this request calls.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::Create(_) => Method::Create,
            Self::Destroy(_) => Method::Destroy,
            Self::List(_) => Method::List,
            Self::Get(_) => Method::Get,
            Self::Wait(_) => Method::Wait,
            Self::Signal(_) => Method::Signal,
            Self::Restart(_) => Method::Restart,
            Self::Renew(_) => Method::Renew,
            Self::Logs(_) => Method::Logs,
            Self::Events(_) => Method::Events,
            Self::Status(_) => Method::Status,
            Self::Metrics(_) => Method::Metrics,
            Self::Shutdown(_) => Method::Shutdown,
            Self::Upgrade(_) => Method::Upgrade,
        }
    }
}

/// The parameters of a method that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// The parameters of `destroy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestroyParams {
    /// Which children.
    pub target: Target,
    /// The steps of the stop, instead of each child's own.
    #[serde(default, deserialize_with = "or_default")]
    pub stop: Option<Vec<StopStep>>,
    /// Whether to answer as soon as the stop has begun.
    #[serde(default, deserialize_with = "or_default")]
    pub no_wait: bool,
}

/// The parameters of `list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only children with all of these labels.
    #[serde(default, deserialize_with = "map_or_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether ended children that are still visible are listed too.
    #[serde(default, deserialize_with = "or_default")]
    pub all: bool,
    /// Only these members of each child, beside its id; everything when none are given.
    #[serde(default, deserialize_with = "or_default")]
    pub fields: Option<Fields>,
}

/// The parameters of a method on one child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneParams {
    /// Which child: an id or a name.
    pub target: Target,
}

/// The parameters of a method on any number of children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManyParams {
    /// Which children.
    pub target: Target,
}

/// The parameters of `wait`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitParams {
    /// Which child: an id or a name.
    pub target: Target,
    /// What to wait for.
    #[serde(default, deserialize_with = "or_default")]
    pub until: Until,
    /// How long to wait; forever when none is given.
    #[serde(default, with = "duration::optional")]
    pub timeout: Option<Duration>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// That it is ready, or has ended before it was.
    Ready,
    /// That it has ended and is cleaned up.
    #[default]
    Ended,
}

/// The parameters of `signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalParams {
    /// Which children.
    pub target: Target,
    /// The signal to be sent.
    pub signal: Signal,
    /// Which processes of a child.
    #[serde(default, deserialize_with = "or_default")]
    pub scope: Scope,
}

/// Which processes of a child get a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The one that the broker started.
    #[default]
    Main,
    /// Its process group.
    Group,
    /// Everything that descends from it.
    All,
}

/// The parameters of `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsParams {
    /// Which child: an id or a name.
    pub target: Target,
    /// Which of its outputs.
    #[serde(default, deserialize_with = "or_default")]
    pub stream: LogStream,
    /// Only the last so many lines; all that is kept when none is given.
    #[serde(default, deserialize_with = "or_default")]
    pub tail: Option<u32>,
    /// Whether to be sent what it writes from now on.
    #[serde(default, deserialize_with = "or_default")]
    pub follow: bool,
    /// Only what was written since then; all that is kept when none is given.
    #[serde(default, deserialize_with = "or_default")]
    pub since: Option<Since>,
    /// Whether each line begins with the time at which it was written.
    #[serde(default, deserialize_with = "or_default")]
    pub timestamps: bool,
    /// Go on from here: the `position` of an earlier answer, or of a notification, of the same stream. With `follow`, the
    /// text comes in notifications alone; without, it is the next piece of what is kept. Goes with neither `tail` nor
    /// `since`.
    #[serde(default, deserialize_with = "or_default")]
    pub position: Option<u64>,
}

/// One of a child's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// The parameters of `events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsParams {
    /// The first sequence number wanted; the next one to come when none is given.
    #[serde(default, deserialize_with = "or_default")]
    pub since: Option<u64>,
    /// Only of children with all of these labels.
    #[serde(default, deserialize_with = "map_or_default")]
    pub labels: BTreeMap<String, String>,
}

/// The parameters of `shutdown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownParams {
    /// How long the whole may take, instead of the broker's own setting.
    #[serde(default, with = "duration::optional")]
    pub timeout: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(method.as_str()), Some(method));
        }
        assert_eq!(Method::from_name("Create"), None);
    }
}
