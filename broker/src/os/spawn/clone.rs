//! The birth of a child: the two ways to ask the kernel for it, and how one that has its program is told from others.
//!
//! Neither way suspends the calling thread: the child gets to its program while the broker goes on. Both open a pidfd,
//! and give the child **no exit signal**. Until it executes its program it is thus a "clone child", which
//! `waitid` without `__WALL` or `__WCLONE` does not see: the broker's one reaper can neither reap it nor be woken by
//! it, and the launcher alone sees to a failed one. A successful `execve` makes it an ordinary child, with
//! SIGCHLD as its exit signal (`de_thread` in the kernel's `fs/exec.c`; `wait(2)`, "clone children").
#![expect(unsafe_code, reason = "clone, clone3, and a child on a stack of its own")]

use std::ffi::{c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::child::{ChildPlan, child_main};
use super::memory::Stack;
use super::signals::SignalsBlocked;

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("spawning uses the system calls of 64-bit Linux: elsewhere setresuid takes 16-bit ids");
#[cfg(target_arch = "s390x")]
compile_error!("clone(2) takes its arguments in another order on s390x");

/// Not in libc as 64-bit constants (`clone(2)`; Linux 5.5 and 5.7).
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which system call makes a child.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloneMethod {
    /// `clone3(2)`: the child can run in the broker's memory, which costs the same however large that is.
    Clone3,
    /// `clone(2)`: the child runs in a copy of the broker's memory, as after `fork(2)`. For where a seccomp
    /// filter does not let `clone3` through, and for other processors than `x86_64` and `aarch64`.
    Clone,
}

/// Whose memory a child runs in until it executes its program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Memory {
    /// The broker's own, where the method can do that.
    Brokers,
    /// A copy of it, which takes longer to make: for a child that changes what belongs to the memory.
    Copied,
}

/// What there is of a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Birth {
    /// It has not got to its program so far, or has not quite ended: the broker's memory is in use.
    Underway,
    /// It executes its program: an ordinary child, perhaps even one that has ended and was reaped.
    Executed,
    /// It exited before; reaped here.
    Exited,
    /// A signal killed it before; reaped here.
    Killed {
        /// The number of the signal.
        signal: i32,
    },
}

/// Makes a child that runs [`child_main`] with this plan, and returns while it does.
///
/// The pidfd has close-on-exec. A child of `clone3` uses the stack. `into` is the directory of a cgroup to be
/// born into, and needs [`CloneMethod::Clone3`].
///
/// # Safety
/// Neither the stack nor anything of the plan is touched until [`outcome`] says that the child is not underway any more.
pub(super) unsafe fn start(
    method: CloneMethod,
    memory: Memory,
    plan: *const ChildPlan,
    stack: &Stack,
    into: Option<BorrowedFd<'_>>,
) -> Result<(Pid, OwnedFd), Errno> {
    let common = libc::CLONE_PIDFD | libc::CLONE_FILES;
    let plan = plan.cast::<c_void>();
    let mut pidfd: libc::c_int = -1;
    // The child inherits that all are blocked: it must run no handler, which would be the broker's, and a signal to the
    // broker's process group must not end it before it has a session of its own.
    let blocked = SignalsBlocked::all();
    let result = match method {
        CloneMethod::Clone3 => {
            let (lowest, bytes) = stack.range();
            let memory = match memory {
                Memory::Brokers => libc::CLONE_VM,
                Memory::Copied => 0,
            };
            let mut arguments = Clone3Arguments {
                flags: u64::from((common | memory).cast_unsigned()) | CLONE_CLEAR_SIGHAND,
                pidfd: (&raw mut pidfd).expose_provenance() as u64,
                stack: lowest,
                stack_size: bytes,
                ..Clone3Arguments::default()
            };
            if let Some(directory) = into {
                arguments.flags |= CLONE_INTO_CGROUP;
                arguments.cgroup = u64::from(directory.as_raw_fd().cast_unsigned());
            }
            // SAFETY: the child gets a stack that nobody else uses, and a plan that outlives its use of it, as the
            // caller promises.
            unsafe { clone3(&arguments, plan) }
        }
        // SAFETY: the child gets a copy of this thread's stack and of all that the plan has.
        CloneMethod::Clone => unsafe { clone(common, &raw mut pidfd, plan) },
    };
    drop(blocked);
    let pid = result?;
    // SAFETY: the kernel has opened it for the child that has just been made.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // The kernel's pids are 32 bits wide.
    i32::try_from(pid).map(|pid| (Pid::from_raw(pid), pidfd)).map_err(|_| Errno::EOVERFLOW)
}

