//! The waves of a shutdown, as they follow from which children are left.

use std::collections::BTreeMap;
use std::time::Duration;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{ChildId, ExitReason};

use crate::sim::ledger::Ledger;
use crate::sim::ledger::closing::{Closing, kill_reserve};
use crate::sim::ledger::track::{Demand, Track};
use crate::sim::ledger::upgrade::Upgrade;

impl Ledger {
    /// The shutdown begins, or is told once more to happen; the second signal that hurries ends it.
    pub fn close(&mut self, timeout: Option<Duration>, hurries: bool) {
        let now = self.now;
        let Some(closing) = &mut self.closing else {
            let timeout = timeout.unwrap_or(self.config.shutdown_timeout);
            let mut closing = Closing::new(now, timeout, hurries);
            let time = closing.kill_at.saturating_sub(now);
            for track in self.live_tracks() {
                let needs = closing.needs.entry(track.owner.uid).or_default();
                let need = needs.entry(track.params.stop_order).or_default();
                *need = (*need).max(track.need(now).saturating_add(track.cleanup_share(time)));
            }
            self.closing = Some(closing);
            for id in &self.live {
                // What is between two runs ends at once, and so does what was to be started once more.
                let ends = |track: &&mut Track| track.is_between() || track.is_put_off();
                if let Some(track) = self.tracks.get_mut(id).filter(ends) {
                    let steps = track.params.stop.clone();
                    track.demand(Demand { reason: ExitReason::Shutdown, steps });
                }
            }
            self.upgrade = Upgrade::None;
            return;
        };
        if closing.swept.is_some() || closing.swept_early.is_some() && self.live.is_empty() {
            return;
        }
        closing.tighten(now, timeout.unwrap_or(self.config.shutdown_timeout));
        // In nanoseconds: one that comes within a second of the first does not count.
        if hurries && now.saturating_sub(*closing.told.get_or_insert(now)) >= 1_000_000_000 {
            closing.hurry(now);
        }
    }

    /// Begins each user's wave of the lowest order that has children left, if it is not the one under way.
    pub fn follow_waves(&mut self) {
        let now = self.now;
        let Some(closing) = &mut self.closing else { return };
        if closing.kills_cleanups(now) && closing.full_since.is_none() {
            (closing.full_since, closing.full_until) = (Some(now), closing.deadline);
        }
        if closing.kills(now) {
            self.kill_the_rest();
            return;
        }
        closing.give_up(now);
        let given_up = closing.given_up.clone();
        let is_waited_for = |track: &&Track| {
            let last = given_up.get(&track.owner.uid);
            !track.is_left() && last.is_none_or(|last| track.params.stop_order > *last)
        };
        let mut left: BTreeMap<u32, BTreeMap<i32, Vec<ChildId>>> = BTreeMap::new();
        for track in self.live_tracks().filter(is_waited_for) {
            let orders = left.entry(track.owner.uid).or_default();
            orders.entry(track.params.stop_order).or_default().push(track.run.child);
        }
        for (uid, orders) in left {
            self.follow_waves_of(uid, &orders);
        }
        if let Some(closing) = &mut self.closing {
            closing.tightened = false;
        }
    }

    /// The time of a user's children follows from what that user has, and from nobody else's children.
    fn follow_waves_of(&mut self, uid: u32, left: &BTreeMap<i32, Vec<ChildId>>) {
        let now = self.now;
        let Some((&order, children)) = left.first_key_value() else { return };
        let Some(closing) = &mut self.closing else { return };
        if closing.waves.get(&uid) == Some(&order) && !closing.tightened {
            return;
        }
        let time = closing.kill_at.saturating_sub(now);
        let need = children.iter().filter_map(|id| self.tracks.get(id));
        let need = need.map(|track| track.need(now).saturating_add(track.cleanup_share(time))).max();
        let needs = closing.needs.entry(uid).or_default();
        needs.insert(order, need.unwrap_or_default());
        let need = |order: &i32| needs.get(order).copied().unwrap_or_default();
        // Nobody gets more for asking for more than there is.
        let wanted = |order: &i32| need(order).min(time);
        let sum: u64 = left.keys().map(wanted).sum();
        let is_short = sum > time || need(&order) > time;
        let share = if is_short { scale(wanted(&order), time, sum) } else { need(&order) };
        // What nobody after it would like is its own.
        let over = if is_short { now + share } else { closing.kill_at - (sum - wanted(&order)) };
        closing.waves.insert(uid, order);
        closing.given_up_at.insert(uid, over + kill_reserve(closing.kill_at.saturating_sub(over)));
        for id in children {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            let kept = track.cleanup_share(share);
            let share = share.saturating_sub(kept);
            let by = over.saturating_sub(kept);
            track.kill_by = Some(track.kill_by.map_or(by, |earlier| earlier.min(by)));
            if track.is_to_go_on() {
                let steps = shortened(&track.params.stop, share);
                track.demand(Demand { reason: ExitReason::Shutdown, steps });
            }
        }
    }
}

impl Ledger {
    /// Children whose wave has not come are killed without any step.
    fn kill_the_rest(&mut self) {
        for id in &self.live {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            if track.is_to_go_on() {
                track.demand(Demand { reason: ExitReason::Shutdown, steps: Vec::new() });
            }
        }
    }

    /// Notes since when there is nothing to do.
    pub fn follow_idleness(&mut self) {
        let idle = self.open_links == 0 && self.live.is_empty() && self.closing.is_none();
        self.idle_since = match (idle, self.idle_since) {
            (false, _) => None,
            (true, None) => Some(self.now),
            (true, since) => since,
        };
    }
}

/// `length` in the proportion of `part` to `whole`.
fn scale(length: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(length) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// The steps of a stop, each shortened alike where all of them would take longer than their share.
fn shortened(steps: &[StopStep], share: u64) -> Vec<StopStep> {
    let total = steps.iter().map(|step| nanos(step.grace)).fold(0, u64::saturating_add);
    if total <= share {
        return steps.to_vec();
    }
    let grace = |step: &StopStep| Duration::from_nanos(scale(nanos(step.grace), share, total));
    steps.iter().map(|step| StopStep { grace: grace(step), ..*step }).collect()
}
