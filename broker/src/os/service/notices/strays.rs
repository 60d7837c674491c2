//! How many words of each user come from processes that are no child's: to find that out of one takes the longest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time over which datagrams are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// How many of one user are looked at in a [`WINDOW`].
const STRAYS_A_WINDOW: u32 = 100;

/// Those of the present window.
#[derive(Debug, Default)]
pub(super) struct Strays {
    began: Option<Instant>,
    by_user: BTreeMap<u32, u32>,
}

/// Whether a user's sockets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Left,
    /// Not before the next window: it is to rest.
    Over,
}

impl Strays {
    /// Counts one more. Returns whether it is the one too many.
    pub(super) fn count(&mut self, user: u32, now: Instant) -> Patience {
        self.turn_over(now);
        let count = self.by_user.entry(user).or_default();
        *count = count.saturating_add(1);
        if *count >= STRAYS_A_WINDOW { Patience::Over } else { Patience::Left }
    }

    /// Whether this user's sockets are read now.
    pub(super) fn patience(&mut self, user: u32, now: Instant) -> Patience {
        self.turn_over(now);
        let is_over = self.by_user.get(&user).is_some_and(|count| *count >= STRAYS_A_WINDOW);
        if is_over { Patience::Over } else { Patience::Left }
    }

    fn turn_over(&mut self, now: Instant) {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            self.began = Some(now);
            self.by_user.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_whose_words_are_no_childs_is_not_read_before_the_next_window() {
        let mut strays = Strays::default();
        let now = Instant::now();
        let looked_at = (0..1_000).take_while(|_| strays.count(1, now) == Patience::Left).count();
        assert_eq!(looked_at + 1, usize::try_from(STRAYS_A_WINDOW).unwrap());
        assert_eq!(strays.patience(1, now), Patience::Over);
        assert_eq!(strays.patience(2, now), Patience::Left, "another user is heard all the same");
        assert_eq!(strays.patience(1, now + WINDOW), Patience::Left);
        assert!(strays.by_user.is_empty(), "nothing is kept of a window that is over");
    }
}
