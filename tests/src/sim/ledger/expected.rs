//! Which refusals follow from a request alone, by the contract.

use std::collections::BTreeSet;

use procbroker_core::{Accounts, AnchorSeen, Peer, ResourceBound, RunAs};
use procbroker_protocol::create::{IfExists, StandardError, StandardOutput};
use procbroker_protocol::{CreateParams, Request};

use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Link};

impl Ledger {
    /// The kind of the error that a request has to be refused with, whatever children there are.
    #[must_use]
    pub fn refusal(&self, link: &Link, asked: &Asked) -> Option<&'static str> {
        let uid = link.peer.uid;
        if link.unanswered >= self.config.bounds.max_pipelined {
            return Some("overloaded");
        }
        let for_administrators =
            matches!(asked.request, Request::Shutdown(_) | Request::Upgrade(_) | Request::Metrics(_));
        if for_administrators && !self.is_administrator(uid) {
            return Some("permission_denied");
        }
        match &asked.request {
            Request::Create(params) => {
                let known = params.request_id.is_some_and(|id| {
                    self.first_answer(uid, id).is_some() || self.superseded(uid, id).is_some()
                });
                let denied = || if known { None } else { self.denied(params, asked) };
                malformed(params, self.config.bounds.max_command_bytes).or_else(denied)
            }
            Request::Get(params) if !params.target.is_single() => Some("invalid_params"),
            Request::Wait(params) if !params.target.is_single() => Some("invalid_params"),
            Request::Logs(params) if !params.target.is_single() => Some("invalid_params"),
            Request::Metrics(_) => Some("unsupported"),
            Request::Restart(_)
            | Request::Renew(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Upgrade(_)
            | Request::Destroy(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Wait(_)
            | Request::Signal(_)
            | Request::Status(_)
            | Request::Shutdown(_) => None,
        }
    }

    /// Whether the accounts that a create names are unknown, or it asks for more than the caller has.
    fn denied(&self, params: &CreateParams, asked: &Asked) -> Option<&'static str> {
        let resources = params.resources.as_ref();
        let lacks = |bound: &ResourceBound| resources.and_then(|asked| bound.value(asked)).is_some();
        if self.config.lacking.keys().any(lacks) {
            return Some("unsupported");
        }
        let Ok(accounts) = &asked.fresh.accounts else { return Some("spawn_failed") };
        let user = accounts.user.as_ref().map(|user| user.uid);
        let denied = if self.config.broker_uid != 0 {
            user.is_some_and(|uid| uid != self.config.broker_uid) || accounts.groups.is_some()
        } else {
            asked.peer.uid != 0
                && (user.is_some_and(|uid| uid != asked.peer.uid) || !has_groups(&asked.peer, accounts))
        };
        let inherits = params.stdout == StandardOutput::Inherit || params.stderr == StandardError::Inherit;
        let forges = inherits && ![0, self.config.broker_uid].contains(&asked.peer.uid);
        if denied || forges || asked.fresh.caller.is_err() {
            return Some("permission_denied");
        }
        match asked.fresh.anchor.as_deref() {
            None => None,
            Some(Err(_)) => Some("not_found"),
            Some(Ok(AnchorSeen { real_uid, saved_uid, .. })) => {
                let is_own = [*real_uid, *saved_uid].contains(&asked.peer.uid);
                (asked.peer.uid != 0 && !is_own).then_some("permission_denied")
            }
        }
    }
}

/// The rights that a create's child gets, by the contract.
#[must_use]
pub fn rights(broker_uid: u32, asked: &Asked) -> Option<RunAs> {
    let Accounts { user, groups } = asked.fresh.accounts.as_ref().ok()?;
    let peer = &asked.peer;
    let own = |groups: &[u32]| RunAs::User { uid: peer.uid, gid: peer.gid, groups: groups.to_vec() };
    Some(match (user, groups) {
        _ if broker_uid != 0 => RunAs::Broker,
        (_, _) if peer.uid != 0 => own(&peer.groups),
        (None, None) => RunAs::Broker,
        (Some(user), None) if user.uid == peer.uid => RunAs::Broker,
        (None, Some(groups)) => own(groups),
        (Some(user), groups) => RunAs::User {
            uid: user.uid,
            gid: user.gid,
            groups: groups.as_ref().unwrap_or(&user.groups).clone(),
        },
    })
}

/// Whether the groups that are named, if any are, are exactly those of the caller.
fn has_groups(peer: &Peer, accounts: &Accounts) -> bool {
    let Some(named) = &accounts.groups else { return true };
    let with_first = |groups: &[u32]| groups.iter().copied().chain([peer.gid]).collect::<BTreeSet<_>>();
    with_first(named) == with_first(&peer.groups)
}

fn malformed(params: &CreateParams, command_bytes: u32) -> Option<&'static str> {
    let cleanup = params.cleanup.iter().flat_map(|cleanup| &cleanup.command);
    let bytes: usize = params.command.iter().chain(cleanup).map(|argument| argument.len() + 1).sum();
    if params.command.is_empty() || params.restart.backoff > params.restart.backoff_max {
        Some("invalid_params")
    } else if bytes > usize::try_from(command_bytes).unwrap_or(usize::MAX) {
        Some("limit_exceeded")
    } else if params.name.is_none() && params.if_exists != IfExists::Fail {
        Some("invalid_params")
    } else {
        None
    }
}
