//! The program's own code in memory: most of it has run once, at the start, and is not needed again.
#![expect(unsafe_code, reason = "madvise has no safe wrapper")]

use std::ffi::c_void;
use std::fs;
use std::ptr;

/// Lets go of the code that is in memory. What runs again comes back from the page cache, page by page.
///
/// Where it cannot be told where the code is nothing is done.
pub fn let_go() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, bytes) in maps.lines().filter_map(code) {
        // SAFETY: nobody writes to these pages, which are a file's, so that they are the same when they are back. (What the
        // kernel refuses stays as it was.)
        unsafe {
            libc::madvise(ptr::with_exposed_provenance_mut::<c_void>(start), bytes, libc::MADV_DONTNEED)
        };
    }
}

/// The place of a mapping of code from a file, by its line (`proc_pid_maps(5)`).
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (permissions, inode) = (fields.next()?, fields.nth(2)?);
    let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).ok());
    let (start, bytes) = (start?, end?.checked_sub(start?)?);
    (permissions == "r-xp" && inode != "0").then_some((start, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::alone;

    #[test]
    fn code_is_what_is_executed_from_a_file_and_never_written() {
        let line =
            |permissions, inode| format!("1000-3000 {permissions} 00000000 08:01 {inode}  /usr/bin/program");
        assert_eq!(code(&line("r-xp", 7)), Some((0x1000, 0x2000)));
        for other in [line("rwxp", 7), line("r--p", 7), line("r-xs", 7), line("r-xp", 0)] {
            assert_eq!(code(&other), None, "{other}");
        }
        assert_eq!(code("7ff0-7ff2 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(code("nonsense"), None);
    }

    /// Resident code, in KiB.
    fn resident_kib() -> u64 {
        let (mut total, mut is_code) = (0, false);
        for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            if let Some(amount) = line.strip_prefix("Rss:").filter(|_| is_code) {
                total += amount.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
            }
            let is_heading = line.split_ascii_whitespace().next().is_some_and(|field| !field.ends_with(':'));
            is_code = if is_heading { code(line).is_some() } else { is_code };
        }
        total
    }

    #[test]
    fn code_that_was_let_go_of_takes_less_memory_and_runs_again() {
        if !alone::here(module_path!(), "code_that_was_let_go_of_takes_less_memory_and_runs_again") {
            return;
        }
        // What measures has run by then.
        let before = resident_kib().max(resident_kib());
        let_go();
        let after = resident_kib();
        assert!(after < before, "{before} KiB before, {after} after");
    }
}
