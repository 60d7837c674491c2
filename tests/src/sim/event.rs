//! What can happen in the model world.

use procbroker_core::{Input, Run};
use procbroker_protocol::Signal;

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
    /// A process dies.
    Dies {
        /// Of which run.
        run: Run,
        /// Which of its processes.
        process: usize,
        /// Of which signal, if of one.
        of: Option<Signal>,
    },
    /// A process forks.
    Forks {
        /// Of which run.
        run: Run,
    },
    /// A main process is reaped.
    Reaped {
        /// Of which run.
        run: Run,
    },
    /// It is seen what is left of a run.
    Remaining {
        /// Of which run.
        run: Run,
    },
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
