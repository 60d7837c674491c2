//! Whose turn it is on the event loop: users share it by time, however many tasks each of them has.
//!
//! The loop polls what is ready in the order in which it became so, and a user with two thousand connections has two
//! thousand tasks ready. So what is done for a user is polled in its turn alone: in each round of the loop a user's tasks
//! have [`SLICE`] together, or one poll where that takes longer; the others of them wait, and are not polled, until the
//! next round. A round ends when the kernel was asked what else there is. Who is alone waits for nobody, because a round
//! with nothing to wait for is over at once.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a user's tasks are polled in a round. It is short beside what a child's start takes, and long beside a round.
pub const SLICE: Duration = Duration::from_micros(50);

thread_local! {
    /// When the poll began that is under way on this thread, if it is one in turn.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A handle to the turns of one event loop.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    round: AtomicU64,
    state: Mutex<State>,
    /// Tells the keeper that somebody waits.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    next_place: u64,
    users: BTreeMap<u32, User>,
}

/// What a user has had, and which of its tasks wait. There is one as long as the user has a task.
#[derive(Debug, Default)]
struct User {
    tasks: usize,
    /// The last round in which it had anything, and how much.
    round: u64,
    used: Duration,
    /// By the order of their arrival.
    waiting: BTreeMap<u64, Waker>,
    /// Those that may be polled once, and have been woken for it.
    called: BTreeSet<u64>,
}

/// A task that is polled in its user's turn.
#[derive(Debug)]
pub struct InTurn<F> {
    task: Pin<Box<F>>,
    turns: Turns,
    user: u32,
    /// Its place among those that wait, if it does.
    place: Option<u64>,
}

/// What becomes of a task that is to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is its turn.
    Go,
    /// It waits for it.
    Wait,
}

impl Turns {
    /// Nobody has had anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the next round's turns whenever somebody waits for one, until the task is dropped.
    pub async fn keep(self) {
        loop {
            self.0.wanted.notified().await;
            loop {
                // It is not woken again before the loop has asked the kernel what else there is.
                tokio::task::yield_now().await;
                if !self.begin_round() {
                    break;
                }
            }
        }
    }

