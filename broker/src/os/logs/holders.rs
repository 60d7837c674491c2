//! Finds whoever holds a child's pipe within the kernel, and ends them.
//!
//! Who does so is in a call such as splice(2) that names the pipe, as a rule, and `/proc` tells that (`proc_pid_syscall(5)`). One
//! that has closed or exchanged its descriptor meanwhile, or has a thread of the kernel do it (`io_uring`), shows less: so those
//! are ended first who are sure to hold it, and others only where it is held still. Nothing here touches a pipe: whoever asks
//! one anything waits for its holder too.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use procbroker_core::Pid;
use procbroker_protocol::Signal;

use super::pipe_use::PipePlace;
use super::stream;
use crate::os::process::apart::{self, AskOutcome};
use crate::os::process::mark::living_thread;
use crate::os::process::{pidfd, proc};

/// Threads of a process that are looked at. One that has more and hides among them has its pipe open, as a rule.
const THREADS_MAX: usize = 4_096;

/// Descriptors of a process that are looked at.
const DESCRIPTORS_MAX: usize = 4_096;

/// How long it may take until a process that was killed has let go of the pipe.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Pids that a line of the log names.
const NAMED_MAX: usize = 8;

/// What follows the name of a file that was removed (`proc_pid_fd(5)`).
const DELETED: &str = " (deleted)";

/// A pipe that somebody holds.
#[derive(Clone, Debug)]
pub(super) struct HeldPipe {
    pub(super) place: PipePlace,
    /// The user whose processes are to write to it.
    pub(super) user: u32,
    /// What the log calls it.
    pub(super) name: String,
}

/// Whether a pipe is held by anybody after all that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    Free,
    StillHeld,
}

/// Who may be ended for it that a pipe is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those who are sure to hold it, or are about to.
    TheSure,
    /// Others too, as far as they may: whoever waits for the pipe has done so for too long for a machine that is short of
    /// memory.
    TheSuspicious,
}

/// How much speaks for it that a process holds the pipe, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    /// It is its user's, and in a call that holds it.
    Holds,
    /// It is its user's, and has it open.
    HasItOpen,
    /// It is its user's, and moves bytes between what cannot be told, or nothing of it can be told. A user is not
    /// protected from their own other processes where that is the broker's own user: there it means nothing.
    IsObscure,
    /// It is another user's, and in a call that holds it: it may have been tricked into that.
    HoldsAnothers,
}

/// What a process does, as far as it has to do with a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Holds,
    HasItOpen,
    /// It moves bytes within the kernel between other things, or things that cannot be told.
    MovesOther,
    Nothing,
}

/// Ends those who hold a pipe, until `is_held` says that nobody does. `spared` is the broker, or an earlier one.
pub(super) fn release(pipe: &HeldPipe, reach: Reach, spared: &[Pid], is_held: impl Fn() -> bool) -> Release {
    let all = match reach {
        Reach::TheSure => &[Suspicion::Holds][..],
        Reach::TheSuspicious => {
            &[Suspicion::Holds, Suspicion::HasItOpen, Suspicion::IsObscure, Suspicion::HoldsAnothers]
        }
    };
    let mut ended: HashSet<Pid> = spared.iter().copied().collect();
    for suspicion in all.iter().copied() {
        if !is_held() {
            return Release::Free;
        }
        let killed = kill(pipe, suspicion, &mut ended);
        if killed.is_empty() {
            continue;
        }
        let named = killed.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(" ");
        tracing::warn!(
            output = %pipe.name, user = pipe.user, pids = %named, killed = killed.len(),
            "killed what held the output of a child within the kernel, and with it everybody's: {}", suspicion.reason()
        );
        if until_released(&is_held) {
            return Release::Free;
        }
    }
    if is_held() { Release::StillHeld } else { Release::Free }
}

