//! Looks up users and groups by name (`nsswitch.conf(5)`), which may take as long as a directory service takes.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use procbroker_core::{Accounts, AccountsFailure, Login, UserAccount};
use procbroker_protocol::CreateParams;
use procbroker_protocol::create::{ACCOUNT_NAME_BYTES_MAX, Account};
use procbroker_protocol::error::SpawnFailure;

/// Looks up what a `create` names. This may block: it is for a thread that may.
///
/// A number needs no entry: such a user then has the group of the same number and no other.
///
/// # Errors
/// The first account that the system does not know (ENOENT) or could not look up.
pub fn look_up(params: &CreateParams) -> Result<Accounts, AccountsFailure> {
    let user = params.user.as_ref().map(user).transpose()?;
    let groups = params.groups.as_ref();
    let groups = groups.map(|groups| groups.iter().map(group_id).collect()).transpose()?;
    Ok(Accounts { user, groups })
}

/// The number of a user.
///
/// # Errors
/// When the system does not know the name (ENOENT), or could not look it up.
pub fn user_id(account: &Account) -> Result<u32, AccountsFailure> {
    user(account).map(|user| user.uid)
}

/// The groups that a user is in; none where the system does not tell.
#[must_use]
pub fn groups(account: &Account) -> Option<Vec<u32>> {
    user(account).ok().map(|user| user.groups)
}

/// The number of a group.
///
/// # Errors
/// When the system does not know the name (ENOENT), or could not look it up.
pub fn group_id(account: &Account) -> Result<u32, AccountsFailure> {
    match account {
        Account::Id(id) => Ok(*id),
        Account::Name(name) => match bounded(name).and_then(Group::from_name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(failure("groups", account, Errno::ENOENT)),
            Err(errno) => Err(failure("groups", account, errno)),
        },
    }
}

/// What looks up names copies them to its stack, however long they are.
fn bounded(name: &str) -> Result<&str, Errno> {
    if name.len() > ACCOUNT_NAME_BYTES_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(name) }
}

fn user(account: &Account) -> Result<UserAccount, AccountsFailure> {
    let failed = |errno| failure("user", account, errno);
    let found = match account {
        Account::Name(name) => bounded(name).and_then(User::from_name),
        Account::Id(id) => User::from_uid(Uid::from_raw(*id)),
    };
    match (found, account) {
        (Ok(Some(user)), Account::Name(_) | Account::Id(_)) => Ok(UserAccount {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups_of(&user).map_err(failed)?,
            login: Arc::new(login_of(&user)),
        }),
        // Some systems say ENOENT, ESRCH, EBADF or EPERM where they mean "not found" (getpwnam(3)).
        (Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM), Account::Id(id)) => {
            Ok(UserAccount { uid: *id, gid: *id, groups: vec![*id], login: Arc::new(Login::of_number(*id)) })
        }
        (Ok(None), Account::Name(_)) => Err(failed(Errno::ENOENT)),
        (Err(errno), Account::Name(_) | Account::Id(_)) => Err(failed(errno)),
    }
}

/// Looks up what programs are told of a user. This may block: it is for a thread that may.
///
/// # Errors
/// When the system could not look it up.
pub fn login(uid: u32) -> Result<Login, AccountsFailure> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(login_of(&user)),
        // Some systems say so where they mean "not found" (getpwnam(3)).
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => {
            Ok(Login::of_number(uid))
        }
        Err(errno) => Err(failure("user", &Account::Id(uid), errno)),
    }
}

/// An entry may leave out the home and the shell (passwd(5)).
fn login_of(user: &User) -> Login {
    let or = |path: &Path, other: &str| match path.to_string_lossy().as_ref() {
        "" => other.to_owned(),
        path => path.to_owned(),
    };
    Login { name: user.name.clone(), home: or(&user.dir, "/"), shell: or(&user.shell, "/bin/sh") }
}

fn groups_of(user: &User) -> Result<Vec<u32>, Errno> {
    let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    Ok(getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect())
}

fn failure(step: &str, account: &Account, errno: Errno) -> AccountsFailure {
    let failure =
        SpawnFailure { errno: errno as i32, errno_name: format!("{errno:?}"), step: step.to_owned() };
    AccountsFailure { account: account.clone(), failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(user: Option<&str>, groups: Option<&[&str]>) -> CreateParams {
        CreateParams {
            user: user.map(Account::from_text),
            groups: groups.map(|groups| groups.iter().map(|group| Account::from_text(group)).collect()),
            ..CreateParams::new(vec!["true".to_owned()])
        }
    }

    #[test]
    fn root_is_known_by_name_and_by_number() {
        for text in ["root", "0"] {
            let accounts = look_up(&params(Some(text), Some(&[text, "4000000"]))).unwrap();
            let user = accounts.user.unwrap();
            assert_eq!((user.uid, user.gid), (0, 0));
            assert_eq!((user.login.name.as_str(), user.login.home.as_str()), ("root", "/root"));
            assert_eq!(*user.login, login(0).unwrap());
            assert!(user.groups.contains(&0));
            assert_eq!(accounts.groups, Some(vec![0, 4_000_000]));
            assert_eq!(user_id(&Account::from_text(text)).unwrap(), 0);
        }
        assert_eq!(look_up(&params(None, None)).unwrap(), Accounts::default());
    }

    #[test]
    fn a_number_without_an_entry_is_a_user_with_its_own_group() {
        let user = look_up(&params(Some("3999999"), None)).unwrap().user;
        let login = Arc::new(login(3_999_999).unwrap());
        assert_eq!(*login, Login::of_number(3_999_999));
        let expected = UserAccount { uid: 3_999_999, gid: 3_999_999, groups: vec![3_999_999], login };
        assert_eq!(user, Some(expected));
    }

    #[test]
    fn no_name_is_looked_up_that_is_longer_than_any() {
        let name = |bytes: usize| Account::Name("a".repeat(bytes));
        for (account, errno) in [
            (name(ACCOUNT_NAME_BYTES_MAX), Errno::ENOENT),
            (name(ACCOUNT_NAME_BYTES_MAX + 1), Errno::ENAMETOOLONG),
        ] {
            assert_eq!(user_id(&account).unwrap_err().failure.errno, errno as i32);
            assert_eq!(group_id(&account).unwrap_err().failure.errno, errno as i32);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_step() {
        for (params, step) in [
            (params(Some("nobody-is-called-so"), None), "user"),
            (params(None, Some(&["root", "nobody-is-called-so"])), "groups"),
        ] {
            let failure = look_up(&params).unwrap_err();
            assert_eq!(failure.account, Account::from_text("nobody-is-called-so"));
            assert_eq!(failure.failure.step, step);
            assert_eq!(failure.failure.errno, Errno::ENOENT as i32);
            assert_eq!(failure.failure.errno_name, "ENOENT");
        }
    }
}
