//! How urgent the work of one thread is beside that of all others.
#![expect(unsafe_code, reason = "nix has no nice(2)")]

/// By how much a thread that can wait is nicer. Beside one other thread that has work all the time it gets a tenth of a
/// processor (`sched(7)`), which still moves tens of megabytes a second.
const NICER: i32 = 10;

/// Lets all other threads of the machine go before the calling one, where they want the same processor. A processor that
/// nobody else wants it has whole.
///
/// On Linux the nice value is a thread's own (`nice(2)`, "C library/kernel differences"), and everybody may raise it.
pub fn let_others_go_first() {
    // SAFETY: it takes a number and touches no memory.
    let _nice = unsafe { libc::nice(NICER) };
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The nice value of the calling thread.
    fn nice() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        // The nineteenth field (`proc_pid_stat(5)`); the third is the first one after the name.
        after_name.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_that_lets_others_go_first_does_so_alone() {
        let before = nice();
        let its_own = thread::spawn(|| {
            let_others_go_first();
            nice()
        });
        assert_eq!(its_own.join().unwrap(), (before + i64::from(NICER)).min(19));
        assert_eq!(nice(), before);
    }
}
