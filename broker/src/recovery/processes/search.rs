//! Searches all of `/proc` for the main processes of children, by their marks, and for those that are on the way to their
//! programs, by their names.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::sought::Lost;
use super::underway;
use crate::os::process::mark::{MARK_PATIENCE, Mark, Patience, awaited_mark};
use crate::os::process::pidfd;
use crate::os::process::proc::{ProcessStat, all_processes, stat_of, thread_name};
use crate::os::process::whereabouts::Whereabouts;
use crate::os::spawn::LaunchName;

/// One that may be the main process of a child.
#[derive(Debug)]
struct Candidate {
    start_ticks: u64,
    pid: Pid,
    pidfd: OwnedFd,
}

/// How long is waited for what the kernel tells of one process, by how many have been passed over: it can keep whoever asks for as
/// long as that process likes, in the midst of an execve(2) (see `os::process::proc_reader`). The first may be kept by a busy
/// machine; of many, somebody means to hold the broker up.
fn look_patience(passed_over: usize) -> Duration {
    match passed_over {
        0 => 2 * MARK_PATIENCE,
        1..16 => Duration::from_millis(500),
        _ => Duration::from_millis(50),
    }
}

/// Bytes of the stack of a thread that looks.
const STACK_BYTES: usize = 256 << 10;

/// What a process is to the children that are looked for.
enum Look {
    /// The main process of this child, on the way to its program.
    Underway(ChildId, Whereabouts),
    /// It may be the main process of this child.
    Candidate(ChildId, Candidate),
    /// It is nobody's.
    Nobody,
}

/// The process that is sought of each of these children, as far as there is one. Those that are known to be somebody
/// else's are left out.
///
/// It leads its session from before it executes its program. So may daemons that it has started, which have its mark
/// as well: the oldest of all is the main one.
///
/// # Errors
/// Such as EMFILE: then nobody can be said to be missing.
pub(super) fn leaders(
    children: &Arc<BTreeMap<ChildId, Lost>>,
    others: &HashSet<Pid>,
) -> io::Result<BTreeMap<ChildId, Whereabouts>> {
    let mut found: BTreeMap<ChildId, Candidate> = BTreeMap::new();
    let mut underway: BTreeMap<ChildId, Whereabouts> = BTreeMap::new();
    let pids: Vec<Pid> = all_processes()?.filter(|pid| !others.contains(pid)).collect();
    let children = Arc::clone(children);
    let look_at = move |pid, patience: &mut Patience| look(pid, &children, patience);
    each(pids, look_at, |look| {
        match look? {
            Look::Underway(child, whereabouts) => drop(underway.insert(child, whereabouts)),
            Look::Candidate(child, candidate) => {
                if found.get(&child).is_none_or(|known| candidate.age() < known.age()) {
                    found.insert(child, candidate);
                }
            }
            Look::Nobody => {}
        }
        Ok(())
    })?;
    let marked =
        |(child, Candidate { pid, pidfd, .. })| (child, Whereabouts::process(pid, Arc::new(pidfd), None));
    underway.extend(found.into_iter().map(marked));
    Ok(underway)
}

/// Looks at each of these processes on a thread that is given up when the kernel keeps it: the next one goes on behind the
/// process that it was looking at, which is passed over.
fn each<T: Send + 'static>(
    pids: Vec<Pid>,
    look: impl Fn(Pid, &mut Patience) -> T + Send + Sync + 'static,
    mut take: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let (pids, look) = (Arc::new(pids), Arc::new(look));
    let (mut next, mut passed_over) = (0, Vec::new());
    while next < pids.len() {
        let (looks, come) = channel();
        let (look, listed) = (Arc::clone(&look), Arc::clone(&pids));
        let is_first = passed_over.is_empty();
        thread::Builder::new().name("search".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            let mut patience = if is_first { Patience::for_recovery() } else { Patience::for_scan() };
            for pid in listed.iter().skip(next) {
                // Whoever waits for it may have given it up.
                if looks.send(look(*pid, &mut patience)).is_err() {
                    return;
                }
            }
        })?;
        loop {
            match come.recv_timeout(look_patience(passed_over.len())) {
                Ok(look) => {
                    next += 1;
                    take(look)?;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    passed_over.extend(pids.get(next).copied());
                    next += 1;
                    break;
                }
            }
        }
    }
    if !passed_over.is_empty() {
        let pids: Vec<String> = passed_over.iter().map(Pid::to_string).collect();
        tracing::warn!(
            pids = pids.join(" "),
            "the kernel does not tell of these processes, which stand still in the midst of an execve(2); they are taken for nobody's"
        );
    }
    Ok(())
}

