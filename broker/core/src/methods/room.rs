//! Whether there is room for what a request makes the broker keep, before anything of it is done.

use procbroker_protocol::{CreateParams, Error, ErrorKind, Request, Target};

use crate::attempt::Attempt;
use crate::authorize::is_administrator;
use crate::broker::Broker;
use crate::event_log::Subscriber;
use crate::kept::{Account, Budget, Exceeded, Holder, bytes_of};
use crate::limits::REQUEST_KEPT_BYTES;
use crate::pending::watched_bytes;

impl Broker {
    /// Whether a request may wait that is none for a child.
    pub(crate) fn check_room(&self, uid: u32, request: &Request) -> Result<(), Error> {
        let children = match request {
            Request::Destroy(params) => self.meant_at_most(uid, &params.target),
            Request::Signal(params) => self.meant_at_most(uid, &params.target),
            Request::Restart(params) => self.meant_at_most(uid, &params.target),
            Request::Wait(_) | Request::Logs(_) => 1,
            // Where a create waits is decided later, and the others are answered at once, or are the administrators'.
            Request::Create(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Renew(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => return Ok(()),
        };
        self.check_waiting(uid, watched_bytes(children))
    }

    /// Whether a create may wait, with all that it says.
    pub(crate) fn check_parking(&self, uid: u32, attempt: &Attempt) -> Result<(), Error> {
        self.check_waiting(uid, attempt.bytes())
    }

    /// Whether there is room for one more live child.
    pub(crate) fn check_keeping(&self, uid: u32, params: &CreateParams) -> Result<(), Error> {
        let budget = self.config.bounds.children_bytes();
        let verdict = self.check(self.children.live_bytes(), budget, uid, bytes_of(params));
        verdict.map_err(|reason| {
            let message =
                format!("{reason}; let some children end, or give them shorter commands and environments");
            Error::new(ErrorKind::LimitExceeded, message)
        })
    }

    /// Whether there is room for one more subscriber to events.
    pub(crate) fn check_subscribing(&self, uid: u32, subscriber: &Subscriber) -> Result<(), Error> {
        self.check_waiting(uid, subscriber.bytes().saturating_sub(REQUEST_KEPT_BYTES))
    }

    fn check_waiting(&self, uid: u32, bytes: u64) -> Result<(), Error> {
        let budget = self.config.bounds.request_bytes();
        let verdict = self.check(self.pending.bytes(), budget, uid, REQUEST_KEPT_BYTES + bytes);
        verdict.map_err(|reason| {
            Error::new(ErrorKind::Overloaded, format!("{reason} for requests that wait; wait for some"))
        })
    }

    /// Whether so many more bytes of one kind are within the bounds, and which one they are over.
    fn check(&self, account: &Account, budget: Budget, uid: u32, more: u64) -> Result<(), String> {
        let holder = Holder { uid, is_administrator: is_administrator(&self.config, uid) };
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

    /// Returns how many children a target can mean.
    fn meant_at_most(&self, uid: u32, target: &Target) -> usize {
        match target {
            Target::Id(_) | Target::Name(_) => 1,
            Target::Labels(_) | Target::All if is_administrator(&self.config, uid) => {
                self.children.live_count()
            }
            Target::Labels(_) | Target::All => {
                usize::try_from(self.children.owned_count(uid)).unwrap_or(usize::MAX)
            }
        }
    }
}
