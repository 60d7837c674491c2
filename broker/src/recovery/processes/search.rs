//! Searches all of `/proc` for the main processes of children, by their marks.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::Lost;
use crate::os::process::mark::{Mark, awaited_mark};
use crate::os::process::pidfd;
use crate::os::process::proc::{ProcessStat, all_processes, stat_of};

/// One that may be the main process of a child.
#[derive(Debug)]
struct Candidate {
    start_ticks: u64,
    pid: Pid,
    pidfd: OwnedFd,
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
    children: &BTreeMap<ChildId, Lost>,
    others: &HashSet<Pid>,
) -> io::Result<BTreeMap<ChildId, (Pid, OwnedFd)>> {
    let mut found: BTreeMap<ChildId, Candidate> = BTreeMap::new();
    for pid in all_processes()?.filter(|pid| !others.contains(pid)) {
        let Some((child, candidate)) = candidate(pid, children)? else { continue };
        if found.get(&child).is_none_or(|known| candidate.age() < known.age()) {
            found.insert(child, candidate);
        }
    }
    Ok(found.into_iter().map(|(child, Candidate { pid, pidfd, .. })| (child, (pid, pidfd))).collect())
}

impl Candidate {
    /// Earlier ones are less. In the same tick, pids were given in order, short of having wrapped.
    fn age(&self) -> (u64, Pid) {
        (self.start_ticks, self.pid)
    }
}

/// Whether this is the process that is sought of a child, or like one.
fn candidate(pid: Pid, children: &BTreeMap<ChildId, Lost>) -> Result<Option<(ChildId, Candidate)>, Errno> {
    let leads = |stat: &ProcessStat| stat.session == Some(pid) && !stat.is_zombie && !stat.is_of_kernel;
    let looked_at = pidfd::open(pid).and_then(|pidfd| {
        let before = stat_of(pid, pidfd.as_fd())?;
        let mark = if leads(&before) { awaited_mark(pid) } else { Mark::Nobody };
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
