//! Threads for work that may block: look-ups of accounts, reads of output, long answers to encode.
//!
//! All of them exist from the start, so that a machine without a thread to spare takes none of this away. Users take
//! turns: work of one user that blocks holds up another's by no more than the pieces that are under way.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use procbroker_protocol::{Error, ErrorKind};
use tokio::sync::oneshot;

/// How many threads there are.
pub const BLOCKING_THREADS: usize = 4;

/// Of these, so many work for one user at a time: a directory service that does not answer one user's questions leaves
/// the rest to the others.
const BUSY_FOR_A_USER_MAX: usize = BLOCKING_THREADS / 2;

/// How many pieces of one user's work wait at most.
const WAITING_FOR_A_USER_MAX: usize = 256;

/// The stack of a thread. A look-up loads whatever modules nsswitch.conf(5) names, and those copy names to it. What is not
/// used of it costs no memory; of 2 MiB the kernel could make one huge page, which would.
const STACK_BYTES: usize = 1 << 20;

/// Why a piece of work has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The user has too much waiting.
    #[error(
        "{WAITING_FOR_A_USER_MAX} requests of this user wait for the disk or a directory service; wait for some"
    )]
    Full,
    /// The work has panicked, or the broker ends.
    #[error("the work was given up halfway")]
    GivenUp,
}

/// The error for a request whose work was not done.
#[must_use]
pub fn unavailable(error: PoolError) -> Error {
    let kind = match error {
        PoolError::Full => ErrorKind::Overloaded,
        PoolError::GivenUp => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

/// A handle to the threads. They end with the last one.
#[derive(Clone)]
pub struct BlockingPool(Arc<Handle>);

type Job = Box<dyn FnOnce() + Send>;

struct Handle {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    users: BTreeMap<u32, User>,
    /// Users with work that may begin, in the order of their turns.
    turns: VecDeque<u32>,
    is_over: bool,
}

/// One user's work. There is no entry without any.
#[derive(Default)]
struct User {
    waiting: VecDeque<Job>,
    busy: usize,
}

impl BlockingPool {
    /// Starts the threads. They take no signal.
    ///
    /// # Errors
    /// When the system has no thread for one of them.
    pub fn start() -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let pool = Self(Arc::new(Handle { queue: Arc::clone(&queue) }));
        for _ in 0..BLOCKING_THREADS {
            let queue = Arc::clone(&queue);
            let thread = thread::Builder::new().name("blocking".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(move || queue.serve())?;
        }
        Ok(pool)
    }

    /// Has work done that may block, in its user's turn. A caller that is dropped meanwhile leaves it to be done.
    ///
    /// # Errors
    /// When too much of the user's waits already, or when the work has panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        user: u32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (tell, told) = oneshot::channel();
        // Nobody waits any more where the receiver has gone.
        let job = Box::new(move || drop(tell.send(work())));
        self.0.queue.submit(user, job)?;
        told.await.map_err(|_| PoolError::GivenUp)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.lock().is_over = true;
        self.queue.work.notify_all();
    }
}

impl Queue {
    fn submit(&self, id: u32, job: Job) -> Result<(), PoolError> {
        let mut state = self.lock();
        let user = state.users.entry(id).or_default();
        if user.waiting.len() >= WAITING_FOR_A_USER_MAX {
            return Err(PoolError::Full);
        }
        user.waiting.push_back(job);
        state.take_turn(id);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Works until the pool is over.
    fn serve(&self) {
        while let Some((user, job)) = self.next() {
            // Whoever waits for a piece that panics is told by its channel's end; the thread is there for the next one.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if outcome.is_err() {
                tracing::error!("a piece of work that may block has panicked; its request is refused");
            }
            self.lock().done(user);
            self.work.notify_one();
        }
    }

    fn next(&self) -> Option<(u32, Job)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.next() {
                return Some(next);
            }
            if state.is_over {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a user a turn, unless it has one already, or has nothing that may begin.
    fn take_turn(&mut self, id: u32) {
        let may_begin = self
            .users
            .get(&id)
            .is_some_and(|user| !user.waiting.is_empty() && user.busy < BUSY_FOR_A_USER_MAX);
        if may_begin && !self.turns.contains(&id) {
            self.turns.push_back(id);
        }
    }

    fn next(&mut self) -> Option<(u32, Job)> {
        let id = self.turns.pop_front()?;
        let user = self.users.get_mut(&id)?;
        let job = user.waiting.pop_front()?;
        user.busy += 1;
        self.take_turn(id);
        Some((id, job))
    }

    fn done(&mut self, id: u32) {
        if let Some(user) = self.users.get_mut(&id) {
            user.busy = user.busy.saturating_sub(1);
            if user.busy == 0 && user.waiting.is_empty() {
                self.users.remove(&id);
            }
        }
        self.take_turn(id);
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BlockingPool").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_users_blocked_work_leaves_threads_to_the_others() {
        let pool = BlockingPool::start().unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let blocked: Vec<_> = (0..2 * BLOCKING_THREADS)
            .map(|_| {
                let (pool, gate) = (pool.clone(), Arc::clone(&gate));
                tokio::spawn(async move { pool.run(1, move || gate.lock().unwrap().recv().is_ok()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(pool.run(2, || 42).await, Ok(42));
        for _ in 0..blocked.len() {
            release.send(()).unwrap();
        }
        for one in blocked {
            assert_eq!(one.await.unwrap(), Ok(true));
        }
    }

    #[tokio::test]
    async fn work_that_panics_is_refused_and_costs_no_thread() {
        let pool = BlockingPool::start().unwrap();
        for _ in 0..2 * BLOCKING_THREADS {
            let panics = || -> u8 { std::panic::resume_unwind(Box::new("on purpose")) };
            assert_eq!(pool.run(1, panics).await, Err(PoolError::GivenUp));
        }
        assert_eq!(pool.run(1, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn what_a_user_has_too_much_of_is_refused() {
        let pool = BlockingPool::start().unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut accepted = 0;
        while accepted <= WAITING_FOR_A_USER_MAX + BUSY_FOR_A_USER_MAX {
            let gate = Arc::clone(&gate);
            let job: Job = Box::new(move || while gate.lock().unwrap().recv().is_ok() {});
            if pool.0.queue.submit(1, job) == Err(PoolError::Full) {
                break;
            }
            accepted += 1;
        }
        assert!((WAITING_FOR_A_USER_MAX..=WAITING_FOR_A_USER_MAX + BUSY_FOR_A_USER_MAX).contains(&accepted));
        assert_eq!(pool.run(2, || ()).await, Ok(()));
        drop(release);
    }

    #[tokio::test]
    async fn users_take_turns() {
        let mut state = State::default();
        for user in [1, 1, 1, 2, 3] {
            state.users.entry(user).or_default().waiting.push_back(Box::new(|| ()));
            state.take_turn(user);
        }
        let mut order = Vec::new();
        while let Some((user, _)) = state.next() {
            order.push(user);
            state.done(user);
        }
        assert_eq!(order, [1, 2, 3, 1, 1]);
        assert!(state.users.is_empty());
    }
}
