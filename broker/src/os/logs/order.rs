//! What the log thread is told.

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use procbroker_core::Pid;
use procbroker_protocol::ChildId;
use tokio::sync::oneshot;

use super::forward::Author;
use super::output::KeptStream;
use super::stream::StreamId;

/// The number of a pipe among all that the broker has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Token(pub(super) u64);

/// One order. How many wait is bounded by what they belong to: a few for each child, one for each request.
#[derive(Debug)]
pub(super) enum Order {
    /// A pipe is open, and belongs to this user. Where lines are passed on, it is told who writes to it.
    Keep { token: Token, id: StreamId, user: u32, pipe: OwnedFd, author: Option<Author> },
    /// A process of the child is about to be made: where lines are passed on.
    Starts { child: ChildId },
    /// It has been made, and has this pid if any.
    Runs { child: ChildId, pid: Option<Pid> },
    /// Something of the child may wait for whoever holds its pipes.
    Touch { child: ChildId },
    /// Nothing of the child is left that could write: its pipes are emptied, closed and removed.
    End { child: ChildId },
    /// The child is not visible any more: its output goes.
    Forget { child: ChildId },
    /// Somebody wants to know what is kept, with all that has been written by now, or as soon as there is more.
    Show { id: StreamId, when: When, answer: oneshot::Sender<KeptStream> },
    /// Says when everything is done that was ordered before, and all that has been written by the children that have
    /// ended is kept.
    Settle { done: mpsc::Sender<()> },
    /// Another program takes over: gives copies of all pipes, and touches none until it is to go on.
    Pause { pipes: mpsc::Sender<Vec<Arc<OwnedFd>>> },
    /// The other program could not take over.
    GoOn,
    /// The broker has no use for it any more.
    Stop,
}

/// When an answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// As soon as what waits in the pipe is kept.
    Now,
    /// As soon as more has been moved than so many bytes, or nothing more can come.
    MoreThan(u64),
}
