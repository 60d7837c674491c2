//! `create`: one decision about a name, a bound and a request id.

mod holding;

use std::sync::Arc;

use procbroker_protocol::create::Ready;
use procbroker_protocol::response::{Created, Outcome};
use procbroker_protocol::{
    ChildId, CreateParams, Error, ErrorKind, Exit, ExitReason, Name, Owner, Response, duration,
};

use crate::anchor::{self, Anchor};
use crate::attempt::{Attempt, Claim, KeptPlace, Stage, shutting_down};
use crate::authorize::{self, Peer, RunAs};
use crate::broker::Broker;
use crate::child::{Child, Next, exit_before_start};
use crate::effect::{Effect, Receipt, Record, Safety};
use crate::ids::{Call, Ticket};
use crate::input::Fresh;
use crate::launch::Launch;
use crate::methods::first_answer::is_existing;
use crate::pending::{PendingRequest, WaitsFor};
use crate::record::{Intent, RecordedLease, Role};
use crate::resources;
use crate::turn::Turn;
use holding::Holding;

impl Broker {
    /// A `create` has come in.
    pub(crate) fn create(&mut self, call: Call, params: CreateParams, fresh: &Fresh, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else {
            return;
        };
        if let Some((child, outcome)) = self.first_answer(connection.peer(), &params) {
            return self.answer_when_started(call, child, outcome, turn);
        }
        match self.rights(connection.peer(), &params, fresh) {
            Ok((run_as, launch, anchor)) => {
                let claim = self.claim_of(connection.peer().uid, &params);
                let (params, id, outcome) = (Arc::new(params), fresh.child, Outcome::Created);
                let arrived = self.pending.arrive();
                let attempt = Attempt {
                    params,
                    run_as,
                    launch,
                    anchor,
                    id,
                    outcome,
                    claim,
                    arrived,
                    place_by: None,
                    kept: KeptPlace::None,
                };
                self.decide(call, attempt, turn);
            }
            Err(error) => self.answer(call, Err(error), turn),
        }
    }

    /// Decides what the child may be given, and what its life may hang on. Bounds on what it uses take nothing from anybody,
    /// and anybody may set them.
    fn rights(
        &self,
        peer: &Peer,
        params: &CreateParams,
        fresh: &Fresh,
    ) -> Result<(RunAs, Launch, Option<Anchor>), Error> {
        resources::check(&self.config.lacking, params.resources.as_ref())?;
        let run_as = authorize::run_as(&self.config, peer, params, &fresh.accounts)?;
        authorize::may_inherit(&self.config, peer, params)?;
        let launch = authorize::launch(&self.config, &run_as, &fresh.accounts, &fresh.caller)?;
        let anchor = anchor::anchor(peer, params, &fresh.anchor)?;
        Ok((run_as, launch, anchor))
    }

    /// Decides about a create, now and wholly: there is no other place that starts a child.
    pub(crate) fn decide(&mut self, call: Call, attempt: Attempt, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else {
            return;
        };
        if let Some((child, outcome)) = self.first_answer(connection.peer(), &attempt.params) {
            return self.answer_when_started(call, child, outcome, turn);
        }
        self.claim(call, attempt, turn);
    }

