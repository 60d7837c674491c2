//! Who may do what: one table of methods, and the rights that a child gets.

use std::sync::Arc;

use procbroker_protocol::create::{Account, StandardError, StandardOutput};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{CreateParams, Error, ErrorKind, Method};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::launch::{Caller, CallerUnknown, Launch, Login};

/// The client at the other end of a connection, as the kernel reported it when it connected
/// (`SO_PEERCRED` and `SO_PEERGROUPS`, unix(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective UID of the process that connected (`SO_PEERCRED`).
    pub uid: u32,
    /// The effective GID of the process that connected (`SO_PEERCRED`).
    pub gid: u32,
    /// The supplementary GIDs of the process that connected (`SO_PEERGROUPS`).
    pub groups: Vec<u32>,
    /// Its process, where that is known and can still be named.
    pub pid: Option<u32>,
}

/// The accounts that a `create` names, looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// The account of its `user`.
    pub user: Option<UserAccount>,
    /// The ids of its `groups`.
    pub groups: Option<Vec<u32>>,
}

/// A user as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAccount {
    /// The UID of the account.
    pub uid: u32,
    /// The GID of its first group (passwd(5)).
    pub gid: u32,
    /// All of its groups.
    pub groups: Vec<u32>,
    /// What programs are told of it.
    pub login: Arc<Login>,
}

/// An account that the system does not know, or could not look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountsFailure {
    /// The account that was asked for.
    pub account: Account,
    /// What failed: the step `user` or `groups`, with the system's error.
    pub failure: SpawnFailure,
}

/// Whose rights a child gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunAs {
    /// The broker's own: it is not root, or the caller is.
    Broker,
    /// Those of this user.
    User {
        /// The UID that the child runs with.
        uid: u32,
        /// The GID that the child runs with.
        gid: u32,
        /// The supplementary GIDs that the child runs with.
        groups: Vec<u32>,
    },
}

/// A process that asks for a signal, as `kill(2)` looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The UID of the caller, whose right to send the signal is asked for.
    pub uid: u32,
    /// Its number, if it has one here.
    pub pid: Option<u32>,
}

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Any client that may connect; it acts on its own children only.
    Own,
    /// Root and the broker's user.
    Administrator,
}

/// The whole table of who may call what.
const fn access(method: Method) -> Access {
    match method {
        Method::Create
        | Method::Destroy
        | Method::List
        | Method::Get
        | Method::Wait
        | Method::Signal
        | Method::Restart
        | Method::Renew
        | Method::Logs
        | Method::Events
        | Method::Status => Access::Own,
        Method::Metrics | Method::Shutdown | Method::Upgrade => Access::Administrator,
    }
}

/// Whether this user may act on everybody's children and on the broker itself.
pub(crate) fn is_administrator(config: &Config, uid: u32) -> bool {
    uid == 0 || uid == config.broker_uid
}

/// Whether the caller may see a child of this user and act on it.
pub(crate) fn may_act_on(config: &Config, uid: u32, owner: u32) -> bool {
    owner == uid || is_administrator(config, uid)
}

/// Whether the client may talk to the broker at all.
pub(crate) fn may_connect(config: &Config, peer: &Peer) -> Result<(), Error> {
    let in_group = |group: &u32| config.allow_groups.contains(group);
    if is_administrator(config, peer.uid) || config.allow_users.contains(&peer.uid) {
        return Ok(());
    }
    if in_group(&peer.gid) || peer.groups.iter().any(in_group) {
        // Whoever has tens of thousands of numbers would have as many users' shares.
        if config.subordinates.iter().any(|range| range.contains(peer.uid)) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "user {} is a subordinate number of another account (/etc/subuid), which makes it a member of no group here; \
                     that account itself may use this broker, and the administrator can allow this user with --allow-user",
                    peer.uid
                ),
            ));
        }
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "user {} may not use this broker; its administrator can allow it with --allow-user or --allow-group",
            peer.uid
        ),
    ))
}

/// Whether the caller may use a method.
pub(crate) fn may_call(config: &Config, peer: &Peer, method: Method) -> Result<(), Error> {
    match access(method) {
        Access::Own => Ok(()),
        Access::Administrator if is_administrator(config, peer.uid) => Ok(()),
        Access::Administrator => Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("{method} is for root and the broker's own user; user {} is neither", peer.uid),
        )),
    }
}

/// Whose rights the child gets that `peer` asks for: never more than the peer has itself.
pub(crate) fn run_as(
    config: &Config,
    peer: &Peer,
    params: &CreateParams,
    accounts: &Result<Accounts, AccountsFailure>,
) -> Result<RunAs, Error> {
    let accounts = accounts.as_ref().map_err(|unknown| {
        let AccountsFailure { account, failure } = unknown;
        Error::new(
            ErrorKind::SpawnFailed(failure.clone()),
            format!(
                "cannot create a child: the {} {account} was not found ({})",
                failure.step, failure.errno_name
            ),
        )
    })?;
    let named = accounts.user.as_ref().map(|user| user.uid);
    if config.broker_uid != 0 {
        return run_as_broker(config, params, accounts);
    }
    if peer.uid != 0 {
        return run_as_caller(peer, named, accounts);
    }
    Ok(match (&accounts.user, &accounts.groups) {
        (None, None) => RunAs::Broker,
        // Naming oneself asks for nothing else than naming nobody.
        (Some(user), None) if user.uid == peer.uid => RunAs::Broker,
        (None, Some(groups)) => RunAs::User { uid: peer.uid, gid: peer.gid, groups: groups.clone() },
        (Some(user), groups) => RunAs::User {
            uid: user.uid,
            gid: user.gid,
            groups: groups.as_ref().unwrap_or(&user.groups).clone(),
        },
    })
}

