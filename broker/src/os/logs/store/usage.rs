//! Who has how much on the disk, and whose output is the oldest.

use std::collections::BTreeMap;

use crate::os::logs::stream::StreamId;

/// What all segments take, by user.
#[derive(Debug, Default)]
pub(super) struct Usage {
    users: BTreeMap<u32, User>,
    in_all: u64,
    births: u64,
}

/// What the segments of a user take.
#[derive(Debug, Default)]
struct User {
    room: u64,
    /// In the order in which they were begun.
    segments: BTreeMap<u64, StreamId>,
}

/// A segment of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentKey {
    pub(super) id: StreamId,
    /// Its number: what is lower is older.
    pub(super) born: u64,
}

impl Usage {
    pub(super) fn in_all(&self) -> u64 {
        self.in_all
    }

    /// A segment is begun; the number that it gets is higher than those of all before.
    pub(super) fn bear(&mut self, user: u32, id: StreamId) -> u64 {
        self.births += 1;
        self.users.entry(user).or_default().segments.insert(self.births, id);
        self.births
    }

    /// A segment has grown.
    pub(super) fn grow(&mut self, user: u32, room: u64) {
        let user = self.users.entry(user).or_default();
        user.room = user.room.saturating_add(room);
        self.in_all = self.in_all.saturating_add(room);
    }

    /// A segment is gone, and what it took.
    pub(super) fn bury(&mut self, user: u32, born: u64, room: u64) {
        self.in_all = self.in_all.saturating_sub(room);
        let Some(known) = self.users.get_mut(&user) else { return };
        known.room = known.room.saturating_sub(room);
        known.segments.remove(&born);
        if known.segments.is_empty() {
            self.users.remove(&user);
        }
    }

    /// The oldest segment of the user who would have the most if this one got so much more, save the one that is
    /// written to: nobody's flood costs others what they have kept.
    pub(super) fn oldest_of_greediest(&self, user: u32, more: u64, written: u64) -> Option<SegmentKey> {
        let room = |(uid, known): (&u32, &User)| {
            let more = if *uid == user { more } else { 0 };
            let (born, id) = known.segments.iter().find(|(born, _)| **born != written)?;
            Some((known.room.saturating_add(more), SegmentKey { id: *id, born: *born }))
        };
        self.users.iter().filter_map(room).max_by_key(|(room, _)| *room).map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::ChildId;
    use procbroker_protocol::request::LogStream;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> StreamId {
        StreamId { child: ChildId::from_uuid(Uuid::from_u128(number)), stream: LogStream::Stdout }
    }

    #[test]
    fn the_oldest_of_whoever_has_the_most_goes_first() {
        let mut usage = Usage::default();
        let first = usage.bear(1, id(1));
        usage.grow(1, 10);
        let second = usage.bear(2, id(2));
        let third = usage.bear(2, id(3));
        usage.grow(2, 30);
        let oldest = |usage: &Usage, user, more, written| usage.oldest_of_greediest(user, more, written);
        assert_eq!(oldest(&usage, 1, 0, 0), Some(SegmentKey { id: id(2), born: second }));
        assert_eq!(oldest(&usage, 1, 0, second), Some(SegmentKey { id: id(3), born: third }));
        assert_eq!(oldest(&usage, 1, 21, 0), Some(SegmentKey { id: id(1), born: first }));
        usage.bury(2, second, 15);
        usage.bury(2, third, 15);
        assert_eq!(usage.in_all(), 10);
        assert_eq!(oldest(&usage, 2, 50, first), None);
        usage.bury(1, first, 10);
        assert_eq!((usage.in_all(), oldest(&usage, 1, 0, 0)), (0, None));
    }
}
