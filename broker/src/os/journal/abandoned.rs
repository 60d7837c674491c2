//! The children of a broker whose state file is gone while its runtime folder is there: which are known, and whether any of
//! them may live.
//!
//! The log of intents knows the newest of them, the pipes those whose output was kept. Others may be known by what a process
//! carries itself: the mark of a child, and the socket of the broker that it was told.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use procbroker_core::{Pid, paired_id};
use procbroker_protocol::ChildId;
use uuid::Uuid;

use super::entry::{Change, Entry};
use super::error::Survivor;
use super::intent_log::{self, FILE_BYTES};
use crate::os::host::own_folder::{OwnError, OwnFolder};
use crate::os::host::socket::RUNTIME_FOLDER_ENDING;
use crate::os::logs::pipes::{PIPES_FOLDER, Pipes};
use crate::os::process::identity::{self, BootId, Lookup, ProcessIdentity};
use crate::os::process::mark::{Mark, Patience, awaited_mark, broker_socket};
use crate::os::process::proc::{ProcessStat, all_processes, thread_name};
use crate::os::spawn::LaunchName;
use crate::os::tree::cgroup;

/// What is left of such a broker.
#[derive(Debug)]
pub(crate) struct Abandoned {
    folder: PathBuf,
    /// The last changes of its record, as far back as they are there without a gap.
    pub(super) entries: Vec<Entry>,
    /// The children that are known by their ids.
    children: HashSet<ChildId>,
    /// Their processes, as far as they are on record.
    processes: BTreeMap<ChildId, ProcessIdentity>,
    /// The numbers of their control groups.
    groups: BTreeSet<u64>,
}

impl Abandoned {
    /// Reads what is left in this runtime folder. A log that cannot be read, or is of another run of the kernel, tells of
    /// nobody.
    ///
    /// # Errors
    /// When the system refuses, or what is there is not the broker's own.
    pub(crate) fn read(folder: &OwnFolder, boot: BootId) -> Result<Self, OwnError> {
        let refused = |name: &str| {
            let path = folder.path().join(name);
            move |source| OwnError::Refused { attempt: "read", path, source }
        };
        let mut log = Vec::new();
        if folder.has_file(intent_log::NAME)? {
            let file = folder.file(intent_log::NAME, OFlag::O_RDONLY)?;
            file.take(FILE_BYTES).read_to_end(&mut log).map_err(refused(intent_log::NAME))?;
        }
        let whole = intent_log::whole_entries(&log, boot);
        let pipes = match folder.folder(PIPES_FOLDER) {
            Ok(pipes) => pipes.entries()?,
            Err(error) if error.is_absence() => Vec::new(),
            Err(error) => return Err(error),
        };
        let of_pipe = |name: &String| Uuid::try_parse(name.split('.').next()?).ok().map(ChildId::from_uuid);
        let mut children: HashSet<ChildId> = pipes.iter().filter_map(of_pipe).collect();
        let (mut processes, mut groups) = (BTreeMap::new(), BTreeSet::new());
        for entry in whole.values() {
            children.insert(entry.child);
            if let Change::Progress(progress) = &entry.change
                && let Some(process) = progress.process
            {
                groups.extend(process.cgroup);
                processes.insert(entry.child, process);
            }
        }
        let folder = folder.path().to_owned();
        Ok(Self { folder, entries: last_in_a_row(whole), children, processes, groups })
    }

    /// Where its log is.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(intent_log::NAME)
    }

    /// The children of which something is known, and not what they were started with: nobody can go on with them.
    pub(super) fn unknown(&self) -> Vec<ChildId> {
        let is_intent = |entry: &&Entry| matches!(entry.change, Change::Intent(_));
        let known: HashSet<ChildId> =
            self.entries.iter().filter(is_intent).map(|entry| entry.child).collect();
        let has_ended = |child: &ChildId| {
            let last = self.entries.iter().rev().find(|entry| entry.child == *child);
            last.is_some_and(|entry| entry.change == Change::Remove)
        };
        let mut unknown: Vec<ChildId> = self.children.difference(&known).copied().collect();
        unknown.retain(|child| !has_ended(child));
        unknown.sort();
        unknown
    }

    /// A process that lives of any of its children, or may be of one.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(crate) fn survivor(&self) -> std::io::Result<Option<Survivor>> {
        for (child, process) in &self.processes {
            if let Lookup::Same(_) = identity::find(*child, process)? {
                let is_alive = ProcessStat::read(process.pid).is_some_and(|found| !found.is_zombie);
                if is_alive {
                    return Ok(Some(Survivor { pid: process.pid, child: Some(*child) }));
                }
            }
        }
        let output = self.folder.join(PIPES_FOLDER);
        let pipes = output.is_dir().then(|| Pipes::open(output)).and_then(Result::ok);
        let own = Pid::new(std::process::id());
        let mut others = all_processes()?.filter(|pid| Some(*pid) != own);
        let mut patience = Patience::for_recovery();
        Ok(others.find_map(|pid| self.survives(pid, pipes.as_ref(), &mut patience)))
    }

    /// Whether this process is, or may be, one.
    fn survives(&self, pid: Pid, pipes: Option<&Pipes>, patience: &mut Patience) -> Option<Survivor> {
        let is_nobody = |found: ProcessStat| found.is_zombie || found.is_of_kernel;
        if ProcessStat::read(pid).is_none_or(is_nobody) {
            return None;
        }
        let of = |child| Some(Survivor { pid, child });
        if let Some(name) = thread_name(pid).filter(|name| LaunchName::is_one(name))
            && let Some(child) = self.children.iter().find(|child| LaunchName::of(**child).is(&name))
        {
            return of(Some(*child));
        }
        match awaited_mark(pid, patience) {
            Mark::Child(child) => {
                let known = [child, paired_id(child)].into_iter().find(|child| self.children.contains(child));
                match known {
                    Some(child) => of(Some(child)),
                    None if self.may_be_told(broker_socket(pid)) => of(Some(child)),
                    None => None,
                }
            }
            Mark::Nobody | Mark::Changing => {
                if let Some(child) = pipes.and_then(|pipes| pipes.held_by(pid)) {
                    return of(Some(child));
                }
                let is_in_group = cgroup::number_of(pid).is_some_and(|number| self.groups.contains(&number));
                is_in_group.then_some(Survivor { pid, child: None })
            }
        }
    }

    /// Whether a broker with this runtime folder may have told its children this socket: the usual place of the folder is
    /// beside it.
    fn may_be_told(&self, socket: Option<Vec<u8>>) -> bool {
        let usual = self.folder.as_os_str().as_bytes().strip_suffix(RUNTIME_FOLDER_ENDING.as_bytes());
        usual.is_none_or(|usual| socket.is_some_and(|socket| socket == usual))
    }
}

/// The last of them whose numbers follow one another: before a gap something may have been done that is not known.
fn last_in_a_row(mut whole: BTreeMap<u64, Entry>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut expected = None;
    while let Some((number, entry)) = whole.pop_last() {
        if expected.is_some_and(|expected| expected != number) {
            break;
        }
        expected = number.checked_sub(1);
        entries.push(entry);
    }
    entries.reverse();
    entries
}
