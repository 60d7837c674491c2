//! The job that `top` is to a shell: stopped by Ctrl-Z, and continued by `fg`.

use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getsid};

/// Whether somebody could continue it: no shell of another process group of this session could, where the group is orphaned
/// (setpgid(2)), and the kernel lets the terminal stop no such group either.
pub(super) fn can_be_continued() -> bool {
    let (group, session) = (getpgrp(), getsid(None));
    let mut pid = getpid();
    loop {
        let Some(parent) = parent(pid) else { return false };
        if getpgid(Some(parent)) != Ok(group) {
            return session.is_ok() && getsid(Some(parent)) == session;
        }
        pid = parent;
    }
}

/// The parent of a process; none of the first one, and of one whose parent is out of sight.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may have any character; its state and its parent follow (proc(5)).
    let (_, rest) = stat.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    (parent != 0).then_some(Pid::from_raw(parent))
}

/// Stops the whole job, until somebody continues it.
pub(super) fn stop() -> io::Result<()> {
    Ok(kill(Pid::from_raw(0), Signal::SIGSTOP)?)
}

/// Stops this process, as it alone was told to, until somebody continues it.
pub(super) fn stop_alone() -> io::Result<()> {
    Ok(kill(getpid(), Signal::SIGSTOP)?)
}
