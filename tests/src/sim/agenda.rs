//! The virtual clock and what is still to happen, in its order.

use std::collections::BTreeMap;

/// Nanoseconds of a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// What is still to happen: by its time, and in the order of its planning where times are equal.
#[derive(Debug)]
pub struct Agenda<E> {
    now: u64,
    planned: BTreeMap<(u64, u64), E>,
    count: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { now: SECOND, planned: BTreeMap::new(), count: 0 }
    }
}

impl<E> Agenda<E> {
    /// The present, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Plans something for so many nanoseconds from now.
    pub fn after(&mut self, delay: u64, event: E) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// Plans something for a time, or for now if that is over.
    pub fn at(&mut self, time: u64, event: E) {
        self.count += 1;
        self.planned.insert((time.max(self.now), self.count), event);
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_time(&self) -> Option<u64> {
        self.planned.first_key_value().map(|((time, _), _)| *time)
    }

    /// Moves the clock to the next thing, and takes it.
    pub fn pop(&mut self) -> Option<E> {
        let ((time, _), event) = self.planned.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Takes out everything that is planned and not `kept`, in its order.
    pub fn drop_unless(&mut self, kept: impl Fn(&E) -> bool) -> Vec<E> {
        let (stays, goes): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.planned).into_iter().partition(|(_, event)| kept(event));
        self.planned = stays;
        goes.into_values().collect()
    }

    /// Whether something of this kind is planned.
    pub fn plans(&self, wanted: impl FnMut(&E) -> bool) -> bool {
        self.planned.values().any(wanted)
    }

    /// Moves the clock on.
    pub fn advance(&mut self, time: u64) {
        self.now = self.now.max(time);
    }
}
