//! The heap of the process.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "malloc_trim has no safe wrapper"))]

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
