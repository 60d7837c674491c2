//! The wall clock of a run, which somebody sets now and then: forwards and back, by a second or by days.

use std::sync::Arc;

use procbroker_core::{Instant, Now};
use procbroker_protocol::Timestamp;

use crate::sim::agenda::SECOND;
use crate::sim::dice::Dice;

/// What it shows at the start of the monotonic one.
pub const START: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);

/// Tells its dice from those of the run: what else a seed does was there before anybody set a clock.
const STREAM: u64 = 0x5E77_AC10_CC5E_77AC;

/// Microseconds of a second.
const SECOND_MICROS: i64 = 1_000_000;

/// A wall clock: what it is off what it would show if nobody set it, from when on. Clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WallClock(Arc<[Setting]>);

/// What the clock was set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    /// When, in microseconds of the monotonic clock.
    from: u64,
    /// By how much it is off since then, in microseconds.
    offset: i64,
}

impl WallClock {
    /// Rolls how often the clock is set in a run, and by how much.
    #[must_use]
    pub fn roll(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ STREAM);
        let jumps = dice.choose([0, 0, 1, 3]);
        // Runs that are crowded are over soon.
        let most = dice.choose([4 * SECOND, 150 * SECOND]);
        let mut times: Vec<u64> = (0..jumps).map(|_| (SECOND + dice.below(most)) / 1_000).collect();
        times.sort_unstable();
        let mut offset = 0;
        let jump = |from| {
            let length = dice.choose([1, 10 * SECOND_MICROS, 90 * SECOND_MICROS, 200_000 * SECOND_MICROS]);
            offset += if dice.chance(50) { length } else { -length };
            Setting { from, offset }
        };
        Self(times.into_iter().map(jump).collect())
    }

    /// Returns how often it is set.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.0.len() as u64
    }

    /// Returns what both clocks show at a virtual time.
    #[must_use]
    pub fn at(&self, now: u64) -> Now {
        Now { instant: Instant::from_nanos(now), wall: self.wall(now) }
    }

    /// Returns what it shows at a virtual time.
    #[must_use]
    pub fn wall(&self, now: u64) -> Timestamp {
        let micros = now / 1_000;
        let set = self.0.iter().rfind(|setting| setting.from <= micros);
        let offset = set.map_or(0, |setting| setting.offset);
        Timestamp::from_micros((START.as_micros() + micros).saturating_add_signed(offset))
    }

    /// Returns the last virtual time up to `now` at which it showed this, if it ever did.
    #[must_use]
    pub fn moment(&self, shown: Timestamp, now: u64) -> Option<u64> {
        let offsets = self.0.iter().rev().map(|setting| setting.offset).chain([0]);
        let times = offsets.map(|offset| {
            let micros = shown.as_micros().saturating_add_signed(-offset);
            micros.saturating_sub(START.as_micros()).saturating_mul(1_000)
        });
        times.into_iter().find(|time| *time <= now && self.wall(*time) == shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clock_shows_is_led_back_to_when_it_last_did() {
        let clock = WallClock(
            [(5_000_000, -3 * SECOND_MICROS), (20_000_000, 50 * SECOND_MICROS)]
                .map(|(from, offset)| Setting { from, offset })
                .into(),
        );
        let micros = |now| clock.wall(now).as_micros() - START.as_micros();
        assert_eq!([4, 5, 7, 21].map(|second| micros(second * SECOND) / 1_000_000), [4, 2, 4, 71]);
        let now = 30 * SECOND;
        for second in [1, 5, 7, 19, 20, 25] {
            assert_eq!(clock.moment(clock.wall(second * SECOND), now), Some(second * SECOND));
        }
        // It showed this twice: before it was set back, and after.
        assert_eq!(clock.moment(clock.wall(4 * SECOND), now), Some(7 * SECOND));
        assert_eq!(clock.moment(clock.wall(4 * SECOND), 6 * SECOND), Some(4 * SECOND));
        let skipped = Timestamp::from_micros(START.as_micros() + 40_000_000);
        assert_eq!(clock.moment(skipped, now), None);
    }

    #[test]
    fn clocks_are_set_in_many_runs_and_not_in_many_others() {
        let set = (0..1_000).filter(|seed| WallClock::roll(*seed).jumps() > 0).count();
        assert!((300..700).contains(&set), "{set} of 1000");
    }
}
