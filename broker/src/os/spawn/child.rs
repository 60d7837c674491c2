//! What the child does between its birth and its program.
//!
//! It runs in the memory of the broker, on a stack of its own, while the thread that made it and all others go on. So
//! it makes raw system calls and nothing else: no allocation, no lock, no panic, nothing of the running threads' own
//! variables. The wrappers of the C library are out of bounds: each writes the `errno` of the thread that made the
//! child, its `setresuid` asks every thread of the broker to do the same, its `sigaction` may take a lock.
//!
//! All signals are blocked from before its birth until the last call before the program: no handler of the broker's
//! ever runs here. What it reads is not touched by the broker until its program or its death is known.
#![expect(unsafe_code, reason = "raw system calls")]

use std::convert::Infallible;
use std::ffi::{CStr, c_void};

use nix::errno::Errno;

use super::bonds;
use super::failure::Step;
use super::listens::{Inquiry, listens};
use super::oom_score::OomScore;
use super::plan::{ExecPlan, Ids, PlannedOutput};
use super::raw::call;
use super::report::ReportTo;
use super::resource::ResourceLimit;
use super::signals::{self, SignalSet};
use super::spec::StdinSource;
use crate::os::logs::pipes::BEGUN_MODE;

/// The exit status of a child that failed; nobody but the launcher sees it.
const FAILED: usize = 127;

/// The lowest descriptor that no program expects to be there.
const FIRST_FREE: usize = 3;

/// Everything that the child reads, prepared by the broker.
pub(super) struct ChildPlan {
    pub(super) report: ReportTo,
    /// The broker's pid, as the child sees its parent.
    pub(super) broker: usize,
    pub(super) tether: Tether,
    /// Those to be given their default dispositions.
    pub(super) signals: SignalSet,
    /// Belongs to the memory: what is changed by a child of another user is a copy.
    pub(super) oom_score: OomScore,
    pub(super) task: ChildTask,
}

/// The end of its slot's pipe that the child holds, with close-on-exec: the broker sees it hang up when the program is
/// executed, or the child dies.
#[derive(Clone, Debug)]
pub(super) struct Tether {
    /// The broker's end, which is read from.
    pub(super) descriptor: usize,
    /// What holds the name of that end: the broker's `/proc/PID/fd`, in a lower descriptor.
    pub(super) folder: Option<usize>,
    /// The name of that end there: opened for writing it is the other one.
    pub(super) name: std::ffi::CString,
    /// The same end, below `/proc/self/fd`.
    pub(super) path: std::ffi::CString,
}

/// What the child is for.
pub(super) enum ChildTask {
    /// To show that a child can be made and can leave the broker's descriptors.
    Rehearse,
    /// To become a program.
    Execute(Box<ExecPlan>),
    /// To look whether something listens at a path.
    Look(Box<Inquiry>),
}

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
    // SAFETY: the caller says that it points there, and nobody writes a plan, but for its atomic bytes.
    let plan = unsafe { &*plan.cast::<ChildPlan>() };
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

fn perform(plan: &ChildPlan) -> Result<(), Refusal> {
    match &plan.task {
        ChildTask::Rehearse => leave_descriptors(&plan.tether).map_err(at(Step::Descriptors)),
        ChildTask::Execute(program) => match become_program(plan, program) {
            Ok(never) => match never {},
            Err(refusal) => Err(refusal),
        },
        ChildTask::Look(inquiry) => take_a_look(plan, inquiry),
    }
}

/// Goes where it may hang, as nobody but the user, and not for longer than the broker lives: it is killed with the thread
/// that has made it. (A change of ids takes that back, prctl(2).)
fn take_a_look(plan: &ChildPlan, inquiry: &Inquiry) -> Result<(), Refusal> {
    let [name, kill] = [c"probe".as_ptr().expose_provenance(), libc::SIGKILL.cast_unsigned() as usize];
    // SAFETY: it reads up to a NUL.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name, 0, 0]) }.map_err(at(Step::Session))?;
    leave_descriptors(&plan.tether).map_err(at(Step::Descriptors))?;
    if let Some(ids) = &inquiry.ids {
        take_on(ids)?;
    }
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, kill, 0, 0]) }
        .map_err(at(Step::Session))?;
    if !has_parent(plan.broker) {
        return Err(Refusal { step: Step::Session, errno: Errno::ESRCH });
    }
    listens(inquiry).map_err(at(Step::Exec))
}