/// A broker without root's rights can give none but its own.
fn run_as_broker(config: &Config, params: &CreateParams, accounts: &Accounts) -> Result<RunAs, Error> {
    if let Some(user) = &accounts.user
        && user.uid != config.broker_uid
    {
        return Err(denied(format!(
            "cannot run a child as user {}: the broker runs as user {} and not as root, so its children run as that",
            user.uid, config.broker_uid
        )));
    }
    if params.groups.is_some() {
        return Err(denied(
            "cannot set the groups of a child: only a broker that runs as root can".to_owned(),
        ));
    }
    Ok(RunAs::Broker)
}

/// A caller that is not root can name itself, and exactly the groups that it has: to leave one out can open a file that is
/// closed to that group (CVE-2014-8989).
fn run_as_caller(peer: &Peer, named: Option<u32>, accounts: &Accounts) -> Result<RunAs, Error> {
    if let Some(uid) = named
        && uid != peer.uid
    {
        return Err(denied(format!(
            "user {} cannot run a child as user {uid}; only root may name another user",
            peer.uid
        )));
    }
    if let Some(groups) = &accounts.groups {
        let has = |group: &u32| *group == peer.gid || peer.groups.contains(group);
        if let Some(group) = groups.iter().find(|group| !has(group)) {
            return Err(denied(format!(
                "user {} cannot give a child group {group}: it is not in that group itself",
                peer.uid
            )));
        }
        let is_kept = |group: &u32| *group == peer.gid || groups.contains(group);
        if let Some(group) = peer.groups.iter().find(|group| !is_kept(group)) {
            return Err(denied(format!(
                "user {} cannot leave out group {group}: only root chooses groups; without `groups` a child has all \
                of its creator's",
                peer.uid
            )));
        }
    }
    Ok(RunAs::User { uid: peer.uid, gid: peer.gid, groups: peer.groups.clone() })
}

/// Who has to have the right to signal a process, as `kill(2)` asks for it: the caller, where the broker has more rights.
///
/// A broker that is not root has those of its children's user, and the kernel asks for them itself.
pub(crate) fn asker(config: &Config, peer: &Peer) -> Option<Asker> {
    (config.broker_uid == 0 && peer.uid != 0).then_some(Asker { uid: peer.uid, pid: peer.pid })
}

/// Whether the caller may have its child write to where the broker itself writes: whoever may forges what others read there.
pub(crate) fn may_inherit(config: &Config, peer: &Peer, params: &CreateParams) -> Result<(), Error> {
    let inherits = params.stdout == StandardOutput::Inherit || params.stderr == StandardError::Inherit;
    if !inherits || is_administrator(config, peer.uid) {
        return Ok(());
    }
    Err(denied(format!(
        "stdout and stderr `inherit` are the broker's own output, for root and the broker's own user; user {} is \
        neither: use `log`",
        peer.uid
    )))
}

/// What the process of a child starts with that gets these rights: no looser than its creator was at this moment.
pub(crate) fn launch(
    config: &Config,
    run_as: &RunAs,
    accounts: &Result<Accounts, AccountsFailure>,
    caller: &Result<Caller, CallerUnknown>,
) -> Result<Launch, Error> {
    let caller = caller.as_ref().map_err(|unknown| not_looked_into(*unknown))?;
    let login = match run_as {
        RunAs::User { uid, .. } if *uid != config.broker_uid => {
            let named = accounts.as_ref().ok().and_then(|accounts| accounts.user.as_ref());
            let known = named.map(|user| &user.login).or(caller.login.as_ref());
            Some(known.map_or_else(|| Arc::new(Login::of_number(*uid)), Arc::clone))
        }
        RunAs::User { .. } | RunAs::Broker => None,
    };
    Ok(Launch { login, confinement: caller.confinement.clone() })
}

/// The error for a create whose caller's confinement is not known.
fn not_looked_into(unknown: CallerUnknown) -> Error {
    match unknown {
        CallerUnknown::Gone => denied(
            "cannot create a child: the process that opened this connection is gone, and with it what confined it; \
            connect from the process that creates"
                .to_owned(),
        ),
        CallerUnknown::Closed => denied(
            "cannot create a child: the kernel does not tell the broker what confines the process that asks for it \
            (/proc/PID/status)"
                .to_owned(),
        ),
        CallerUnknown::Short(shortage) => {
            let (errno, name) = shortage.errno();
            let (errno_name, step) = (name.to_owned(), "caller".to_owned());
            let failure = SpawnFailure { errno, errno_name, step };
            let message = format!(
                "cannot create a child: there is nothing left to find out with what confines its caller ({name})"
            );
            Error::new(ErrorKind::SpawnFailed(failure), message)
        }
    }
}

fn denied(message: String) -> Error {
    Error::new(ErrorKind::PermissionDenied, message)
}
