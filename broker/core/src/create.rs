//! `create`: one decision about a name, a bound and a request id, then record, spawn and answer.

use std::sync::Arc;

use procbroker_protocol::create::IfExists;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::response::{Created, Outcome};
use procbroker_protocol::{
    Child, ChildId, CreateParams, Error, ErrorKind, EventKind, Exit, ExitReason, ExitStatus, Name, Owner,
    Response,
};

use crate::authorize::{self, Peer, RunAs};
use crate::broker::{Broker, Turn};
use crate::calls::{Attempt, Cause, Ticket};
use crate::child::{CleaningStage, Entry, Phase, Stop};
use crate::effect::{Effect, Purpose, Receipt, Record, Report, Safety};
use crate::ids::{Call, Pid, Run};
use crate::input::{Fresh, RecordFailure};
use crate::record::{Intent, Role};

/// What is to be done about a create, as far as the name decides.
enum Holding {
    /// Nobody holds it.
    Free,
    /// Its holder is the answer.
    Existing { child: Arc<Child>, same_spec: bool },
    /// Its holder has to change first.
    Wait { holder: ChildId },
    /// Its holder has to go first.
    Replace { holder: ChildId },
}

impl Broker {
    /// A `create` has come in.
    pub(crate) fn create(&mut self, call: Call, params: CreateParams, fresh: &Fresh, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else { return };
        if let Some((child, outcome)) = self.first_answer(&connection.peer, &params) {
            return self.answer_when_started(call, child, outcome, turn);
        }
        match authorize::run_as(&self.config, &connection.peer, &params, &fresh.accounts) {
            Ok(run_as) => {
                let attempt =
                    Attempt { params: Arc::new(params), run_as, id: fresh.child, outcome: Outcome::Created };
                self.decide(call, attempt, turn);
            }
            Err(error) => self.answer(call, Err(error), turn),
        }
    }