fn look(pid: Pid, children: &BTreeMap<ChildId, Lost>, patience: &mut Patience) -> io::Result<Look> {
    if let Some((child, whereabouts)) = on_its_way(pid, children)? {
        return Ok(Look::Underway(child, whereabouts));
    }
    let candidate = candidate(pid, children, patience)?;
    Ok(candidate.map_or(Look::Nobody, |(child, candidate)| Look::Candidate(child, candidate)))
}

/// Whether this is the main process of one of these children, on the way to its program: it is held there.
fn on_its_way(pid: Pid, children: &BTreeMap<ChildId, Lost>) -> Result<Option<(ChildId, Whereabouts)>, Errno> {
    let Some(name) = thread_name(pid).filter(|name| LaunchName::is_one(name)) else { return Ok(None) };
    let is_meant = |(child, lost): &(&ChildId, &Lost)| {
        lost.launch.may_be_underway() && LaunchName::of(**child).is(&name)
    };
    let Some((&child, lost)) = children.iter().find(is_meant) else { return Ok(None) };
    match pidfd::open(pid) {
        Ok(pidfd) if underway::hold(child, lost.user, pid, pidfd.as_fd()) => {
            Ok(Some((child, Whereabouts::Unexecuted { pid, pidfd: Arc::new(pidfd) })))
        }
        Ok(_) => Ok(None),
        Err(errno) if pidfd::means_gone(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

impl Candidate {
    /// Earlier ones are less. In the same tick, pids were given in order, short of having wrapped.
    fn age(&self) -> (u64, Pid) {
        (self.start_ticks, self.pid)
    }
}

/// Whether this is the process that is sought of a child, or like one.
fn candidate(
    pid: Pid,
    children: &BTreeMap<ChildId, Lost>,
    patience: &mut Patience,
) -> Result<Option<(ChildId, Candidate)>, Errno> {
    let leads = |stat: &ProcessStat| stat.session == Some(pid) && !stat.is_zombie && !stat.is_of_kernel;
    let looked_at = pidfd::open(pid).and_then(|pidfd| {
        let before = stat_of(pid, pidfd.as_fd())?;
        let mark = if leads(&before) { awaited_mark(pid, patience) } else { Mark::Nobody };
        let child = match mark {
            Mark::Child(child) => Some(child),
            Mark::Nobody | Mark::Changing => None,
        };
        let sought = |child: &ChildId| children.get(child).is_some_and(|lost| lost.sought.may_be(pid));
        let child = child.filter(sought);
        // Not reaped by now, so that the mark is its own.
        let after = stat_of(pid, pidfd.as_fd())?;
        Ok((pidfd, child, after))
    });
    match looked_at {
        Ok((pidfd, Some(child), stat)) if leads(&stat) => {
            Ok(Some((child, Candidate { start_ticks: stat.start_ticks, pid, pidfd })))
        }
        Ok(_) => Ok(None),
        Err(errno) if pidfd::means_gone(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;

    use super::*;

    #[test]
    fn a_process_of_which_the_kernel_does_not_tell_is_passed_over_and_all_others_are_looked_at() {
        let pids: Vec<Pid> = (1..=5).filter_map(Pid::new).collect();
        let (end, never) = channel::<()>();
        let never: Mutex<Receiver<()>> = Mutex::new(never);
        let look = move |pid: Pid, _: &mut Patience| {
            if pid.get() == 3 {
                // As long as the test lives.
                let _ended = never.lock().unwrap().recv();
            }
            pid.get()
        };
        let mut seen = Vec::new();
        each(pids, look, |pid| {
            seen.push(pid);
            Ok(())
        })
        .unwrap();
        drop(end);
        assert_eq!(seen, [1, 2, 4, 5]);
    }
}