    /// The loop has nothing left to do, which ends a round.
    pub fn rest(&self) {
        self.0.round.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a task be polled in its user's turn alone.
    pub fn of<F: Future>(&self, user: u32, task: F) -> InTurn<F> {
        self.state().users.entry(user).or_default().tasks += 1;
        InTurn { task: Box::pin(task), turns: self.clone(), user, place: None }
    }

    /// Calls the first of each user's tasks that wait. Says whether any are left.
    fn begin_round(&self) -> bool {
        self.rest();
        let mut state = self.state();
        let called: Vec<Waker> = state.users.values_mut().filter_map(User::call).collect();
        let left = state.users.values().any(|user| !user.waiting.is_empty());
        drop(state);
        called.into_iter().for_each(Waker::wake);
        left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done under the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the user of the task that is being polled has had its time in this round.
#[must_use]
pub fn is_over() -> bool {
    BEGAN.get().is_some_and(|began| began.elapsed() >= SLICE)
}

/// Lets others have their turns, where this one is over.
pub async fn pause_if_over() {
    if is_over() {
        tokio::task::yield_now().await;
    }
}

impl User {
    /// Calls the first task that waits.
    fn call(&mut self) -> Option<Waker> {
        let (place, waker) = self.waiting.pop_first()?;
        self.called.insert(place);
        Some(waker)
    }
}

impl<F> InTurn<F> {
    /// Whether it may be polled now.
    fn ask(&mut self, waker: &Waker) -> Verdict {
        let mut state = self.turns.state();
        let State { next_place, users } = &mut *state;
        let user = users.entry(self.user).or_default();
        let round = self.turns.0.round.load(Ordering::Relaxed);
        if user.round != round {
            (user.round, user.used) = (round, Duration::ZERO);
        }
        match self.place {
            Some(place) if user.called.remove(&place) => {
                self.place = None;
                Verdict::Go
            }
            Some(place) => {
                user.waiting.insert(place, waker.clone());
                Verdict::Wait
            }
            None if user.used < SLICE && user.waiting.is_empty() => Verdict::Go,
            None => {
                let place = *next_place;
                *next_place += 1;
                user.waiting.insert(place, waker.clone());
                self.place = Some(place);
                drop(state);
                self.turns.0.wanted.notify_one();
                Verdict::Wait
            }
        }
    }

    /// It was polled for so long.
    fn has_used(&self, time: Duration) {
        let mut state = self.turns.state();
        let Some(user) = state.users.get_mut(&self.user) else { return };
        user.used += time;
        let next = if user.used < SLICE { user.call() } else { None };
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.ask(context.waker()) {
            Verdict::Wait => return Poll::Pending,
            Verdict::Go => {}
        }
        let began = Instant::now();
        let before = BEGAN.replace(Some(began));
        let polled = self.task.as_mut().poll(context);
        BEGAN.set(before);
        self.has_used(began.elapsed());
        polled
    }
}

impl<F> Drop for InTurn<F> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let Some(user) = state.users.get_mut(&self.user) else { return };
        if let Some(place) = self.place {
            user.waiting.remove(&place);
            user.called.remove(&place);
        }
        user.tasks = user.tasks.saturating_sub(1);
        if user.tasks == 0 {
            state.users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Polls of this many users' tasks, in their order.
    type Polls = Arc<Mutex<Vec<u32>>>;

    /// A task that has something to do again and again, each time for so long.
    async fn busy(user: u32, times: usize, long: Duration, polls: Polls) {
        for _ in 0..times {
            polls.lock().unwrap().push(user);
            let began = Instant::now();
            while began.elapsed() < long {}
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_user_with_many_tasks_holds_up_another_by_one_poll_a_round() {
        let turns = Turns::new();
        tokio::spawn(turns.clone().keep());
        let polls = Polls::default();
        let crowd: Vec<_> =
            (0..50).map(|_| tokio::spawn(turns.of(1, busy(1, 4, SLICE, polls.clone())))).collect();
        let other = tokio::spawn(turns.of(2, busy(2, 20, SLICE, polls.clone())));
        other.await.unwrap();
        let seen = polls.lock().unwrap().clone();
        assert!(seen.len() <= 2 * 20 + 1, "{} polls of the crowd", seen.len() - 20);
        for one in crowd {
            one.await.unwrap();
        }
        assert_eq!(polls.lock().unwrap().len(), 50 * 4 + 20, "all of them come to their ends");
        assert!(turns.state().users.is_empty(), "nothing is kept of a user who has gone");
    }

    #[tokio::test]
    async fn short_polls_share_a_round_in_the_order_of_their_arrival() {
        let turns = Turns::new();
        tokio::spawn(turns.clone().keep());
        let order = Polls::default();
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let order = order.clone();
                tokio::spawn(turns.of(1, async move {
                    order.lock().unwrap().push(number);
                    let began = Instant::now();
                    while began.elapsed() < SLICE / 20 {}
                }))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<u32>>());
    }

    #[tokio::test]
    async fn a_task_that_goes_while_it_waits_leaves_its_place_to_the_next() {
        let turns = Turns::new();
        let polls = Polls::default();
        let first = tokio::spawn(turns.of(1, busy(1, 1, SLICE, polls.clone())));
        tokio::task::yield_now().await;
        let [gone, last] = [(); 2].map(|()| tokio::spawn(turns.of(1, busy(1, 1, SLICE, polls.clone()))));
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        tokio::spawn(turns.clone().keep());
        last.await.unwrap();
        first.await.unwrap();
        assert_eq!(polls.lock().unwrap().len(), 2);
    }
}
