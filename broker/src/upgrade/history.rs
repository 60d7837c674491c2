//! Passes on the events that this program has told of: a file in memory, in which each has its form on the wire.
//!
//! Nothing else depends on them. A program that cannot read what another one has written counts events anew.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use procbroker_core::{DroppedEvents, EventHistory};
use procbroker_protocol::binary::{ServerMessage, decode_server_message, encode_notification};
use procbroker_protocol::event::{Event, Notification};
use procbroker_protocol::frame::{Framed, Frames};
use procbroker_protocol::limits::ANSWER_BYTES_MAX;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes of the events that are passed on, at most: the newest of them.
const HISTORY_BYTES_MAX: usize = 32 << 20;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;

/// What the file does not say: who counts, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    instance: Uuid,
    next: u64,
    /// What is not kept any more, by owner.
    #[serde(default)]
    dropped: Vec<(Option<u32>, DroppedEvents)>,
}

/// Writes events to a file in memory, oldest first.
///
/// # Errors
/// When there is no memory or descriptor for it.
pub(super) fn write(history: &EventHistory) -> io::Result<(Count, OwnedFd)> {
    let (mut frames, mut bytes) = (Vec::new(), 0);
    for event in history.kept.iter().rev() {
        let mut frame = Vec::new();
        encode_notification(&Notification::Event { subscription: 0, event: Arc::clone(event) }, &mut frame);
        bytes += frame.len();
        if bytes > HISTORY_BYTES_MAX {
            break;
        }
        frames.push(frame);
    }
    let mut file = File::from(memfd_create(c"procbroker events", MFdFlags::MFD_CLOEXEC)?);
    let all: Vec<u8> = frames.into_iter().rev().flatten().collect();
    file.write_all(&all)?;
    let dropped = history.dropped.iter().map(|(owner, dropped)| (*owner, *dropped)).collect();
    Ok((Count { instance: history.instance, next: history.next, dropped }, file.into()))
}

/// Reads what [`write()`] has written; nothing where that has another form.
pub(super) fn read(count: Count, file: OwnedFd) -> Option<EventHistory> {
    let mut file = File::from(file);
    file.rewind().ok()?;
    let mut frames = Frames::new(ANSWER_BYTES_MAX);
    let (mut kept, mut chunk) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        let count = file.read(&mut chunk).ok()?;
        if count == 0 {
            break;
        }
        frames.push(chunk.get(..count)?);
        while let Some(framed) = frames.next_message() {
            kept.push(event(framed)?);
        }
    }
    let Count { instance, next, dropped } = count;
    Some(EventHistory { instance, next, kept, dropped: dropped.into_iter().collect() })
}

fn event(framed: Framed<'_>) -> Option<Arc<Event>> {
    let Framed::Message(frame) = framed else { return None };
    match decode_server_message(frame) {
        Ok(ServerMessage::Notification(Notification::Event { event, .. })) => Some(event),
        Ok(
            ServerMessage::Notification(Notification::Lagged { .. } | Notification::Log { .. })
            | ServerMessage::Answer { .. },
        )
        | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::{EventKind, Timestamp};

    use super::*;

    fn history(count: u64) -> EventHistory {
        let event = |seq| {
            let at = Timestamp::from_micros(seq);
            Arc::new(Event { seq, at, kind: EventKind::ShuttingDown, child: None })
        };
        let dropped = [(Some(7), DroppedEvents { count: 2, last: 2 })].into();
        EventHistory {
            instance: Uuid::max(),
            next: count + 3,
            kept: (3..count + 3).map(event).collect(),
            dropped,
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for count in [0, 1, 10_000] {
            let history = history(count);
            let (count, file) = write(&history).unwrap();
            assert_eq!(read(count, file), Some(history));
        }
    }

    #[test]
    fn another_form_is_nothing() {
        let (count, file) = write(&history(2)).unwrap();
        let mut file = File::from(file);
        file.write_all(&[4, 0, 0, 0, 255, 255, 255, 255]).unwrap();
        assert_eq!(read(count, file.into()), None);
    }
}
