//! What is looked for of a child: which of its processes, and how far that one can have got.

use procbroker_core::Pid;

use crate::os::process::mark;

/// Which process of a child is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Its main process. A cleanup is begun even if that could not be recorded, lest a full disk keeps what the child
    /// held: its process is no sign that the child lives, but a part of what is left of it.
    Main,
    /// That of its cleanup, as the child is known to have ended.
    Cleanup,
}

impl Sought {
    /// Whether a process with the mark of the child can be the one.
    pub(super) fn may_be(self, pid: Pid) -> bool {
        match self {
            Self::Main => !mark::is_of_cleanup(pid),
            // Nothing else of the child was left when it was begun.
            Self::Cleanup => true,
        }
    }
}

/// How far a process can have got that is not on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchProgress {
    /// Its program was executed, as the record says.
    Executed,
    /// It may have its program, or be on the way there, or never have been.
    Possible,
    /// It has not its program, and may be on the way there: something is missing that is made just before, the mark of its
    /// pipe.
    Underway,
    /// There is none: no process was being started when the earlier program handed over.
    RuledOut,
}

impl LaunchProgress {
    /// Whether a process may be on the way to its program.
    pub(super) fn may_be_underway(self) -> bool {
        match self {
            Self::Possible | Self::Underway => true,
            Self::Executed | Self::RuledOut => false,
        }
    }
}

/// A child of which no process is known, and which may have one.
pub(super) struct Lost {
    pub(super) user: u32,
    pub(super) sought: Sought,
    pub(super) launch: LaunchProgress,
    /// The place of what is found of it.
    pub(super) index: usize,
}
