//! Anonymous memory of a spawner: the stack of its children and the page that they report in.
#![expect(unsafe_code, reason = "mmap, mprotect and munmap have no safe wrapper")]

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};

/// Bytes of the largest page of the supported architectures, so that a multiple of it is a multiple of any.
const PAGE_BYTES: usize = 64 * 1024;

/// Bytes of a child's stack. It holds a few frames: the kernel runs `execve` on a stack of its own.
const STACK_BYTES: usize = 64 * 1024;

/// Memory that is unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process and not to a thread; this type only maps and unmaps it.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; nothing is read or written through it here.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps zeroed memory; `sharing` is `MAP_PRIVATE` or `MAP_SHARED`.
    fn new(bytes: usize, sharing: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory in use.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, sharing | libc::MAP_ANONYMOUS, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start)
            .map(|start| Self { start, bytes })
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and everything that points into it borrows from `self`.
        unsafe { libc::munmap(self.start.as_ptr(), self.bytes) };
    }
}

/// The stack that children which share the broker's memory run on, below it a page that faults.
#[derive(Debug)]
pub(super) struct Stack(Mapping);

impl Stack {
    pub(super) fn new() -> io::Result<Self> {
        let mapping = Mapping::new(PAGE_BYTES + STACK_BYTES, libc::MAP_PRIVATE | libc::MAP_STACK)?;
        // SAFETY: the page is the lowest one of the mapping, which nothing points into yet.
        if unsafe { libc::mprotect(mapping.start.as_ptr(), PAGE_BYTES, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(mapping))
    }

    /// The lowest usable address and the size in bytes, as `clone3(2)` wants them.
    pub(super) fn range(&self) -> (u64, u64) {
        let lowest = self.0.start.addr().get() + PAGE_BYTES;
        (lowest as u64, STACK_BYTES as u64)
    }
}

/// One value that a forked child shares with the broker.
#[derive(Debug)]
pub(super) struct Shared<T> {
    page: Mapping,
    value: std::marker::PhantomData<T>,
}

/// A type of which zeroed memory is a value, that any process may write at any time, and that needs no drop.
///
/// # Safety
/// All of that must hold: it consists of atomic integers.
pub(super) unsafe trait Shareable: Sync {}

impl<T: Shareable> Shared<T> {
    /// Maps a zeroed value.
    pub(super) fn zeroed() -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 4096) };
        let page = Mapping::new(size_of::<T>(), libc::MAP_SHARED)?;
        Ok(Self { page, value: std::marker::PhantomData })
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: the page is mapped as long as `self` lives, page aligned, large enough, and was zeroed, which
        // `Shareable` promises to be a value that others may write meanwhile.
        unsafe { self.page.start.cast::<T>().as_ref() }
    }
}
