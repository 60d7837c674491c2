//! Runs a test of this binary alone in a process of its own: for what all threads share, such as the environment and
//! the children.
#![expect(unsafe_code, reason = "the harness runs no test on a main thread, so that one is forked")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Says that the process is such a one.
const MARK: &str = "PROCBROKER_TEST_ALONE";

/// True in that process; false in the other one, when it has ended well.
pub(super) fn here(module: &str, test: &str) -> bool {
    here_with(module, test, &[])
}

/// The same, with variables in its environment.
pub(super) fn here_with(module: &str, test: &str, variables: &[(&str, &str)]) -> bool {
    if is_here() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    check(
        &command
            .args(arguments(module, test))
            .envs(variables.iter().copied())
            .env(MARK, "1")
            .output()
            .unwrap(),
    );
    false
}

/// The same, by a shell script that executes `"$@"`.
pub(super) fn here_by(module: &str, test: &str, script: &str, prepare: impl FnOnce(&mut Command)) -> bool {
    if is_here() {
        return true;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap()).args(arguments(module, test));
    prepare(command.env(MARK, "1"));
    check(&command.output().unwrap());
    false
}

/// Runs the body of a test on the main thread of a process of its own.
pub(super) fn on_main_thread(module: &str, test: &str, body: impl FnOnce()) {
    if here(module, test) {
        forked(body);
    }
}

/// Runs something on the main thread of a process that is forked off this one, which [`here`] made.
pub(super) fn forked(body: impl FnOnce()) {
    assert!(is_here());
    // SAFETY: the only other thread waits for this one, and holds no lock that the new process will want.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
        ForkResult::Child => {
            let result = catch_unwind(AssertUnwindSafe(body));
            // SAFETY: the exit handlers are the other process's.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
    }
}

/// Whether this is such a process.
pub(super) fn is_here() -> bool {
    std::env::var_os(MARK).is_some()
}

fn arguments(module: &str, test: &str) -> [String; 4] {
    let (_crate, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    ["--exact".to_owned(), name, "--nocapture".to_owned(), "--test-threads=1".to_owned()]
}

fn check(output: &Output) {
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.contains("1 passed"), "{report}");
}
