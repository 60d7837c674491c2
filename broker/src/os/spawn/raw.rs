//! System calls without the C library, for a child that runs in the memory of a thread that goes on.
//!
//! The C library's `syscall(3)` writes `errno`, which is a variable of the running thread: found through the thread
//! pointer, which such a child shares with the thread that made it. Two processes would write the same word.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::c_long;

use nix::errno::Errno;

/// Makes a system call; addresses are passed as numbers.
///
/// # Errors
/// What the kernel returned, taken from its result alone.
///
/// # Safety
/// As the call itself: addresses point to what it reads or writes.
pub(super) unsafe fn call(number: c_long, [a, b, c, d]: [usize; 4]) -> Result<usize, Errno> {
    // A fifth argument, which prctl(2) wants to be zero.
    // SAFETY: the caller keeps the call's contract.
    unsafe { call_with_five(number, [a, b, c, d, 0]) }
}

/// The same with a fifth argument.
///
/// # Errors
/// As [`call`].
///
/// # Safety
/// As [`call`].
pub(super) unsafe fn call_with_five(number: c_long, arguments: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: the caller keeps the call's contract.
    let result = unsafe { trap(number, arguments) };
    match i32::try_from(result) {
        Ok(negated @ -4095..=-1) => Err(Errno::from_raw(-negated)),
        _ => Ok(result.cast_unsigned()),
    }
}

/// Returns what the kernel does: a negated error number where it refuses.
///
/// # Safety
/// As [`call`].
#[cfg(target_arch = "x86_64")]
unsafe fn trap(number: c_long, [first, second, third, fourth, fifth]: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller keeps the call's contract; the kernel changes these registers only.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result
}

/// Returns what the kernel does: a negated error number where it refuses.
///
/// # Safety
/// As [`call`].
#[cfg(target_arch = "aarch64")]
unsafe fn trap(number: c_long, [first, second, third, fourth, fifth]: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller keeps the call's contract; the kernel changes the register of the result only.
    unsafe {
        std::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            options(nostack),
        );
    }
    result
}

/// Goes through the C library: on this processor a child always has a copy of the memory, `errno` included.
///
/// # Safety
/// As [`call`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn trap(number: c_long, [first, second, third, fourth, fifth]: [usize; 5]) -> isize {
    // SAFETY: the caller keeps the call's contract.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
    if result == -1 { -(Errno::last() as isize) } else { result as isize }
}
