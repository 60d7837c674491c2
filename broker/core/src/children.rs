//! All children that the broker knows, with the indices that keep each promise about them cheap.

mod bounds;
mod ended;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::status::ChildCounts;
use procbroker_protocol::{Child as ChildView, ChildId, ChildState, Name, Outcome, Target};
use uuid::Uuid;

use crate::child::Child;
use crate::kept::QuotaUsage;
use crate::limits::Bounds;
use crate::record::Role;
use crate::shown;
use crate::time::Instant;
use crate::timers::Timers;
use ended::Ended;

/// The children, live and ended.
#[derive(Debug, Default)]
pub(crate) struct Children {
    by_id: BTreeMap<ChildId, Child>,
    /// The live ones, in the order of their creation.
    live: BTreeSet<ChildId>,
    /// Those of them that never were: their processes were left on the way to their programs, and are being ended.
    void: BTreeSet<ChildId>,
    /// Who holds a name now.
    holders: BTreeMap<Name, ChildId>,
    /// How many live children there are under the key of a limit.
    limited: BTreeMap<String, u32>,
    /// How many live children each user has.
    owned: BTreeMap<u32, u32>,
    /// Which child the request of a user has started, and how it is answered.
    requests: BTreeMap<(u32, Uuid), (ChildId, Outcome)>,
    ended: Ended,
    /// Whether there may be more ended ones, since it was looked last, than are to be visible.
    is_crowded: bool,
    /// How many bytes the live ones take.
    live_bytes: QuotaUsage,
    counts: ChildCounts,
    /// How many of the live ones are main commands.
    mains: usize,
    /// The last place in the order of the creations that was given away.
    last_number: u64,
}

