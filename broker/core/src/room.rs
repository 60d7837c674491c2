//! Whether a user may have more bytes kept, and which bound forbids it if not.

use crate::authorize::is_administrator;
use crate::config::Config;
use crate::kept::{Budget, Exceeded, QuotaUsage, QuotaUser};

/// Whether so many more bytes of one kind may be kept for a user.
///
/// # Errors
/// Which bound they are over, in the words of a message that goes on with the way out.
pub(crate) fn check(
    config: &Config,
    account: &QuotaUsage,
    budget: Budget,
    uid: u32,
    more: u64,
) -> Result<(), String> {
    let holder = QuotaUser { uid, is_administrator: is_administrator(config, uid) };
    account.check(budget, holder, more).map_err(|exceeded| match exceeded {
        Exceeded::User(own) => format!(
            "{more} bytes more than the {own} that are kept for user {uid} are over its part of \
             --max-kept-bytes-per-user, {}",
            budget.user
        ),
        Exceeded::All(all) => format!(
            "{more} bytes more than the {all} that are kept are over this part of --max-kept-bytes, {}, of which a \
             tenth is left to root and the broker's user",
            budget.all
        ),
    })
}
