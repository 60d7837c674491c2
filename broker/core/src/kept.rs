//! What is kept for users, in bytes and in numbers: who has how much, how much of it all is for everybody, and what a child
//! counts for.

use std::collections::BTreeMap;

use procbroker_protocol::CreateParams;
use procbroker_protocol::create::{Account, Check, Probe, Ready};

/// What a child takes beside its texts, live or ended.
const CHILD_BYTES: usize = 512;

/// What a text takes beside its characters.
const TEXT_BYTES: usize = 32;

/// The part of each total that is left to root and the broker's user, as a divisor.
const RESERVE_DIVISOR: u64 = 10;

/// Returns how many places of a total a user may fill: the last tenth, and at least one of two, is left to
/// administrators, so that nobody keeps them from seeing what is going on and from ending it.
#[must_use]
pub(crate) fn places_for(total: u32, is_administrator: bool) -> u32 {
    let tenth = total / u32::try_from(RESERVE_DIVISOR).unwrap_or(total);
    let reserve = if is_administrator { 0 } else { tenth.max(1) };
    // Where there is one place only, it is for whoever comes first.
    total.saturating_sub(reserve).max(total.min(1))
}

/// How many bytes may be kept of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The most for one user, in bytes.
    pub user: u64,
    /// For all of them.
    pub all: u64,
}

/// The user whose bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUser {
    /// The number of the user.
    pub uid: u32,
    /// Whether it may use the part that is left to root and the broker's user.
    pub is_administrator: bool,
}

/// Why bytes are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The user has had its part: so many bytes.
    User(u64),
    /// All users together have had theirs.
    All(u64),
}

/// How many bytes are kept for each user.
#[derive(Clone, Debug, Default)]
pub struct QuotaUsage {
    users: BTreeMap<u32, u64>,
    all: u64,
}

impl QuotaUsage {
    /// Counts bytes that are kept from now on.
    pub fn add(&mut self, uid: u32, bytes: u64) {
        *self.users.entry(uid).or_default() += bytes;
        self.all += bytes;
    }

    /// Counts bytes off that are not kept any more.
    pub fn remove(&mut self, uid: u32, bytes: u64) {
        let Some(own) = self.users.get_mut(&uid) else {
            return;
        };
        let bytes = bytes.min(*own);
        *own -= bytes;
        self.all -= bytes;
        if *own == 0 {
            self.users.remove(&uid);
        }
    }

    /// Returns how many bytes are kept for a user.
    #[must_use]
    pub fn of(&self, uid: u32) -> u64 {
        self.users.get(&uid).copied().unwrap_or_default()
    }

    /// Returns how many bytes are kept in all.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.all
    }

    /// Returns the users for whom something is kept, with how much.
    pub fn users(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.users.iter().map(|(uid, bytes)| (*uid, *bytes))
    }

    /// Whether so many more bytes are within the bounds. What an administrator has is within the tenth that is left to those,
    /// or within all: whatever others have come to, the tenth is there.
    ///
    /// # Errors
    /// Which bound they are over.
    pub fn check(&self, budget: Budget, holder: QuotaUser, more: u64) -> Result<(), Exceeded> {
        let own = self.of(holder.uid);
        let (own_then, all_then) = (own.saturating_add(more), self.all.saturating_add(more));
        if own_then > budget.user {
            return Err(Exceeded::User(own));
        }
        let reserve = budget.all / RESERVE_DIVISOR;
        let is_within = if holder.is_administrator {
            own_then <= reserve || all_then <= budget.all
        } else {
            all_then <= budget.all - reserve
        };
        if is_within { Ok(()) } else { Err(Exceeded::All(self.all)) }
    }
}

