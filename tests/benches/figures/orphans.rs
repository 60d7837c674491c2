//! Children that a broker left behind: they fall to this process, which is the next subreaper above it.

use std::fs;

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

/// Kills and reaps those that are there, and says how many they were. To be asked when no bare child is alive.
pub(crate) fn end_all() -> usize {
    let own = Pid::this();
    let orphans: Vec<Pid> = all_processes().filter(|pid| is_orphan(*pid, own)).collect();
    for pid in &orphans {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    for pid in &orphans {
        while waitpid(*pid, None) == Err(Errno::EINTR) {}
    }
    orphans.len()
}

fn all_processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// By the name of its program and its parent, in /proc/PID/stat (`proc_pid_stat(5)`).
fn is_orphan(pid: Pid, parent: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    fields.is_some_and(|(name, rest)| {
        name == CHILD_NAME && rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    })
}
