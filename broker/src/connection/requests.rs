//! What a client asks: it is read, completed with what the decision about it needs, and handed to the driver.

use std::io;
use std::sync::Arc;

use nix::unistd::geteuid;
use procbroker_core::{Accounts, AccountsFailure, Call, Caller, Fresh, GROUPS_MAX, Input};
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::{ChildId, CreateParams, Method, Request};
use uuid::Uuid;

use super::codec::{self, Incoming};
use super::unanswered::{Effort, Unanswered};
use super::{Closing, Connection, ConnectionContext, Reading};
use crate::blocking_pool::{PoolError, unavailable};
use crate::limits::{MESSAGE_BYTES_UNCOUNTED, READ_CHUNK_BYTES};
use crate::messages::Fact;
use crate::os::host::accounts;
use crate::os::process::anchor;

impl Connection {
    /// The next message that the client has sent entirely, unless it has to read first.
    pub(super) fn next_incoming(&mut self) -> Option<Incoming> {
        if !self.may_read() {
            return None;
        }
        let incoming = self.codec.next();
        if incoming.is_some() {
            self.partial_until = None;
        }
        incoming
    }

    /// How much more of a message that is not complete may be kept. A little always may, so that others of its user's
    /// connections can go on.
    pub(super) fn readable_bytes(&self) -> usize {
        let ConnectionContext { transit, user, .. } = &self.context;
        if transit.has_room(*user, READ_CHUNK_BYTES as u64) || self.arriving.is_alone() {
            READ_CHUNK_BYTES
        } else if self.codec.kept() < MESSAGE_BYTES_UNCOUNTED {
            MESSAGE_BYTES_UNCOUNTED
        } else {
            0
        }
    }

    /// Counts what is kept of messages that are not complete, where that is much.
    pub(super) fn count_arriving(&mut self) {
        let bytes = self.codec.kept();
        self.arriving.resize(if bytes > MESSAGE_BYTES_UNCOUNTED { bytes } else { 0 });
    }

    /// Takes what the client has sent.
    pub(super) fn read(&mut self) -> Option<Closing> {
        let most = self.readable_bytes();
        if most == 0 {
            // There was room for it just now.
            return None;
        }
        match self.codec.read_from(&self.socket, most) {
            Ok(0) => {
                self.reading = Reading::Over;
                self.codec.finish();
                None
            }
            Ok(length) => {
                if length < most {
                    // The socket is empty, and what comes now is a new event: there is no need to ask again.
                    self.socket.is_empty_now();
                }
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Closing::Gone),
        }
    }

    /// Hands a request to the driver, or answers what is none.
    pub(super) async fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Request { id, request } => {
                let number = self.next_number;
                self.next_number += 1;
                let effort = Effort::of(&request);
                // One for output waits for its room where that is read.
                let is_read_later = request.method() == Method::Logs;
                // What others of its user do not read is looked at when the answer is there.
                let owes_reading = !self.unwritten.is_empty();
                if effort == Effort::Question
                    && !is_read_later
                    && owes_reading
                    && let Err(error) = self.context.transit.check(self.context.user)
                {
                    return codec::encode(&id, &Err(error), &mut self.unwritten);
                }
                self.unanswered.insert(number, Unanswered { id, effort });
                let call = Call { connection: self.context.id, number };
                let fresh = match self.fresh(&request).await {
                    Ok(fresh) => fresh,
                    Err(error) => return self.encode_answer(number, Err(unavailable(error)), None).await,
                };
                if self.context.facts.send(Fact::Input(Input::Called { call, request, fresh })).await.is_err()
                {
                    // The driver has gone: what it has left for this client is sent, and no more is taken.
                    self.reading = Reading::Over;
                }
            }
            Incoming::Refused { id, error } => codec::encode(&id, &Err(error), &mut self.unwritten),
            Incoming::Bytes(bytes) => self.unwritten.extend_from_slice(&bytes),
            Incoming::Fatal(bytes) => {
                self.unwritten.extend_from_slice(&bytes);
                self.reading = Reading::Over;
            }
        }
    }

    /// What the decision about a request needs from outside: a new id, accounts and processes that are looked up.
    async fn fresh(&mut self, request: &Request) -> Result<Fresh, PoolError> {
        let Request::Create(params) = request else {
            let (accounts, caller) = (Ok(Accounts::default()), Ok(Caller::default()));
            let child = ChildId::from_uuid(Uuid::nil());
            return Ok(Fresh { child, accounts, caller, anchor: None });
        };
        let child = ChildId::from_uuid(Uuid::now_v7());
        let accounts = self.accounts(params).await?;
        let ConnectionContext { baseline, status_cache, pid, login, .. } = &mut self.context;
        let login = login.clone();
        let confinement = baseline.confinement(self.socket.descriptor(), *pid, status_cache);
        let anchor = match params.lifetime {
            Lifetime::Pid(number) => Some(Box::new(anchor::find(number, self.socket.descriptor(), *pid))),
            Lifetime::Broker | Lifetime::Connection | Lifetime::Ttl(_) => None,
        };
        let caller = confinement.map(|confinement| Caller { login, confinement });
        Ok(Fresh { child, accounts, caller, anchor })
    }

    /// Looks up the accounts that a create names, and the caller's own if its child is told of it.
    async fn accounts(
        &mut self,
        params: &CreateParams,
    ) -> Result<Result<Accounts, AccountsFailure>, PoolError> {
        let ConnectionContext { pool, user, login, .. } = &mut self.context;
        let user = *user;
        let needs_login = login.is_none() && user != 0 && params.user.is_none() && geteuid().is_root();
        if !needs_login && params.user.is_none() && params.groups.is_none() {
            return Ok(Ok(Accounts::default()));
        }
        if params.groups.as_ref().is_some_and(|groups| groups.len() > GROUPS_MAX) {
            // The core refuses it, whatever they are.
            return Ok(Ok(Accounts::default()));
        }
        // A look-up may ask a server (nsswitch.conf(5)), which nobody else has to wait for.
        let wanted = params.clone();
        let look_up = move || {
            let own = if needs_login { Some(Arc::new(accounts::login(user)?)) } else { None };
            Ok((own, accounts::look_up(&wanted)?))
        };
        let found = pool.run(user, look_up).await?;
        Ok(found.map(|(own, accounts)| {
            *login = own.or(login.take());
            accounts
        }))
    }
}
