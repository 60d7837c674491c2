//! How many bytes requests that wait take: each of them by itself, and what a create asks for once, however many share it.

use std::collections::BTreeMap;

use procbroker_protocol::ChildId;

use crate::attempt::Attempt;
use crate::kept::QuotaUsage;
use crate::pending::waits_for::WaitsFor;

/// The bytes of the requests that wait, by user.
#[derive(Debug, Default)]
pub(super) struct Account {
    usage: QuotaUsage,
    /// How many requests share what a create asks for, by the child that it gets or had: the same request once more shares it
    /// with the first one, after that was replaced.
    sharers: BTreeMap<ChildId, usize>,
}

impl Account {
    /// Counts a request of a user that waits from now on.
    pub(super) fn add(&mut self, uid: u32, waits_for: &WaitsFor) {
        let mut bytes = waits_for.bytes();
        if let Some(attempt) = waits_for.attempt() {
            let sharers = self.sharers.entry(attempt.id).or_default();
            *sharers += 1;
            if *sharers == 1 {
                bytes += attempt.bytes();
            }
        }
        self.usage.add(uid, bytes);
    }

    /// Counts a request off that waits no longer.
    pub(super) fn remove(&mut self, uid: u32, waits_for: &WaitsFor) {
        let mut bytes = waits_for.bytes();
        if let Some(attempt) = waits_for.attempt()
            && let Some(sharers) = self.sharers.get_mut(&attempt.id)
        {
            *sharers -= 1;
            if *sharers == 0 {
                self.sharers.remove(&attempt.id);
                bytes += attempt.bytes();
            }
        }
        self.usage.remove(uid, bytes);
    }

    /// Returns how many bytes more what a create asks for takes when it waits.
    pub(super) fn more_for(&self, attempt: &Attempt) -> u64 {
        if self.sharers.contains_key(&attempt.id) { 0 } else { attempt.bytes() }
    }

    /// Counts bytes of something else that is kept for a user.
    pub(super) fn keep(&mut self, uid: u32, bytes: u64) {
        self.usage.add(uid, bytes);
    }

    /// Counts bytes off that [`Self::keep`] has counted.
    pub(super) fn let_go(&mut self, uid: u32, bytes: u64) {
        self.usage.remove(uid, bytes);
    }

    /// Returns how many bytes are kept, by user.
    pub(super) fn usage(&self) -> &QuotaUsage {
        &self.usage
    }
}
