//! Children that a broker left behind: they fall to this process, which is the next subreaper above it.

use std::fs;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::failure::{Attempt, Failure};
use crate::scene::CHILD_NAME;

/// Makes this process the one that orphans fall to.
pub(crate) fn catch() -> Result<(), Failure> {
    set_child_subreaper(true).attempting("become a subreaper")
}

/// Kills and reaps those that are there, and says how many of them were alive. To be asked when no bare child is alive.
pub(crate) fn end_all() -> usize {
    let orphans = all();
    for (pid, _) in &orphans {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    for (pid, _) in &orphans {
        while waitpid(*pid, None) == Err(Errno::EINTR) {}
    }
    orphans.iter().filter(|(_, state)| *state == State::Alive).count()
}

/// Reaps those that are there now, each when it ends, as the parent of a broker that was killed has to: the next broker
/// learns how they ended by that. The thread is over when all of them are gone.
pub(crate) fn reap_in_background() -> JoinHandle<()> {
    let orphans = all();
    thread::spawn(move || {
        for (pid, _) in orphans {
            while waitpid(pid, None) == Err(Errno::EINTR) {}
        }
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    /// It has ended, and is yet to be reaped.
    Zombie,
}

fn all() -> Vec<(Pid, State)> {
    let own = Pid::this();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    pids.filter_map(|pid| orphan(pid, own).map(|state| (pid, state))).collect()
}

/// Whether it is one, by the name of its program and its parent, in /proc/PID/stat (`proc_pid_stat(5)`).
fn orphan(pid: Pid, parent: Pid) -> Option<State> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = if fields.next()? == "Z" { State::Zombie } else { State::Alive };
    (name == CHILD_NAME && fields.next()? == parent.to_string()).then_some(state)
}
