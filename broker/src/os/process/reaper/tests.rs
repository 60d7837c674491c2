use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, geteuid, seteuid};
use procbroker_protocol::Signal;

use super::*;
use crate::os::process::alone;
use crate::os::process::exit_status::ending;

/// A process that has ended and is not reaped.
fn zombie(script: &str) -> (Child, Pid, std::os::fd::OwnedFd) {
    let process = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
    let pid = Pid::new(process.id()).unwrap();
    let pidfd = pidfd::open(pid).unwrap();
    assert!(pidfd::wait_for_end(pidfd.as_fd(), Instant::now() + Duration::from_secs(60)));
    (process, pid, pidfd)
}

#[test]
fn a_zombie_tells_how_it_ended_and_so_does_what_was_reaped() {
    let tells_reaped = Abilities::probe().exit_status;
    for (script, status) in
        [("exit 7", ExitStatus::Code(7)), ("kill -s KILL $$", ExitStatus::Signal(Signal::KILL))]
    {
        let (mut process, pid, pidfd) = zombie(script);
        assert_eq!(ending(pid, pidfd.as_fd(), tells_reaped), AdoptedExit::Told(status));
        process.wait().unwrap();
        let known = if tells_reaped { status } else { ExitStatus::Unknown };
        assert_eq!(ending(pid, pidfd.as_fd(), tells_reaped), AdoptedExit::Told(known));
    }
}

#[test]
fn a_status_that_the_kernel_hides_is_not_taken_for_a_success() {
    if !geteuid().is_root()
        || !alone::here(module_path!(), "a_status_that_the_kernel_hides_is_not_taken_for_a_success")
    {
        return;
    }
    let (mut process, pid, pidfd) = zombie("exit 7");
    seteuid(Uid::from_raw(65_534)).unwrap();
    let hidden = [true, false].map(|tells_reaped| ending(pid, pidfd.as_fd(), tells_reaped));
    seteuid(Uid::from_raw(0)).unwrap();
    assert_eq!(hidden, [AdoptedExit::NotReaped, AdoptedExit::Told(ExitStatus::Unknown)]);
    process.wait().unwrap();
}