    /// Decides about a create whose request was not answered before.
    fn claim(&mut self, call: Call, attempt: Attempt, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else {
            return;
        };
        let peer = connection.peer().clone();
        let holding = match self
            .check_serving()
            .and_then(|()| Holding::of(&self.children, &self.config, peer.uid, &attempt))
        {
            Ok(holding) => holding,
            Err(error) if attempt.claim == Claim::Superseded => {
                return self.fail_superseded(call, attempt.id, error, turn);
            }
            Err(error) => return self.answer(call, Err(error), turn),
        };
        match holding {
            Holding::Free => match attempt.claim {
                Claim::Own(_) | Claim::Yielded => self.start(call, &peer, attempt, turn),
                Claim::Superseded => {
                    let error = self.replaced_in_vain(attempt.id, turn);
                    self.fail_superseded(call, attempt.id, error, turn);
                }
            },
            Holding::Existing { child, same_spec } => {
                let outcome = Outcome::Existing { same_spec };
                if let Some(request) = attempt.params.request_id {
                    let found = (child.id, same_spec);
                    self.remember_existing((peer.uid, request), attempt.id, found, turn);
                }
                self.hold(child.id, call.connection, turn);
                self.answer_created(call, Created { outcome, child }, turn);
            }
            Holding::Wait { holder } => {
                let Some(attempt) = self.with_room(call, peer.uid, attempt, turn) else {
                    return;
                };
                // The process of one that never was may sleep where no signal reaches it: what bounds all that comes before a
                // child is ready bounds that too.
                let is_void = self.children.is_void(holder);
                let due = is_void.then(|| turn.now.instant.plus(attempt.params.ready_timeout.0));
                let joins = attempt.claim.joins();
                let attempt = Box::new(Attempt { kept: KeptPlace::None, ..attempt });
                self.wait_for(call, WaitsFor::Name { holder, attempt }, due);
                // Who comes back to a child that starts, or may start again, has come back in time however long that takes.
                if joins && !is_void {
                    self.hold(holder, call.connection, turn);
                }
            }
            Holding::Replace { holder } => {
                let attempt = Attempt { kept: KeptPlace::None, ..attempt };
                let Some(attempt) = self.keep_place((call, peer.uid), attempt, holder, turn) else {
                    return;
                };
                let Some(attempt) = self.with_room(call, peer.uid, attempt, turn) else {
                    return;
                };
                let attempt = Box::new(Attempt { outcome: Outcome::Replaced, ..attempt });
                self.wait_for(call, WaitsFor::Name { holder, attempt }, None);
                self.supersede(holder);
                self.stop_child(holder, ExitReason::Replaced, None, turn);
            }
        }
    }

    /// Returns a create that is to wait, if there is room for it; else it is refused.
    pub(crate) fn with_room(
        &mut self,
        call: Call,
        uid: u32,
        attempt: Attempt,
        turn: &mut Turn<'_>,
    ) -> Option<Attempt> {
        match self.pending.check_room(&self.config, uid, self.pending.more_for(&attempt)) {
            Ok(()) => return Some(attempt),
            Err(error) if attempt.claim == Claim::Superseded => {
                self.fail_superseded(call, attempt.id, error, turn);
            }
            Err(error) => self.answer(call, Err(error), turn),
        }
        None
    }

    /// Whether one more request of this user may wait that keeps nothing beside itself: a create for its child.
    fn check_room_to_wait(&self, call: Call) -> Result<(), Error> {
        let uid = self.connection(call.connection).map(|connection| connection.peer().uid);
        uid.map_or(Ok(()), |uid| self.pending.check_room(&self.config, uid, 0))
    }

    fn check_serving(&self) -> Result<(), Error> {
        if self.is_serving() { Ok(()) } else { Err(shutting_down()) }
    }

    /// Takes in a new child, if the bounds leave a place for it, and has its intent recorded.
    fn start(&mut self, call: Call, peer: &Peer, attempt: Attempt, turn: &mut Turn<'_>) {
        let Some(attempt) = self.wait_for_place(call, peer.uid, attempt, turn) else {
            return;
        };
        if let Err(error) = self.check_place(peer.uid, &attempt, None) {
            return self.answer(call, Err(error), turn);
        }
        if let Err(error) = self.check_room_to_wait(call) {
            return self.answer(call, Err(error), turn);
        }
        let Attempt {
            params,
            run_as,
            launch,
            anchor,
            id,
            outcome,
            claim: _,
            arrived: _,
            place_by: _,
            kept: _,
        } = attempt;
        let (name, request) = (params.name.clone(), params.request_id.map(|request| (peer.uid, request)));
        let due = turn.now.instant.plus(params.ready_timeout.0);
        let owner = Owner { uid: peer.uid, gid: peer.gid };
        let lease = RecordedLease::of(params.lifetime, anchor, turn.now.instant);
        let (created_at, number) = (turn.now.wall, self.children.next_number());
        let containment = self.config.containment;
        // A resource that a cleanup releases outlives the machine's own end.
        let safety = if params.cleanup.is_some() { Safety::Power } else { Safety::Process };
        let intent = Arc::new(Intent {
            id,
            params,
            run_as,
            launch,
            owner,
            created_at,
            number,
            containment,
            outcome,
            role: Role::Child,
            lease,
        });
        let child = Child::new(&intent);
        let run = child.run();
        self.children.insert(child);
        self.bind(id, call.connection, turn);
        self.with_child(id, turn, |child, orders| {
            child.have_ready_by(due, orders);
            Next::Nothing
        });
        self.answer_when_started(call, id, outcome, turn);
        let (record, receipt) = (Record::Intent(intent), Receipt::Wanted);
        turn.order(Effect::Record { run, record, safety, receipt, expires: None });
        self.join_started(name.as_ref(), request, turn);
    }

