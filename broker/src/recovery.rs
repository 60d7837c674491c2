//! Brings what is on record together with what there is: the children of an earlier broker.

pub mod processes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::geteuid;
use procbroker_core::{
    Answered, Broker, Finding, HandedOver, Instant, Intent, Members, ProcessState, Progress, RecordedLease,
    Recovered, Run, RunAs, paired_id,
};
use procbroker_protocol::create::{Check, Probe, Ready, StandardOutput};
use procbroker_protocol::{ChildId, ExitStatus};
use serde::Deserialize;
use thiserror::Error;

use crate::os::journal::{Row, Stored};
use crate::os::logs::pipes::{Launched, Pipes};
use crate::os::process::identity::{BootId, ProcessIdentity};
use crate::os::process::pidfd;
use crate::os::process::whereabouts::Whereabouts;
use processes::{Expected, LaunchProgress, RecoveryError, Sought};

/// What there is to take over: the children, and what requests were answered with them.
pub type TakenOver = (Vec<Recovered>, Vec<Answered>);

/// A child on record.
#[derive(Debug)]
pub(crate) struct OnRecord {
    intent: Intent,
    progress: Option<Progress>,
    process: Option<ProcessIdentity>,
}

/// How far a child is, as it is written: with when it expires beside, if it has a time to live.
#[derive(Deserialize)]
struct FromDisk {
    #[serde(flatten)]
    progress: Progress,
    #[serde(default)]
    expires: Option<Instant>,
}

/// How the program before this one came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreviousBroker {
    /// It was stopped or killed, at whatever it was doing; or there was none.
    Ended,
    /// It handed over, with no process being started and everything on record.
    HandedOver,
}

/// What became of one whose end is not on record.
pub(crate) type Processes = Vec<(Run, Whereabouts)>;

/// How an answer that is remembered begins where a child's intent would stand, which begins with another member.
const ANSWER_BEGINS: &str = "{\"answered\":";

/// An answer that is remembered, as it is written.
#[derive(Deserialize)]
struct AnswerFromDisk {
    answered: Answered,
}

/// The record of one child makes no sense.
#[derive(Debug, Error)]
#[error(
    "the record of the child {child} in {path} makes no sense to this version; use the version that wrote it, or move the \
     file away: children in it are then unknown, and their cleanups do not run"
)]
pub struct RecordError {
    /// The child whose record cannot be read.
    child: ChildId,
    /// The state file that it stands in.
    path: PathBuf,
    /// What is wrong with it.
    source: serde_json::Error,
}

/// Reads what an earlier broker wrote: its children, and the answers that it has remembered.
///
/// # Errors
/// Names the child whose record makes no sense to this program.
pub(crate) fn read(rows: Vec<Row>, path: &Path) -> Result<(Vec<OnRecord>, Vec<Answered>), RecordError> {
    let (answers, children): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.intent.starts_with(ANSWER_BEGINS));
    let read_answer = |row: Row| {
        let child = row.child;
        let read: Result<AnswerFromDisk, _> = serde_json::from_str(&row.intent);
        read.map(|read| read.answered).map_err(|source| RecordError { child, path: path.to_owned(), source })
    };
    let answers = answers.into_iter().map(read_answer).collect::<Result<Vec<Answered>, RecordError>>()?;
    let read = |row: Row| {
        let child = row.child;
        let damaged = |source| RecordError { child, path: path.to_owned(), source };
        let mut intent: Intent = serde_json::from_str(&row.intent).map_err(damaged)?;
        let (progress, process) = match row.progress {
            Some(progress) => {
                let FromDisk { progress: how_far, expires } =
                    serde_json::from_str(&progress.text).map_err(damaged)?;
                if let Some(expires) = expires {
                    intent.lease = RecordedLease::Until(expires);
                }
                (Some(how_far), progress.process)
            }
            None => (None, None),
        };
        Ok(OnRecord { intent, progress, process })
    };
    let children = children.into_iter().map(read).collect::<Result<Vec<OnRecord>, RecordError>>()?;
    Ok((children, answers))
}

