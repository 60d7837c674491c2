//! The state machine itself: one input in, the orders that follow out.

use std::collections::BTreeMap;

use procbroker_protocol::{ChildId, Error, ErrorKind, Request, Response};

use crate::admission::{Connection, Connections};
use crate::calls::{Calls, Cause, Ticket, Waiting};
use crate::config::Config;
use crate::effect::{After, Effect};
use crate::events::Events;
use crate::ids::{Call, ConnectionId};
use crate::input::{Fresh, Input, ShutdownCause};
use crate::main_command::MainState;
use crate::moment::{Moment, Now};
use crate::shutdown::Stage;
use crate::spawns::Spawns;
use crate::table::Table;
use crate::timers::{Timer, Timers};
use crate::upgrade::Upgrade;
use crate::validate;

/// The one owner of every child.
#[derive(Debug)]
pub struct Broker {
    pub(crate) config: Config,
    pub(crate) table: Table,
    pub(crate) calls: Calls,
    pub(crate) connections: Connections,
    pub(crate) timers: Timers,
    pub(crate) spawns: Spawns,
    pub(crate) stage: Stage,
    pub(crate) upgrade: Upgrade,
    pub(crate) main: MainState,
    pub(crate) events: Events,
    pub(crate) retention_due: Option<Moment>,
    pub(crate) idle_due: Option<Moment>,
}

