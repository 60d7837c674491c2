//! Whose pipe is emptied next: users take turns, and the pipes of one user take turns among themselves.

use std::collections::{BTreeMap, VecDeque};

/// A queue in which a user waits for at most one turn of each other user.
#[derive(Debug)]
pub(super) struct RoundRobin<T> {
    waiting: BTreeMap<u32, VecDeque<T>>,
    /// The users of whom something waits, each once.
    users: VecDeque<u32>,
    length: usize,
}

impl<T> RoundRobin<T> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), users: VecDeque::new(), length: 0 }
    }

    /// Lets something of a user wait, behind all else of that user.
    pub(super) fn push(&mut self, user: u32, one: T) {
        let waiting = self.waiting.entry(user).or_default();
        if waiting.is_empty() {
            self.users.push_back(user);
        }
        waiting.push_back(one);
        self.length += 1;
    }

    /// Lets something of a user wait, before all else of that user.
    pub(super) fn put_back(&mut self, user: u32, one: T) {
        let waiting = self.waiting.entry(user).or_default();
        if waiting.is_empty() {
            self.users.push_back(user);
        }
        waiting.push_front(one);
        self.length += 1;
    }

    /// Takes what comes next.
    pub(super) fn next(&mut self) -> Option<T> {
        let user = self.users.pop_front()?;
        let waiting = self.waiting.get_mut(&user)?;
        let next = waiting.pop_front();
        self.length = self.length.saturating_sub(1);
        if waiting.is_empty() {
            self.waiting.remove(&user);
        } else {
            self.users.push_back(user);
        }
        next
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pipe_of_a_user_waits_for_one_turn_of_another_however_many_pipes_that_has() {
        let mut turns = RoundRobin::new();
        for pipe in ["a1", "a2", "a3"] {
            turns.push(1, pipe);
        }
        assert_eq!(turns.next(), Some("a1"));
        turns.push(2, "b1");
        turns.push(1, "a1");
        assert_eq!(turns.len(), 4);
        assert_eq!(turns.next(), Some("a2"));
        turns.put_back(1, "a2");
        let order: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(order, ["b1", "a2", "a3", "a1"]);
        assert!(turns.is_empty());
    }
}