impl OnRecord {
    fn has_ended(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.ended_at().is_some())
    }

    /// Whether it may be that there never was a process of it.
    fn may_be_unstarted(&self) -> bool {
        match &self.progress {
            // The next run of one that is restarted may be there, and may not.
            None | Some(Progress::Unwanted { .. } | Progress::Restarting { .. }) => true,
            Some(
                Progress::Starting { .. }
                | Progress::Running { .. }
                | Progress::Stopping(_)
                | Progress::Cleaning { .. }
                | Progress::Ended { .. },
            ) => false,
        }
    }

    /// How far its process can have got, if none is on record. A process marks the pipe of its output before it becomes the child's
    /// program, and the mark is taken away before the next one.
    fn launch(&self, pipes: &Pipes, previous: PreviousBroker) -> LaunchProgress {
        let is_logged = self.intent.params.stdout == StandardOutput::Log;
        match (self.may_be_unstarted(), previous) {
            (false, PreviousBroker::HandedOver | PreviousBroker::Ended) => LaunchProgress::Executed,
            (true, PreviousBroker::HandedOver) => LaunchProgress::RuledOut,
            (true, PreviousBroker::Ended)
                if is_logged && pipes.launched(self.intent.id) == Launched::NotBegun =>
            {
                LaunchProgress::Underway
            }
            (true, PreviousBroker::Ended) => LaunchProgress::Possible,
        }
    }

    /// Whether a command may have asked whether it is ready, and not have come to its end.
    fn may_be_asked(&self) -> bool {
        let is_by_command =
            matches!(&self.intent.params.ready, Ready::Probe(Probe { check: Check::Command(_), .. }));
        let may_be = match &self.progress {
            // That the next run was there may not be on record.
            None
            | Some(
                Progress::Unwanted { .. }
                | Progress::Starting { .. }
                | Progress::Restarting { .. }
                | Progress::Stopping(_),
            ) => true,
            Some(Progress::Running { .. } | Progress::Cleaning { .. } | Progress::Ended { .. }) => false,
        };
        is_by_command && may_be
    }

    fn run(&self) -> Run {
        Broker::recovered_run(self.intent.id)
    }

    /// Whether a process of the child may live in a control group of its own.
    pub(crate) fn may_have_group(&self) -> bool {
        !self.has_ended() && self.process.is_some_and(|process| process.cgroup.is_some())
    }
}

/// Finds out what became of the children whose end is not on record. `passed` are the descriptors of processes that
/// were kept for this broker. After a [handing over](PreviousBroker::HandedOver) no process can be there that is not on
/// record.
///
/// # Errors
/// When it cannot be told.
pub(crate) fn find(
    children: &[OnRecord],
    stored_boot: Option<BootId>,
    mut passed: BTreeMap<ChildId, Arc<OwnedFd>>,
    pipes: &Pipes,
    (boot, previous): (BootId, PreviousBroker),
) -> Result<Processes, RecoveryError> {
    let is_other_boot = stored_boot.is_some_and(|stored| stored != boot);
    let mut expected = Vec::new();
    let mut rebooted = Vec::new();
    for child in children.iter().filter(|child| !child.has_ended()) {
        let (run, id) = (child.run(), child.intent.id);
        if is_other_boot {
            rebooted.push((run, Whereabouts::Rebooted));
            continue;
        }
        let launch = child.launch(pipes, previous);
        let user = match child.intent.run_as {
            RunAs::Broker => geteuid().as_raw(),
            RunAs::User { uid, .. } => uid,
        };
        let sought =
            if let Some(Progress::Cleaning { .. }) = child.progress { Sought::Cleanup } else { Sought::Main };
        let (process, passed) = (child.process, passed.remove(&id));
        expected.push(Expected { run, user, process, passed, launch, sought });
    }
    let mut found = processes::recover(expected)?;
    found.extend(rebooted);
    Ok(found)
}

/// The run under which what is left of the commands is held that asked whether a child was ready.
fn probe_of(child: ChildId) -> Run {
    Broker::recovered_run(paired_id(child))
}

