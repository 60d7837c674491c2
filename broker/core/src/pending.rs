//! Requests that are not answered yet, in the order of their arrival, and all by which one is found again: its connection, the
//! children that it waits for, the limit under which it wants a place, and its timer.

mod account;
mod progress;
mod signal_request;
mod waits_for;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procbroker_protocol::{ChildId, Error, ErrorKind};
use uuid::Uuid;

use crate::attempt::{Attempt, Claim, Waiting};
use crate::config::Config;
use crate::ids::{Call, ConnectionId, Ticket};
use crate::kept::QuotaUsage;
use crate::limits::REQUEST_KEPT_BYTES;
use crate::places::Places;
use crate::room;
use crate::time::Instant;
use crate::timers::{Timer, Timers};
use account::Account;

pub(crate) use signal_request::{SignalRequest, SignalVerdict};
pub(crate) use waits_for::{Meant, WaitsFor, watched_bytes};

/// A request that waits.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    /// Where the answer goes.
    pub(crate) call: Call,
    /// The user whose request it is.
    pub(crate) uid: u32,
    /// When its patience ends.
    pub(crate) due: Option<Instant>,
    /// What it waits for.
    pub(crate) waits_for: WaitsFor,
}

impl PendingRequest {
    /// Returns the create that it is, where that waits for a name.
    pub(crate) fn into_create(self) -> Option<Waiting> {
        let Self { call, uid, waits_for, .. } = self;
        let WaitsFor::Name { attempt, .. } = waits_for else {
            return None;
        };
        Some(Waiting { call, uid, attempt: *attempt })
    }

    /// Returns the key under which one more place is kept for it, if one is.
    pub(crate) fn kept_under(&self) -> Option<String> {
        self.waits_for.kept_place().map(|(key, _)| key.to_owned())
    }
}

/// The smallest step of the clock: what is due then is due in a turn of its own.
const NANOSECOND: Duration = Duration::from_nanos(1);

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    by_ticket: BTreeMap<Ticket, PendingRequest>,
    /// The requests of each connection, by their numbers there.
    by_connection: BTreeMap<ConnectionId, BTreeMap<u64, Ticket>>,
    /// The requests that each child matters to.
    by_child: BTreeMap<ChildId, BTreeSet<Ticket>>,
    /// The creates that wait for a place under a limit.
    places: Places,
    next: u64,
    bytes: Account,
}

impl PendingRequests {
    /// Returns the next place in the order of arrival.
    pub(crate) fn arrive(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        ticket
    }

    /// Lets a request wait: a create that waited before has kept its place in the order of arrival.
    pub(crate) fn add(&mut self, request: PendingRequest, timers: &mut Timers) {
        let ticket = request.waits_for.arrived().unwrap_or_else(|| self.arrive());
        let (Call { connection, number }, uid) = (request.call, request.uid);
        self.bytes.add(uid, &request.waits_for);
        if let Some(attempt) = request.waits_for.seeker() {
            self.places.add(attempt, uid, ticket);
        }
        if let Some((key, stopped)) = request.waits_for.kept_place() {
            self.places.keep(key, stopped, ticket);
        }
        self.by_connection.entry(connection).or_default().insert(number, ticket);
        for child in request.waits_for.watched() {
            self.by_child.entry(child).or_default().insert(ticket);
        }
        timers.set(Timer::Call(ticket), None, request.due);
        self.by_ticket.insert(ticket, request);
    }

