//! What descends from the broker, as `/proc` tells it.
//!
//! The broker is a subreaper (`prctl(2)`, `PR_SET_CHILD_SUBREAPER`): what loses its parent below it becomes a child
//! of the broker's main thread, which starts no process itself. So the children of that thread are the orphans.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{getpid, gettid};
use procbroker_core::Pid;
use procbroker_protocol::ChildId;
use thiserror::Error;

/// The variable by which a child and all that inherit its environment are known.
pub const CHILD_ID_VARIABLE: &str = "PROCBROKER_CHILD_ID";

/// How often a list is read again because something was reaped meanwhile.
const LIST_ROUNDS: usize = 64;

/// The kernel's flag of threads of its own (`PF_KTHREAD` in `linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Bytes of one read of a list: some 600 pids.
const LIST_BYTES: usize = 4096;

/// Counts what the main thread reaps, so that a reader of its list of children in another thread can tell
/// whether the list was changed under it: the kernel then may have left somebody out (`proc_tid_children(5)`).
/// It is odd while something is being reaped.
#[derive(Clone, Debug, Default)]
pub struct ReapClock(Arc<AtomicU64>);

impl ReapClock {
    /// Does what may take processes out of the list.
    pub fn during<T>(&self, reaping: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::SeqCst);
        let result = reaping();
        self.0.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// None while something is being reaped.
    fn now(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|ticks| ticks % 2 == 0)
    }
}

/// The orphans that the broker inherits.
#[derive(Debug)]
pub struct Inheritance {
    broker: Pid,
    subreaper: bool,
    /// `/proc/PID/task/PID/children`, where the kernel has it (`CONFIG_PROC_CHILDREN`).
    children: Option<File>,
    clock: ReapClock,
}

/// The broker cannot inherit.
#[derive(Debug, Error)]
pub enum InheritanceError {
    /// Called elsewhere than on the main thread, which is the one that inherits.
    #[error("the orphans of children are inherited by the main thread, and this is another one")]
    NotMainThread,
    /// `/proc` is missing, or shows other processes than the broker's.
    #[error("cannot read /proc/self/stat: {0}; mount proc in the broker's own pid namespace")]
    Proc(#[source] io::Error),
}

impl Inheritance {
    /// Makes this process inherit all orphans from now on: to be called before there is a child.
    ///
    /// # Errors
    /// When this is not the main thread, or `/proc` cannot be used.
    pub fn begin() -> Result<Self, InheritanceError> {
        if gettid() != getpid() {
            return Err(InheritanceError::NotMainThread);
        }
        let stat = fs::read_to_string("/proc/self/stat").map_err(InheritanceError::Proc)?;
        let own = ProcessStat::parse(&stat).map(|stat| stat.pid);
        let broker = own
            .filter(|own| own.get() == std::process::id())
            .ok_or_else(|| InheritanceError::Proc(io::Error::from(Errno::ENOENT)))?;
        // PID 1 inherits everything even where this fails.
        let subreaper = prctl::set_child_subreaper(true).is_ok() || broker.get() == 1;
        Ok(Self { broker, subreaper, children: open_list(broker), clock: ReapClock::default() })
    }

    /// Another one, for the worker thread.
    pub(super) fn share(&self) -> Self {
        let children = self.children.as_ref().and_then(|_| open_list(self.broker));
        Self { broker: self.broker, subreaper: self.subreaper, children, clock: self.clock.clone() }
    }

    /// Makes one that scans `/proc`, as where the kernel has no list of children.
    #[cfg(test)]
    pub(super) fn without_list(mut self) -> Self {
        self.children = None;
        self
    }

    /// What the reaper ticks.
    #[must_use]
    pub fn clock(&self) -> ReapClock {
        self.clock.clone()
    }

    /// The broker itself.
    #[must_use]
    pub fn broker(&self) -> Pid {
        self.broker
    }

    /// Whether orphans come to the broker at all.
    #[must_use]
    pub fn is_subreaper(&self) -> bool {
        self.subreaper
    }

    /// Whether the kernel lists the children of a thread; else all of `/proc` is read each time.
    #[must_use]
    pub fn has_list(&self) -> bool {
        self.children.is_some()
    }

