//! The heap of the process.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper"))]

/// So much free memory at the end of the heap is kept: the next request takes it again. Without that, each request would
/// have it given back and taken anew, page by page.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 1 << 20;

/// Has all threads share one heap, and keep what they need again and again (`mallopt(3)`). A heap for each of the threads, most
/// of which sleep, would be memory for nothing. To be called before there is any of them; with other C libraries nothing
/// is done.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, KEPT_BYTES)] {
        // SAFETY: it takes two numbers. (What it refuses stays as it was.)
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives memory that is free back to the system, after much of it was needed for once: glibc keeps what lies below
/// something that is still in use (`malloc_trim(3)`). It takes milliseconds. With other C libraries nothing is done.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and may be called at any time from any thread (MT-Safe in `malloc_trim(3)`).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;
    use crate::os::process::alone;

    /// Resident memory that is no file's, in KiB.
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_was_freed_below_something_in_use_is_given_back() {
        if !alone::here(module_path!(), "what_was_freed_below_something_in_use_is_given_back") {
            return;
        }
        let blocks: Vec<Box<[u8]>> = (0..20_000).map(|_| vec![1; 1_000].into_boxed_slice()).collect();
        let last = vec![1_u8; 1_000];
        drop(blocks);
        let before = resident_kib();
        trim();
        let after = resident_kib();
        assert!(after + 15_000 < before, "{before} KiB before, {after} after");
        assert_eq!(last.len(), 1_000);
    }
}