    /// Answers a create now if its child is there, else when it is. The same request once more, whatever it says beside, is
    /// answered no later than the first one, and at once if that was answered.
    fn answer_when_started(&mut self, call: Call, id: ChildId, outcome: Outcome, turn: &mut Turn<'_>) {
        let Some(child) = self.children.get(id) else {
            return;
        };
        // Who was told of it before it was replaced is told of it again.
        if child.is_superseded() && !is_existing(outcome) {
            let arrived = self.pending.arrive();
            let attempt = child.superseded_attempt(arrived);
            return self.claim(call, attempt, turn);
        }
        let stage = Stage::of(child.params());
        let was_told = is_existing(outcome) || !child.is_unanswered();
        if was_told || child.has_come_to(stage) {
            let child = Arc::clone(child.view());
            self.answer_created(call, Created { outcome, child }, turn);
        } else if let Err(error) = self.check_room_to_wait(call) {
            return self.answer(call, Err(error), turn);
        } else {
            self.wait_for(call, WaitsFor::Start { child: id, outcome, stage }, None);
        }
        self.hold(id, call.connection, turn);
    }
}

impl Broker {
    /// Tells a create which child it has. Its intent is on record since before its start, and by that a later broker finds
    /// it; that it runs follows, and nobody waits for that. One that has said that it is ready does not say so again: that
    /// is promised, and so is the answer with a child that was there, which the same request gets again.
    pub(crate) fn answer_created(&mut self, call: Call, created: Created, turn: &mut Turn<'_>) {
        let child = self.children.get(created.child.id);
        let says_so = child.is_some_and(|child| child.was_ready() && child.params().ready != Ready::Spawn);
        if says_so || is_existing(created.outcome) {
            self.promise(call, Ok(Response::Created(created)), turn);
        } else {
            self.answer(call, Ok(Response::Created(created)), turn);
        }
    }

    /// The time of a create is over that waits for the name of a child that never was.
    pub(crate) fn name_not_free_in_time(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(PendingRequest { call, waits_for: WaitsFor::Name { holder, attempt }, .. }) =
            self.take_pending(ticket)
        else {
            return;
        };
        let error = held_by_nobody(&attempt.params, holder);
        if attempt.claim == Claim::Superseded {
            return self.fail_superseded(call, attempt.id, error, turn);
        }
        self.answer(call, Err(error), turn);
    }

    /// A create whose child was replaced fails after all, and is not remembered.
    fn fail_superseded(&mut self, call: Call, id: ChildId, error: Error, turn: &mut Turn<'_>) {
        self.children.forget_request(id);
        self.promise(call, Err(error), turn);
    }

    /// Tells a create whose child was replaced that nothing has taken its place.
    fn replaced_in_vain(&self, id: ChildId, turn: &Turn<'_>) -> Error {
        let exit = self.children.get(id).and_then(|child| child.view().exit.clone());
        let reason = ExitReason::Replaced;
        let exit = exit
            .map_or_else(|| exit_before_start(reason, None, turn.now.wall), |exit| Exit { reason, ..exit });
        Error::new(
            ErrorKind::StartFailed { exit: Box::new(exit), log_tail: String::new() },
            "the child was replaced before it was ready, and what was to take its place has ended or could not be started",
        )
    }
}

/// The refusal of a create whose name is held by what is left of a child that never was.
fn held_by_nobody(params: &CreateParams, holder: ChildId) -> Error {
    let name = params.name.as_ref().map(Name::to_string).unwrap_or_default();
    let allowed = duration::display(params.ready_timeout.0);
    Error::new(
        ErrorKind::Timeout(None),
        format!(
            "the name {name} is held by a process that a crash of the broker has left on its way to its program ({holder}), and \
             that has not ended within {allowed} of its SIGKILL (ready_timeout): the kernel, or a file system that does not \
             answer, holds it back; nothing was started"
        ),
    )
}
