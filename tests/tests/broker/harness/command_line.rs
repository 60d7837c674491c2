//! Runs the verbs of the program against a broker.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{TestBroker, procbroker};

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn by(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().expect("the program");
        Self::from(output)
    }

    /// Its standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let status = output.status.code().unwrap_or_else(|| panic!("the command was killed: {output:?}"));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { status, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl TestBroker {
    /// The program, which will connect to this broker.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(procbroker());
        command.args(arguments).env("PROCBROKER_SOCKET", self.socket());
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::by(&mut self.verb(arguments))
    }
}
