//! How many refusals of each user are told: nobody fills the log by asking for what is not for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many refusals of one user are told in a second; the rest are counted.
const TOLD_MAX: u32 = 20;

/// The length of time that they are counted for.
const WINDOW: Duration = Duration::from_secs(1);

/// The refusals of the present second.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    began: Option<Instant>,
    by_user: BTreeMap<u32, u32>,
}

/// What is to be told of one more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusalNotice {
    /// Whether it is told itself.
    pub(super) itself: bool,
    /// How many of each user were not told before.
    pub(super) withheld: Vec<(u32, u32)>,
}

impl Refusals {
    /// Counts one more of this user.
    pub(super) fn count(&mut self, uid: u32, now: Instant) -> RefusalNotice {
        let mut withheld = Vec::new();
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            self.began = Some(now);
            let before = std::mem::take(&mut self.by_user);
            let beyond = |(uid, count): (u32, u32)| Some((uid, count.checked_sub(TOLD_MAX)?));
            withheld.extend(before.into_iter().filter_map(beyond).filter(|(_, count)| *count > 0));
        }
        let count = self.by_user.entry(uid).or_default();
        *count = count.saturating_add(1);
        RefusalNotice { itself: *count <= TOLD_MAX, withheld }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_each_user_are_told_in_a_second_and_the_rest_are_counted() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let told = (0..100).filter(|_| refusals.count(1, now).itself).count();
        assert_eq!(told, 20);
        // Another user is told of all the same.
        assert_eq!(refusals.count(2, now), RefusalNotice { itself: true, withheld: Vec::new() });
        let next = refusals.count(1, now + WINDOW);
        assert_eq!(next, RefusalNotice { itself: true, withheld: vec![(1, 80)] });
        assert_eq!(refusals.count(1, now + 2 * WINDOW).withheld, Vec::new());
    }
}
