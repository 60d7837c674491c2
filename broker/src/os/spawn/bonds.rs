//! What a child leaves behind of the broker's rights before its program begins: raw system calls only, as in `child`.
#![expect(unsafe_code, reason = "raw system calls")]

use nix::errno::Errno;

use super::raw::call;
use super::spec::Restraint;

/// `KEYCTL_JOIN_SESSION_KEYRING` (`keyctl(2)`).
const JOIN_SESSION_KEYRING: usize = 1;

/// `IOPRIO_WHO_PROCESS` (`ioprio_set(2)`).
const IOPRIO_WHO_PROCESS: usize = 1;

/// Bits of a set of capabilities; the kernel knows fewer.
const CAPABILITIES: usize = 64;

/// `_LINUX_CAPABILITY_VERSION_3`, and the calling process.
const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];

/// The sets of a process as `capget(2)` has them: effective, permitted and inheritable, the lower halves first.
type CapabilitySets = [u32; 6];

/// How the bounding set was lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoundingSetChange {
    /// It is as it is to be.
    Set,
    /// That takes `CAP_SETPCAP`, which the broker lacks.
    Refused,
}

/// Gets an empty session keyring: the broker's has root's keys, and one that is shared by two users shows each the other's
/// (`session-keyring(7)`).
///
/// It is still root that makes it, because a user may have no more than 200 keys (`kernel.keys.maxkeys`). It is the
/// user's all the same, by possession (`keyrings(7)`).
pub(super) fn leave_brokers_keyring() -> Result<(), Errno> {
    // SAFETY: without a name it takes no memory.
    match unsafe { call(libc::SYS_keyctl, [JOIN_SESSION_KEYRING, 0, 0, 0]) } {
        // Without keyrings in the kernel, or behind a filter that will not let the child near them either.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gets the scheduling policy, nice value and I/O class that every process begins with.
///
/// A broker that has better ones may always give them up. One that has worse ones keeps its children there without
/// `CAP_SYS_NICE`, which gives them nothing.
pub(super) fn take_default_priorities() {
    let priority = [0_i32];
    let other = libc::SCHED_OTHER.cast_unsigned() as usize;
    // SAFETY: it reads one `struct sched_param`, which is an integer.
    let _policy =
        unsafe { call(libc::SYS_sched_setscheduler, [0, other, priority.as_ptr().expose_provenance(), 0]) };
    // SAFETY: it takes no memory.
    let _nice = unsafe { call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, 0, 0]) };
    // The class `IOPRIO_CLASS_NONE`, which follows the nice value.
    // SAFETY: it takes no memory.
    let _class = unsafe { call(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, 0, 0]) };
}

/// Takes out of the bounding set what is not allowed, as long as there may be `CAP_SETPCAP`.
pub(super) fn lower_bounding_set(restraint: Restraint) -> Result<BoundingSetChange, Errno> {
    let Some(allowed) = restraint.capabilities else { return Ok(BoundingSetChange::Set) };
    for capability in (0..CAPABILITIES).filter(|capability| allowed >> capability & 1 == 0) {
        // SAFETY: it takes no memory.
        match unsafe { call(libc::SYS_prctl, [libc::PR_CAPBSET_DROP as usize, capability, 0, 0]) } {
            Ok(_) => {}
            // One that the kernel does not know.
            Err(Errno::EINVAL) => break,
            Err(Errno::EPERM) => return Ok(BoundingSetChange::Refused),
            Err(errno) => return Err(errno),
        }
    }
    Ok(BoundingSetChange::Set)
}

/// Has no program give more rights than are allowed, by its file, by its owner, or by what a process hands on to it.
pub(super) fn forbid_new_rights(restraint: Restraint, bounding: BoundingSetChange) -> Result<(), Errno> {
    if let Some(allowed) = restraint.capabilities {
        keep_capabilities(allowed)?;
    }
    // With it, no program has a capability that the process has not (execve(2)): as good as a bounding set.
    if restraint.no_new_privs || bounding == BoundingSetChange::Refused {
        // SAFETY: it takes no memory.
        unsafe { call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0]) }?;
    }
    Ok(())
}

/// Permitted, effective and inheritable ones, and with these the ambient ones (`capabilities(7)`).
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    set_capabilities(&[0; 6])
}

/// Drops those that are not among these. Fewer can always be had.
fn keep_capabilities(allowed: u64) -> Result<(), Errno> {
    let mut sets: CapabilitySets = [0; 6];
    let [header, place] =
        [CAPABILITY_HEADER.as_ptr().expose_provenance(), sets.as_mut_ptr().expose_provenance()];
    // SAFETY: it reads a header, and writes two sets of three words.
    unsafe { call(libc::SYS_capget, [header, place, 0, 0]) }?;
    let halves = [allowed & u64::from(u32::MAX), allowed >> u32::BITS];
    let [low, high] = halves.map(|half| u32::try_from(half).unwrap_or(0));
    for (set, half) in sets.iter_mut().zip([low, low, low, high, high, high]) {
        *set &= half;
    }
    set_capabilities(&sets)
}

fn set_capabilities(sets: &CapabilitySets) -> Result<(), Errno> {
    let arguments = [CAPABILITY_HEADER.as_ptr().expose_provenance(), sets.as_ptr().expose_provenance(), 0, 0];
    // SAFETY: it reads a header and two sets of three words.
    unsafe { call(libc::SYS_capset, arguments) }.map(drop)
}
