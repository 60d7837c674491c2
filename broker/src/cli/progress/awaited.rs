//! What a verb waits for, and what is to become of it.

use std::time::Duration;

use procbroker_protocol::Target;
use procbroker_protocol::create::StopStep;

use super::start::Start;

/// What a verb waits for.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Awaited {
    pub(in crate::cli) targets: Vec<Target>,
    /// What is to become of them.
    pub(in crate::cli) end: End,
    /// What goes on when nobody waits for it any more, as a whole sentence.
    pub(in crate::cli) goes_on: &'static str,
}

/// What children that are waited for are to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum End {
    /// Stopped, by these steps where the verb gives them.
    Stopped(Option<Vec<StopStep>>),
    /// Stopped with the broker, which may take so long where the verb says so.
    ShutDown(Option<Duration>),
    /// Stopped and started again.
    Restarted,
    /// What they become by themselves, for so long at most.
    Seen(Option<Duration>),
    /// Started, once what is in the way has gone.
    Started(Start),
}
