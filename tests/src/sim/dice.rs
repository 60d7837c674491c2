//! Chance, all of it from one seed, so that a run can be repeated exactly.

use crate::sim::agenda::MILLISECOND;

/// The dice of one run.
#[derive(Debug)]
pub struct Dice(fastrand::Rng);

impl Dice {
    /// The dice that always fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Dice of their own: what they decide changes nothing of how these fall.
    #[must_use]
    pub fn aside(&self) -> Self {
        const APART: u64 = 0x9e37_79b9_7f4a_7c15;
        Self(fastrand::Rng::with_seed(self.0.clone().u64(..) ^ APART))
    }

    /// Whether something happens that happens so many times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number from 0 to below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.u64(0..end) }
    }

    /// A length of time in nanoseconds, up to so many milliseconds.
    pub fn within_millis(&mut self, most: u64) -> u64 {
        self.below(most * MILLISECOND + 1)
    }

    /// One of several values.
    pub fn choose<T: Copy, const N: usize>(&mut self, options: [T; N]) -> T {
        const { assert!(N > 0) };
        options[self.index(N)]
    }

    /// One element of a list, if it has any.
    pub fn element<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.index(list.len()))
    }

    /// An index of a list of this length; 0 if it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        if length == 0 { 0 } else { self.0.usize(0..length) }
    }

    /// Any 128 bits.
    pub fn bits(&mut self) -> u128 {
        self.0.u128(..)
    }
}
