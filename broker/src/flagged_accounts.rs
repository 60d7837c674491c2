//! The accounts that flags name, and the ids that they have.

use procbroker_core::AccountsFailure;
use procbroker_protocol::create::Account;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::os::host::accounts;

/// The ids of the accounts that flags name, as they were looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlaggedAccounts {
    /// The user ids that `--allow-user` names.
    pub allow_users: Vec<u32>,
    /// The group ids that `--allow-group` names.
    pub allow_groups: Vec<u32>,
    /// Of `--socket-group`, which a socket that is made anew gets as well.
    pub socket_group: Option<u32>,
}

/// The accounts that flags name, as they are named.
#[derive(Clone, Debug)]
pub struct AccountFlags {
    /// What `--allow-user` was given: ids, or names to be looked up.
    pub allow_user: Vec<Account>,
    /// What `--allow-group` was given: ids, or names to be looked up.
    pub allow_group: Vec<Account>,
    /// Of `--socket-group`, where the broker makes its socket itself.
    pub socket_group: Option<Account>,
}

/// A flag names an account that the system does not know.
#[derive(Debug, Error)]
#[error("{flag} names {account}, which was not found ({}); check the name", failure.failure.errno_name)]
pub struct AccountError {
    /// The flag that names it, with its dashes.
    flag: &'static str,
    /// The account as it was given.
    account: Account,
    /// What the look-up said.
    failure: Box<AccountsFailure>,
}

impl AccountFlags {
    /// Asks the system for their ids, which may take as long as a name service does.
    ///
    /// # Errors
    /// Names the flag and the account that was not found.
    pub fn look_up(&self) -> Result<FlaggedAccounts, AccountError> {
        let group = self.socket_group.as_slice();
        Ok(FlaggedAccounts {
            allow_users: resolve("--allow-user", &self.allow_user, accounts::user_id)?,
            allow_groups: resolve("--allow-group", &self.allow_group, accounts::group_id)?,
            socket_group: resolve("--socket-group", group, accounts::group_id)?.pop(),
        })
    }
}

/// The ids of accounts that a flag names.
fn resolve(
    flag: &'static str,
    accounts: &[Account],
    look_up: fn(&Account) -> Result<u32, AccountsFailure>,
) -> Result<Vec<u32>, AccountError> {
    let id = |account: &Account| {
        look_up(account).map_err(|failure| AccountError {
            flag,
            account: account.clone(),
            failure: Box::new(failure),
        })
    };
    accounts.iter().map(id).collect()
}