/// Returns how many bytes a child counts for that was asked for like this, from its create until it is forgotten.
#[must_use]
pub fn bytes_of(params: &CreateParams) -> u64 {
    let cleanup = params.cleanup.iter().flat_map(|cleanup| &cleanup.command);
    let (probe, text) = match &params.ready {
        Ready::Probe(Probe { check: Check::Command(words), .. }) => (words.as_slice(), None),
        Ready::Probe(Probe { check: Check::Unix(text) | Check::Log(text), .. }) => (&[][..], Some(text)),
        Ready::Probe(Probe { check: Check::Tcp(_), .. }) | Ready::Spawn | Ready::Notify => (&[][..], None),
    };
    let words = params.command.iter().chain(cleanup).chain(probe).chain(text).chain(&params.cwd);
    let pairs = params.labels.iter().chain(&params.env).flat_map(|(key, value)| [key, value]);
    let limits = params.rlimits.keys().chain(params.limit.iter().map(|limit| &limit.key));
    let accounts =
        params.user.iter().chain(params.groups.iter().flatten()).filter_map(|account| match account {
            Account::Name(name) => Some(name),
            Account::Id(_) => None,
        });
    let texts = words.chain(pairs).chain(limits).chain(accounts).map(|text| text.len() + TEXT_BYTES);
    u64::try_from(CHILD_BYTES + texts.sum::<usize>()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { user: 60, all: 100 };

    fn user(uid: u32) -> QuotaUser {
        QuotaUser { uid, is_administrator: false }
    }

    #[test]
    fn a_user_has_its_part_and_leaves_the_rest_to_others() {
        let mut account = QuotaUsage::default();
        account.add(7, 60);
        assert_eq!(account.check(BUDGET, user(7), 1), Err(Exceeded::User(60)));
        assert_eq!(account.check(BUDGET, user(8), 30), Ok(()));
        account.remove(7, 60);
        assert_eq!((account.check(BUDGET, user(7), 60), account.all()), (Ok(()), 0));
        assert_eq!(account.users().count(), 0, "nothing is kept of a user who has nothing");
    }

    #[test]
    fn the_last_tenth_is_left_to_administrators() {
        let mut account = QuotaUsage::default();
        account.add(7, 60);
        account.add(8, 30);
        assert_eq!(account.check(BUDGET, user(9), 1), Err(Exceeded::All(90)));
        let root = QuotaUser { uid: 0, is_administrator: true };
        assert_eq!(account.check(BUDGET, root, 10), Ok(()));
        assert_eq!(account.check(BUDGET, root, 11), Err(Exceeded::All(90)));
    }

    #[test]
    fn the_tenth_of_administrators_is_there_whatever_others_have_come_to() {
        let mut account = QuotaUsage::default();
        account.add(7, 500);
        let root = QuotaUser { uid: 0, is_administrator: true };
        assert_eq!(account.check(BUDGET, root, 10), Ok(()));
        account.add(0, 10);
        assert_eq!(account.check(BUDGET, root, 1), Err(Exceeded::All(510)));
    }

    #[test]
    fn a_tenth_of_all_places_and_at_least_one_of_several_is_left_to_administrators() {
        let places = |total| (places_for(total, false), places_for(total, true));
        assert_eq!(places(10_000), (9_000, 10_000));
        assert_eq!(places(19), (18, 19));
        assert_eq!(places(9), (8, 9));
        assert_eq!(places(2), (1, 2));
        assert_eq!((places(1), places(0)), ((1, 1), (0, 0)));
    }

    #[test]
    fn every_text_of_a_create_counts() {
        let plain = CreateParams::new(vec!["a".to_owned()]);
        let long = || "x".repeat(1000);
        let base = bytes_of(&plain);
        for change in [
            CreateParams { command: vec!["a".to_owned(), long()], ..plain.clone() },
            CreateParams { env: [("A".to_owned(), long())].into(), ..plain.clone() },
            CreateParams { labels: [(long(), String::new())].into(), ..plain.clone() },
            CreateParams { cwd: Some(long()), ..plain.clone() },
            CreateParams { groups: Some(vec![Account::Name(long())]), ..plain.clone() },
            CreateParams { user: Some(Account::Name(long())), ..plain.clone() },
            CreateParams { ready: Ready::unix(long()), ..plain.clone() },
        ] {
            assert!(bytes_of(&change) >= base + 1000, "{change:?}");
        }
    }
}
