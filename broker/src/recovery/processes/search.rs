//! Searches all of `/proc` for the main processes of children, by their marks, and for those that are on the way to their
//! programs, by their names.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::sought::Lost;
use super::underway;
use crate::os::process::apart::{self, AskOutcome};
use crate::os::process::mark::{Mark, Patience, awaited_mark};
use crate::os::process::pidfd;
use crate::os::process::proc::{ProcessStat, all_processes, start_ticks, stat_of, thread_name};
use crate::os::process::whereabouts::Whereabouts;
use crate::os::spawn::LaunchName;

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
) -> io::Result<BTreeMap<ChildId, Whereabouts>> {
    let mut found: BTreeMap<ChildId, Candidate> = BTreeMap::new();
    let mut underway: BTreeMap<ChildId, Whereabouts> = BTreeMap::new();
    let mut patience = Patience::for_recovery();
    for pid in all_processes()?.filter(|pid| !others.contains(pid)) {
        if let Some((child, whereabouts)) = on_its_way(pid, children)? {
            underway.insert(child, whereabouts);
            continue;
        }
        let Some((child, candidate)) = candidate(pid, children, &mut patience)? else { continue };
        if found.get(&child).is_none_or(|known| candidate.age() < known.age()) {
            found.insert(child, candidate);
        }
    }
    let marked =
        |(child, Candidate { pid, pidfd, .. })| (child, Whereabouts::process(pid, Arc::new(pidfd), None));
    underway.extend(found.into_iter().map(marked));
    Ok(underway)
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
        let start_ticks = match apart::ask(pid, move || start_ticks(pid)) {
            AskOutcome::Answered(ticks) => ticks.unwrap_or_default(),
            // It has begun to execute another program since it told its mark.
            AskOutcome::Kept => u64::MAX,
        };
        // Not reaped by now, so that all of that is its own.
        let after = stat_of(pid, pidfd.as_fd())?;
        Ok((Candidate { start_ticks, pid, pidfd }, child, after))
    });
    match looked_at {
        Ok((candidate, Some(child), stat)) if leads(&stat) => Ok(Some((child, candidate))),
        Ok(_) => Ok(None),
        Err(errno) if pidfd::means_gone(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}
