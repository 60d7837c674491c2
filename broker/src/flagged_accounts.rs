//! The accounts that flags name, and the ids that they have.

use std::io;
use std::path::Path;

use procbroker_core::{AccountsFailure, UserRange};
use procbroker_protocol::create::Account;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::os::host::accounts;
use crate::os::host::subordinates::{self, FILE};

/// The ids of the accounts that flags name, as they were looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlaggedAccounts {
    /// The user ids that `--allow-user` names.
    pub allow_users: Vec<u32>,
    /// The group ids that `--allow-group` names.
    pub allow_groups: Vec<u32>,
    /// The users whose numbers accounts have beside their own, where a group is allowed.
    #[serde(default)]
    pub subordinates: Vec<UserRange>,
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

/// What is to be known of accounts could not be found out.
#[derive(Debug, Error)]
pub enum FlaggedAccountsError {
    /// A flag names an account that the system does not know.
    #[error("{flag} names {account}, which was not found ({}); check the name", failure.failure.errno_name)]
    Unknown {
        /// The flag that names it, with its dashes.
        flag: &'static str,
        /// The account as it was given.
        account: Account,
        /// What the look-up said.
        failure: Box<AccountsFailure>,
    },
    /// The subordinate users of accounts cannot be read.
    #[error(
        "cannot read {FILE}, which says whose numbers are no users of their own under --allow-group: {0}; make it readable, or \
         use --allow-user"
    )]
    Subordinates(#[source] io::Error),
}

impl AccountFlags {
    /// Asks the system for their ids, which may take as long as a name service does.
    ///
    /// # Errors
    /// Names the flag and the account that was not found.
    pub fn look_up(&self) -> Result<FlaggedAccounts, FlaggedAccountsError> {
        let group = self.socket_group.as_slice();
        let subordinates = if self.allow_group.is_empty() {
            Vec::new()
        } else {
            subordinates::read(Path::new(FILE)).map_err(FlaggedAccountsError::Subordinates)?
        };
        Ok(FlaggedAccounts {
            allow_users: resolve("--allow-user", &self.allow_user, accounts::user_id)?,
            allow_groups: resolve("--allow-group", &self.allow_group, accounts::group_id)?,
            subordinates,
            socket_group: resolve("--socket-group", group, accounts::group_id)?.pop(),
        })
    }
}

/// The ids of accounts that a flag names.
fn resolve(
    flag: &'static str,
    accounts: &[Account],
    look_up: fn(&Account) -> Result<u32, AccountsFailure>,
) -> Result<Vec<u32>, FlaggedAccountsError> {
    let id = |account: &Account| {
        look_up(account).map_err(|failure| FlaggedAccountsError::Unknown {
            flag,
            account: account.clone(),
            failure: Box::new(failure),
        })
    };
    accounts.iter().map(id).collect()
}
