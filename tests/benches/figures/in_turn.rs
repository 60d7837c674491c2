//! Several pieces of work that take turns, so that whatever else the machine does meets all of them alike.

use std::time::Duration;

use crate::failure::Failure;
use crate::interrupt;

/// How often one piece is repeated before it is the next one's turn: its caches are warm for most of them.
const TURN: usize = 10;

/// A piece of work that says how long it took, without what it needed before and after.
pub(crate) type Work<'a> = &'a mut dyn FnMut() -> Result<Duration, Failure>;

/// So many samples of each piece, in turns.
pub(crate) fn in_turn<const N: usize>(
    samples: usize,
    mut pieces: [Work<'_>; N],
) -> Result<[Vec<Duration>; N], Failure> {
    let mut taken = [const { Vec::new() }; N];
    for _ in 0..samples.div_ceil(TURN) {
        for (piece, taken) in pieces.iter_mut().zip(&mut taken) {
            interrupt::check()?;
            for _ in 0..TURN {
                taken.push(piece()?);
            }
        }
    }
    Ok(taken)
}
