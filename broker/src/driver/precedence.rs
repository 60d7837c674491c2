//! Who goes first with the driver when several have something for it: each of them has a turn, however much the others have.
//!
//! What the machine reports goes first, because clients wait for it. But a user whose children end and are started again
//! all the time makes the machine report all the time, and nobody else is to wait for the end of that.

use std::time::Duration;

use crate::turns::SLICE;

/// Whom the driver takes something from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// The kernel, the edge's own threads and the clock.
    Machine,
    /// Children, which tell something of themselves.
    Children,
    /// Clients, and the tasks around them.
    Clients,
}

/// What each has had, as far as it decides who goes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precedence {
    /// How long the machine has had the driver since somebody else was asked first, or since nobody had anything.
    machine_had: Duration,
    last_heard: Heard,
}

/// Who of those that are no machine had the last turn.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Children,
    Clients,
}

impl Precedence {
    /// Nobody has had anything.
    pub(super) fn new() -> Self {
        Self { machine_had: Duration::ZERO, last_heard: Heard::Clients }
    }

    /// Whether the machine has had its slice, and the others go first once.
    pub(super) fn is_slice_over(self) -> bool {
        self.machine_had >= SLICE
    }

    /// The order in which they are asked now. Where the machine comes last, it has a new slice.
    pub(super) fn order(&mut self) -> [Party; 3] {
        let [next, last] = match self.last_heard {
            Heard::Children => [Party::Clients, Party::Children],
            Heard::Clients => [Party::Children, Party::Clients],
        };
        if self.is_slice_over() {
            self.machine_had = Duration::ZERO;
            [next, last, Party::Machine]
        } else {
            [Party::Machine, next, last]
        }
    }

    /// One of them had the driver for so long.
    pub(super) fn had(&mut self, party: Party, time: Duration) {
        match party {
            Party::Machine => self.machine_had = self.machine_had.saturating_add(time),
            Party::Children => self.last_heard = Heard::Children,
            Party::Clients => self.last_heard = Heard::Clients,
        }
    }

    /// Nobody had anything, so that nobody has waited.
    pub(super) fn rested(&mut self) {
        self.machine_had = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has a turn, one after the other, when all of these have something at any time, and each turn takes so long.
    fn turns(waiting: &[Party], time: Duration, count: usize) -> Vec<Party> {
        let mut precedence = Precedence::new();
        let turn = || {
            let order = precedence.order();
            let party = order.into_iter().find(|party| waiting.contains(party))?;
            precedence.had(party, time);
            Some(party)
        };
        std::iter::repeat_with(turn).map_while(|party| party).take(count).collect()
    }

    #[test]
    fn a_machine_that_never_rests_lets_clients_and_children_have_every_second_turn() {
        use Party::{Children, Clients, Machine};
        let all = [Machine, Children, Clients];
        let seen = turns(&all, SLICE, 8);
        assert_eq!(seen, [Machine, Children, Machine, Clients, Machine, Children, Machine, Clients]);
        assert_eq!(turns(&[Machine, Clients], SLICE, 4), [Machine, Clients, Machine, Clients]);
    }

    #[test]
    fn the_machine_goes_first_within_its_slice() {
        let seen = turns(&[Party::Machine, Party::Clients], SLICE / 4, 11);
        let of_clients: Vec<usize> = (0..11).filter(|&turn| seen[turn] == Party::Clients).collect();
        assert_eq!(of_clients, [4, 9], "{seen:?}");
    }

    #[test]
    fn children_and_clients_take_turns() {
        use Party::{Children, Clients};
        assert_eq!(turns(&[Children, Clients], SLICE, 4), [Children, Clients, Children, Clients]);
    }

    #[test]
    fn a_slice_begins_anew_when_nobody_has_anything() {
        let mut precedence = Precedence::new();
        precedence.had(Party::Machine, SLICE);
        assert!(precedence.is_slice_over());
        precedence.rested();
        assert_eq!(precedence.order()[0], Party::Machine);
    }
}
