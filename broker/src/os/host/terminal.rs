//! The terminal that the broker was started in, which `run --interactive` lends to its main command.
#![expect(
    unsafe_code,
    reason = "tcgetpgrp(3) and tcsetpgrp(3) on a descriptor that may be closed, and what nix does not wrap"
)]

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp, getpid};
use procbroker_core::Pid as ProcessId;

/// Whether standard input is the terminal of this process's own session.
#[must_use]
pub fn is_own() -> bool {
    foreground().is_some()
}

/// The process group in the foreground of the terminal that is standard input, if that is this session's.
fn foreground() -> Option<Pid> {
    // SAFETY: it takes a number.
    let group = unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) };
    (group >= 0).then(|| Pid::from_raw(group))
}

/// Takes the foreground back, for whoever started the broker. SIGTTOU has to be blocked (`tcsetpgrp(3)`).
///
/// # Errors
/// When standard input is not the terminal of this session any more.
pub fn take_back() -> Result<(), Errno> {
    give_to(getpgrp())
}

/// Puts a process group into the foreground. SIGTTOU has to be blocked.
fn give_to(group: Pid) -> Result<(), Errno> {
    // SAFETY: it takes numbers.
    let result = unsafe { libc::tcsetpgrp(libc::STDIN_FILENO, group.as_raw()) };
    Errno::result(result).map(drop)
}

/// The main command that was lent the terminal: to whoever sits there it is one job with the broker.
#[derive(Debug, Default)]
pub struct ForegroundJob {
    /// Its first process, which leads its process group, and is this process's child.
    leader: Option<Pid>,
}

impl ForegroundJob {
    /// The main command is there.
    pub fn begin(&mut self, leader: ProcessId) {
        self.leader = i32::try_from(leader.get()).ok().map(Pid::from_raw);
    }

    /// A process has been reaped, whose number may mean another one from now on.
    pub fn reaped(&mut self, pid: ProcessId) {
        self.leader = self.leader.filter(|leader| u32::try_from(leader.as_raw()) != Ok(pid.get()));
    }

    /// Looks whether the terminal has stopped the main command, by a Ctrl-Z for instance, as a shell does with its jobs.
    /// Whoever has started the broker waits for the broker, and knows nothing of a stop of another process group: so the
    /// broker takes the terminal back and stops itself, until a shell's `fg` or `bg` continues it, and then the main
    /// command. Where nobody could do so (PID 1, an orphaned process group), the main command is continued at once.
    ///
    /// A SIGSTOP is left alone: it comes from somebody who means this process and no terminal, perhaps through the broker.
    pub fn follow(&self) {
        let Some(leader) = self.leader.filter(|leader| terminal_stopped(*leader)) else { return };
        // SIGTTOU would stop whoever sets the foreground from behind it. SIGCONT, blocked in all threads, stays pending
        // after a stop, and nothing else tells that there was one.
        let mut held_back = SigSet::all();
        held_back.remove(Signal::SIGTSTP);
        let Ok(before) = held_back.thread_swap_mask(SigmaskHow::SIG_SETMASK) else { return };
        if foreground() == Some(leader) {
            let _as_it_is = take_back();
        }
        // The kernel does not stop an orphaned process group by this signal, and PID 1 by none (`signal(7)`); but others in
        // the group of that one it would.
        if getpid() != Pid::from_raw(1) {
            let _none_else = kill(Pid::from_raw(0), Signal::SIGTSTP);
        }
        // Here it has been continued, or was never stopped.
        let was_stopped = is_pending(Signal::SIGCONT);
        if foreground() == Some(getpgrp()) {
            let _as_it_is = give_to(leader);
        }
        // In the background it may go on where a shell's `bg` has said so.
        if was_stopped || foreground() == Some(leader) {
            let _gone = killpg(leader, Signal::SIGCONT);
        }
        let _same = before.thread_set_mask();
    }
}

/// Whether a child has been stopped since this was asked last, by a signal that terminals send.
fn terminal_stopped(child: Pid) -> bool {
    let Ok(id) = libc::id_t::try_from(child.as_raw()) else { return false };
    // SAFETY: all zeroes are a `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `siginfo_t` there.
    let result = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WSTOPPED | libc::WNOHANG) };
    // SAFETY: waitid has filled in the fields of a SIGCHLD, or left all at zero.
    let (pid, signal) = unsafe { (info.si_pid(), info.si_status()) };
    result == 0 && pid == child.as_raw() && [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// Whether a signal has come that this thread holds back.
fn is_pending(signal: Signal) -> bool {
    // SAFETY: all zeroes are a `sigset_t`.
    let mut pending: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `sigset_t` there, which is read then.
    unsafe {
        libc::sigpending(&raw mut pending) == 0 && libc::sigismember(&raw const pending, signal as i32) == 1
    }
}
