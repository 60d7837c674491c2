//! Which events are kept: the last ones, and of nobody more than others have while there is not room for all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use procbroker_protocol::Event;
use serde::{Deserialize, Serialize};

use crate::limits::EVENT_KEPT_BYTES;
use crate::shown::text_bytes;

/// Whose child an event is about; nobody's where it is the broker's own.
pub(super) type Owner = Option<u32>;

/// Events of one owner that are not kept any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedEvents {
    /// How many.
    pub count: u64,
    /// The number of the last of them.
    pub last: u64,
}

/// The events that are kept, by number and by owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    by_number: BTreeMap<u64, Arc<Event>>,
    of_broker: EventsOfOwner,
    by_user: BTreeMap<u32, EventsOfOwner>,
    bytes: usize,
    /// What is true of a user of whom nothing is known.
    of_others: EventsOfOwner,
}

/// The events of one owner, each of which has a place: they are counted from 0 on, those that were dropped too.
#[derive(Clone, Debug, Default)]
pub(super) struct EventsOfOwner {
    kept: VecDeque<Arc<Event>>,
    bytes: usize,
    dropped: DroppedEvents,
}

/// What there is at a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'a> {
    /// This event.
    Event(&'a Arc<Event>),
    /// So many events that are not kept any more.
    Dropped(u64),
    /// Nothing yet.
    Nothing,
}

impl Kept {
    /// Takes events over, oldest first, with what was dropped before: of owners of whom that is not said, what is missing
    /// up to `unknown` may have been theirs.
    pub(super) fn taken_over(
        events: Vec<Arc<Event>>,
        dropped: BTreeMap<Owner, DroppedEvents>,
        unknown: u64,
    ) -> Self {
        let at_most = DroppedEvents { count: unknown, last: unknown };
        let of_others = EventsOfOwner { dropped: at_most, ..EventsOfOwner::default() };
        let mut kept = Self { of_others, ..Self::default() };
        for (owner, DroppedEvents { count, last }) in dropped {
            let at_most = DroppedEvents { count: count.max(unknown), last: last.max(unknown) };
            kept.of_mut(owner).dropped = at_most;
        }
        for event in events {
            kept.push(event);
        }
        kept
    }

    /// Keeps an event, the next by number.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        let (owner, bytes) = (owner(&event), bytes_of(&event));
        let own = self.of_mut(owner);
        own.bytes += bytes;
        own.kept.push_back(Arc::clone(&event));
        self.bytes += bytes;
        self.by_number.insert(event.seq, event);
    }

    /// Drops the oldest event of whoever has the most, until there are no more, and no more bytes of them, than that. Of
    /// owners who have as many, whose is older.
    pub(super) fn drop_beyond(&mut self, count: usize, bytes: u64) {
        while let Some(event) = self.excess(count, bytes) {
            let own = self.of_mut(owner(&event));
            own.kept.pop_front();
            own.bytes -= bytes_of(&event);
            own.dropped = DroppedEvents { count: own.dropped.count + 1, last: event.seq };
            self.bytes -= bytes_of(&event);
            self.by_number.remove(&event.seq);
        }
    }

    /// The event that makes room, if there is to be more.
    fn excess(&self, count: usize, bytes: u64) -> Option<Arc<Event>> {
        let too_many = self.count() > count;
        if !too_many && self.bytes() <= bytes {
            return None;
        }
        let owners = self.by_user.values().chain([&self.of_broker]);
        let owners = owners.filter_map(|own| own.kept.front().map(|first| (own, first)));
        let size = |own: &EventsOfOwner| if too_many { own.kept.len() } else { own.bytes };
        let (_, first) = owners.max_by_key(|(own, first)| (size(own), Reverse(first.seq)))?;
        Some(Arc::clone(first))
    }

    /// Returns how many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// Returns how many there are.
    pub(super) fn count(&self) -> usize {
        self.by_number.len()
    }

    /// The first event that is kept from a number on.
    pub(super) fn first_from(&self, number: u64) -> Option<&Arc<Event>> {
        self.from(number).next()
    }

    /// The events that are kept from a number on.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.by_number.range(number..).map(|(_, event)| event)
    }

    /// What was dropped of each owner of whom that is known.
    pub(super) fn dropped(&self) -> BTreeMap<Owner, DroppedEvents> {
        let of_users = self.by_user.iter().map(|(uid, own)| (Some(*uid), own.dropped));
        let all = of_users.chain([(None, self.of_broker.dropped)]);
        all.filter(|(_, dropped)| dropped.count > 0).collect()
    }

    /// The events of one owner.
    pub(super) fn of(&self, owner: Owner) -> &EventsOfOwner {
        match owner {
            Some(uid) => self.by_user.get(&uid).unwrap_or(&self.of_others),
            None => &self.of_broker,
        }
    }

    fn of_mut(&mut self, owner: Owner) -> &mut EventsOfOwner {
        match owner {
            Some(uid) => self.by_user.entry(uid).or_insert_with(|| self.of_others.clone()),
            None => &mut self.of_broker,
        }
    }
}

impl EventsOfOwner {
    /// The place of the next event.
    pub(super) fn end(&self) -> u64 {
        self.dropped.count + self.kept.len() as u64
    }

