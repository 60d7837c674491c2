//! Processes on the way to their programs, which a broker that was killed has left there.
//!
//! Until it executes its program a process has the environment of the broker that has made it, and is known by the
//! [name](LaunchName) of its thread alone. Its program may take for ever to be executed, and be executed at any moment.

use std::os::fd::BorrowedFd;

use nix::unistd::geteuid;
use procbroker_core::Pid;
use procbroker_protocol::{ChildId, Signal};

use crate::os::process::pidfd;
use crate::os::process::proc;
use crate::os::spawn::LaunchName;

/// Whether this process is on the way to the program of a child, which runs as this user. Then it is suspended, and never gets there.
///
/// A signal that is pending when a program is executed is acted upon before its first instruction (`signal(7)`), and `execve(2)`
/// takes the name away before that. So a process that has its name still after SIGSTOP was sent never runs its program, unless
/// somebody continues it; and nobody can who could not have started it.
///
/// Anybody can call a process so, and read the name of one that hangs. So it counts only where it is the broker's user's or the
/// child's: who has another process taken for it is the child's own user.
pub(super) fn hold(child: ChildId, user: u32, pid: Pid, pidfd: BorrowedFd<'_>) -> bool {
    let is_underway = || {
        let name = proc::thread_name(pid);
        let is_of_either =
            proc::user_ids(pid).is_some_and(|[real, ..]| real == user || real == geteuid().as_raw());
        // What was read meanwhile is another's if it has been reaped.
        is_of_either && !pidfd::is_reaped(pidfd) && name.is_some_and(|name| LaunchName::of(child).is(&name))
    };
    if !is_underway() || pidfd::send(pidfd, Signal::STOP).is_err() {
        return false;
    }
    let is_held = is_underway();
    if !is_held {
        // It has its program by now.
        let _gone = pidfd::send(pidfd, Signal::CONT);
    }
    is_held
}