    /// Takes a request, to answer it or to drop it.
    pub(crate) fn take(&mut self, ticket: Ticket, timers: &mut Timers) -> Option<PendingRequest> {
        let request = self.by_ticket.remove(&ticket)?;
        timers.set(Timer::Call(ticket), request.due, None);
        self.bytes.remove(request.uid, &request.waits_for);
        if let Some(attempt) = request.waits_for.seeker() {
            self.places.remove(attempt, request.uid, ticket);
        }
        if let Some((key, stopped)) = request.waits_for.kept_place() {
            self.places.give_back(key, stopped, ticket);
        }
        for child in request.waits_for.watched() {
            self.unwatch(ticket, child);
        }
        let Call { connection, number } = request.call;
        if let Some(own) = self.by_connection.get_mut(&connection) {
            own.remove(&number);
            if own.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
        Some(request)
    }

    /// Drops all the requests of a connection that is closed. Returns the keys under which places were kept for them.
    pub(crate) fn close(&mut self, connection: ConnectionId, timers: &mut Timers) -> BTreeSet<String> {
        let own = self.by_connection.get(&connection).into_iter().flat_map(BTreeMap::values);
        let tickets: Vec<_> = own.copied().collect();
        tickets.into_iter().filter_map(|ticket| self.take(ticket, timers)?.kept_under()).collect()
    }

    /// Has a create that waits for its child wait for whoever holds the name of that in the end, in its place in the order of
    /// arrival.
    pub(crate) fn supersede(&mut self, ticket: Ticket, attempt: impl FnOnce() -> Attempt) {
        if let Some(PendingRequest { uid, waits_for, .. }) = self.by_ticket.get_mut(&ticket)
            && let WaitsFor::Start { child, .. } = *waits_for
        {
            self.bytes.remove(*uid, waits_for);
            *waits_for = WaitsFor::Name { holder: child, attempt: Box::new(attempt()) };
            self.bytes.add(*uid, waits_for);
        }
    }

    /// Returns a request that waits.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&PendingRequest> {
        self.by_ticket.get(&ticket)
    }

    /// Returns the place of a request that waits in the order of arrival.
    pub(crate) fn ticket(&self, call: Call) -> Option<Ticket> {
        self.by_connection.get(&call.connection)?.get(&call.number).copied()
    }

    /// Returns the tickets of those `wanted`, in the order of arrival.
    pub(crate) fn tickets(&self, wanted: impl Fn(&PendingRequest) -> bool) -> Vec<Ticket> {
        self.by_ticket.iter().filter(|(_, request)| wanted(request)).map(|(ticket, _)| *ticket).collect()
    }

    /// Returns the requests that a child matters to, in the order of arrival.
    pub(crate) fn watchers(&self, child: ChildId) -> Vec<Ticket> {
        self.by_child.get(&child).into_iter().flatten().copied().collect()
    }

    /// Returns the requests that a child matters to, those that are `wanted` and the others, in the order of arrival.
    pub(crate) fn watchers_by(
        &self,
        child: ChildId,
        wanted: impl Fn(&WaitsFor) -> bool,
    ) -> (Vec<Ticket>, Vec<Ticket>) {
        let is_wanted = |ticket: &Ticket| self.get(*ticket).is_some_and(|pending| wanted(&pending.waits_for));
        self.watchers(child).into_iter().partition(is_wanted)
    }

    /// The patience of a request has ended.
    pub(crate) fn timer_ran_out(&mut self, ticket: Ticket) -> Option<&PendingRequest> {
        let request = self.by_ticket.get_mut(&ticket)?;
        request.due = None;
        Some(request)
    }

    /// Returns what the same request of a user does about a name, of whose holder it waits for the end already.
    pub(crate) fn inherited_claim(&self, holder: ChildId, request: (u32, Uuid)) -> Option<Claim> {
        let waiting = self.by_child.get(&holder)?.iter().filter_map(|ticket| self.by_ticket.get(ticket));
        waiting.filter(|pending| pending.waits_for.is_name()).find_map(|pending| {
            let attempt = pending.waits_for.attempt()?;
            let is_the_same = attempt.request_of(pending.uid) == Some(request);
            attempt.claim.inherited().filter(|_| is_the_same)
        })
    }

    fn unwatch(&mut self, ticket: Ticket, child: ChildId) {
        if let Some(watchers) = self.by_child.get_mut(&child) {
            watchers.remove(&ticket);
            if watchers.is_empty() {
                self.by_child.remove(&child);
            }
        }
    }

    /// Returns the create that waits for a place, if this is one.
    pub(crate) fn seeker(&self, ticket: Ticket) -> Option<&Attempt> {
        self.by_ticket.get(&ticket)?.waits_for.seeker()
    }

