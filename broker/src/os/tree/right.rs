//! Signals by somebody else's right: what `kill(2)` asks of a caller, where the kernel would ask the broker, which is root.

use std::os::fd::BorrowedFd;

use procbroker_core::{Asker, Pid, SignalOutcome};
use procbroker_protocol::Signal;

use crate::os::process::pidfd;
use crate::os::process::proc::{self, ProcessStat};

/// Sends a signal to a process, if whoever asks for it may do that; the broker itself may if nobody does.
///
/// A process that executes a set-user-ID program between the look and the signal gets it all the same, as it does from
/// `kill(2)`.
pub(super) fn send(pid: Pid, pidfd: BorrowedFd<'_>, signal: Signal, by: Option<Asker>) -> SignalOutcome {
    if let Some(asker) = by {
        let may = may_signal(pid, signal, asker);
        // What was read was another's if this one has been reaped.
        if pidfd::is_reaped(pidfd) {
            return SignalOutcome::Gone;
        }
        if !may {
            return SignalOutcome::Refused;
        }
    }
    pidfd::outcome(pidfd::send(pidfd, signal))
}

/// Whether the real or the saved user of the process is the asker's, or it is to be continued within the asker's session.
fn may_signal(pid: Pid, signal: Signal, asker: Asker) -> bool {
    let Some([real, _effective, saved, _files]) = proc::user_ids(pid) else { return false };
    let session = |pid| ProcessStat::read(pid).and_then(|stat| stat.session);
    let shares_session = || {
        let own = asker.pid.and_then(Pid::new).and_then(session);
        own.is_some() && own == session(pid)
    };
    [real, saved].contains(&asker.uid) || signal == Signal::CONT && shares_session()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn the_real_or_the_saved_user_decides_and_the_session_for_one_signal() {
        let own = Asker { uid: geteuid().as_raw(), pid: Some(std::process::id()) };
        let other = Asker { uid: own.uid + 1, ..own };
        let Ok(mut child) = Command::new("sleep").arg("infinity").spawn() else { panic!("sleep(1)") };
        let pid = Pid::new(child.id()).unwrap();
        assert!(may_signal(pid, Signal::TERM, own));
        assert!(!may_signal(pid, Signal::TERM, other));
        assert!(may_signal(pid, Signal::CONT, other), "it is in the session of this process");
        assert!(!may_signal(pid, Signal::CONT, Asker { pid: None, ..other }));
        assert!(!may_signal(pid, Signal::CONT, Asker { pid: Some(1), ..other }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!may_signal(pid, Signal::TERM, own), "nothing is known of it");
    }
}
