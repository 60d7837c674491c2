//! The one way in: an input, and the orders that follow from it.

use procbroker_protocol::{Error, ErrorKind, Method, Request};

use crate::attempt::no_place;
use crate::broker::Broker;
use crate::child::Child;
use crate::effect::Effect;
use crate::ids::{Call, Ticket};
use crate::input::{Fresh, Input, ShutdownCause};
use crate::notice::Notice;
use crate::time::{Instant, Now};
use crate::timers::Timer;
use crate::turn::Turn;
use crate::{authorize, shown, validate};

/// Whether an input does nothing but put off what is due, or make it needless.
fn puts_off(input: &Input) -> bool {
    match input {
        Input::Notified { notices, .. } => !notices.contains(&Notice::Unwell),
        Input::Called { request, .. } => matches!(request, Request::Renew(_)),
        Input::Connected { .. }
        | Input::ConnectedUnmapped { .. }
        | Input::Disconnected { .. }
        | Input::EventsWanted { .. }
        | Input::Recorded { .. }
        | Input::Spawned { .. }
        | Input::Probed { .. }
        | Input::TailRead { .. }
        | Input::SpawnFailed { .. }
        | Input::Exited { .. }
        | Input::OutOfMemory { .. }
        | Input::MembersLeft { .. }
        | Input::Signalled { .. }
        | Input::ShutdownAsked { .. }
        | Input::LogRead { .. }
        | Input::AnchorEnded { .. }
        | Input::PassOn { .. }
        | Input::UpgradeAsked
        | Input::UpgradeChecked { .. }
        | Input::HandOverFailed { .. }
        | Input::Swept { .. }
        | Input::Due => false,
    }
}