/// Which children's commands an earlier broker may have left something of, as what that is to be looked for. None is there
/// after a [handing over](PreviousBroker::HandedOver).
pub(crate) fn probes(
    children: &[OnRecord],
    stored_boot: Option<BootId>,
    pipes: &Pipes,
    (boot, previous): (BootId, PreviousBroker),
) -> Processes {
    if previous == PreviousBroker::HandedOver || stored_boot != Some(boot) {
        return Vec::new();
    }
    // Nothing asks whether a child is ready whose program was not executed.
    let is_there = |child: &&OnRecord| child.launch(pipes, previous) != LaunchProgress::Underway;
    let asked = children.iter().filter(|child| child.may_be_asked()).filter(is_there);
    let gone = |child: &OnRecord| {
        let (pid, pidfd, cgroup) = (None, None, None);
        let gone = Whereabouts::Gone { pid, pidfd, status: ExitStatus::Unknown, cgroup };
        (probe_of(child.intent.id), gone)
    };
    asked.map(gone).collect()
}

/// What the core is told: everything on record, with what there is of it. `left` is what is left of those that are
/// gone, `out_of_memory` those of which the kernel has killed something for want of memory, and `handed_over` what an earlier
/// program has passed on.
pub(crate) fn findings(
    children: Vec<OnRecord>,
    processes: &Processes,
    left: &HashMap<Run, Members>,
    out_of_memory: &HashSet<Run>,
    mut handed_over: BTreeMap<ChildId, HandedOver>,
) -> Vec<Recovered> {
    let found: HashMap<Run, Finding> =
        processes.iter().map(|(run, found)| (*run, finding(*run, found, left))).collect();
    children
        .into_iter()
        .map(|child| {
            // Of one whose end is on record nothing is looked for.
            let finding = found.get(&child.run()).copied().unwrap_or(Finding::NeverStarted);
            let probe = left.get(&probe_of(child.intent.id)).copied().unwrap_or(Members::Nothing);
            let out_of_memory = out_of_memory.contains(&child.run());
            let OnRecord { intent, progress, .. } = child;
            let handed_over = handed_over.remove(&intent.id).unwrap_or_default();
            Recovered { intent, progress, finding, probe, out_of_memory, handed_over }
        })
        .collect()
}

fn finding(run: Run, found: &Whereabouts, left: &HashMap<Run, Members>) -> Finding {
    match found {
        Whereabouts::Process { pid, kinship, pidfd, .. } => {
            let has_ended = pidfd::has_ended(pidfd.as_fd());
            let state = if has_ended { ProcessState::Zombie } else { ProcessState::Running };
            Finding::Process { pid: *pid, kinship: *kinship, state }
        }
        Whereabouts::Gone { status, .. } => {
            let members = left.get(&run).copied().unwrap_or(Members::Nothing);
            Finding::Gone { status: *status, members }
        }
        Whereabouts::Unexecuted { pid, .. } => Finding::Unexecuted { pid: *pid },
        Whereabouts::NeverStarted => Finding::NeverStarted,
        Whereabouts::Rebooted => Finding::Rebooted,
    }
}

/// The record of an earlier broker, before anything was looked for.
#[derive(Debug)]
pub(crate) struct PreviousRecord {
    pub(crate) children: Vec<OnRecord>,
    pub(crate) answers: Vec<Answered>,
    pub(crate) boot: Option<BootId>,
    pub(crate) cgroup_folder: Option<std::path::PathBuf>,
}

impl PreviousRecord {
    /// Makes sense of what was stored.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn read(stored: Stored, path: &Path) -> Result<Self, RecordError> {
        let (children, answers) = read(stored.rows, path)?;
        let (boot, folder) = match stored.host {
            Some(host) => (Some(host.boot), host.cgroup_folder),
            None => (None, None),
        };
        // A folder of groups in which nobody can be any more is not needed.
        let cgroup_folder = folder.filter(|_| children.iter().any(OnRecord::may_have_group));
        Ok(Self { children, answers, boot, cgroup_folder })
    }
}
