//! Who is allowed to connect, and is kept out all the same by the mode and the group of the socket.

use procbroker_protocol::create::Account;

use crate::cli::ServeArguments;
use crate::flagged_accounts::FlaggedAccounts;
use crate::os::host::accounts;

/// The permission of others than its owner and its group to connect.
const WRITE_BY_OTHERS: u32 = 0o002;

/// The permission of its group.
const WRITE_BY_GROUP: u32 = 0o020;

/// One line for each user and group that is allowed and, by the permissions of a socket of this group, cannot connect.
pub(super) fn lines(arguments: &ServeArguments, allowed: &FlaggedAccounts, socket_group: u32) -> Vec<String> {
    let mode = arguments.socket_mode;
    if mode & WRITE_BY_OTHERS != 0 || mode & WRITE_BY_GROUP == 0 {
        return Vec::new();
    }
    let group = match &arguments.socket_group {
        Some(group) => format!("its group, {group} (--socket-group)"),
        None => format!("its group, {socket_group}, which is the broker's own"),
    };
    let users = arguments.allow_user.iter().zip(&allowed.allow_users);
    let users = users.filter(|(_, uid)| !is_member(**uid, socket_group)).map(|(user, _)| {
        format!(
            "--allow-user {user} lets nobody in: the socket (mode {mode:03o}) is open to {group}, of which that user is no \
             member; name one of its groups with --socket-group, or open the socket with --socket-mode 666"
        )
    });
    let groups = arguments.allow_group.iter().zip(&allowed.allow_groups);
    let groups = groups.filter(|(_, gid)| **gid != socket_group).map(|(allowed, _)| {
        format!(
            "--allow-group {allowed} lets in only those of its members to whom the socket (mode {mode:03o}) is open: those who \
             are of {group}, too; give --socket-group {allowed}, or open the socket with --socket-mode 666"
        )
    });
    users.chain(groups).collect()
}

/// Whether a user is in a group, as the system knows it; where it does not tell, it may be. Root may connect to any socket.
fn is_member(uid: u32, group: u32) -> bool {
    uid == 0 || accounts::groups(&Account::Id(uid)).is_none_or(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(flags: &[&str], socket_group: u32) -> Vec<String> {
        let arguments = ServeArguments::parsed(flags).unwrap();
        let allowed = FlaggedAccounts {
            allow_users: arguments.allow_user.iter().map(|user| accounts::user_id(user).unwrap()).collect(),
            allow_groups: arguments
                .allow_group
                .iter()
                .map(|group| accounts::group_id(group).unwrap())
                .collect(),
            ..FlaggedAccounts::default()
        };
        lines(&arguments, &allowed, socket_group)
    }

    #[test]
    fn who_is_allowed_and_not_of_the_sockets_group_is_named_with_the_way_out() {
        // Users without an account are in the group of the same number alone.
        let one = said(&["--allow-user", "3999999", "--socket-mode", "660"], 0);
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(one[0].starts_with(
            "--allow-user 3999999 lets nobody in: the socket (mode 660) is open to its group, 0,"
        ));
        assert!(one[0].contains("--socket-group") && one[0].contains("--socket-mode 666"), "{one:?}");
        let flags =
            ["--allow-user=3999999", "--allow-user=3999998", "--socket-mode=660", "--socket-group=3999999"];
        let one = said(&flags, 3_999_999);
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(one[0].starts_with("--allow-user 3999998 lets nobody in"), "{one:?}");
        let one = said(&["--allow-group", "3999999", "--socket-mode", "660"], 0);
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(one[0].contains("give --socket-group 3999999, or"), "{one:?}");
    }

    #[test]
    fn who_can_connect_is_not_told_of() {
        let none: [&[&str]; 6] = [
            &["--allow-user", "3999999", "--socket-mode", "666"],
            &["--allow-user", "3999999", "--socket-mode", "602"],
            &["--allow-user", "0", "--socket-mode", "660"],
            &["--allow-user", "7", "--allow-group", "7", "--socket-mode", "660", "--socket-group", "7"],
            &["--socket-mode", "660"],
            // That nobody but its owner can connect is told of all of them at once.
            &["--allow-user", "3999999"],
        ];
        for flags in none {
            assert_eq!(said(flags, 7), Vec::<String>::new(), "{flags:?}");
        }
    }
}
