//! Events on their way to one client: it is told that there are some, asks for the next ones when it has room, and gets them.

use procbroker_core::UnreadEvents;
use procbroker_protocol::Notification;
use tokio::sync::mpsc;

use crate::limits::{EVENT_BYTES, FED_WAITING};
use crate::transit::{Load, Transit};

/// What the driver says to a connection about events.
#[derive(Debug)]
pub enum Fed {
    /// There are some: they are to be asked for.
    Unread,
    /// Those that were asked for.
    Events {
        /// The events, and how many were missed, in their order.
        notifications: Vec<Notification>,
        /// The room that they take.
        load: Load,
    },
    /// All that was not read when the broker exits.
    Last(Box<UnreadEvents>),
}

impl Fed {
    /// Events for a user, with the room that they take, whether there is any or not: a client asks when it has room.
    #[must_use]
    pub fn events(notifications: Vec<Notification>, transit: &Transit, user: u32) -> Self {
        let load = transit.add(user, notifications.iter().map(bytes_of).sum());
        Self::Events { notifications, load }
    }
}

/// The driver's end, and that of the connection.
#[must_use]
pub fn feed() -> (mpsc::Sender<Fed>, mpsc::Receiver<Fed>) {
    mpsc::channel(FED_WAITING)
}

/// Returns about how many bytes an event takes that waits.
fn bytes_of(notification: &Notification) -> u64 {
    let texts = match notification {
        Notification::Event { event, .. } => event.child.as_ref().map_or(0, |child| {
            let words: usize = child.command.iter().map(String::len).sum();
            words + child.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        }),
        Notification::Log { text, .. } => text.len(),
        Notification::Lagged { .. } => 0,
    };
    EVENT_BYTES + texts as u64
}