    /// Decides about a create, now and wholly: there is no other place that starts a child.
    pub(crate) fn decide(&mut self, call: Call, attempt: Attempt, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else { return };
        let peer = connection.peer.clone();
        if let Some((child, outcome)) = self.first_answer(&peer, &attempt.params) {
            return self.answer_when_started(call, child, outcome, turn);
        }
        let holding = match self.check_serving().and_then(|()| self.check_name(&peer, &attempt)) {
            Ok(holding) => holding,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        match holding {
            Holding::Free => self.start(call, &peer, attempt, turn),
            Holding::Existing { child, same_spec } => {
                let outcome = Outcome::Existing { same_spec };
                if let Some(request) = attempt.params.request_id {
                    self.table.remember_reuse(peer.uid, request, child.id, outcome);
                }
                self.promise(call, Ok(Response::Created(Created { outcome, child })), turn);
            }
            Holding::Wait { holder } => {
                self.park(call, Cause::Name { holder, attempt: Box::new(attempt) }, None);
            }
            Holding::Replace { holder } => {
                let attempt = Box::new(Attempt { outcome: Outcome::Replaced, ..attempt });
                self.park(call, Cause::Name { holder, attempt }, None);
                self.stop_child(holder, ExitReason::Replaced, None, turn);
            }
        }
    }

    /// The child that the same request has been answered with before, and how.
    fn first_answer(&self, peer: &Peer, params: &CreateParams) -> Option<(ChildId, Outcome)> {
        self.table.answered_with(peer.uid, params.request_id?)
    }

    fn check_serving(&self) -> Result<(), Error> {
        if self.is_serving() { Ok(()) } else { Err(shutting_down()) }
    }

    fn check_name(&self, peer: &Peer, attempt: &Attempt) -> Result<Holding, Error> {
        let Some(name) = &attempt.params.name else { return Ok(Holding::Free) };
        let Some(entry) = self.table.holder(name) else { return Ok(Holding::Free) };
        let holder = entry.shown.id;
        if !authorize::may_act_on(&self.config, peer, entry.shown.owner) {
            return Err(Error::new(ErrorKind::NameTaken, format!("the name {name} is taken")));
        }
        match attempt.params.if_exists {
            IfExists::Fail => Err(name_taken(name, &entry.shown)),
            IfExists::Reuse if entry.is_ending() => Ok(Holding::Wait { holder }),
            IfExists::Reuse if entry.is_settled() => Ok(Holding::Existing {
                child: Arc::clone(&entry.shown),
                same_spec: self.is_same_spec(entry, peer, attempt),
            }),
            IfExists::Reuse => Ok(Holding::Wait { holder }),
            IfExists::Replace => Ok(Holding::Replace { holder }),
        }
    }

    /// Whether a child was created from an equal specification: what decides how it runs and stops. The
    /// accounts count by the rights that they gave, whatever they were called.
    fn is_same_spec(&self, entry: &Entry, peer: &Peer, attempt: &Attempt) -> bool {
        let decisive = |params: &CreateParams| CreateParams {
            request_id: None,
            no_wait: false,
            if_exists: IfExists::default(),
            user: None,
            groups: None,
            cwd: Some(params.cwd.clone().unwrap_or_else(|| "/".to_owned())),
            ..params.clone()
        };
        let same_user = match (&entry.order.run_as, &attempt.run_as) {
            (RunAs::Broker, RunAs::Broker) => {
                self.config.broker_uid != 0 || entry.shown.owner.uid == peer.uid
            }
            (existing, wanted) => existing == wanted,
        };
        same_user && decisive(entry.params()) == decisive(&attempt.params)
    }

    /// Takes in a new child, if the bounds leave a place for it, and has its intent recorded.
    fn start(&mut self, call: Call, peer: &Peer, attempt: Attempt, turn: &mut Turn<'_>) {
        if let Err(error) = self.check_bounds(peer, &attempt.params) {
            return self.answer(call, Err(error), turn);
        }
        let Attempt { params, run_as, id, outcome } = attempt;
        let due = turn.now.moment.plus(params.ready_timeout.0);
        let owner = Owner { uid: peer.uid, gid: peer.gid };
        let created_at = turn.now.wall;
        let containment = self.config.containment;
        // A resource that a cleanup releases outlives the machine's own end.
        let safety = if params.cleanup.is_some() { Safety::Power } else { Safety::Process };
        let intent = Arc::new(Intent {
            id,
            params,
            run_as,
            owner,
            created_at,
            containment,
            outcome,
            role: Role::Child,
        });
        let entry = Entry::new(&intent);
        let run = entry.run();
        self.table.insert(entry);
        self.set_child_due(id, Some(due));
        self.answer_when_started(call, id, outcome, turn);
        turn.order(Effect::Record { run, record: Record::Intent(intent), safety, receipt: Receipt::Wanted });
    }

    fn check_bounds(&self, peer: &Peer, params: &CreateParams) -> Result<(), Error> {
        let bounds = &self.config.bounds;
        let all = u32::try_from(self.table.live_count()).unwrap_or(u32::MAX);
        let own = self.table.owned_count(peer.uid);
        let exceeded = |message: String| Err(Error::new(ErrorKind::LimitExceeded, message));
        if own >= bounds.max_children_per_user {
            return exceeded(format!(
                "user {} has {own} live children, which is the bound for a user (--max-children-per-user)",
                peer.uid
            ));
        }
        if all >= bounds.max_children {
            return exceeded(format!(
                "the broker has {all} live children, which is its bound (--max-children)"
            ));
        }
        let Some(limit) = &params.limit else { return Ok(()) };
        let count = self.table.limited_count(&limit.key);
        if count >= limit.max {
            return exceeded(format!(
                "there are {count} live children under the limit {:?}, and this create allows {}",
                limit.key, limit.max
            ));
        }
        Ok(())
    }

    /// Answers a create now if its child is there, else when it is.
    fn answer_when_started(&mut self, call: Call, child: ChildId, outcome: Outcome, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(child) else { return };
        if entry.is_settled() {
            let child = Arc::clone(&entry.shown);
            self.promise(call, Ok(Response::Created(Created { outcome, child })), turn);
        } else {
            self.park(call, Cause::Start { child, outcome }, None);
        }
    }

    /// The intent is on record: now, and not before, the process may be started.
    pub(crate) fn recorded(&mut self, run: Run, result: Result<(), RecordFailure>, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(run.child).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        let Phase::Recording { cancelled } = &entry.phase else {
            return self.cleanup_recorded(run.child, turn);
        };
        if let Err(failure) = result {
            let error = Error::new(
                ErrorKind::Internal,
                format!("cannot create a child: it could not be recorded: {}", failure.message),
            );
            self.main_not_recorded(run.child, &failure, turn);
            return self.abandon(run.child, ExitReason::StartFailed, &error, turn);
        }
        let (uid, cancelled) = (entry.shown.owner.uid, cancelled.as_ref().map(|stop| stop.reason));
        self.table.update(run.child, |entry| entry.phase = Phase::Queued);
        self.publish(EventKind::Created, run.child, turn);
        if let Some(reason) = cancelled {
            let error = self.ended_before_start(reason, turn);
            return self.abandon(run.child, reason, &error, turn);
        }
        self.spawns.enqueue(uid, run.child);
    }

    /// Has those started whose turn it is.
    pub(crate) fn start_next(&mut self, turn: &mut Turn<'_>) {
        while !self.is_handing_over()
            && let Some(child) = self.spawns.next()
        {
            if self.table.get(child).is_some_and(Entry::is_unspawned) {
                self.table.update(child, |entry| entry.phase = Phase::Spawning { stop: None });
                let Some(entry) = self.table.get(child) else { continue };
                let (run, order) = (entry.run(), Arc::clone(&entry.order));
                turn.order(Effect::Spawn { run, order, purpose: Purpose::Main });
            } else {
                self.start_cleanup(child, turn);
            }
        }
    }

    /// Takes back a child that waits for its turn.
    pub(crate) fn call_off(&mut self, id: ChildId, reason: ExitReason, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id) else { return };
        self.spawns.withdraw(entry.shown.owner.uid, id);
        let error = self.ended_before_start(reason, turn);
        self.abandon(id, reason, &error, turn);
    }

