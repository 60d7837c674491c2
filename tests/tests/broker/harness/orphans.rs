//! Children whose broker was killed: the kernel gives them to the next subreaper above, or to the system's init.

use std::time::Instant;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use super::{PATIENCE, Process};

/// Makes this process the one that they come to, and that reaps them when it pleases: so a test decides what is
/// there to be found out about how they ended.
pub(crate) fn adopt_orphans() {
    set_child_subreaper(true).expect("Linux 3.4");
}

/// Waits until an orphan has ended, and leaves it as a zombie.
pub(crate) fn await_zombie(child: &Value) {
    let pid = pid_of(child);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        .expect("an orphan that came to this process");
}

/// Waits until an orphan has ended, and reaps it: nobody can find out any more how it ended.
pub(crate) fn reap(child: &Value) {
    waitpid(pid_of(child), None).expect("an orphan that came to this process");
}

/// Waits until a process is gone or a zombie, whose parent is somebody else.
pub(crate) fn await_death(process: Process) {
    let began = Instant::now();
    while process.is_alive() {
        assert!(began.elapsed() < PATIENCE, "{process:?} is alive");
        std::thread::yield_now();
    }
}

fn pid_of(child: &Value) -> Pid {
    let pid = child["pid"].as_i64().expect("the pid of a child that was alive");
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}
