//! Runs a test of this binary alone in a process of its own: for what all threads share, such as the environment and
//! the children. Whatever such a process starts is ended with it, also when the test is interrupted.
#![expect(unsafe_code, reason = "the harness runs no test on a main thread, so that one is forked")]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use procbroker_core::Pid as ProcessId;
use procbroker_protocol::Signal;

use crate::os::process::pidfd;
use crate::os::process::proc::{self, ProcessStat};

/// Says that the process is such a one.
const MARK: &str = "PROCBROKER_TEST_ALONE";

/// True in that process; false in the other one, when it has ended well.
pub(crate) fn here(module: &str, test: &str) -> bool {
    here_with(module, test, &[])
}

/// The same, with variables in its environment.
pub(crate) fn here_with(module: &str, test: &str, variables: &[(&str, &str)]) -> bool {
    if is_here() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    run(command.args(arguments(module, test)).envs(variables.iter().copied()));
    false
}

/// The same, by a shell script that executes `"$@"`.
pub(crate) fn here_by(module: &str, test: &str, script: &str, prepare: impl FnOnce(&mut Command)) -> bool {
    if is_here() {
        return true;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap()).args(arguments(module, test));
    prepare(&mut command);
    run(&mut command);
    false
}

/// Runs the body of a test on the main thread of a process of its own.
pub(crate) fn on_main_thread(module: &str, test: &str, body: impl FnOnce()) {
    if here(module, test) {
        forked(body);
    }
}

/// Runs something on the main thread of a process that is forked off this one, which [`here`] made.
///
/// It fails if that leaves a process behind. What it leaves is killed, also when the test is over before its time.
pub(crate) fn forked(body: impl FnOnce()) {
    assert!(is_here());
    // What loses its parent below comes to this process, and to nobody who could not tell where it is from.
    set_child_subreaper(true).unwrap();
    // SAFETY: the only other thread waits for this one, and holds no lock that the new process will want.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            let ended = until_ended_or_abandoned(child);
            let left = kill_all_below();
            assert_eq!(ended, Some(WaitStatus::Exited(child, 0)));
            assert_eq!(left, [], "processes left behind");
        }
        ForkResult::Child => {
            let result = catch_unwind(AssertUnwindSafe(body));
            // SAFETY: the exit handlers are the other process's.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
    }
}

/// Waits for the end of a process, and reaps it; none when the test that reads what this process writes is gone before.
fn until_ended_or_abandoned(child: Pid) -> Option<WaitStatus> {
    let pidfd = pidfd::open(ProcessId::new(child.as_raw().cast_unsigned()).unwrap()).unwrap();
    let stdout = io::stdout();
    loop {
        // Of the output no event is asked for, and so only an error comes: nobody can read it any more (poll(2)).
        let mut events =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => {
                result.unwrap();
                let has_ended = events[0].any().unwrap();
                return has_ended.then(|| waitpid(child, None).unwrap());
            }
        }
    }
}

/// Kills and reaps every process below this one, and says which of its own children had not ended.
fn kill_all_below() -> Vec<ProcessId> {
    let own = ProcessId::new(std::process::id()).unwrap();
    let mut left = Vec::new();
    loop {
        for child in proc::children(own) {
            if ProcessStat::read(child).is_some_and(|stat| !stat.is_zombie) {
                left.push(child);
            }
            if let Ok(pidfd) = pidfd::open(child) {
                let _gone = pidfd::send(pidfd.as_fd(), Signal::KILL);
            }
        }
        // What it had started itself comes here when it is gone.
        match waitpid(None, None) {
            Err(Errno::EINTR) | Ok(_) => {}
            Err(errno) => {
                assert_eq!(errno, Errno::ECHILD);
                return left;
            }
        }
    }
}

/// Whether this is such a process.
pub(crate) fn is_here() -> bool {
    std::env::var_os(MARK).is_some()
}

fn arguments(module: &str, test: &str) -> [String; 4] {
    let (_crate, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    ["--exact".to_owned(), name, "--nocapture".to_owned(), "--test-threads=1".to_owned()]
}

/// Runs it to its end, in a process group of its own: who interrupts the test does not reach it, so that it can clear up.
fn run(command: &mut Command) {
    check(&command.env(MARK, "1").process_group(0).output().unwrap());
}

fn check(output: &Output) {
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.contains("1 passed"), "{report}");
}
