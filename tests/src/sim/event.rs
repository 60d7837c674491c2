//! What can happen in the model world.

use procbroker_core::{Anchor, ConnectionId, Input, Notice, Run, Safety};
use procbroker_protocol::Signal;

use crate::sim::family::FamilyId;

/// Something that happens at one virtual time.
#[derive(Clone, Debug)]
pub enum Event {
    /// The broker is told something.
    Input(Input),
    /// The program of a run begins.
    Executed {
        /// Which run.
        run: Run,
    },
    /// A process that an earlier broker has left on the way to its program gets there, unless it is held.
    GetsThere {
        /// Of which.
        family: FamilyId,
    },
    /// A record is as safe as it was asked to be.
    Written {
        /// Whose.
        run: Run,
        /// Up to where in the log.
        place: usize,
        /// How safe.
        safety: Safety,
    },
    /// A client has room for events.
    Reads {
        /// Its connection.
        connection: ConnectionId,
    },
    /// An attempt to write has ended for which answers wait.
    Attempted {
        /// Which of them is the last.
        ticket: u64,
        /// Whether it is written.
        written: bool,
    },
    /// A process dies.
    Dies {
        /// Of which.
        family: FamilyId,
        /// Which of its processes.
        process: usize,
        /// Of which signal, if of one.
        of: Option<Signal>,
    },
    /// A main process tells something of itself.
    Says {
        /// Of which.
        family: FamilyId,
        /// What.
        notices: Vec<Notice>,
    },
    /// The kernel kills a process for want of memory.
    Starves {
        /// Of which.
        family: FamilyId,
        /// Which of its processes.
        process: usize,
    },
    /// A process forks.
    Forks {
        /// Of which.
        family: FamilyId,
    },
    /// A main process is reaped.
    Reaped {
        /// Of which.
        family: FamilyId,
    },
    /// It is seen what is left of a run.
    Remaining {
        /// Of which.
        family: FamilyId,
    },
    /// A process ends that clients name.
    AnchorEnds {
        /// The process.
        anchor: Anchor,
    },
    /// Another program takes the place of the broker's.
    Replaced,
    /// The broker is started again.
    Start,
    /// A client does something.
    Act {
        /// Which one.
        client: usize,
    },
    /// The run comes to its end.
    End,
    /// The broker is told to stop once more.
    EndAgain,
    /// Everything is to be ended and forgotten.
    Quieten,
    /// Everything is ended and forgotten: nothing must be left.
    Inspect,
}

impl Event {
    /// Whether the start of a run comes to its end with this.
    #[must_use]
    pub fn ends_launch(&self, of: Run) -> bool {
        let (Self::Executed { run }
        | Self::Input(Input::Spawned { run, .. } | Input::SpawnFailed { run, .. })) = self
        else {
            return false;
        };
        *run == of
    }

    /// Whether it happens whether or not there is a broker; else it is over with it.
    #[must_use]
    pub fn outlives_the_broker(&self) -> bool {
        match self {
            Self::Input(_)
            | Self::Executed { .. }
            | Self::Written { .. }
            | Self::Reads { .. }
            | Self::Attempted { .. }
            | Self::Reaped { .. }
            | Self::Replaced
            | Self::Remaining { .. } => false,
            Self::Dies { .. }
            | Self::GetsThere { .. }
            | Self::Says { .. }
            | Self::Starves { .. }
            | Self::Forks { .. }
            | Self::AnchorEnds { .. }
            | Self::Start
            | Self::Act { .. }
            | Self::End
            | Self::EndAgain
            | Self::Quieten
            | Self::Inspect => true,
        }
    }

    /// Whether it is something that is done to a broker: it is put off while none is there.
    #[must_use]
    pub fn needs_a_broker(&self) -> bool {
        match self {
            Self::Act { .. } | Self::End | Self::EndAgain | Self::Quieten | Self::Inspect => true,
            Self::Input(_)
            | Self::Executed { .. }
            | Self::Written { .. }
            | Self::Reads { .. }
            | Self::Attempted { .. }
            | Self::Reaped { .. }
            | Self::Remaining { .. }
            | Self::Dies { .. }
            | Self::GetsThere { .. }
            | Self::Says { .. }
            | Self::Starves { .. }
            | Self::Forks { .. }
            | Self::AnchorEnds { .. }
            | Self::Replaced
            | Self::Start => false,
        }
    }
}