impl Broker {
    /// Takes in one fact, and appends the orders that follow from it.
    ///
    /// `now` never goes back from one call to the next. The orders are to be carried out in their order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let mut turn = Turn::new(now, effects);
        if self.state.has_exited() {
            return;
        }
        self.expire(&mut turn);
        if self.state.has_exited() {
            return;
        }
        self.take(input, &mut turn);
        self.expire(&mut turn);
        self.go_on_shutting_down(&mut turn);
        // A wave may begin with a step that has no grace, and end with a cleanup that has no time: what follows is
        // due now.
        while self.expire(&mut turn) {
            self.go_on_shutting_down(&mut turn);
        }
        if self.children.is_crowded() {
            self.forget_expired(&mut turn);
        }
        self.go_on_upgrading(&mut turn);
        self.start_next(&mut turn);
        self.watch_idleness(&turn);
        if !self.state.has_exited() {
            self.event_log.announce(&self.config, &mut turn);
        }
    }

    /// Takes in a fact that was there before this moment, perhaps for longer than what is due by now is overdue: a word that
    /// puts something off goes before all of that.
    ///
    /// A broker that was kept from running (stopped, starved, its machine paused) finds words beside deadlines which they
    /// were in time for: a watchdog that was fed, a lease that was renewed. [`Input::Due`] has to follow. Whatever begins
    /// something begins now: a stop has its whole grace, and who was well in time has a whole period again, whatever else
    /// was due before.
    pub fn handle_belated(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let is_behind = self.next_deadline().is_some_and(|due| due <= now.instant);
        if is_behind && puts_off(&input) {
            self.take(input, &mut Turn::new(now, effects));
        } else {
            self.handle(now, input, effects);
        }
    }

    /// When [`Input::Due`] is to come, unless another input comes before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.state.has_exited() { None } else { self.timers.next() }
    }

    fn take(&mut self, input: Input, turn: &mut Turn<'_>) {
        match input {
            Input::Connected { connection, peer } => self.connect(connection, peer, turn),
            Input::ConnectedUnmapped { connection } => Self::connect_unmapped(connection, turn),
            Input::Disconnected { connection } => self.disconnect(connection, turn),
            Input::Called { call, request, fresh } => self.call(call, request, &fresh, turn),
            Input::EventsWanted { connection } => self.event_log.read(connection, turn),
            Input::Recorded { run, result } => self.recorded(run, result, turn),
            Input::Spawned { run, pid } => self.spawned(run, pid, turn),
            Input::Notified { run, notices } => self.notified(run, &notices, turn),
            Input::Probed { run, is_ready } => {
                self.with_run(run, turn, |child, orders| child.probed(is_ready, orders));
            }
            Input::TailRead { call, tail } => self.tail_read(call, tail, turn),
            Input::SpawnFailed { run, failure } => self.spawn_failed(run, &failure, turn),
            Input::Exited { run, status, members } => self.exited(run, status, members, turn),
            Input::OutOfMemory { run } => self.ran_out_of_memory(run, turn),
            Input::MembersLeft { run, members } => self.members_left(run, members, turn),
            Input::Signalled { run, call, outcome } => {
                if let Some(call) = call {
                    self.signalled(run, call, outcome, turn);
                }
            }
            Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries } } => {
                self.shut_down(None, hurries, turn);
            }
            Input::ShutdownAsked { cause: ShutdownCause::Limited { timeout } } => {
                self.shut_down(Some(timeout), false, turn);
            }
            Input::LogRead { call, outcome } => self.log_read(call, outcome),
            Input::AnchorEnded { anchor } => self.anchor_ended(anchor, turn),
            Input::PassOn { signal } => self.pass_on(signal, turn),
            Input::UpgradeAsked => self.upgrade(None, turn),
            Input::UpgradeChecked { result } => self.upgrade_checked(result, turn),
            Input::HandOverFailed { failure } => self.hand_over_failed(&failure, turn),
            Input::Swept { left } => self.swept(left, turn),
            Input::Due => {}
        }
    }

    /// Carries out everything that is due, up to the exit. Answers whether anything was.
    fn expire(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut was_due = false;
        while !self.state.has_exited()
            && let Some(timer) = self.timers.pop(turn.now.instant)
        {
            was_due = true;
            match timer {
                Timer::Child(id) => self.child_due(id, turn),
                Timer::Probe(id) => self.with_child(id, turn, Child::probe_due),
                Timer::Lease(id) => self.lease_due(id, turn),
                Timer::Call(ticket) => self.call_due(ticket, turn),
                Timer::Places => self.offer_left_over(turn),
                Timer::Retention => {
                    self.children.retention_ran_out();
                    self.forget_expired(turn);
                }
                Timer::Shutdown => self.shutdown_due(turn),
                Timer::Upgrade => self.upgrade_due(turn),
                Timer::Idle => {
                    self.idleness.timer_ran_out();
                    self.idle(turn);
                }
            }
        }
        was_due
    }

    /// Checks a request and hands it to what decides about it.
    fn call(&mut self, call: Call, request: Request, fresh: &Fresh, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(call.connection) else {
            return;
        };
        if request.method() == Method::Create {
            self.metrics.create_called(call);
        }
        let allowed = self
            .pending
            .check_pipeline(call.connection, self.config.bounds.max_pipelined)
            .and_then(|()| authorize::may_call(&self.config, connection.peer(), request.method()))
            .and_then(|()| validate::request(&request, &self.config.bounds))
            .and_then(|()| self.check_room(connection.peer().uid, &request));
        if let Err(error) = allowed {
            return self.answer(call, Err(error), turn);
        }
        match request {
            Request::Create(params) => self.create(call, *params, fresh, turn),
            Request::Destroy(params) => self.destroy(call, &params, turn),
            Request::List(params) => self.list(call, &params, turn),
            Request::Get(params) => self.get(call, &params, turn),
            Request::Wait(params) => self.wait(call, &params, turn),
            Request::Signal(params) => self.signal(call, &params, turn),
            Request::Status(_) => self.status(call, turn),
            Request::Shutdown(params) => self.shutdown(call, &params, turn),
            Request::Logs(params) => self.logs(call, &params, turn),
            Request::Events(params) => self.subscribe(call, params, turn),
            Request::Upgrade(_) => self.upgrade(Some(call), turn),
            Request::Metrics(_) => self.measure(call, turn),
            Request::Restart(params) => self.restart(call, &params, turn),
            Request::Renew(params) => self.renew(call, &params, turn),
        }
    }

    fn call_due(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.timer_ran_out(ticket) else {
            return;
        };
        if let Some(error) = pending.waits_for.seeker().map(no_place) {
            return self.answer_pending(ticket, Err(error), turn);
        }
        if pending.waits_for.is_name() {
            return self.name_not_free_in_time(ticket, turn);
        }
        let child = pending.waits_for.watched().first().and_then(|id| self.children.get(*id));
        let message = child.map_or_else(String::new, |child| {
            let title = shown::title(child.view());
            let state = child.view().state.as_str();
            format!(
                "the child {title} is still {state}, and the time to wait for it is over; it is left as it is"
            )
        });
        self.answer_pending(ticket, Err(Error::new(ErrorKind::Timeout(None), message)), turn);
    }
}
