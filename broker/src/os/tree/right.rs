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
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn the_real_or_the_saved_user_decides_and_the_session_for_one_signal() {
        // This process's own session may be led from outside its pid namespace, where it has no number.
        let script = "sleep infinity & echo $!; wait";
        let shell = Command::new("setsid").args(["sh", "-c", script]).stdout(Stdio::piped()).spawn();
        let Ok(mut leader) = shell else { panic!("setsid(1)") };
        let mut line = String::new();
        BufReader::new(leader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::new(line.trim().parse().unwrap()).unwrap();

        let own = Asker { uid: geteuid().as_raw(), pid: Some(leader.id()) };
        let other = Asker { uid: own.uid + 1, ..own };
        assert!(may_signal(pid, Signal::TERM, own));
        assert!(!may_signal(pid, Signal::TERM, other));
        assert!(may_signal(pid, Signal::CONT, other), "it is in the session of the asker");
        assert!(!may_signal(pid, Signal::CONT, Asker { pid: None, ..other }));
        assert!(!may_signal(pid, Signal::CONT, Asker { pid: Some(std::process::id()), ..other }));

        let killed = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.get().cast_signed()),
            nix::sys::signal::SIGKILL,
        );
        assert_eq!(killed, Ok(()));
        assert!(leader.wait().unwrap().code().is_some(), "the shell ends with what it waits for");
        let leader = Pid::new(leader.id()).unwrap();
        assert!(!may_signal(leader, Signal::TERM, own), "nothing is known of it");
    }
}