    /// Whether the list is empty, at the cost of one system call. False where there is no list.
    ///
    /// Only the main thread may ask: nothing is taken out of the list meanwhile.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut first = [0; 1];
        self.children.as_ref().is_some_and(|file| matches!(file.read_at(&mut first, 0), Ok(0)))
    }

    /// The orphans, zombies among them; where there is no list, the broker's own children too.
    pub(super) fn orphans(&self) -> Listing {
        let Some(file) = &self.children else { return self.all() };
        for _ in 0..LIST_ROUNDS {
            let before = self.clock.now();
            let Ok(pids) = read_list(file) else { break };
            if before.is_some() && self.clock.now() == before {
                return Listing { pids, is_exact: true };
            }
            std::thread::yield_now();
        }
        self.all()
    }

    /// Every process whose parent is the broker, whichever of its threads; this reads all of `/proc`.
    pub(super) fn all(&self) -> Listing {
        let before = self.clock.now();
        let is_own = |pid: &Pid| ProcessStat::read(*pid).is_some_and(|stat| stat.parent == Some(self.broker));
        let pids = match &self.children {
            Some(_) => children(self.broker),
            None => processes().filter(is_own).collect(),
        };
        Listing { pids, is_exact: before.is_some() && self.clock.now() == before }
    }
}

/// Processes whose parent is the broker.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) pids: Vec<Pid>,
    /// Whether none was reaped meanwhile: what that one leaves to the broker may be missing.
    pub(super) is_exact: bool,
}

/// The children of the main thread.
fn open_list(broker: Pid) -> Option<File> {
    File::open(format!("/proc/{broker}/task/{broker}/children")).ok()
}

/// Every process that this `/proc` shows.
fn processes() -> impl Iterator<Item = Pid> {
    all_processes().into_iter().flatten()
}

/// The same.
///
/// # Errors
/// Such as EMFILE.
pub(super) fn all_processes() -> io::Result<impl Iterator<Item = Pid>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| parse(entry.file_name().to_str()?)))
}

fn parse(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::new)
}

fn read_list(file: &File) -> io::Result<Vec<Pid>> {
    let mut text = Vec::new();
    let mut buffer = [0; LIST_BYTES];
    loop {
        let count = file.read_at(&mut buffer, text.len() as u64)?;
        if count == 0 {
            break;
        }
        text.extend(buffer.iter().take(count));
    }
    Ok(String::from_utf8_lossy(&text).split_ascii_whitespace().filter_map(parse).collect())
}

/// The children of a process, started by any of its threads.
pub(super) fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| File::open(thread.path().join("children")).ok());
    lists.filter_map(|file| read_list(&file).ok()).flatten().collect()
}

/// Whether the kernel has such lists.
pub(super) fn lists_children() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// Every process with its parent, for kernels that list no children.
pub(super) fn parents() -> Vec<ProcessStat> {
    processes().filter_map(ProcessStat::read).collect()
}

/// What `/proc/PID/stat` says of a process (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The process.
    pub pid: Pid,
    /// Whether it has ended, and only waits to be reaped.
    pub is_zombie: bool,
    /// Whether it is a thread of the kernel, which belongs to nobody and has no environment.
    pub is_of_kernel: bool,
    /// Its parent; none where that is outside of the pid namespace.
    pub parent: Option<Pid>,
    /// Its process group.
    pub group: Option<Pid>,
    /// Its session.
    pub session: Option<Pid>,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Reads that of a process; none when it has been reaped.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field, the name of the program, is in parentheses and may have any character in it.
        let (pid, rest) = text.split_once(' ')?;
        let (_name, rest) = rest.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let mut id = || fields.next().map(parse);
        let (parent, group, session) = (id()?, id()?, id()?);
        // Fields 9 and 22; the three before were 4 to 6.
        let flags = fields.nth(2).and_then(|flags| u64::from_str(flags).ok())?;
        let start_ticks = fields.nth(12).and_then(|ticks| u64::from_str(ticks).ok())?;
        let is_zombie = matches!(state, "Z" | "X" | "x");
        let is_of_kernel = flags & KERNEL_THREAD != 0;
        Some(Self { pid: parse(pid)?, is_zombie, is_of_kernel, parent, group, session, start_ticks })
    }
}

/// What the environment that a process started with says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is that of a child.
    Child(ChildId),
    /// It is no child's, or cannot be read.
    Nobody,
    /// It cannot be told at this moment: the process is about to execute another program, and has no environment
    /// so far.
    Changing,
}