/// Finds out what came of a child, and reaps one that has no program. Never waits.
///
/// A clone child that is not dead is found and not reaped, one with a program is not found (ECHILD). That holds from the
/// moment at which its `execve` cannot return any more, so that nothing of the plan is read after it either: the kernel
/// has copied arguments and environment before (`bprm_execve`).
pub(super) fn outcome(pidfd: BorrowedFd<'_>) -> Birth {
    let which = pidfd.as_raw_fd().cast_unsigned();
    let flags = libc::WEXITED | libc::__WCLONE | libc::WNOHANG;
    loop {
        // SAFETY: all integers, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: it writes to `info` only.
        let result = unsafe { libc::waitid(libc::P_PIDFD, which, &raw mut info, flags) };
        match Errno::result(result) {
            // SAFETY: `waitid` has filled in the fields of a child's end, or left all at zero.
            Ok(_) if unsafe { info.si_pid() } == 0 => return Birth::Underway,
            Ok(_) if info.si_code == libc::CLD_EXITED => return Birth::Exited,
            // SAFETY: as above.
            Ok(_) => return Birth::Killed { signal: unsafe { info.si_status() } },
            Err(Errno::EINTR) => {}
            Err(_) => return Birth::Executed,
        }
    }
}

/// The kernel's `struct clone_args`, in its second version (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct Clone3Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    /// Left 0: no signal tells of the end of a child without a program.
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Asks for a child with a stack of its own. The wrapper of the C library would return in the child as well, to
/// frames that are not on that stack; here it never leaves the assembly.
///
/// # Safety
/// The stack of `arguments` must be free, and `plan` what [`child_main`] asks for.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &Clone3Arguments, plan: *const c_void) -> Result<c_long, Errno> {
    let result: c_long;
    // SAFETY: in the parent nothing changes but the result and what every system call clobbers. The child begins
    // with an empty, 16-byte aligned stack, ends the chain of frames, and calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(arguments),
            in("rsi") size_of::<Clone3Arguments>(),
            in("r8") child_main as unsafe extern "C" fn(*const c_void) -> !,
            in("r9") plan,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    told(result)
}

/// As for `x86_64`.
///
/// # Safety
/// The stack of `arguments` must be free, and `plan` what [`child_main`] asks for.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: &Clone3Arguments, plan: *const c_void) -> Result<c_long, Errno> {
    let result: c_long;
    // SAFETY: in the parent nothing changes but the result. The child begins with an empty, 16-byte aligned stack,
    // ends the chain of frames, and calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "brk #1",
            "2:",
            inlateout("x0") ptr::from_ref(arguments) => result,
            in("x1") size_of::<Clone3Arguments>(),
            in("x8") libc::SYS_clone3,
            in("x9") child_main as unsafe extern "C" fn(*const c_void) -> !,
            in("x10") plan,
            options(nostack),
        );
    }
    told(result)
}

/// There is no code for this processor: as on a kernel without the system call.
///
/// # Safety
/// None needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_arguments: &Clone3Arguments, _plan: *const c_void) -> Result<c_long, Errno> {
    told(-c_long::from(libc::ENOSYS))
}

/// What the kernel returned: a pid, or a negated error number.
fn told(result: c_long) -> Result<c_long, Errno> {
    match i32::try_from(result) {
        Ok(negated @ -4095..=-1) => Err(Errno::from_raw(-negated)),
        _ => Ok(result),
    }
}

/// Asks for a child in a copy of the broker's memory. It returns here, too, in the copy, and goes on to its plan.
///
/// # Safety
/// `plan` must be what [`child_main`] asks for.
unsafe fn clone(flags: libc::c_int, pidfd: *mut libc::c_int, plan: *const c_void) -> Result<c_long, Errno> {
    let flags = c_long::from(flags);
    let none = ptr::null::<c_void>();
    // SAFETY: the kernel writes the pidfd only. Without a new stack the child goes on with a copy of this one.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, none, pidfd, none, none) };
    if result == 0 {
        // SAFETY: this is the child, with one thread.
        unsafe { child_main(plan) }
    }
    Errno::result(result)
}
