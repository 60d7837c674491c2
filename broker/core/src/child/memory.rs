//! Memory: whether the end of a run is told as one for want of memory.
//!
//! The kernel says that it has killed something of a run; only of the present one, since each run has a group of its own that
//! has counted nothing before. A run that lost a helper to that and goes on well has not ended for it: its end has to be such
//! as a kill leaves behind.

use procbroker_protocol::{Exit, ExitStatus, Signal};

use crate::child::common::Common;

/// What ended a main process, as far as the broker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// Nothing that the broker has done.
    Itself,
    /// The steps of a stop, if anything.
    Steps,
    /// SIGKILL of the broker, if anything.
    Force,
}

/// Returns the exit of the present run, with whether it has ended for want of memory.
pub(super) fn told(exit: Exit, ended_by: EndedBy, common: &Common) -> Exit {
    Exit { oom: common.has_lacked_memory() && is_kills_work(exit.status, ended_by), ..exit }
}

/// Whether a main process ends in this way when it is killed for want of memory, or a process that it cannot do without.
fn is_kills_work(status: ExitStatus, ended_by: EndedBy) -> bool {
    match status {
        // A shell, say, passes on how its command has ended. One that was asked to end may answer with any code.
        ExitStatus::Code(code) => code != 0 && ended_by == EndedBy::Itself,
        ExitStatus::Signal(signal) => signal == Signal::KILL && ended_by != EndedBy::Force,
        ExitStatus::Unknown => ended_by != EndedBy::Force,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_for_want_of_memory_where_a_kill_leaves_such_a_one() {
        let [killed, terminated] = [Signal::KILL, Signal::TERM].map(ExitStatus::Signal);
        let ends = [EndedBy::Itself, EndedBy::Steps, EndedBy::Force];
        let told = |status| ends.map(|ended_by| is_kills_work(status, ended_by));
        assert_eq!(told(killed), [true, true, false]);
        assert_eq!(told(ExitStatus::Unknown), [true, true, false]);
        assert_eq!(told(ExitStatus::Code(137)), [true, false, false]);
        assert_eq!(told(terminated), [false; 3]);
        assert_eq!(told(ExitStatus::Code(0)), [false; 3]);
    }
}