    /// Returns a create that waits for a place, with where its answer goes and whose it is.
    pub(crate) fn waiting_seeker(&self, ticket: Ticket) -> Option<Waiting> {
        let PendingRequest { call, uid, waits_for, .. } = self.by_ticket.get(&ticket)?;
        Some(Waiting { call: *call, uid: *uid, attempt: waits_for.seeker()?.clone() })
    }

    /// Returns the creates that wait for a place.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Leaves the rest of what is to be given under a key to a turn that comes right after this one.
    pub(crate) fn leave_over(&mut self, key: &str, now: Instant, timers: &mut Timers) {
        if self.places.leave_over(key) {
            timers.set(Timer::Places, None, Some(now.plus(NANOSECOND)));
        }
    }

    /// Takes the keys of which more is to be given.
    pub(crate) fn take_left_over(&mut self) -> BTreeSet<String> {
        self.places.take_left_over()
    }

    /// Returns the create whose turn it is to get a place under a key, of those that may have one.
    pub(crate) fn next_seeker(&self, key: &str, may_have_it: impl Fn(&Attempt) -> bool) -> Option<Ticket> {
        self.places.in_turn(key).find(|ticket| self.seeker(*ticket).is_some_and(&may_have_it))
    }

    /// A create of this user has had its turn.
    pub(crate) fn served(&mut self, key: &str, uid: u32) {
        self.places.served(key, uid);
    }

    /// Whether one more request may wait that keeps so many bytes beside itself.
    ///
    /// # Errors
    /// `overloaded`, with the bound that they are over.
    pub(crate) fn check_room(&self, config: &Config, uid: u32, bytes: u64) -> Result<(), Error> {
        let (budget, more) = (config.bounds.request_bytes(), REQUEST_KEPT_BYTES + bytes);
        room::check(config, self.bytes.usage(), budget, uid, more).map_err(|reason| {
            Error::new(ErrorKind::Overloaded, format!("{reason} for requests that wait; wait for some"))
        })
    }

    /// Returns how many bytes more what a create asks for takes when it waits.
    pub(crate) fn more_for(&self, attempt: &Attempt) -> u64 {
        self.bytes.more_for(attempt)
    }