    fn ended_before_start(&self, reason: ExitReason, turn: &Turn<'_>) -> Error {
        if !self.is_serving() {
            return shutting_down();
        }
        let exit =
            Exit { status: ExitStatus::Unknown, reason, forced: false, steps: Vec::new(), at: turn.now.wall };
        Error::new(
            ErrorKind::StartFailed { exit: Box::new(exit), log_tail: String::new() },
            format!("the child was stopped before it was started ({})", reason.as_str()),
        )
    }

    /// The program was executed.
    pub(crate) fn spawned(&mut self, run: Run, pid: Pid, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get_mut(run.child).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        let uid = entry.shown.owner.uid;
        let stop = match &mut entry.phase {
            Phase::Spawning { stop } => stop.take(),
            Phase::Cleaning(cleaning) if cleaning.stage == CleaningStage::Spawning => {
                self.spawns.landed(uid);
                return self.cleanup_spawned(run.child, turn);
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => return,
        };
        self.spawns.landed(uid);
        self.set_child_due(run.child, None);
        self.table.update(run.child, |entry| {
            entry.phase = Phase::Running { pid };
            Arc::make_mut(&mut entry.shown).started_at = Some(turn.now.wall);
        });
        if stop.is_none() {
            // Else what is on record is that it is to be stopped, until that has begun.
            self.record_progress(run.child, Safety::Process, Receipt::NotWanted, turn);
        }
        if let Some(entry) = self.table.get(run.child) {
            turn.order(Effect::Report(Report::Started { child: Arc::clone(&entry.shown) }));
        }
        self.publish(EventKind::Started, run.child, turn);
        self.publish(EventKind::Ready, run.child, turn);
        if let Some(stop) = stop {
            self.begin_stop(run.child, stop, turn);
        }
        self.child_changed(run.child, turn);
    }

    /// There is no process, and there will be none.
    pub(crate) fn spawn_failed(&mut self, run: Run, failure: &SpawnFailure, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(run.child).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        let uid = entry.shown.owner.uid;
        match &entry.phase {
            Phase::Spawning { .. } => self.spawns.landed(uid),
            Phase::Cleaning(cleaning) if cleaning.stage == CleaningStage::Spawning => {
                self.spawns.landed(uid);
                return self.cleanup_not_spawned(run.child, failure, turn);
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => return,
        }
        let program = entry.shown.command.first().cloned().unwrap_or_default();
        let message = format!(
            "cannot start {program:?}: {} failed with {} ({})",
            failure.step,
            failure.errno_name,
            advice(&failure.step)
        );
        turn.order(Effect::Report(Report::StartFailed {
            child: Arc::clone(&entry.shown),
            message: message.clone(),
        }));
        let error = Error::new(ErrorKind::SpawnFailed(failure.clone()), message);
        self.abandon(run.child, ExitReason::StartFailed, &error, turn);
        self.main_not_started(run.child, failure, turn);
    }

    /// Takes back a child that never was: its creator gets the error, others see it end.
    fn abandon(&mut self, id: ChildId, reason: ExitReason, error: &Error, turn: &mut Turn<'_>) {
        self.set_child_due(id, None);
        self.fail_start(id, error, turn);
        let at = turn.now.wall;
        let was_told_of = self.table.get(id).is_some_and(|entry| !entry.is_being_recorded());
        self.table.update(id, |entry| {
            entry.phase = Phase::Ended;
            Arc::make_mut(&mut entry.shown).exit =
                Some(Exit { status: ExitStatus::Unknown, reason, forced: false, steps: Vec::new(), at });
        });
        self.table.give_free(id);
        let Some(entry) = self.table.get(id) else { return };
        let (run, watchers) = (entry.run(), entry.watchers.clone());
        self.left_wave(id, turn);
        turn.order(Effect::Release { run });
        if was_told_of {
            self.publish(EventKind::Ended, id, turn);
        }
        self.end_logs(id, turn);
        // A create that waits for the name comes after the requests that wait for this child itself,
        // because it may be the same request once more: it must not find a child that never was.
        let (names, others): (Vec<Ticket>, Vec<Ticket>) = watchers.into_iter().partition(|ticket| {
            self.calls.get_mut(*ticket).is_some_and(|waiting| match waiting.cause {
                Cause::Name { .. } => true,
                Cause::Start { .. }
                | Cause::Destroy { .. }
                | Cause::Wait { .. }
                | Cause::Signal { .. }
                | Cause::Logs { .. }
                | Cause::Upgrade
                | Cause::Shutdown => false,
            })
        });
        for ticket in others {
            self.reconsider(ticket, id, turn);
        }
        let attempts: Vec<_> = names.into_iter().filter_map(|ticket| self.unpark(ticket)).collect();
        self.table.remove(id);
        turn.order(Effect::Forget { child: id });
        for waiting in attempts {
            if let Cause::Name { attempt, .. } = waiting.cause {
                self.decide(waiting.call, *attempt, turn);
            }
        }
    }

    /// Answers every create that waits for this child to start.
    fn fail_start(&mut self, id: ChildId, error: &Error, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id) else { return };
        let tickets: Vec<Ticket> = entry.watchers.iter().copied().collect();
        for ticket in tickets {
            let starts = self.calls.get_mut(ticket).is_some_and(|waiting| match waiting.cause {
                Cause::Start { .. } => true,
                Cause::Name { .. }
                | Cause::Destroy { .. }
                | Cause::Wait { .. }
                | Cause::Signal { .. }
                | Cause::Logs { .. }
                | Cause::Upgrade
                | Cause::Shutdown => false,
            });
            if starts {
                self.conclude(ticket, Err(error.clone()), turn);
            }
        }
    }

    /// A child was not ready in time: its creator gets the error, and it is stopped.
    pub(crate) fn not_ready_in_time(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id) else { return };
        let allowed = entry.params().ready_timeout.0;
        let error = Error::new(
            ErrorKind::Timeout,
            format!("the child was not ready within {allowed} (ready_timeout), and is stopped"),
        );
        self.fail_start(id, &error, turn);
        self.table.forget_request(id);
        let steps = entry_steps(self.table.get(id));
        self.begin_stop(id, Stop { reason: ExitReason::StartFailed, steps, kill_by: None }, turn);
    }
}

fn entry_steps(entry: Option<&Entry>) -> Vec<procbroker_protocol::create::StopStep> {
    entry.map(|entry| entry.params().stop.clone()).unwrap_or_default()
}

/// The refusal of a create during a shutdown.
pub(crate) fn shutting_down() -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        "the broker is shutting down and starts no child any more; try again when it is back",
    )
}

fn name_taken(name: &Name, holder: &Child) -> Error {
    Error::new(
        ErrorKind::NameTaken,
        format!(
            "the name {name} is held by the child {} ({}); use if_exists reuse or replace, or another name",
            holder.id,
            holder.state.as_str()
        ),
    )
}

/// What a user can do about a step that failed.
fn advice(step: &str) -> &'static str {
    match step {
        "exec" => "check the program, its permissions and the child's PATH",
        "cwd" => "check that the folder exists and that the child's user may enter it",
        "user" | "groups" => "check the account and what the broker may do",
        "rlimits" => "ask for no more than the broker's own hard limit",
        "stdout" | "stderr" | "stdin" => "check the broker's state folder",
        "cgroup" => "see the facilities in status",
        _ => "see the broker's log",
    }
}
