//! What is on its way to clients and from them, in bytes: each user has a part, and who does not read, or does not finish
//! what it says, uses up no more than that.
//!
//! A little of it, a share, each connection has for itself: what is no larger finds room whatever its user's other
//! connections have on their way and do not read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::geteuid;
use procbroker_core::{Bounds, Budget, Exceeded, QuotaUsage, QuotaUser};
use procbroker_protocol::{Error, ErrorKind};
use tokio::sync::Notify;

use crate::limits::{SHARE_BYTES_MIN, SHARES_OF_A_CONNECTION};

/// A handle to the count of all that is on its way.
#[derive(Clone, Debug)]
pub struct Transit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What may be on its way beside the shares of connections.
    budget: Budget,
    /// What a share of a connection is, in bytes.
    share: u64,
    broker_uid: u32,
    account: Mutex<QuotaUsage>,
    /// Tells those who wait for room that there may be some.
    freed: Notify,
}

/// Bytes that are on their way to one user, counted until this is dropped.
#[derive(Debug)]
pub struct Load {
    transit: Transit,
    user: u32,
    /// Those that are counted.
    bytes: u64,
    /// Those that need not be: there is room for them on the connection.
    share: u64,
}

impl Transit {
    /// Nothing is on its way yet, and within these bounds it stays.
    #[must_use]
    pub fn within(bounds: &Bounds) -> Self {
        Self::with_share(bounds.answer_bytes(), bounds.connection_bytes() / SHARES_OF_A_CONNECTION)
    }

    /// Nothing is on its way yet. Connections have the smallest shares.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self::with_share(budget, SHARE_BYTES_MIN)
    }

    fn with_share(budget: Budget, share: u64) -> Self {
        let (share, account, freed) = (share.max(SHARE_BYTES_MIN), Mutex::default(), Notify::new());
        Self(Arc::new(Shared { budget, share, broker_uid: geteuid().as_raw(), account, freed }))
    }

    /// Returns how many bytes are on their way, beside the shares of connections.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.account().all()
    }

    /// Counts bytes that are there already, whether there is room for them or not.
    #[must_use]
    pub fn add(&self, user: u32, bytes: u64) -> Load {
        self.account().add(user, bytes);
        Load { transit: self.clone(), user, bytes, share: 0 }
    }

    /// Counts bytes that are about to be there, if there is room for them.
    #[must_use]
    pub fn try_add(&self, user: u32, bytes: u64) -> Option<Load> {
        self.try_add_beside(0, user, bytes)
    }

    /// Counts bytes that are about to be there beside a share of their connection, if there is room for them. For what is
    /// no larger than the share there always is.
    #[must_use]
    pub fn try_add_to_share(&self, user: u32, bytes: u64) -> Option<Load> {
        self.try_add_beside(self.0.share, user, bytes)
    }

    /// Finds room for bytes that are about to be there, or else for as many of them as a share of their connection is.
    /// Returns for how many.
    #[must_use]
    pub fn room_or_share(&self, user: u32, bytes: u64) -> (Load, u64) {
        match self.try_add_to_share(user, bytes) {
            Some(load) => (load, bytes),
            None => (self.share(user), bytes.min(self.0.share)),
        }
    }

    /// A share of a connection, with nothing in it yet.
    #[must_use]
    pub fn share(&self, user: u32) -> Load {
        Load { transit: self.clone(), user, bytes: 0, share: self.0.share }
    }

    fn try_add_beside(&self, share: u64, user: u32, bytes: u64) -> Option<Load> {
        let bytes = bytes.saturating_sub(share);
        let mut account = self.account();
        // What takes nothing is never too much, whatever else there is.
        if bytes > 0 {
            account.check(self.0.budget, self.holder(user), bytes).ok()?;
        }
        account.add(user, bytes);
        drop(account);
        Some(Load { transit: self.clone(), user, bytes, share })
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

    /// Waits for so long until there is room, beside a share of their connection, for bytes that are about to be there, and
    /// counts them. What is more than a user may have at all waits until there is nothing else.
    ///
    /// # Errors
    /// When there is none by then.
    pub async fn room(&self, user: u32, bytes: u64, patience: Duration) -> Result<Load, Error> {
        let bytes = bytes.min(self.0.budget.user.saturating_add(self.0.share));
        let room = async {
            loop {
                let freed = self.freed();
                if let Some(load) = self.try_add_to_share(user, bytes) {
                    return load;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, room)
            .await
            .map_err(|_| self.refusal(user, bytes.saturating_sub(self.0.share)))
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

    fn holder(&self, uid: u32) -> QuotaUser {
        QuotaUser { uid, is_administrator: uid == 0 || uid == self.0.broker_uid }
    }

    fn account(&self) -> MutexGuard<'_, QuotaUsage> {
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

    /// Counts so many bytes from now on, less the share that they have, whether there is room for them or not.
    pub fn resize(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.count(bytes.saturating_sub(self.share));
    }

    /// Leaves the share of the connection to something else: these bytes are counted, all of them, from now on.
    pub fn leave_share(&mut self, bytes: usize) {
        self.share = 0;
        self.resize(bytes);
    }

    fn count(&mut self, bytes: u64) {
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
        self.count(0);
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
    async fn what_is_no_larger_than_a_share_finds_room_whatever_else_is_on_its_way() {
        let transit = Transit::with_share(Budget { user: 100, all: 1000 }, 20);
        let others = transit.add(7, 100);
        assert!(transit.room(7, 20, SOON).await.is_ok() && transit.try_add_to_share(7, 20).is_some());
        assert!(transit.room(7, 21, SOON).await.is_err() && transit.try_add(7, 1).is_none());
        let (mut load, granted) = transit.room_or_share(7, 50);
        load.resize(19);
        assert_eq!((granted, transit.bytes()), (20, 100));
        load.resize(24);
        assert_eq!(transit.bytes(), 104, "what is more is counted");
        load.leave_share(24);
        assert_eq!(transit.bytes(), 124);
        drop((load, others));
        let (load, granted) = transit.room_or_share(7, 50);
        assert_eq!((granted, transit.bytes()), (50, 30));
        drop(load);
        assert_eq!(transit.bytes(), 0);
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