impl Children {
    pub(crate) fn get(&self, id: ChildId) -> Option<&Child> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.by_id.get_mut(&id)
    }

    /// Returns the next place in the order of the creations.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }

    /// Goes on in the order of the creations after what an earlier broker has started.
    pub(crate) fn go_on_after(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    /// Takes in a new child, which is live from now on, and the answer to the request for it.
    pub(crate) fn insert(&mut self, child: Child) {
        if let Some(request) = child.params().request_id {
            let key = (child.owner().uid, request);
            self.requests.insert(key, (child.id(), child.outcome()));
        }
        self.insert_unasked(child);
    }

    /// Takes in a child that no request is answered with.
    pub(crate) fn insert_unasked(&mut self, child: Child) {
        let id = child.id();
        let uid = child.owner().uid;
        if child.role() == Role::Main {
            self.mains += 1;
            self.live.insert(id);
            self.by_id.insert(id, child);
            return;
        }
        if let Some(name) = &child.params().name {
            self.holders.insert(name.clone(), id);
        }
        if !self.void.contains(&id) {
            if let Some(limit) = &child.params().limit {
                *self.limited.entry(limit.key.clone()).or_default() += 1;
            }
            *self.owned.entry(uid).or_default() += 1;
        }
        // Ended ones make room for it.
        self.is_crowded = true;
        self.live_bytes.add(uid, child.bytes());
        self.live.insert(id);
        *count(&mut self.counts, child.view().state) += 1;
        self.by_id.insert(id, child);
    }

    /// Takes in a child that never was, and of which nothing is left but a process on the way to its program. It keeps its name
    /// until that is gone, and takes nobody a place.
    pub(crate) fn insert_void(&mut self, child: Child) {
        let id = child.id();
        if child.role() == Role::Child {
            self.void.insert(id);
        }
        self.insert_unasked(child);
    }

    /// Whether a child never was, though its process is not gone yet.
    pub(crate) fn is_void(&self, id: ChildId) -> bool {
        self.void.contains(&id)
    }

    /// Changes a child, and keeps what is shown of it and the counts in step.
    pub(crate) fn update<R>(&mut self, id: ChildId, change: impl FnOnce(&mut Child) -> R) -> Option<R> {
        let child = self.by_id.get_mut(&id)?;
        let before = child.view().state;
        let result = change(child);
        let after = child.view().state;
        if before != after && child.role() == Role::Child {
            let counted = count(&mut self.counts, before);
            *counted = counted.saturating_sub(1);
            *count(&mut self.counts, after) += 1;
        }
        Some(result)
    }

    /// Gives free what a live child holds, and keeps it visible until its time or its place is over. Nobody sees the
    /// main command.
    pub(crate) fn end(&mut self, id: ChildId, now: Instant) {
        let is_seen = self.end_unseen(id);
        let Some(child) = self.by_id.get(&id).filter(|child| is_seen && child.role() == Role::Child) else {
            return;
        };
        self.ended.add(child, now);
        self.is_crowded = true;
    }

    /// Gives free what a live child holds. Answers whether it was live.
    pub(crate) fn end_unseen(&mut self, id: ChildId) -> bool {
        let Some(child) = self.by_id.get(&id) else {
            return false;
        };
        if !self.live.remove(&id) {
            return false;
        }
        if child.role() == Role::Main {
            self.mains -= 1;
            return true;
        }
        if let Some(name) = &child.params().name
            && self.holders.get(name) == Some(&id)
        {
            self.holders.remove(name);
        }
        if !self.void.remove(&id) {
            if let Some(limit) = &child.params().limit {
                decrease(&mut self.limited, &limit.key);
            }
            decrease(&mut self.owned, &child.owner().uid);
        }
        self.live_bytes.remove(child.owner().uid, child.bytes());
        true
    }

    /// Forgets a child wholly.
    pub(crate) fn forget(&mut self, id: ChildId) -> Option<Child> {
        let child = self.by_id.remove(&id)?;
        if child.role() == Role::Main {
            return Some(child);
        }
        let counted = count(&mut self.counts, child.view().state);
        *counted = counted.saturating_sub(1);
        let request = child.params().request_id.map(|request| (child.owner().uid, request));
        if let Some(key) = request {
            self.forget_answer(key, id);
        }
        Some(child)
    }

    /// Lets the request that started a child start another one.
    pub(crate) fn forget_request(&mut self, id: ChildId) {
        let Some(child) = self.by_id.get(&id) else {
            return;
        };
        if let Some(request) = child.params().request_id {
            self.forget_answer((child.owner().uid, request), id);
        }
    }

    fn forget_answer(&mut self, key: (u32, Uuid), id: ChildId) {
        if self.requests.get(&key).is_some_and(|(child, _)| *child == id) {
            self.requests.remove(&key);
        }
    }

    /// Whether there may be more ended children, since it was looked last, than are to be visible.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Makes ended children invisible whose time, or whose place, is over, and returns them in that order.
    pub(crate) fn expire(&mut self, bounds: &Bounds, now: Instant, timers: &mut Timers) -> Vec<ChildId> {
        self.is_crowded = false;
        let mut expired = Vec::new();
        while let Some(number) = self.ended.first_expired(bounds, &self.live_bytes, now)
            && let Some(child) = self.ended.id(number).and_then(|id| self.forget(id))
        {
            self.ended.remove(number, &child);
            expired.push(child.id());
        }
        self.ended.set_timer(bounds, timers);
        expired
    }

    /// The time of the child that ended first is over.
    pub(crate) fn retention_ran_out(&mut self) {
        self.ended.timer_ran_out();
    }

    /// Returns how many bytes all children take.
    pub(crate) fn bytes(&self) -> u64 {
        self.live_bytes.all() + self.ended.bytes()
    }

    /// The live child of this name.
    pub(crate) fn holder(&self, name: &Name) -> Option<&Child> {
        self.holders.get(name).and_then(|id| self.by_id.get(id))
    }

    /// Whether a live child has this name.
    pub(crate) fn is_held(&self, name: &Name) -> bool {
        self.holders.contains_key(name)
    }

    /// Whether a child has a place under the key of a limit.
    pub(crate) fn is_placed_under(&self, child: &Child, key: &str) -> bool {
        let is_under = child.params().limit.as_ref().is_some_and(|limit| limit.key == key);
        is_under && child.is_live() && !self.is_void(child.id())
    }

    /// Returns what a message calls a child.
    pub(crate) fn title(&self, id: ChildId) -> String {
        self.get(id).map_or_else(|| id.to_string(), |child| shown::title(child.view()))
    }

    /// Returns how clients see these children, as far as they are visible.
    pub(crate) fn views(&self, children: &[ChildId]) -> Vec<Arc<ChildView>> {
        children.iter().filter_map(|id| self.get(*id)).map(|child| Arc::clone(child.view())).collect()
    }

    /// The child that a request of this user has started, and how it is answered.
    pub(crate) fn answered_with(&self, uid: u32, request: Uuid) -> Option<(ChildId, Outcome)> {
        self.requests.get(&(uid, request)).copied()
    }

    /// The one child that a target means for a caller who may act on those of some users: the live one of a name, else the
    /// one that held it last.
    pub(crate) fn find(&self, target: &Target, may_act_on: impl Fn(u32) -> bool) -> Option<&Child> {
        let is_meant = |child: &&Child| child.role() == Role::Child && may_act_on(child.owner().uid);
        match target {
            Target::Id(id) => self.by_id.get(id).filter(is_meant),
            Target::Name(name) => {
                let last = || self.ended.last_of(name, &may_act_on).and_then(|id| self.get(id));
                self.holder(name).filter(is_meant).or_else(last)
            }
            Target::Labels(_) | Target::All => None,
        }
    }

    /// Everything live, the main command too, oldest first.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Child> {
        self.live.iter().filter_map(|id| self.by_id.get(id))
    }

    /// The ids of everything live, oldest first.
    pub(crate) fn live_ids(&self) -> Vec<ChildId> {
        self.live.iter().copied().collect()
    }

    /// The live children, oldest first.
    pub(crate) fn live_children(&self) -> impl Iterator<Item = &Child> {
        self.live().filter(|child| child.role() == Role::Child)
    }

    /// All visible children, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Child> {
        self.by_id.values().filter(|child| child.role() == Role::Child)
    }

    /// How many live children there are.
    pub(crate) fn live_count(&self) -> usize {
        self.live.len() - self.mains
    }

    /// How many live children take a place among those that there may be.
    fn placed_count(&self) -> usize {
        self.live_count() - self.void.len()
    }

    fn owned_count(&self, uid: u32) -> u32 {
        self.owned.get(&uid).copied().unwrap_or_default()
    }

    pub(crate) fn limited_count(&self, key: &str) -> u32 {
        self.limited.get(key).copied().unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> ChildCounts {
        self.counts
    }
}

/// Takes one off a count that is dropped when it reaches nothing.
fn decrease<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn count(counts: &mut ChildCounts, state: ChildState) -> &mut u32 {
    match state {
        ChildState::Starting => &mut counts.starting,
        ChildState::Running => &mut counts.running,
        ChildState::Stopping => &mut counts.stopping,
        ChildState::Cleaning => &mut counts.cleaning,
        ChildState::Ended => &mut counts.ended,
        ChildState::Backoff => &mut counts.backoff,
    }
}
