//! What is on its way to clients and from them, in bytes: each user has a part, and who does not read, or does not finish
//! what it says, uses up no more than that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::geteuid;
use procbroker_core::{Account, Budget, Exceeded, Holder};
use procbroker_protocol::{Error, ErrorKind};
use tokio::sync::Notify;

/// A handle to the count of all that is on its way.
#[derive(Clone, Debug)]
pub struct Transit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    budget: Budget,
    broker_uid: u32,
    account: Mutex<Account>,
    /// Tells those who wait for room that there may be some.
    freed: Notify,
}

/// Bytes that are on their way to one user, counted until this is dropped.
#[derive(Debug)]
pub struct Load {
    transit: Transit,
    user: u32,
    bytes: u64,
}

impl Transit {
    /// Nothing is on its way yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        let (account, freed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { budget, broker_uid: geteuid().as_raw(), account, freed }))
    }

    /// Returns how many bytes are on their way.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.account().all()
    }

    /// Counts bytes that are there already, whether there is room for them or not.
    #[must_use]
    pub fn add(&self, user: u32, bytes: u64) -> Load {
        self.account().add(user, bytes);
        Load { transit: self.clone(), user, bytes }
    }

    /// Counts bytes that are about to be there, if there is room for them.
    #[must_use]
    pub fn try_add(&self, user: u32, bytes: u64) -> Option<Load> {
        let mut account = self.account();
        // What takes nothing is never too much, whatever else there is.
        if bytes > 0 {
            account.check(self.0.budget, self.holder(user), bytes).ok()?;
        }
        account.add(user, bytes);
        drop(account);
        Some(Load { transit: self.clone(), user, bytes })
    }

    /// Whether there is room for so many bytes more.
    #[must_use]
    pub fn has_room(&self, user: u32, bytes: u64) -> bool {
        self.account().check(self.0.budget, self.holder(user), bytes).is_ok()
    }

    /// Waits until there may be room where there was none when this was called.
    pub fn freed(&self) -> impl Future<Output = ()> + '_ {
        self.0.freed.notified()
    }

    /// Waits until there is room for bytes that are about to be there, however long that takes, and counts them.
    pub async fn some_room(&self, user: u32, bytes: u64) -> Load {
        let bytes = bytes.min(self.0.budget.user);
        loop {
            let freed = self.freed();
            if let Some(load) = self.try_add(user, bytes) {
                return load;
            }
            freed.await;
        }
    }

    /// Waits for so long until there is room for bytes that are about to be there, and counts them. What is more than a
    /// user may have at all waits until there is nothing else.
    ///
    /// # Errors
    /// When there is none by then.
    pub async fn room(&self, user: u32, bytes: u64, patience: Duration) -> Result<Load, Error> {
        let room = tokio::time::timeout(patience, self.some_room(user, bytes)).await;
        room.map_err(|_| self.refusal(user, bytes.min(self.0.budget.user)))
    }

    /// Refuses a question of a user to whom so much is on its way that it has to read first.
    ///
    /// # Errors
    /// When it is more than half of what it may have, or than all may have.
    pub fn check(&self, user: u32) -> Result<(), Error> {
        let half = self.0.budget.user / 2;
        let verdict = self.account().check(self.0.budget, self.holder(user), half);
        verdict.map_err(|_| self.refusal(user, half))
    }

    /// Whether more than half of what may be on its way is: what is not read takes room from others.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.bytes() > self.0.budget.all / 2
    }

    /// Returns the error for a user for whom so many bytes more are too many.
    #[must_use]
    pub fn refusal(&self, user: u32, bytes: u64) -> Error {
        let Budget { user: own_max, all: all_max } = self.0.budget;
        let exceeded = self.account().check(self.0.budget, self.holder(user), bytes).err();
        let message = match exceeded {
            Some(Exceeded::All(all)) => format!(
                "{all} bytes are on their way to clients and from them, of {all_max} at most (--max-kept-bytes); try again, and read what comes"
            ),
            Some(Exceeded::User(own)) => format!(
                "{own} bytes are on their way to user {user} and from it, of {own_max} at most (--max-kept-bytes-per-user); read them first"
            ),
            None => format!("too many bytes were on their way to user {user} or from it; try again"),
        };
        Error::new(ErrorKind::Overloaded, message)
    }

    fn holder(&self, uid: u32) -> Holder {
        Holder { uid, is_administrator: uid == 0 || uid == self.0.broker_uid }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Nothing that can panic is done under the lock.
        self.0.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Whether its user has nothing else on its way.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.transit.account().of(self.user) <= self.bytes
    }

    /// Counts so many bytes from now on, whether there is room for them or not.
    pub fn resize(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes == self.bytes {
            return;
        }
        let mut account = self.transit.account();
        account.remove(self.user, self.bytes);
        account.add(self.user, bytes);
        drop(account);
        let is_less = bytes < self.bytes;
        self.bytes = bytes;
        if is_less {
            self.transit.0.freed.notify_waiters();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(60);

    fn transit() -> Transit {
        Transit::new(Budget { user: 100, all: 1000 })
    }

    #[tokio::test]
    async fn who_reads_makes_room_and_who_does_not_is_refused() {
        let transit = transit();
        let mut load = transit.room(7, 80, SOON).await.unwrap();
        let refused = transit.room(7, 80, SOON).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Overloaded);
        assert!(transit.check(7).is_err() && transit.check(8).is_ok());
        let others = transit.room(8, 80, SOON).await;
        assert!(others.is_ok(), "another user has room");
        let waiting = tokio::spawn({
            let transit = transit.clone();
            async move { transit.room(7, 80, LATE).await }
        });
        tokio::task::yield_now().await;
        load.resize(10);
        assert!(waiting.await.unwrap().is_ok());
        drop((load, others));
        assert_eq!(transit.bytes(), 0, "what was taken is given back");
    }

    #[tokio::test]
    async fn a_user_with_too_much_on_its_way_has_no_room_until_some_is_freed() {
        let transit = transit();
        let (first, mut second) = (transit.add(7, 60), transit.add(7, 50));
        assert!(!transit.has_room(7, 0) && transit.has_room(8, 100));
        assert!(!first.is_alone() && !second.is_alone());
        let freed = transit.freed();
        second.resize(20);
        freed.await;
        assert!(transit.has_room(7, 20) && !transit.has_room(7, 21));
        drop(second);
        assert!(first.is_alone());
    }

    #[tokio::test]
    async fn what_is_too_large_for_its_user_comes_alone() {
        let transit = transit();
        let large = transit.room(7, 5000, SOON).await.unwrap();
        assert!(transit.try_add(7, 1).is_none());
        assert!(transit.try_add(7, 0).is_some());
        drop(large);
        assert!(transit.try_add(7, 1).is_some());
    }
}
