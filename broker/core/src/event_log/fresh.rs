//! The events of a turn, of which those are to hear who have read all before.

use std::collections::BTreeMap;
use std::sync::Arc;

use procbroker_protocol::Event;

use super::kept::{Owner, owner};
use crate::limits::FRESH_EVENTS_LOOKED_AT;

/// The events that nobody has been told of yet.
#[derive(Debug, Default)]
pub(super) struct FreshEvents {
    /// The first of them, by which it is seen who wants any.
    first: Vec<Arc<Event>>,
    count: u64,
    by_owner: BTreeMap<Owner, u64>,
}

impl FreshEvents {
    pub(super) fn add(&mut self, event: &Arc<Event>) {
        self.count += 1;
        *self.by_owner.entry(owner(event)).or_default() += 1;
        if self.first.len() < FRESH_EVENTS_LOOKED_AT {
            self.first.push(Arc::clone(event));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn count_of(&self, owner: Owner) -> u64 {
        self.by_owner.get(&owner).copied().unwrap_or_default()
    }

    /// Whether there are so many that whoever may see them finds out by reading whether they are wanted.
    pub(super) fn are_too_many_to_look_at(&self) -> bool {
        self.count > self.first.len() as u64
    }

    pub(super) fn first(&self) -> &[Arc<Event>] {
        &self.first
    }
}
