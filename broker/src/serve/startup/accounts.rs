//! The accounts that flags name.

use procbroker_core::AccountsFailure;
use procbroker_protocol::create::Account;

use crate::cli::ServeArguments;
use crate::os::host::accounts;
use crate::serve::ServeError;
use crate::upgrade::FlaggedAccounts;

/// The accounts that flags name, as they are named.
#[derive(Clone, Debug)]
pub struct AccountFlags {
    allow_user: Vec<Account>,
    allow_group: Vec<Account>,
    socket_group: Option<Account>,
}

impl AccountFlags {
    /// Those that say who may connect.
    pub(crate) fn of_those_allowed(arguments: &ServeArguments) -> Self {
        let ServeArguments { allow_user, allow_group, .. } = arguments;
        Self { allow_user: allow_user.clone(), allow_group: allow_group.clone(), socket_group: None }
    }

    /// Those, and that of a socket which the broker makes itself.
    pub(crate) fn with_socket(self, arguments: &ServeArguments) -> Self {
        Self { socket_group: arguments.socket_group.clone(), ..self }
    }

    /// Asks the system for their ids, which may take as long as a name service does.
    ///
    /// # Errors
    /// Names the flag and the account that was not found.
    pub(crate) fn look_up(&self) -> Result<FlaggedAccounts, ServeError> {
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
) -> Result<Vec<u32>, ServeError> {
    let id = |account: &Account| {
        look_up(account).map_err(|failure| ServeError::Account {
            flag,
            account: account.clone(),
            failure: Box::new(failure),
        })
    };
    accounts.iter().map(id).collect()
}