/// Reads the mark of a process.
pub(super) fn mark(pid: Pid) -> Mark {
    let environment = match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) => environment,
        // There is no descriptor or memory to read it with at the moment.
        Err(error) if is_shortage(&error) => return Mark::Changing,
        Err(_) => return Mark::Nobody,
    };
    if environment.is_empty() {
        return if has_no_environment(pid) { Mark::Nobody } else { Mark::Changing };
    }
    let value = environment
        .split(|&byte| byte == 0)
        .find_map(|variable| variable.strip_prefix(CHILD_ID_VARIABLE.as_bytes())?.strip_prefix(b"="));
    let child = value.and_then(|value| uuid::Uuid::try_parse_ascii(value).ok());
    child.map_or(Mark::Nobody, |child| Mark::Child(ChildId::from_uuid(child)))
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Whether a process was started without any variable. The kernel tells where in its memory the environment
/// begins and ends (fields 50 and 51), which it does not know yet while it executes a program.
fn has_no_environment(pid: Pid) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let Some((_, rest)) = text.rsplit_once(')') else { return true };
    let mut fields = rest.split_ascii_whitespace().skip(47);
    let (begin, end) = (fields.next(), fields.next());
    begin.is_some_and(|begin| begin != "0") && begin == end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let text = "42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 31415 0 0\n";
        let pid = |number| Pid::new(number).unwrap();
        let stat = ProcessStat {
            pid: pid(42),
            is_zombie: false,
            is_of_kernel: false,
            parent: Some(pid(7)),
            group: Some(pid(8)),
            session: Some(pid(9)),
            start_ticks: 31_415,
        };
        assert_eq!(ProcessStat::parse(text), Some(stat));
        assert_eq!(ProcessStat::parse("42 (a) S 7 8"), None);
        assert_eq!(ProcessStat::parse(""), None);
    }

    #[test]
    fn the_own_process_is_read_as_the_system_calls_say() {
        let own = Pid::new(std::process::id()).unwrap();
        let stat = ProcessStat::read(own).unwrap();
        assert_eq!(stat.pid, own);
        assert_eq!(stat.parent.map(Pid::get), Some(nix::unistd::getppid().as_raw().cast_unsigned()));
        assert_eq!(stat.group.map(Pid::get), Some(nix::unistd::getpgrp().as_raw().cast_unsigned()));
        let session = nix::unistd::getsid(None).unwrap().as_raw().cast_unsigned();
        assert_eq!(stat.session.map_or(0, Pid::get), session);
        assert!(!stat.is_zombie);
        assert!(stat.start_ticks > 0);
    }

    #[test]
    fn another_thread_than_the_main_one_cannot_inherit() {
        let result = std::thread::spawn(|| Inheritance::begin().map(drop)).join().unwrap();
        assert!(matches!(result, Err(InheritanceError::NotMainThread)));
    }

    #[test]
    fn the_children_of_all_threads_of_a_process_are_its_children() {
        let start = || std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn();
        let mut child = start().unwrap();
        let own = Pid::new(std::process::id()).unwrap();
        let pid = Pid::new(child.id()).unwrap();
        assert!(children(own).contains(&pid));
        assert!(parents().iter().any(|stat| stat.pid == pid && stat.parent == Some(own)));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children(own).contains(&pid));
    }

    #[test]
    fn a_mark_is_read_from_the_environment_and_its_absence_too() {
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let start = |variables: &[(&str, String)]| {
            let mut command = std::process::Command::new("/bin/cat");
            command.env_clear().envs(variables.iter().cloned()).stdin(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let marked = [("A", "b".to_owned()), (CHILD_ID_VARIABLE, child.to_string())];
        let forged = [(CHILD_ID_VARIABLE, "7".to_owned())];
        for (variables, expected) in [
            (&marked[..], Mark::Child(child)),
            (&marked[..1], Mark::Nobody),
            (&forged, Mark::Nobody),
            (&[], Mark::Nobody),
        ] {
            let mut process = start(variables);
            let pid = Pid::new(process.id()).unwrap();
            // It may be on its way to its program.
            let found = std::iter::repeat_with(|| mark(pid)).find(|mark| *mark != Mark::Changing);
            assert_eq!(found, Some(expected));
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }
}