/// The order matters: a child that hangs has its name before anything can block, files are opened by the broker's
/// user, limits are set by who may set them, the working directory is entered by the child's user, and signals are let
/// in last.
fn become_program(plan: &ChildPlan, program: &ExecPlan) -> Result<Infallible, Refusal> {
    let name = program.name.address();
    // SAFETY: it reads 16 bytes, the last of which is a NUL.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name, 0, 0]) }.map_err(at(Step::Session))?;
    leave_descriptors(&plan.tether).map_err(at(Step::Descriptors))?;
    match program.stdin {
        // SAFETY: it takes no memory.
        StdinSource::Null | StdinSource::Inherit => unsafe { call(libc::SYS_setsid, [0; 4]) },
        // SAFETY: it takes no memory.
        StdinSource::Terminal => unsafe { call(libc::SYS_setpgid, [0; 4]) },
    }
    .map_err(at(Step::Session))?;
    connect_streams(program)?;
    if program.stdin == StdinSource::Terminal {
        come_to_foreground().map_err(at(Step::Session))?;
    }
    for limit in &program.rlimits {
        set_rlimit(*limit).map_err(at(Step::Rlimits))?;
    }
    let bounding = bonds::lower_bounding_set(program.restraint).map_err(at(Step::Confinement))?;
    if let Some(ids) = &program.ids {
        // Another user may not change the mode of the file of its output.
        mark_output(plan, program)?;
        give_output(program, ids);
        if ids.is_other {
            bonds::leave_brokers_keyring().map_err(at(Step::Session))?;
            bonds::take_default_priorities();
            match plan.oom_score {
                OomScore::Inherited => {}
                OomScore::Default => take_default_oom_score().map_err(at(Step::User))?,
            }
        }
        take_on(ids)?;
    }
    bonds::forbid_new_rights(program.restraint, bounding).map_err(at(Step::Confinement))?;
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_umask, [program.umask as usize, 0, 0, 0]) }.map_err(at(Step::Umask))?;
    // SAFETY: the path ends with a NUL.
    unsafe { call(libc::SYS_chdir, [program.cwd.as_ptr().expose_provenance(), 0, 0, 0]) }
        .map_err(at(Step::Cwd))?;
    if program.ids.is_none() {
        mark_output(plan, program)?;
    }
    reset_signals(plan.signals).map_err(at(Step::Signals))?;
    Err(Refusal { step: Step::Exec, errno: execute(plan, program) })
}

/// Leaves a trace, as late as can be, that the program is about to be executed: a broker that is killed in the middle of
/// the spawn knows nothing of it, and the next one has to tell a child that may have run from one that has not.
fn mark_output(plan: &ChildPlan, program: &ExecPlan) -> Result<(), Refusal> {
    if !bears_mark(program) {
        return Ok(());
    }
    if !has_parent(plan.broker) {
        return Err(Refusal { step: Step::Exec, errno: Errno::ESRCH });
    }
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_fchmod, [1, BEGUN_MODE as usize, 0, 0]) }.map_err(at(Step::Stdout)).map(drop)
}

/// Whether its output is a file of the broker's, which can be marked.
fn bears_mark(program: &ExecPlan) -> bool {
    match program.stdout {
        PlannedOutput::Append(_) => true,
        PlannedOutput::Null | PlannedOutput::Inherit => false,
    }
}

