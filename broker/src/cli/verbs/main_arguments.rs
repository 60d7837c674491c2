//! The main command, as `run` is told of it and the broker starts it.

use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::Scope;

/// The main command of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainArguments {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The signals that ask it to end.
    pub stop: Vec<StopStep>,
    /// Which of its processes they go to.
    pub stop_scope: Scope,
    /// Whether it has the broker's own standard input and terminal.
    pub interactive: bool,
}