/// One call of [`Broker::handle`]: the time that it happens at, and where its orders go.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    effects: &'a mut Vec<Effect>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Now, effects: &'a mut Vec<Effect>) -> Self {
        Self { now, effects }
    }

    pub(crate) fn order(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

impl Broker {
    /// A broker that has nothing yet, and that nobody is connected to.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            table: Table::default(),
            calls: Calls::default(),
            connections: Connections { open: BTreeMap::new(), per_user: BTreeMap::new() },
            timers: Timers::default(),
            spawns: Spawns::default(),
            stage: Stage::Serving,
            upgrade: Upgrade::None,
            main: MainState::Absent,
            events: Events::default(),
            retention_due: None,
            idle_due: None,
        }
    }

    /// Takes in one fact, and appends the orders that follow from it.
    ///
    /// `now` never goes back from one call to the next. The orders are to be carried out in their order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let mut turn = Turn::new(now, effects);
        if self.has_exited() {
            return;
        }
        self.expire(&mut turn);
        if self.has_exited() {
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
        self.go_on_upgrading(&mut turn);
        self.start_next(&mut turn);
        self.watch_idleness(&mut turn);
    }

    /// When [`Input::Due`] is to come, unless another input comes before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.has_exited() { None } else { self.timers.next() }
    }

    fn take(&mut self, input: Input, turn: &mut Turn<'_>) {
        match input {
            Input::Connected { connection, peer } => self.connect(connection, peer, turn),
            Input::Disconnected { connection } => self.disconnect(connection),
            Input::Called { call, request, fresh } => self.call(call, request, &fresh, turn),
            Input::Recorded { run, result } => self.recorded(run, result, turn),
            Input::Spawned { run, pid } => self.spawned(run, pid, turn),
            Input::SpawnFailed { run, failure } => self.spawn_failed(run, &failure, turn),
            Input::Exited { run, status, members } => self.exited(run, status, members, turn),
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
        while !self.has_exited()
            && let Some(timer) = self.timers.pop(turn.now.moment)
        {
            was_due = true;
            match timer {
                Timer::Child(id) => self.child_due(id, turn),
                Timer::Call(ticket) => self.call_due(ticket, turn),
                Timer::Retention => {
                    self.retention_due = None;
                    self.forget_expired(turn);
                }
                Timer::Shutdown => self.shutdown_due(turn),
                Timer::Upgrade => self.upgrade_due(turn),
                Timer::Idle => {
                    self.idle_due = None;
                    self.idle(turn);
                }
            }
        }
        was_due
    }

    /// Checks a request and hands it to what decides about it.
    fn call(&mut self, call: Call, request: Request, fresh: &Fresh, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.open.get(&call.connection) else { return };
        let allowed = self
            .check_pipeline(connection)
            .and_then(|()| crate::authorize::may_call(&self.config, &connection.peer, request.method()))
            .and_then(|()| validate::request(&request, &self.config.bounds));
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
            Request::Shutdown(params) => {
                self.park(call, Cause::Shutdown, None);
                self.shut_down(params.timeout, false, turn);
            }
            Request::Logs(params) => self.logs(call, &params, turn),
            Request::Events(params) => self.subscribe(call, params, turn),
            Request::Upgrade(_) => self.upgrade(Some(call), turn),
            Request::Restart(_) | Request::Renew(_) => {
                let method = request.method();
                let error = Error::new(
                    ErrorKind::Unsupported,
                    format!("{method} is not offered by this version of the broker"),
                );
                self.answer(call, Err(error), turn);
            }
        }
    }

    fn check_pipeline(&self, connection: &Connection) -> Result<(), Error> {
        let bound = self.config.bounds.max_pipelined;
        if connection.waiting.len() < usize::try_from(bound).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Overloaded,
            format!(
                "this connection has {bound} requests that are not answered yet, which is the bound; wait for some"
            ),
        ))
    }

    /// Sends an answer that promises nothing, unless nobody reads it any more.
    pub(crate) fn answer(&mut self, call: Call, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        self.answer_after(After::Nothing, call, result, turn);
    }

    /// Sends an answer on which the client may rely, as soon as a later broker would know of it too.
    pub(crate) fn promise(&mut self, call: Call, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        self.answer_after(After::Records, call, result, turn);
    }

    fn answer_after(
        &mut self,
        after: After,
        call: Call,
        result: Result<Response, Error>,
        turn: &mut Turn<'_>,
    ) {
        if self.connections.open.contains_key(&call.connection) {
            turn.order(Effect::Answer { call, result, after });
        }
    }

    /// Lets a request wait for what its cause says.
    pub(crate) fn park(&mut self, call: Call, cause: Cause, due: Option<Moment>) {
        let Some(connection) = self.connections.open.get_mut(&call.connection) else { return };
        let watched = cause.watched();
        let ticket = self.calls.add(Waiting { call, due, cause });
        connection.waiting.insert(ticket);
        for id in watched {
            if let Some(entry) = self.table.get_mut(id) {
                entry.watchers.insert(ticket);
            }
        }
        self.timers.set(Timer::Call(ticket), None, due);
    }

    /// Takes a request that waits, to answer it or to drop it.
    pub(crate) fn unpark(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.calls.take(ticket)?;
        self.timers.set(Timer::Call(ticket), waiting.due, None);
        for id in waiting.cause.watched() {
            if let Some(entry) = self.table.get_mut(id) {
                entry.watchers.remove(&ticket);
            }
        }
        if let Some(connection) = self.connections.open.get_mut(&waiting.call.connection) {
            connection.waiting.remove(&ticket);
        }
        Some(waiting)
    }

    /// Answers a request that waits.
    pub(crate) fn conclude(&mut self, ticket: Ticket, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        if let Some(waiting) = self.unpark(ticket) {
            self.answer_after(waiting.cause.answer_waits_for(&result), waiting.call, result, turn);
        }
    }

    /// Looks again at every request that waits for this child, in the order of their arrival.
    pub(crate) fn child_changed(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id) else { return };
        let tickets: Vec<Ticket> = entry.watchers.iter().copied().collect();
        for ticket in tickets {
            self.reconsider(ticket, id, turn);
        }
    }

    fn call_due(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(waiting) = self.calls.get_mut(ticket) else { return };
        waiting.due = None;
        let child = waiting.cause.watched().first().and_then(|id| self.table.get(*id));
        let message = child.map_or_else(String::new, |entry| {
            let shown = &entry.shown;
            let label = shown.name.as_ref().map_or_else(|| shown.id.to_string(), ToString::to_string);
            let state = shown.state.as_str();
            format!(
                "the child {label} is still {state}, and the time to wait for it is over; it is left as it is"
            )
        });
        self.conclude(ticket, Err(Error::new(ErrorKind::Timeout, message)), turn);
    }

    /// Sets the timer of a child.
    pub(crate) fn set_child_due(&mut self, id: ChildId, due: Option<Moment>) {
        if let Some(entry) = self.table.get_mut(id) {
            self.timers.set(Timer::Child(id), entry.due, due);
            entry.due = due;
        }
    }

    /// Makes ended children invisible whose time, or whose place, is over.
    pub(crate) fn forget_expired(&mut self, turn: &mut Turn<'_>) {
        let bounds = self.config.bounds;
        let kept_for = bounds.ended_kept_for.as_nanos();
        let since = turn.now.moment.as_nanos().checked_sub(kept_for).map(Moment::from_nanos);
        while let Some(entry) = self.table.pop_expired(bounds.ended_kept, since) {
            turn.order(Effect::Forget { child: entry.shown.id });
        }
        let due = self.table.first_ended().map(|at| at.plus(bounds.ended_kept_for));
        self.timers.set(Timer::Retention, self.retention_due, due);
        self.retention_due = due;
    }

    /// Starts and stops the timer of the exit for lack of work.
    pub(crate) fn watch_idleness(&mut self, turn: &mut Turn<'_>) {
        let Some(patience) = self.config.exit_when_idle else { return };
        let is_empty = self.connections.open.is_empty() && self.table.live_count() == 0;
        let idle = is_empty && self.main == MainState::Absent && self.is_serving();
        let due = match (idle, self.idle_due) {
            (false, _) => None,
            (true, Some(due)) => Some(due),
            (true, None) => Some(turn.now.moment.plus(patience)),
        };
        self.timers.set(Timer::Idle, self.idle_due, due);
        self.idle_due = due;
    }

    /// The client of a connection that is open.
    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.open.get(&id)
    }
}
