//! Where what is to be written is put together: one buffer for all connections that have nothing to write, because as a rule
//! an answer is written in the turn in which it is encoded. One that is kept for each would be memory for nothing.

use std::cell::Cell;

use crate::limits::WRITE_BYTES_BEFORE_READING;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The buffer, if nobody has it; else an empty one without any room.
pub(super) fn lend() -> Vec<u8> {
    SPARE.take()
}

/// Takes one back. The largest that is of use is kept.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    let spare = SPARE.take();
    let is_better = (spare.capacity()..=WRITE_BYTES_BEFORE_READING).contains(&buffer.capacity());
    buffer.clear();
    SPARE.set(if is_better { buffer } else { spare });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_to_one_at_a_time_and_the_largest_of_use_is_kept() {
        let room = |bytes| Vec::with_capacity(bytes);
        assert_eq!(lend().capacity(), 0);
        give_back(room(100));
        let first = lend();
        assert_eq!((first.capacity(), lend().capacity()), (100, 0));
        give_back(first);
        give_back(room(50));
        give_back(room(WRITE_BYTES_BEFORE_READING + 1));
        assert_eq!(lend().capacity(), 100);
        let mut used = room(200);
        used.push(1);
        give_back(used);
        assert!(lend().is_empty());
    }
}