/// Lets another user open the files of its own output once more: programs are told to write to `/dev/stderr`, and opening
/// that opens the file behind it anew (proc(5)). The folder stays closed, so that nobody else comes near them.
fn give_output(program: &ExecPlan, ids: &Ids) {
    let outputs = [(1, Some(&program.stdout)), (2, program.stderr.as_ref())];
    for (descriptor, output) in outputs {
        if let Some(PlannedOutput::Append(_)) = output {
            // A broker that may not do it (CAP_CHOWN) starts the child all the same, which can write to what it has open.
            let _as_it_is =
                // SAFETY: it takes no memory.
                unsafe { call(libc::SYS_fchown, [descriptor, ids.uid as usize, ids.gid as usize, 0]) };
        }
    }
}

/// Is spared no more than others when memory runs out (`proc_pid_oom_score_adj(5)`), nor can spare itself later.
///
/// The kernel gives the value to all processes that share the memory, so that in the broker's this would be the end of what
/// spares the broker. It has to come before the change of ids: what it was set to by a process that had no
/// `CAP_SYS_RESOURCE` can be taken back.
fn take_default_oom_score() -> Result<(), Errno> {
    let file = open(c"/proc/self/oom_score_adj", libc::O_WRONLY | libc::O_CLOEXEC)?;
    let default = c"0";
    // SAFETY: it reads one byte.
    let written = unsafe { call(libc::SYS_write, [file, default.as_ptr().expose_provenance(), 1, 0]) };
    // SAFETY: it was opened here.
    unsafe { call(libc::SYS_close, [file, 0, 0, 0]) }?;
    written.map(drop)
}