    /// The place of the first event with this number or a later one. Of those that are not kept any more as many are counted
    /// as there may be from that number on.
    pub(super) fn place_from(&self, number: u64) -> u64 {
        let before = self.kept.partition_point(|event| event.seq < number);
        if before > 0 {
            return self.dropped.count + before as u64;
        }
        let at_most = (self.dropped.last + 1).saturating_sub(number);
        self.dropped.count.saturating_sub(at_most)
    }

    /// What there is at a place.
    pub(super) fn at(&self, place: u64) -> At<'_> {
        let Some(index) = place.checked_sub(self.dropped.count) else {
            return At::Dropped(self.dropped.count - place);
        };
        let event = usize::try_from(index).ok().and_then(|index| self.kept.get(index));
        event.map_or(At::Nothing, At::Event)
    }
}

/// Returns whose child an event is about.
pub(super) fn owner(event: &Event) -> Owner {
    event.child.as_ref().map(|child| child.owner.uid)
}

/// Returns how many bytes an event takes. What it tells of its child is its own: the next one tells something else.
pub(super) fn bytes_of(event: &Event) -> usize {
    EVENT_KEPT_BYTES + event.child.as_deref().map_or(0, text_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::child::Child;
    use crate::child::tests::intent;
    use procbroker_protocol::{EventKind, Timestamp};

    /// An event of a child of this user, or of the broker itself.
    pub(in crate::event_log) fn event(seq: u64, owner: Owner) -> Arc<Event> {
        let child = owner.map(|uid| {
            let mut intent = intent(1, |_| {});
            intent.owner.uid = uid;
            Arc::clone(Child::new(&intent).view())
        });
        Arc::new(Event { seq, at: Timestamp::from_micros(seq), kind: EventKind::Created, child })
    }

    fn kept(owners: &[Owner]) -> Kept {
        let mut kept = Kept::default();
        owners.iter().zip(1..).for_each(|(owner, seq)| kept.push(event(seq, *owner)));
        kept
    }

    fn numbers(kept: &Kept) -> Vec<u64> {
        kept.from(0).map(|event| event.seq).collect()
    }

    const ROOM: u64 = u64::MAX;

    #[test]
    fn whoever_has_the_most_events_makes_room() {
        let (noisy, quiet) = (Some(7), Some(8));
        let mut kept = kept(&[quiet, None, noisy, noisy, quiet, noisy, noisy, noisy]);
        kept.drop_beyond(6, ROOM);
        assert_eq!(numbers(&kept), [1, 2, 5, 6, 7, 8]);
        // Both have as many now, with the older one.
        kept.push(event(9, quiet));
        kept.drop_beyond(6, ROOM);
        assert_eq!(numbers(&kept), [2, 5, 6, 7, 8, 9]);
        assert_eq!(kept.of(noisy).dropped, DroppedEvents { count: 2, last: 4 });
        assert_eq!(kept.of(quiet).dropped, DroppedEvents { count: 1, last: 1 });
        assert_eq!(kept.of(None).dropped, DroppedEvents::default());
    }

    #[test]
    fn no_more_bytes_are_kept_than_there_is_room_for_and_whoever_has_the_most_makes_it() {
        let mut kept = kept(&[Some(7), Some(8), Some(8), Some(8)]);
        let of_three = kept.bytes() / 4 * 3;
        kept.drop_beyond(10, of_three);
        assert_eq!((numbers(&kept), kept.bytes()), (vec![1, 3, 4], of_three));
        kept.drop_beyond(10, 0);
        assert_eq!((kept.count(), kept.bytes()), (0, 0));
    }

    #[test]
    fn places_go_on_when_events_are_dropped() {
        let (one, other) = (Some(7), Some(8));
        let mut kept = kept(&[one, other, one, one, one]);
        let place = kept.of(one).place_from(4);
        assert!(matches!(kept.of(one).at(place), At::Event(event) if event.seq == 4));
        kept.drop_beyond(3, ROOM);
        assert_eq!(numbers(&kept), [2, 4, 5]);
        assert_eq!(kept.of(one).place_from(4), place);
        assert!(matches!(kept.of(one).at(0), At::Dropped(2)));
        assert!(matches!(kept.of(one).at(place + 2), At::Nothing));
        // Of the two that are gone, no more than one can have been told from there on.
        assert_eq!([0, 1, 2, 3, 4].map(|number| kept.of(one).place_from(number)), [0, 0, 0, 1, 2]);
    }

    #[test]
    fn what_is_not_known_of_a_user_may_have_been_dropped() {
        let unknown = 5;
        let kept = Kept::taken_over(vec![event(6, Some(7))], BTreeMap::new(), unknown);
        for user in [Some(7), Some(9)] {
            assert_eq!(kept.of(user).at(kept.of(user).place_from(3)).dropped(), 3, "{user:?}");
            assert_eq!(kept.of(user).at(kept.of(user).place_from(6)).dropped(), 0, "{user:?}");
        }
    }

    impl At<'_> {
        fn dropped(self) -> u64 {
            match self {
                Self::Dropped(count) => count,
                Self::Event(_) | Self::Nothing => 0,
            }
        }
    }
}
