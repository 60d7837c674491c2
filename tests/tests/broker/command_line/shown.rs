//! A verb that goes on showing things, until it is told or has nothing more to show.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::{Said, TestBroker, await_end};

/// One that runs. It is ended with the test, whatever becomes of that.
pub(super) struct Shown {
    process: Child,
    out: Option<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
}

impl Shown {
    pub(super) fn by(broker: &TestBroker, arguments: &[&str]) -> Self {
        let mut verb = broker.verb(arguments);
        let mut process =
            verb.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = process.stdout.take().map(BufReader::new);
        let err = BufReader::new(process.stderr.take().unwrap());
        Self { process, out, err }
    }

    /// The next line of its standard output. A broker that says nothing is found by the test runner.
    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.as_mut().expect("an open output").read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "no more lines: {line:?}");
        line.pop();
        line
    }

    /// Whether there is output to read, or the end of it.
    pub(super) fn has_output(&self) -> bool {
        let out = self.out.as_ref().expect("an open output");
        let mut polled = [PollFd::new(out.get_ref().as_fd(), PollFlags::POLLIN)];
        !out.buffer().is_empty() || poll(&mut polled, PollTimeout::ZERO).unwrap() > 0
    }

    /// The next line of its standard error.
    pub(super) fn complaint(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line
    }

    /// Reads no more of its standard output.
    pub(super) fn close(&mut self) {
        self.out = None;
    }

    /// Its end, and what it said until then that was not read.
    pub(super) fn ended(mut self) -> Said {
        let status = await_end(&mut self.process).expect("the verb ends").code().expect("an exit status");
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut rest) = self.out.take() {
            rest.read_to_string(&mut out).unwrap();
        }
        self.err.read_to_string(&mut err).unwrap();
        Said { status, out, err }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // It may have ended, and been reaped, already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
