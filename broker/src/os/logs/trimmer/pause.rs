//! How long the trimmer rests between two looks.

use std::time::Duration;

/// The shortest rest.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest rest where looking is cheap: so long may a child that has written little write much unnoticed.
const LONGEST_WHEN_CHEAP: Duration = Duration::from_millis(500);

/// The longest rest of all.
const LONGEST: Duration = Duration::from_secs(5);

/// Looking takes at most one part in so many of the time, as far as the longest rest allows.
const SHARE: u32 = 100;

/// How long to rest, by what the looks have shown.
#[derive(Debug)]
pub(super) struct Pause {
    last: Duration,
    longest: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { last: SHORTEST, longest: LONGEST_WHEN_CHEAP }
    }
}

impl Pause {
    /// Takes in how long a look took.
    pub(super) fn looked(&mut self, took: Duration) {
        self.longest = took.saturating_mul(SHARE).clamp(LONGEST_WHEN_CHEAP, LONGEST);
    }

    /// The longest rest, at what looking costs now.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// The rest after a look that has shown growth: until a file is due to be trimmed at that speed, or the longest
    /// where none is in sight. It doubles at most, because a child may write faster than it did before.
    pub(super) fn after_growth(&mut self, until_due: Option<Duration>) -> Duration {
        let wanted = until_due.unwrap_or(self.longest).min(self.last.saturating_mul(2));
        self.last = wanted.clamp(SHORTEST, self.longest);
        self.last
    }

    /// The rest after the first write since all were silent.
    pub(super) fn after_silence(&mut self) -> Duration {
        self.last = SHORTEST;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn rests_double_up_to_the_longest_while_no_file_is_due() {
        let mut pause = Pause::default();
        let rests = [(); 4].map(|()| pause.after_growth(None));
        assert_eq!(rests, [200, 400, 500, 500].map(millis));
        assert_eq!(pause.after_silence(), millis(100));
    }

    #[test]
    fn a_file_that_is_due_soon_shortens_the_rest_at_once() {
        let mut pause = Pause::default();
        pause.after_growth(None);
        pause.after_growth(None);
        assert_eq!(pause.after_growth(Some(millis(150))), millis(150));
        assert_eq!(pause.after_growth(Some(millis(1))), millis(100));
        assert_eq!(pause.after_growth(Some(millis(1000))), millis(200));
    }

    #[test]
    fn looks_that_take_long_are_made_seldom() {
        let mut pause = Pause::default();
        pause.looked(millis(20));
        assert_eq!(pause.longest(), millis(2000));
        pause.looked(Duration::from_secs(60));
        assert_eq!(pause.longest(), Duration::from_secs(5));
        pause.looked(Duration::ZERO);
        assert_eq!(pause.longest(), millis(500));
    }
}
