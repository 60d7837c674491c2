//! What the child does between its birth and its program.
//!
//! It runs in the memory of the broker, on a stack of its own, while the thread that spawned it is suspended
//! and all others go on. So it makes raw system calls and nothing else: no allocation, no lock, no panic. The
//! wrappers of the C library are out of bounds too: its `setresuid` asks every thread of the broker to do
//! the same, its `sigaction` may take a lock. (`errno` is that of the suspended thread.)
#![expect(unsafe_code, reason = "raw system calls")]

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_long, c_void};

use nix::errno::Errno;

use super::failure::Step;
use super::flight::Report;
use super::resource::Rlimit;
use super::signals::{self, Signals};

/// The exit status of a child that failed; nobody but the spawner sees it.
const FAILED: usize = 127;

/// Everything that the child reads, prepared by the broker.
pub(super) struct ChildPlan<'a> {
    pub(super) report: &'a Report,
    pub(super) departure: Departure,
    pub(super) errand: Errand<'a>,
}

/// How the child gets rid of the broker's descriptors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Departure {
    /// It shares the broker's table, and leaves it with no more than 0, 1 and 2: `close_range(2)`, Linux 5.9.
    /// Copying the table first would cost as much as the rest of the spawn at a thousand descriptors.
    CloseRange,
    /// It has a copy of the table and closes all of it, up to this one.
    OneByOne {
        /// The highest descriptor that the broker may have open.
        highest: usize,
    },
}

/// What the child is for.
pub(super) enum Errand<'a> {
    /// To show that a child can be made and can leave the broker's descriptors.
    Rehearse,
    /// To become a program.
    Execute(Program<'a>),
}

/// A program and its surroundings.
pub(super) struct Program<'a> {
    /// The broker's pid, as the child sees its parent.
    pub(super) broker: usize,
    /// The open `cgroup.procs` of the group to enter, where the kernel has not put it there at birth.
    pub(super) cgroup_procs: Option<usize>,
    pub(super) stdout: ChildOutput<'a>,
    /// `None`: the same as `stdout`.
    pub(super) stderr: Option<ChildOutput<'a>>,
    pub(super) rlimits: &'a [Rlimit],
    pub(super) ids: Option<Ids<'a>>,
    /// Those to be given their default dispositions.
    pub(super) signals: Signals,
    pub(super) umask: libc::mode_t,
    pub(super) cwd: &'a CStr,
    /// Ends with a null pointer, as do `env` and its strings with a NUL.
    pub(super) argv: &'a [*const c_char],
    pub(super) env: &'a [*const c_char],
    /// The paths to execute, tried in turn.
    pub(super) candidates: &'a [*const c_char],
}

/// Where a stream goes.
#[derive(Clone, Copy)]
pub(super) enum ChildOutput<'a> {
    Null,
    Inherit,
    Append(&'a CStr),
}

/// The ids to take on.
pub(super) struct Ids<'a> {
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: &'a [libc::gid_t],
}

/// The mode of a pipe whose child was, or is about to be, executed: the sticky bit means nothing for it (chmod(2)), and so
/// can say that. See [`Pipes::launched`](crate::os::logs::pipes::Pipes::launched).
pub(in crate::os) const BEGUN_MODE: libc::mode_t = libc::S_ISVTX | 0o600;

/// A step that was refused.
struct Refusal {
    step: Step,
    errno: Errno,
}

/// The child's first and last function.
///
/// # Safety
/// `plan` points to a [`ChildPlan`], and the caller is a process of its own that has one thread.
pub(super) unsafe extern "C" fn child_main(plan: *const c_void) -> ! {
    // SAFETY: the caller says that it points there, and nobody writes a plan.
    let plan = unsafe { &*plan.cast::<ChildPlan<'_>>() };
    let status = match perform(plan) {
        Ok(()) => 0,
        Err(Refusal { step, errno }) => {
            plan.report.refuse(step, errno);
            FAILED
        }
    };
    loop {
        // SAFETY: it ends this process, and runs none of the broker's exit handlers.
        let _never = unsafe { call(libc::SYS_exit_group, [status, 0, 0, 0]) };
    }
}

fn perform(plan: &ChildPlan<'_>) -> Result<(), Refusal> {
    match &plan.errand {
        Errand::Rehearse => leave_descriptors(plan.departure).map_err(at(Step::Descriptors)),
        Errand::Execute(program) => match become_program(plan.departure, program) {
            Ok(never) => match never {},
            Err(refusal) => Err(refusal),
        },
    }
}

/// The order matters: files are opened by the broker's user, limits are set by who may set them, the working
/// directory is entered by the child's user, and signals are let in last.
fn become_program(departure: Departure, program: &Program<'_>) -> Result<Infallible, Refusal> {
    if let Some(procs) = program.cgroup_procs {
        enter_cgroup(procs).map_err(at(Step::Cgroup))?;
    }
    leave_descriptors(departure).map_err(at(Step::Descriptors))?;
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_setsid, [0; 4]) }.map_err(at(Step::Session))?;
    connect_streams(program)?;
    for limit in program.rlimits {
        set_rlimit(*limit).map_err(at(Step::Rlimits))?;
    }
    if let Some(ids) = &program.ids {
        // Another user may not change the mode of the file of its output.
        mark_output(program)?;
        give_output(program, ids);
        take_on(ids)?;
    }
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_umask, [program.umask as usize, 0, 0, 0]) }.map_err(at(Step::Umask))?;
    // SAFETY: the path ends with a NUL.
    unsafe { call(libc::SYS_chdir, [program.cwd.as_ptr().expose_provenance(), 0, 0, 0]) }
        .map_err(at(Step::Cwd))?;
    reset_signals(program.signals).map_err(at(Step::Signals))?;
    if program.ids.is_none() {
        mark_output(program)?;
    }
    Err(Refusal { step: Step::Exec, errno: execute(program) })
}

