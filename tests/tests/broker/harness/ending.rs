//! The end of a process that a test has started.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::thread;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::PATIENCE;

/// How a broker ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Its standard error.
    pub(crate) log: String,
}

impl Ended {
    /// Its exit code, where it was not killed.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that killed it.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The lines of its log that contain this.
    pub(crate) fn lines_with(&self, part: &str) -> Vec<&str> {
        self.log.lines().filter(|line| line.contains(part)).collect()
    }
}

/// Waits until a process has ended, without reaping it before: so the pid stays its own.
pub(crate) fn await_end(process: &mut Child) -> Option<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        // The receiver is gone when the patience was.
        let _ = sender.send(waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT));
    });
    ended.recv_timeout(PATIENCE).ok()?.expect("a child of this process");
    Some(process.wait().expect("a child of this process"))
}
