//! How long things took, counted by how long: what Prometheus calls a histogram.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a [`Histogram`] has counted, in a form that another program can go on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    bounds: Vec<Duration>,
    counts: Vec<u64>,
    sum: Duration,
}

/// How many observations took at most each of some bounds, and how long all of them took together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The bounds, shortest first.
    bounds: &'static [Duration],
    /// How many were over the bound before and not over this one; the last of them has no bound.
    counts: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    /// Makes one without observations; `bounds` go from the shortest to the longest.
    #[must_use]
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: Duration::ZERO }
    }

    /// Takes in that something took so long.
    pub fn observe(&mut self, took: Duration) {
        let place = self.bounds.partition_point(|bound| *bound < took);
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(took);
    }

    /// Returns what it has counted so far.
    #[must_use]
    pub fn observed(&self) -> Observed {
        Observed { bounds: self.bounds.to_vec(), counts: self.counts.clone(), sum: self.sum }
    }

    /// Takes in what an earlier one has counted, unless that was by other bounds.
    pub fn go_on(&mut self, before: &Observed) {
        if before.bounds != self.bounds || before.counts.len() != self.counts.len() {
            return;
        }
        for (count, more) in self.counts.iter_mut().zip(&before.counts) {
            *count = count.saturating_add(*more);
        }
        self.sum = self.sum.saturating_add(before.sum);
    }

    /// Returns each bound with how many took at most so long.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut sum = 0_u64;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            sum = sum.saturating_add(*count);
            (*bound, sum)
        })
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns how long all of them took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [Duration; 3] =
        [Duration::from_millis(1), Duration::from_millis(10), Duration::from_secs(1)];

    #[test]
    fn each_bucket_has_all_that_took_at_most_its_bound() {
        let mut histogram = Histogram::new(&BOUNDS);
        for millis in [0, 1, 2, 10, 11, 5_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!((counts, histogram.count()), (vec![2, 4, 5], 6));
        assert_eq!(histogram.sum(), Duration::from_millis(5_024));
    }
    #[test]
    fn what_was_counted_by_the_same_bounds_is_gone_on_with() {
        let mut before = Histogram::new(&BOUNDS);
        before.observe(Duration::from_millis(5));
        let mut next = Histogram::new(&BOUNDS);
        next.observe(Duration::from_secs(5));
        next.go_on(&before.observed());
        let counts: Vec<u64> = next.buckets().map(|(_, count)| count).collect();
        assert_eq!((counts, next.count(), next.sum()), (vec![0, 1, 1], 2, Duration::from_millis(5_005)));
        let mut other = Histogram::new(&BOUNDS[1..]);
        other.go_on(&before.observed());
        assert_eq!(other.count(), 0);
    }
}