/// Leaves a trace, as late as can be, that the program is about to be executed: a broker that is killed in the middle of
/// the spawn knows nothing of it, and the next one has to tell a child that may have run from one that has not.
fn mark_output(program: &Program<'_>) -> Result<(), Refusal> {
    let ChildOutput::Append(_) = program.stdout else { return Ok(()) };
    if !has_parent(program.broker) {
        return Err(Refusal { step: Step::Exec, errno: Errno::ESRCH });
    }
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_fchmod, [1, BEGUN_MODE as usize, 0, 0]) }.map_err(at(Step::Stdout)).map(drop)
}

/// Lets another user open the files of its own output once more: programs are told to write to `/dev/stderr`, and opening
/// that opens the file behind it anew (proc(5)). The folder stays closed, so that nobody else comes near them.
fn give_output(program: &Program<'_>, ids: &Ids<'_>) {
    let outputs = [(1, Some(program.stdout)), (2, program.stderr)];
    for (descriptor, output) in outputs {
        if let Some(ChildOutput::Append(_)) = output {
            // SAFETY: it takes no memory. A broker that may not do it (CAP_CHOWN) starts the child all the same, which
            // can write to what it has open.
            let _as_it_is =
                unsafe { call(libc::SYS_fchown, [descriptor, ids.uid as usize, ids.gid as usize, 0]) };
        }
    }
}

/// "0" stands for the process that writes it.
fn enter_cgroup(procs: usize) -> Result<(), Errno> {
    let oneself = b"0";
    // SAFETY: the buffer has that one byte.
    unsafe { call(libc::SYS_write, [procs, oneself.as_ptr().expose_provenance(), oneself.len(), 0]) }
        .map(drop)
}

fn leave_descriptors(departure: Departure) -> Result<(), Errno> {
    match departure {
        Departure::CloseRange => {
            let flags = libc::CLOSE_RANGE_UNSHARE as usize;
            // SAFETY: this process gets a table of its own, and owns nothing that lives in a descriptor.
            unsafe { call(libc::SYS_close_range, [3, u32::MAX as usize, flags, 0]) }.map(drop)
        }
        Departure::OneByOne { highest } => {
            for descriptor in 3..=highest {
                // SAFETY: the table is a copy, which this process alone uses. (EBADF: it was not open.)
                let _closed = unsafe { call(libc::SYS_close, [descriptor, 0, 0, 0]) };
            }
            Ok(())
        }
    }
}

/// Nothing is taken for granted about 0, 1 and 2: the broker may have been started with any of them closed, so
/// that a file opened here may get any of these numbers. In this order none is in the way of another.
fn connect_streams(program: &Program<'_>) -> Result<(), Refusal> {
    open_null(0).map_err(at(Step::Stdin))?;
    connect_output(program.stdout, 1).map_err(at(Step::Stdout))?;
    match program.stderr {
        None => duplicate(1, 2),
        Some(output) => connect_output(output, 2),
    }
    .map_err(at(Step::Stderr))
}

fn connect_output(output: ChildOutput<'_>, target: usize) -> Result<(), Errno> {
    match output {
        ChildOutput::Null => open_null(target),
        ChildOutput::Inherit => {
            // SAFETY: it takes no memory. (It clears the close-on-exec flag.)
            match unsafe { call(libc::SYS_fcntl, [target, libc::F_SETFD as usize, 0, 0]) } {
                Err(Errno::EBADF) => open_null(target),
                other => other.map(drop),
            }
        }
        ChildOutput::Append(path) => {
            // A pipe that it can read from itself never tells it that nobody else does (SIGPIPE).
            let flags = libc::O_RDWR | libc::O_APPEND | libc::O_NOFOLLOW | libc::O_NOCTTY;
            open(path, flags, target)
        }
    }
}

fn open_null(target: usize) -> Result<(), Errno> {
    open(c"/dev/null", libc::O_RDWR, target)
}

