//! What the driver is to know, queued by user: each has a queue of its own, and the driver takes from them in turn.
//!
//! Whoever has a thousand connections, and something to say on each, so holds up another user's word by one of their own.
//! A queue is short: who finds it full waits in the order of arrival, behind its own user's others alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Stands for whoever is no user here: no user has this number (credentials(7)).
pub const NOBODY: u32 = u32::MAX;

/// The broker itself has its say in root's turn.
pub const BROKER: u32 = 0;

/// Nobody takes anything out any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver has gone")]
pub struct Gone;

/// One user's end: what goes in here waits in the turn of that user.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    user: u32,
    places: Arc<Semaphore>,
}

/// The driver's end: users take turns in what comes out.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Tells the driver that there is something.
    arrived: Notify,
    places_of_a_user: usize,
}

#[derive(Debug)]
struct State<T> {
    /// What waits, with the place that it takes; no entry for a user without anything.
    queues: BTreeMap<u32, VecDeque<(T, OwnedSemaphorePermit)>>,
    /// The users with something, in the order of their turns.
    turns: VecDeque<u32>,
    /// Each user's places, for as long as somebody can send.
    places: BTreeMap<u32, Weak<Semaphore>>,
    is_closed: bool,
}

/// Both ends of an inbox that takes so many of each user; the sender is this user's.
#[must_use]
pub fn inbox<T>(places_of_a_user: usize, user: u32) -> (Sender<T>, Receiver<T>) {
    let state =
        State { queues: BTreeMap::new(), turns: VecDeque::new(), places: BTreeMap::new(), is_closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Notify::new(), places_of_a_user });
    let places = shared.places_of(user);
    (Sender { shared: Arc::clone(&shared), user, places }, Receiver(shared))
}

impl<T> Shared<T> {
    fn places_of(&self, user: u32) -> Arc<Semaphore> {
        let mut state = self.lock();
        if let Some(places) = state.places.get(&user).and_then(Weak::upgrade) {
            return places;
        }
        state.places.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.places_of_a_user));
        if state.is_closed {
            places.close();
        }
        state.places.insert(user, Arc::downgrade(&places));
        places
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that can panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// The end of another user.
    #[must_use]
    pub fn of(&self, user: u32) -> Self {
        let (shared, places) = (Arc::clone(&self.shared), self.shared.places_of(user));
        Self { shared, user, places }
    }

    /// Puts something into the user's queue, as soon as there is a place.
    ///
    /// # Errors
    /// When nobody takes anything out any more.
    pub async fn send(&self, fact: T) -> Result<(), Gone> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Gone)?;
        let mut state = self.shared.lock();
        let queue = state.queues.entry(self.user).or_default();
        queue.push_back((fact, place));
        if queue.len() == 1 {
            state.turns.push_back(self.user);
        }
        drop(state);
        self.shared.arrived.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), user: self.user, places: Arc::clone(&self.places) }
    }
}

impl<T> Receiver<T> {
    /// The next user's, if there is any.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        let user = state.turns.pop_front()?;
        let queue = state.queues.get_mut(&user)?;
        let (fact, place) = queue.pop_front()?;
        if queue.is_empty() {
            state.queues.remove(&user);
        } else {
            state.turns.push_back(user);
        }
        drop(state);
        // Whoever waits for it is woken without the lock.
        drop(place);
        Some(fact)
    }

    /// Waits for the next one. Nothing is lost when this is given up in the midst of waiting.
    pub async fn recv(&mut self) -> T {
        loop {
            if let Some(fact) = self.try_recv() {
                return fact;
            }
            self.0.arrived.notified().await;
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().turns.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        for places in state.places.values().filter_map(Weak::upgrade) {
            places.close();
        }
        // What a fact holds may want to send another one as it goes.
        let queues = std::mem::take(&mut state.queues);
        state.turns.clear();
        drop(state);
        drop(queues);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_take_turns_whoever_comes_first_with_however_much() {
        let (one, mut facts) = inbox(8, 1);
        let (another, two, three) = (one.clone(), one.of(2), one.of(3));
        for number in 10..13 {
            one.send(number).await.unwrap();
            another.send(number + 3).await.unwrap();
        }
        two.send(20).await.unwrap();
        three.send(30).await.unwrap();
        two.send(21).await.unwrap();
        let order: Vec<i32> = std::iter::from_fn(|| facts.try_recv()).collect();
        assert_eq!(order, [10, 20, 30, 13, 21, 11, 14, 12, 15]);
        assert!(facts.is_empty());
    }

    #[tokio::test]
    async fn a_full_queue_holds_up_its_own_user_alone() {
        let (one, mut facts) = inbox(2, 1);
        let (other, two) = (one.of(1), one.of(2));
        one.send(10).await.unwrap();
        other.send(11).await.unwrap();
        let waiting = tokio::spawn(async move { other.send(12).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the two of the same user share its places");
        two.send(20).await.unwrap();
        assert_eq!((facts.recv().await, facts.recv().await), (10, 20));
        waiting.await.unwrap().unwrap();
        assert_eq!((facts.recv().await, facts.recv().await), (11, 12));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_is_told_that_the_driver_has_gone() {
        let (one, facts) = inbox(1, 1);
        one.send(10).await.unwrap();
        let (other, late) = (one.clone(), one.of(2));
        let waiting = tokio::spawn(async move { other.send(11).await });
        tokio::task::yield_now().await;
        drop(facts);
        assert_eq!(waiting.await.unwrap(), Err(Gone));
        assert_eq!(late.send(20).await, Err(Gone));
        assert_eq!(one.of(3).send(30).await, Err(Gone));
    }

    #[tokio::test]
    async fn who_waits_for_a_fact_is_woken_by_it() {
        let (one, mut facts) = inbox(1, 1);
        let waiting = tokio::spawn(async move { facts.recv().await });
        tokio::task::yield_now().await;
        one.send(10).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 10);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_user_who_has_gone() {
        let (one, mut facts) = inbox(1, 1);
        for user in 2..100 {
            one.of(user).send(user).await.unwrap();
            assert_eq!(facts.try_recv(), Some(user));
        }
        let _last = one.of(100);
        let state = one.shared.lock();
        assert!(state.queues.is_empty() && state.places.len() <= 2, "{state:?}");
    }
}
