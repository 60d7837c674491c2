//! The accounts that the flags of `serve` name.

use crate::cli::ServeArguments;
use crate::flagged_accounts::AccountFlags;

/// Those that say who may connect.
pub(super) fn of_those_allowed(arguments: &ServeArguments) -> AccountFlags {
    let ServeArguments { allow_user, allow_group, .. } = arguments;
    AccountFlags { allow_user: allow_user.clone(), allow_group: allow_group.clone(), socket_group: None }
}

/// Those, and that of a socket which the broker makes itself.
pub(super) fn with_socket(arguments: &ServeArguments) -> AccountFlags {
    AccountFlags { socket_group: arguments.socket_group.clone(), ..of_those_allowed(arguments) }
}
