//! The main command of `run`, as configuration and state: what is to be run, how far it is, and how it ended.

use std::sync::Arc;

use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, CreateParams, ExitStatus};

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainCommand {
    /// The id that its process is known by.
    pub id: ChildId,
    /// The command, and how it is stopped.
    pub params: Arc<CreateParams>,
    /// Which of its processes the signals of its stop go to.
    pub stop_scope: Scope,
}

/// How far the main command is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum MainState {
    /// None is to be run, or it is not started so far.
    #[default]
    Absent,
    /// That of an earlier broker is being stopped first.
    Waiting,
    /// It is being started, runs, or is being stopped.
    Present(ChildId),
    /// It has ended, or could not be started, and the broker ends with it.
    Over(MainExit),
}

/// How the main command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MainExit {
    /// It ran, and ended so.
    Status(ExitStatus),
    /// It was never there.
    NotStarted {
        /// Why its program could not be executed, if that is what failed.
        errno: Option<i32>,
    },
}