fn until_released(is_held: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while is_held() {
        if began.elapsed() >= RELEASE_PATIENCE {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
    true
}

/// Kills all processes that are under this suspicion and are not among these, to which they are added.
fn kill(pipe: &HeldPipe, suspicion: Suspicion, ended: &mut HashSet<Pid>) -> Vec<Pid> {
    let mut killed = Vec::new();
    for process in proc::processes() {
        if ended.contains(&process) {
            continue;
        }
        // Opened before it is looked at: what is killed is what was seen.
        let Ok(descriptor) = pidfd::open(process) else { continue };
        if !is_under(suspicion, process, pipe) || pidfd::is_reaped(descriptor.as_fd()) {
            continue;
        }
        match pidfd::send(descriptor.as_fd(), Signal::KILL) {
            Ok(()) => {
                ended.insert(process);
                killed.push(process);
            }
            Err(errno) => tracing::debug!(%process, %errno, "cannot end what holds the output of a child"),
        }
    }
    killed
}

fn is_under(suspicion: Suspicion, process: Pid, pipe: &HeldPipe) -> bool {
    let is_its_users = match suspicion {
        Suspicion::Holds | Suspicion::HasItOpen | Suspicion::IsObscure => true,
        Suspicion::HoldsAnothers => false,
    };
    // Told without a wait; most are none of it.
    if proc::user_ids(process).is_none_or(|[user, ..]| (user == pipe.user) != is_its_users) {
        return false;
    }
    let place = pipe.place;
    let conduct = match apart::ask(process, move || conduct(process, place, is_its_users)) {
        AskOutcome::Answered(conduct) => conduct,
        // Nothing of it can be told.
        AskOutcome::Kept => Conduct::MovesOther,
    };
    match suspicion {
        Suspicion::Holds | Suspicion::HoldsAnothers => conduct == Conduct::Holds,
        Suspicion::HasItOpen => conduct == Conduct::HasItOpen,
        Suspicion::IsObscure => conduct == Conduct::MovesOther && pipe.user != geteuid().as_raw(),
    }
}

impl Suspicion {
    fn reason(self) -> &'static str {
        match self {
            Self::Holds | Self::HoldsAnothers => "it was in a call such as splice(2) with it",
            Self::HasItOpen => "it had it open, and nobody was seen in such a call",
            Self::IsObscure => "it is its user's, and what it did could not be told",
        }
    }
}

/// What a process does, by what its threads wait for and, where that is of interest, by what it has open.
fn conduct(process: Pid, pipe: PipePlace, looks_at_open: bool) -> Conduct {
    let mut moves = false;
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for thread in threads.take(THREADS_MAX) {
        let folder = thread.path();
        let waits = fs::read_to_string(folder.join("syscall")).ok();
        let Some(call) = waits.as_deref().and_then(WaitingCall::read) else { continue };
        for end in call.ends() {
            moves = true;
            if is_open_at(&folder.join(format!("fd/{end}")), pipe) {
                return Conduct::Holds;
            }
        }
    }
    if looks_at_open && has_open(process, pipe) {
        return Conduct::HasItOpen;
    }
    if moves { Conduct::MovesOther } else { Conduct::Nothing }
}

fn has_open(process: Pid, pipe: PipePlace) -> bool {
    let folder = living_thread(process).unwrap_or_else(|| format!("/proc/{process}"));
    let links = fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten();
    links.take(DESCRIPTORS_MAX).any(|link| is_open_at(&link.path(), pipe))
}

/// Whether this link of `/proc` leads to that pipe.
///
/// What has another name is not asked what it is: a file system of somebody's own would not have to answer.
fn is_open_at(link: &Path, pipe: PipePlace) -> bool {
    let Ok(target) = fs::read_link(link) else { return false };
    if !is_named_as_a_pipe(&target) {
        return false;
    }
    // By the link, and not by its name; nothing is opened.
    fs::metadata(link).is_ok_and(|found| {
        let place = PipePlace { device: found.dev(), inode: found.ino() };
        found.file_type().is_fifo() && place == pipe
    })
}

fn is_named_as_a_pipe(target: &Path) -> bool {
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    stream::parse(name.strip_suffix(DELETED).unwrap_or(name)).is_some()
}

/// A system call that a thread waits in: its number, and its arguments (`proc_pid_syscall(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WaitingCall {
    number: i64,
    arguments: [u64; 6],
}

impl WaitingCall {
    /// `None` for a thread that runs, or waits in no call.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        Some(Self { number, arguments })
    }

    /// The descriptors between which it moves bytes within the kernel; none where it does something else.
    fn ends(&self) -> impl Iterator<Item = u32> + use<> {
        let [first, second, third, ..] = self.arguments;
        let ends = match self.number {
            libc::SYS_splice => [Some(first), Some(third)],
            libc::SYS_tee | libc::SYS_sendfile => [Some(first), Some(second)],
            libc::SYS_vmsplice => [Some(first), None],
            _ => [None, None],
        };
        // The kernel takes the lower half of the register.
        ends.into_iter().flatten().filter_map(|end| u32::try_from(end & u64::from(u32::MAX)).ok())
    }
}

#[cfg(test)]
mod tests;
