//! Bytes that have come and are not used up yet.

/// A buffer up to this size is kept when it is empty; a larger one is given back, so that an idle
/// connection costs little after a large message.
const KEPT_BYTES: usize = 4096;

/// A queue of bytes that lends its front part as one slice.
///
/// What was lent is dropped with the next call that changes the queue. Used bytes at the front are not
/// moved over one by one: the rest moves forward only when the used part is at least as large, or when
/// the buffer would have to grow, so that each byte moves a bounded number of times.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    /// Where the unused part begins.
    start: usize,
    /// How many bytes from `start` on are lent.
    lent: usize,
}

impl Backlog {
    /// The bytes that are not used up, without those lent.
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start.saturating_add(self.lent)..).unwrap_or_default()
    }

    /// Takes that many bytes off the front, and shows them.
    pub(super) fn lend(&mut self, length: usize) -> &[u8] {
        self.reclaim();
        self.lent = length.min(self.unread().len());
        self.bytes.get(self.start..self.start + self.lent).unwrap_or_default()
    }

    /// Drops what was lent, and gives a large buffer back once nothing is left in it.
    pub(super) fn reclaim(&mut self) {
        self.start += std::mem::take(&mut self.lent);
        if self.start >= self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
        }
    }

    /// Adds bytes at the end. The buffer doubles as it grows, but not beyond `ceiling`, unless
    /// the bytes themselves need it.
    pub(super) fn append(&mut self, chunk: &[u8], ceiling: usize) {
        self.reclaim();
        let unread = self.bytes.len() - self.start;
        let needed = unread + chunk.len();
        let full = self.bytes.len() + chunk.len() > self.bytes.capacity();
        if self.start > 0 && (self.start >= unread || full) {
            self.bytes.drain(..self.start);
            self.start = 0;
            if self.bytes.capacity() > KEPT_BYTES && needed <= KEPT_BYTES {
                self.bytes.shrink_to(KEPT_BYTES);
            }
        }
        if needed > self.bytes.capacity() {
            let target = needed.max(self.bytes.capacity().saturating_mul(2).min(ceiling));
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// How much memory the buffer takes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut backlog = Backlog::default();
        let mut expected = 0_u8;
        for round in 0..100_u8 {
            backlog.append(&[round.wrapping_mul(2), round.wrapping_mul(2).wrapping_add(1)], 64);
            if round % 3 == 0 {
                for byte in backlog.lend(3) {
                    assert_eq!(*byte, expected);
                    expected = expected.wrapping_add(1);
                }
            }
        }
        assert_eq!(backlog.unread().first(), Some(&expected));
    }

    #[test]
    fn an_empty_backlog_gives_a_large_buffer_back() {
        let mut backlog = Backlog::default();
        backlog.append(&vec![0; 100_000], 100_000);
        assert_eq!(backlog.lend(100_000).len(), 100_000);
        backlog.reclaim();
        assert_eq!(backlog.capacity(), 0);
    }

    #[test]
    fn a_small_rest_of_a_large_buffer_moves_to_a_small_one() {
        let mut backlog = Backlog::default();
        backlog.append(&vec![0; 100_000], 100_000);
        backlog.lend(99_990);
        backlog.append(&[1], 100_000);
        assert_eq!(backlog.unread().len(), 11);
        assert!(backlog.capacity() <= KEPT_BYTES, "{}", backlog.capacity());
    }

    #[test]
    fn the_buffer_grows_to_the_ceiling_and_no_further_for_one_message() {
        let mut backlog = Backlog::default();
        for _ in 0..100 {
            backlog.append(&[0; 100], 10_000);
        }
        assert_eq!(backlog.unread().len(), 10_000);
        assert!(backlog.capacity() <= 10_000, "{}", backlog.capacity());
    }
}
