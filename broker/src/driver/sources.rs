//! Where the driver takes facts from, and which of them it takes next.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::precedence::Party;
use super::signals::{SignalEvent, Signals};
use crate::inbox;
use crate::messages::{Fact, FromThread};
use crate::os::host::clock::Alarm;

/// Where facts come from.
#[derive(Debug)]
pub struct Sources {
    /// What clients say, and what the tasks around them report.
    pub facts: inbox::Receiver<Fact>,
    /// From the edge's own threads.
    pub threads: mpsc::Receiver<FromThread>,
    /// The signals that mean something to the broker, SIGCHLD among them.
    pub signals: Signals,
    /// Readable when a watched process has ended: there only where some are not the broker's own children, of whose end
    /// no signal tells.
    pub announcer: Option<AsyncFd<OwnedFd>>,
    /// Readable when a child has told something of itself.
    pub notices: AsyncFd<OwnedFd>,
    /// Readable when a process has ended that children's lives hang on.
    pub anchors: AsyncFd<OwnedFd>,
    /// Readable when something has come of a process that is being started.
    pub launches: AsyncFd<OwnedFd>,
    /// Rings when something is due.
    pub alarm: Alarm,
}

/// What a source has for the driver.
#[derive(Debug)]
pub(super) enum News {
    /// A signal has come.
    Signal(SignalEvent),
    /// A thread of the edge reports something.
    Report(FromThread),
    /// Something has come of a process that is being started.
    Launches,
    /// A watched process has ended that is not the broker's own child.
    Ended,
    /// A process has ended that children's lives hang on.
    AnchorEnded,
    /// Something is due.
    Due,
    /// Children have told something of themselves.
    Notices,
    /// A client, or a task around one, has said something.
    Fact(Fact),
    /// Nobody has anything, and the driver has something left to do by itself.
    OwnWork,
}

impl News {
    /// Whose it is; nobody's where it is the driver's own.
    pub(super) fn party(&self) -> Option<Party> {
        match self {
            Self::Signal(_)
            | Self::Report(_)
            | Self::Launches
            | Self::Ended
            | Self::AnchorEnded
            | Self::Due => Some(Party::Machine),
            Self::Notices => Some(Party::Children),
            Self::Fact(_) => Some(Party::Clients),
            Self::OwnWork => None,
        }
    }
}

/// What the driver has left to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Whether children have told more than it could take in at a time.
    pub(super) unheard: bool,
    /// Whether there is work of its own, for when nobody has anything.
    pub(super) own_work: bool,
}

/// Whether the event loop had anything else to do before there was news: then everybody had their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// It went on at once.
    None,
    /// It waited.
    Rested,
}

impl Sources {
    /// Waits for the next news, asking for it in this order. None is lost when this is given up in the midst of waiting.
    pub(super) async fn next(&mut self, order: [Party; 3], left: Left) -> (News, Pause) {
        let Self { facts, threads, signals, announcer, notices, anchors, launches, alarm } = self;
        let mut machine = pin!(async {
            tokio::select! {
                biased;
                told = signals.next() => News::Signal(told),
                Some(report) = threads.recv() => News::Report(report),
                () = announced(Some(launches)) => News::Launches,
                () = announced(announcer.as_ref()), if announcer.is_some() => News::Ended,
                () = announced(Some(anchors)) => News::AnchorEnded,
                () = alarm.rings() => News::Due,
            }
        });
        let mut children = pin!(unheard(notices, left.unheard));
        let mut clients = pin!(facts.recv());
        let mut pause = Pause::None;
        let news = poll_fn(|context| {
            for party in order {
                let polled = match party {
                    Party::Machine => machine.as_mut().poll(context),
                    Party::Children => children.as_mut().poll(context).map(|()| News::Notices),
                    Party::Clients => clients.as_mut().poll(context).map(News::Fact),
                };
                if polled.is_ready() {
                    return polled;
                }
            }
            if left.own_work {
                return Poll::Ready(News::OwnWork);
            }
            pause = Pause::Rested;
            Poll::Pending
        });
        let news = news.await;
        (news, pause)
    }
}

/// Waits until a child has told something, unless more was told than could be taken in.
async fn unheard(notices: &AsyncFd<OwnedFd>, has_more: bool) {
    if !has_more {
        announced(Some(notices)).await;
    }
}

/// Waits until a descriptor of this kind is readable.
async fn announced(announcer: Option<&AsyncFd<OwnedFd>>) {
    match announcer {
        Some(announcer) => match announcer.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The event loop itself has ended.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