/// Opens a file as this descriptor, without close-on-exec.
fn open(path: &CStr, flags: libc::c_int, target: usize) -> Result<(), Errno> {
    let here = libc::AT_FDCWD as isize;
    let arguments =
        [here.cast_unsigned(), path.as_ptr().expose_provenance(), flags.cast_unsigned() as usize, 0o600];
    // SAFETY: the path ends with a NUL.
    let opened = unsafe { call(libc::SYS_openat, arguments) }?;
    if opened == target {
        return Ok(());
    }
    duplicate(opened, target)?;
    // SAFETY: it was opened here, and its duplicate stays.
    unsafe { call(libc::SYS_close, [opened, 0, 0, 0]) }.map(drop)
}

fn duplicate(descriptor: usize, target: usize) -> Result<(), Errno> {
    // SAFETY: the table is this process's own, and what was open as `target` is not used any more.
    unsafe { call(libc::SYS_dup3, [descriptor, target, 0, 0]) }.map(drop)
}

fn set_rlimit(limit: Rlimit) -> Result<(), Errno> {
    // The kernel's `struct rlimit64`.
    let values = [limit.soft, limit.hard];
    let resource = limit.resource.number();
    // SAFETY: it reads two 64-bit integers, and writes no old value.
    unsafe { call(libc::SYS_prlimit64, [0, resource, values.as_ptr().expose_provenance(), 0]) }.map(drop)
}

/// Until it executes its program, the child has the ids of its user and the memory of the broker. The first
/// line keeps that user from tracing it, whatever `fs.suid_dumpable` says. The flag belongs to the memory
/// and so stays with the broker: from here on it dumps no core, and only a privileged user can trace it.
fn take_on(ids: &Ids<'_>) -> Result<(), Refusal> {
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0]) }.map_err(at(Step::User))?;
    let groups = [ids.groups.len(), ids.groups.as_ptr().expose_provenance(), 0, 0];
    // SAFETY: it reads as many 32-bit ids as the slice has.
    unsafe { call(libc::SYS_setgroups, groups) }.map_err(at(Step::Groups))?;
    let [uid, gid] = [ids.uid as usize, ids.gid as usize];
    // SAFETY: it takes no memory, and changes this process only.
    unsafe { call(libc::SYS_setresgid, [gid, gid, gid, 0]) }.map_err(at(Step::Groups))?;
    // SAFETY: as above.
    unsafe { call(libc::SYS_setresuid, [uid, uid, uid, 0]) }.map_err(at(Step::User))?;
    Ok(())
}

/// The empty mask comes last: from here on a signal can end the child.
fn reset_signals(signals: Signals) -> Result<(), Errno> {
    // The kernel's `struct sigaction`: SIG_DFL, no flags, no restorer, an empty mask.
    let default = [0_usize; 4];
    let default = default.as_ptr().expose_provenance();
    for signal in 1..=signals::HIGHEST {
        if signals.contains(signal) {
            // SAFETY: it reads one action; the table of actions is this process's own.
            unsafe { call(libc::SYS_rt_sigaction, [signal, default, 0, signals::SET_BYTES]) }?;
        }
    }
    let none = 0_u64;
    let mask = (&raw const none).expose_provenance();
    // SAFETY: it reads one set of signals.
    unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, mask, 0, signals::SET_BYTES]) }
        .map(drop)
}

/// Tries each candidate, as `execvp(3)` does: one that is missing is passed over, one that is forbidden is
/// remembered. A file that is no program is an error, and not fed to a shell.
fn execute(program: &Program<'_>) -> Errno {
    let [argv, env] = [program.argv.as_ptr().expose_provenance(), program.env.as_ptr().expose_provenance()];
    let mut forbidden = false;
    let mut missing = Errno::ENOENT;
    for candidate in program.candidates {
        if !has_parent(program.broker) {
            return Errno::ESRCH;
        }
        // SAFETY: the path ends with a NUL, and both lists with a null pointer.
        let Err(errno) = (unsafe { call(libc::SYS_execve, [candidate.expose_provenance(), argv, env, 0]) })
        else {
            continue;
        };
        match errno {
            Errno::EACCES => forbidden = true,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {
                missing = errno;
            }
            other => return other,
        }
    }
    if forbidden { Errno::EACCES } else { missing }
}

/// Whether the broker still lives: when it is killed, its children get another parent.
///
/// A broker that is killed in the middle of a spawn leaves a child that is not known by anything yet: it has neither
/// its environment nor is it on record. The next broker would not find it, and would take it for one that
/// was never started; so it must not become a program any more.
fn has_parent(broker: usize) -> bool {
    // SAFETY: it takes no memory.
    let parent = unsafe { call(libc::SYS_getppid, [0; 4]) };
    parent == Ok(broker)
}

fn at(step: Step) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal { step, errno }
}

/// Makes a system call; addresses are passed as numbers.
///
/// # Safety
/// As the call itself: addresses point to what it reads or writes.
unsafe fn call(number: c_long, [a, b, c, d]: [usize; 4]) -> Result<usize, Errno> {
    // SAFETY: the caller keeps the call's contract, and superfluous arguments are ignored.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    usize::try_from(result).map_err(|_| Errno::last())
}