/// Gets a table of its own with nothing in it but 0, 1, 2 and its end of the tether: `close_range(2)`, Linux 5.9.
///
/// The broker's table is shared until then, because a copy would cost as much as the rest of the spawn at a thousand
/// descriptors. Only what is below the broker's end of the tether is copied: it is one of the first that are opened.
fn leave_descriptors(tether: &Tether) -> Result<(), Errno> {
    close_range(tether.descriptor.wrapping_add(1), usize::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    let mut held = take_hold(tether)?;
    if held < FIRST_FREE {
        // The broker was started without them. The program gets its own ones there.
        // SAFETY: it takes no memory.
        let above = unsafe { call(libc::SYS_fcntl, [held, libc::F_DUPFD_CLOEXEC as usize, FIRST_FREE, 0]) }?;
        // SAFETY: it was opened here, and its duplicate stays.
        unsafe { call(libc::SYS_close, [held, 0, 0, 0]) }?;
        held = above;
    }
    if held > FIRST_FREE {
        close_range(FIRST_FREE, held.wrapping_sub(1), 0)?;
    }
    close_range(held.wrapping_add(1), usize::MAX, 0)
}

/// Opens the child's end of the tether.
///
/// It is found in the broker's folder, because one of the child's own below `/proc` would have to be made by the kernel, and be
/// looked for when the child is reaped: that is two thirds of what it takes to reap one. Where the child may not look into the
/// broker, whose memory forbids that once a child of another user has been in it (see `take_on`), it looks into itself.
fn take_hold(tether: &Tether) -> Result<usize, Errno> {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let in_brokers = tether.folder.and_then(|folder| open_in(folder, &tether.name, flags).ok());
    in_brokers.map_or_else(|| open(&tether.path, flags), Ok)
}

fn close_range(first: usize, last: usize, flags: libc::c_uint) -> Result<(), Errno> {
    let last = last.min(u32::MAX as usize);
    // SAFETY: this process owns nothing that lives in a descriptor.
    unsafe { call(libc::SYS_close_range, [first, last, flags as usize, 0]) }.map(drop)
}

/// Nothing is taken for granted about 0, 1 and 2: the broker may have been started with any of them closed, so
/// that a file opened here may get any of these numbers. In this order none is in the way of another.
fn connect_streams(program: &ExecPlan) -> Result<(), Refusal> {
    match program.stdin {
        StdinSource::Null => open_null(0),
        StdinSource::Inherit | StdinSource::Terminal => keep(0),
    }
    .map_err(at(Step::Stdin))?;
    connect_output(&program.stdout, 1).map_err(at(Step::Stdout))?;
    match &program.stderr {
        None => duplicate(1, 2),
        Some(output) => connect_output(output, 2),
    }
    .map_err(at(Step::Stderr))
}

fn connect_output(output: &PlannedOutput, target: usize) -> Result<(), Errno> {
    match output {
        PlannedOutput::Null => open_null(target),
        PlannedOutput::Inherit => keep(target),
        PlannedOutput::Append(path) => {
            // A pipe that it can read from itself never tells it that nobody else does (SIGPIPE).
            let flags = libc::O_RDWR | libc::O_APPEND | libc::O_NOFOLLOW | libc::O_NOCTTY;
            open_as(path, flags, target)
        }
    }
}

/// Keeps what the broker has open there.
fn keep(target: usize) -> Result<(), Errno> {
    // SAFETY: it takes no memory. (It clears the close-on-exec flag.)
    match unsafe { call(libc::SYS_fcntl, [target, libc::F_SETFD as usize, 0, 0]) } {
        Err(Errno::EBADF) => open_null(target),
        other => other.map(drop),
    }
}

/// Makes its own process group that of the terminal's foreground (`tcsetpgrp(3)`). SIGTTOU is blocked, as all signals are.
fn come_to_foreground() -> Result<(), Errno> {
    // SAFETY: it takes no memory.
    let own = unsafe { call(libc::SYS_getpid, [0; 4]) }?;
    let group = libc::pid_t::try_from(own).map_err(|_| Errno::EOVERFLOW)?;
    let request = usize::try_from(libc::TIOCSPGRP).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: it reads one number.
    unsafe { call(libc::SYS_ioctl, [0, request, (&raw const group).expose_provenance(), 0]) }.map(drop)
}

fn open_null(target: usize) -> Result<(), Errno> {
    open_as(c"/dev/null", libc::O_RDWR, target)
}

/// Opens a file as this descriptor, without close-on-exec.
fn open_as(path: &CStr, flags: libc::c_int, target: usize) -> Result<(), Errno> {
    let opened = open(path, flags)?;
    if opened == target {
        return Ok(());
    }
    duplicate(opened, target)?;
    // SAFETY: it was opened here, and its duplicate stays.
    unsafe { call(libc::SYS_close, [opened, 0, 0, 0]) }.map(drop)
}

/// Opens a file as the lowest descriptor that is free.
fn open(path: &CStr, flags: libc::c_int) -> Result<usize, Errno> {
    let here = libc::AT_FDCWD as isize;
    open_in(here.cast_unsigned(), path, flags)
}

/// The same in a folder.
fn open_in(folder: usize, path: &CStr, flags: libc::c_int) -> Result<usize, Errno> {
    let arguments = [folder, path.as_ptr().expose_provenance(), flags.cast_unsigned() as usize, 0o600];
    // SAFETY: the path ends with a NUL.
    unsafe { call(libc::SYS_openat, arguments) }
}

fn duplicate(descriptor: usize, target: usize) -> Result<(), Errno> {
    // SAFETY: the table is this process's own, and what was open as `target` is not used any more.
    unsafe { call(libc::SYS_dup3, [descriptor, target, 0, 0]) }.map(drop)
}

fn set_rlimit(limit: ResourceLimit) -> Result<(), Errno> {
    // The kernel's `struct rlimit64`.
    let values = [limit.soft, limit.hard];
    let resource = limit.resource.number();
    // SAFETY: it reads two 64-bit integers, and writes no old value.
    unsafe { call(libc::SYS_prlimit64, [0, resource, values.as_ptr().expose_provenance(), 0]) }.map(drop)
}

/// Until it executes its program, the child has the ids of its user and the memory of the broker, which that user must
/// neither trace nor have dumped.
///
/// What forbids both belongs to the memory and so stays with the broker: from here on it dumps no core, and only a
/// privileged user can trace it. But a change of ids resets it to `fs.suid_dumpable`, which may be 1 (`prctl(2)`,
/// `PR_SET_DUMPABLE`), so that it is set again. In between the child keeps its capabilities over the change, because
/// nobody traces a process that may do more than himself (`ptrace(2)`, "Ptrace access mode checking"), and it drops them
/// only then.
fn take_on(ids: &Ids) -> Result<(), Refusal> {
    let groups = [ids.groups.len(), ids.groups.as_ptr().expose_provenance(), 0, 0];
    // SAFETY: it reads as many 32-bit ids as the slice has.
    unsafe { call(libc::SYS_setgroups, groups) }.map_err(at(Step::Groups))?;
    let [uid, gid] = [ids.uid as usize, ids.gid as usize];
    // SAFETY: it takes no memory, and changes this process only.
    unsafe { call(libc::SYS_setresgid, [gid, gid, gid, 0]) }.map_err(at(Step::Groups))?;
    forbid_tracing()?;
    // SAFETY: it takes no memory. (Where securebits are locked the change of ids is all that there is.)
    let _kept = unsafe { call(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 1, 0, 0]) };
    // SAFETY: as for the groups.
    unsafe { call(libc::SYS_setresuid, [uid, uid, uid, 0]) }.map_err(at(Step::User))?;
    forbid_tracing()?;
    bonds::drop_capabilities().map_err(at(Step::User))
}

