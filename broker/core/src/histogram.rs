//! How long things took, counted by how long: what Prometheus calls a histogram.

use std::time::Duration;

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
}