    /// Whether one more request of a connection may come, of which no more than `bound` are unanswered at a time.
    ///
    /// # Errors
    /// `overloaded`, with the bound.
    pub(crate) fn check_pipeline(&self, connection: ConnectionId, bound: u32) -> Result<(), Error> {
        let own = self.by_connection.get(&connection).map_or(0, BTreeMap::len);
        if own < usize::try_from(bound).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Overloaded,
            format!(
                "this connection has as many requests that are not answered yet as it may have, {bound}; wait for some"
            ),
        ))
    }

    /// Returns how many bytes the requests take, by user.
    pub(crate) fn bytes(&self) -> &QuotaUsage {
        self.bytes.usage()
    }

    /// Counts bytes of something else that is kept for a user as long as its connection is open.
    pub(crate) fn keep(&mut self, uid: u32, bytes: u64) {
        self.bytes.keep(uid, bytes);
    }

    /// Counts bytes off that [`Self::keep`] has counted.
    pub(crate) fn let_go(&mut self, uid: u32, bytes: u64) {
        self.bytes.let_go(uid, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Stage;
    use crate::child::tests::attempt;
    use crate::effect::After;
    use procbroker_protocol::Outcome;
    use procbroker_protocol::create::Limit;
    use procbroker_protocol::request::Until;
    use uuid::Uuid;

    const CONNECTION: ConnectionId = ConnectionId(1);

    fn call(number: u64) -> Call {
        Call { connection: CONNECTION, number }
    }

    fn request(number: u64, waits_for: WaitsFor) -> PendingRequest {
        PendingRequest { call: call(number), uid: 7, due: None, waits_for }
    }

    pub(super) fn child(number: u128) -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(number))
    }

    /// Lets requests wait, and returns their tickets.
    pub(super) fn add<const N: usize>(pending: &mut PendingRequests, requests: [WaitsFor; N]) -> [Ticket; N] {
        let mut number = 0;
        requests.map(|waits_for| {
            number += 1;
            pending.add(request(number, waits_for), &mut Timers::default());
            pending.ticket(call(number)).expect("it waits")
        })
    }

    #[test]
    fn requests_are_found_in_the_order_of_their_arrival_and_answered_once() {
        let (mut pending, timers) = (PendingRequests::default(), &mut Timers::default());
        let tickets = add(&mut pending, [WaitsFor::Shutdown, WaitsFor::Upgrade, WaitsFor::Shutdown]);
        assert_eq!(pending.tickets(|_| true), tickets);
        assert_eq!(pending.tickets(|pending| pending.waits_for.is_upgrade()), [tickets[1]]);
        assert_eq!(pending.take(tickets[0], timers).map(|taken| taken.call.number), Some(1));
        assert!(pending.take(tickets[0], timers).is_none(), "a request is answered once");
        assert_eq!(pending.tickets(|_| true), tickets[1..]);
    }

    #[test]
    fn a_connection_that_is_closed_leaves_nothing_of_its_requests() {
        let (mut pending, timers) = (PendingRequests::default(), &mut Timers::default());
        let count =
            |pending: &PendingRequests| pending.by_connection.get(&CONNECTION).map_or(0, BTreeMap::len);
        let due = Some(Instant::from_nanos(5));
        let limit = Limit { key: "k".to_owned(), max: 1, wait: None };
        let mut attempt = attempt(1, |params| params.limit = Some(limit));
        attempt.arrived = pending.arrive();
        let place = WaitsFor::Place { attempt: Box::new(attempt) };
        let wait = WaitsFor::Wait { child: child(2), until: Until::Ended };
        for (number, waits_for) in [(1, place), (2, wait)] {
            pending.add(PendingRequest { due, ..request(number, waits_for) }, timers);
        }
        let elsewhere = Call { connection: ConnectionId(2), number: 1 };
        pending.add(PendingRequest { call: elsewhere, ..request(1, WaitsFor::Shutdown) }, timers);
        assert_eq!((count(&pending), pending.places().in_turn("k").count()), (2, 1));
        assert!(
            pending.check_pipeline(CONNECTION, 2).is_err() && pending.check_pipeline(CONNECTION, 3).is_ok()
        );
        assert_eq!((pending.watchers(child(2)).len(), timers.next()), (1, due));
        pending.close(CONNECTION, timers);
        assert_eq!((count(&pending), pending.places().in_turn("k").count()), (0, 0));
        assert_eq!((pending.watchers(child(2)).len(), timers.next()), (0, None));
        assert!(pending.by_child.is_empty(), "nothing is kept of a child that no request waits for");
        assert_eq!(pending.by_connection.len(), 1, "{pending:?}");
        pending.take(pending.ticket(elsewhere).expect("it waits"), timers);
        assert_eq!((pending.bytes().all(), pending.by_connection.len()), (0, 0));
    }

    #[test]
    fn a_create_that_is_superseded_keeps_its_place_and_waits_for_the_name() {
        let mut pending = PendingRequests::default();
        let (outcome, stage) = (Outcome::Created, Stage::Ready);
        let start = WaitsFor::Start { child: child(2), outcome, stage };
        let [ticket, _] = add(&mut pending, [start, WaitsFor::Upgrade]);
        let before = pending.bytes().all();
        let attempt = attempt(2, |_| {});
        let more = attempt.bytes();
        pending.supersede(ticket, || attempt);
        assert!(pending.get(ticket).is_some_and(|pending| pending.waits_for.is_name()));
        assert_eq!((pending.watchers(child(2)), pending.bytes().all()), (vec![ticket], before + more));
        assert_eq!(pending.tickets(|_| true)[0], ticket);
    }

    #[test]
    fn an_answer_that_tells_how_far_a_child_is_waits_for_the_record() {
        let wait = WaitsFor::Wait { child: child(1), until: Until::Ended };
        let (outcome, stage) = (Outcome::Created, Stage::Ready);
        let start = WaitsFor::Start { child: child(1), outcome, stage };
        assert_eq!(wait.answer_waits_for(), After::Records);
        assert_eq!(start.answer_waits_for(), After::Records);
        assert_eq!(WaitsFor::Upgrade.answer_waits_for(), After::Nothing);
    }
}
