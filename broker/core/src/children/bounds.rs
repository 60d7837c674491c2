//! The bounds on live children: how many there may be, of one user, under one limit and in all, and how many bytes they may take.

use procbroker_protocol::{CreateParams, Error, ErrorKind, Target};

use super::Children;
use crate::authorize::is_administrator;
use crate::child::Child;
use crate::config::Config;
use crate::kept::{bytes_of, places_for};
use crate::room;

impl Children {
    /// Whether the bounds on all children and on those of one user leave a place for one more of a user, who asks for it like
    /// this: for one that `replaced` gives its place to, if there is one.
    ///
    /// # Errors
    /// `limit_exceeded`, with the bound that is reached.
    pub(crate) fn check_bounds(
        &self,
        config: &Config,
        uid: u32,
        params: &CreateParams,
        replaced: Option<&Child>,
    ) -> Result<(), Error> {
        let bounds = &config.bounds;
        let replaced_own = replaced.filter(|child| child.owner().uid == uid);
        let all = u32::try_from(self.placed_count()).unwrap_or(u32::MAX);
        let all = all.saturating_sub(u32::from(replaced.is_some()));
        let own = self.owned_count(uid).saturating_sub(u32::from(replaced_own.is_some()));
        let exceeded = |message: String| Err(Error::new(ErrorKind::LimitExceeded, message));
        if own >= bounds.max_children_per_user {
            return exceeded(format!(
                "user {uid} has as many live children as a user may have, {own} (--max-children-per-user)"
            ));
        }
        if all >= places_for(bounds.max_children, is_administrator(config, uid)) {
            return exceeded(format!(
                "the broker has {all} live children of the {} that it may have (--max-children, or fewer where there are few \
                 descriptors), and a tenth is left to root and the broker's user",
                bounds.max_children
            ));
        }
        self.check_room(config, uid, params, replaced_own)
    }

    /// Whether there is room for the texts of one more live child, beside what one of the same user that it replaces gives back.
    fn check_room(
        &self,
        config: &Config,
        uid: u32,
        params: &CreateParams,
        replaced: Option<&Child>,
    ) -> Result<(), Error> {
        let budget = config.bounds.children_bytes();
        let more = bytes_of(params).saturating_sub(replaced.map_or(0, Child::bytes));
        room::check(config, &self.live_bytes, budget, uid, more).map_err(|reason| {
            let message =
                format!("{reason}; let some children end, or give them shorter commands and environments");
            Error::new(ErrorKind::LimitExceeded, message)
        })
    }

    /// Returns how many live children a target can mean at the most, for a user who asks.
    pub(crate) fn meant_at_most(&self, config: &Config, uid: u32, target: &Target) -> usize {
        match target {
            Target::Id(_) | Target::Name(_) => 1,
            Target::Labels(_) | Target::All if is_administrator(config, uid) => self.live_count(),
            Target::Labels(_) | Target::All => usize::try_from(self.owned_count(uid)).unwrap_or(usize::MAX),
        }
    }
}