fn forbid_tracing() -> Result<(), Refusal> {
    // SAFETY: it takes no memory.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0]) }
        .map_err(at(Step::User))
        .map(drop)
}

/// The empty mask comes last: from here on a signal can end the child.
fn reset_signals(signals: SignalSet) -> Result<(), Errno> {
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
///
/// Whether the broker lives is asked only of a child without a mark. One that has it was about to get to its program: the next
/// broker finds it, before that or after, and would take it for one that has run if it ended here.
fn execute(plan: &ChildPlan, program: &ExecPlan) -> Errno {
    if let Some(own_pid) = &program.own_pid {
        own_pid.write();
    }
    let [argv, env] = [program.argv.address(), program.env.address()];
    let mut forbidden = false;
    let mut missing = Errno::ENOENT;
    for candidate in &program.candidates {
        if !bears_mark(program) && !has_parent(plan.broker) {
            return Errno::ESRCH;
        }
        let path = candidate.as_ptr().expose_provenance();
        // SAFETY: the path ends with a NUL, and both lists with a null pointer.
        let Err(errno) = (unsafe { call(libc::SYS_execve, [path, argv, env, 0]) }) else {
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
/// A child of a broker that was killed leaves no mark, and becomes no program any more: without a mark, the next broker
/// takes it for one that was never started.
fn has_parent(broker: usize) -> bool {
    // SAFETY: it takes no memory.
    let parent = unsafe { call(libc::SYS_getppid, [0; 4]) };
    parent == Ok(broker)
}

fn at(step: Step) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal { step, errno }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    /// The other end of a pipe, as a child opens it that looks into this folder.
    fn hold(pipe: &OwnedFd, folder: Option<&File>) -> File {
        let descriptor = pipe.as_raw_fd().cast_unsigned() as usize;
        let tether = Tether {
            descriptor,
            folder: folder.map(|folder| folder.as_raw_fd().cast_unsigned() as usize),
            name: CString::new(descriptor.to_string()).unwrap(),
            path: CString::new(format!("/proc/self/fd/{descriptor}")).unwrap(),
        };
        let held = take_hold(&tether).unwrap();
        // SAFETY: it was opened just now.
        unsafe { File::from_raw_fd(RawFd::try_from(held).unwrap()) }
    }

    #[test]
    fn the_end_of_a_tether_is_found_in_the_brokers_folder_and_without_it() {
        let elsewhere = tempfile::tempdir().unwrap();
        let folders = [Some("/proc/self/fd".as_ref()), Some(elsewhere.path()), None];
        for folder in folders.map(|folder| folder.map(|folder| File::open(folder).unwrap())) {
            let (pipe, own_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
            drop(own_end);
            let mut held = hold(&pipe, folder.as_ref());
            held.write_all(b"x").unwrap();
            drop(held);
            let mut written = String::new();
            File::from(pipe).read_to_string(&mut written).unwrap();
            assert_eq!(written, "x");
        }
    }
}
