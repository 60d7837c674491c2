//! The main command of `procbroker run`: a process that is started first, stopped first, and whose end is the broker's.
//!
//! It is kept among the children, because it is started, signalled, contained and recorded as they are. But it is
//! nobody's: no request sees it, and it counts towards no bound.

use std::sync::Arc;

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, ExitReason, ExitStatus, Outcome, Owner, Signal};

use crate::authorize::RunAs;
use crate::broker::Broker;
use crate::child::Child;
use crate::effect::{Effect, Receipt, Record, Report, Safety};
use crate::ids::Run;
use crate::input::RecordFailure;
use crate::launch::Launch;
use crate::main_process::{MainCommand, MainExit, MainState};
use crate::record::{Intent, RecordedLease, Role};
use crate::turn::Turn;

impl Broker {
    /// Starts the main command, if there is to be one and that of an earlier broker is gone.
    pub(crate) fn start_main(&mut self, turn: &mut Turn<'_>) {
        let Some(MainCommand { id, params, .. }) = self.config.main.clone() else {
            return;
        };
        match self.main {
            MainState::Absent | MainState::Waiting => {}
            MainState::Present(_) | MainState::Over(_) => return,
        }
        if self.children.live().any(|child| child.role() == Role::Main) {
            self.main = MainState::Waiting;
            return;
        }
        if !self.is_serving() {
            return;
        }
        let (created_at, number) = (turn.now.wall, self.children.next_number());
        let containment = self.config.containment;
        // SO_PEERCRED has no say here: it is the broker's own.
        let owner = Owner { uid: self.config.broker_uid, gid: 0 };
        let (role, run_as, outcome) = (Role::Main, RunAs::Broker, Outcome::Created);
        let intent = Intent {
            id,
            params,
            run_as,
            launch: Launch::default(),
            owner,
            created_at,
            number,
            containment,
            outcome,
            role,
            lease: RecordedLease::None,
        };
        let child = Child::new(&intent);
        let run = child.run();
        self.main = MainState::Present(id);
        self.children.insert(child);
        let record = Record::Intent(Arc::new(intent));
        let (safety, receipt) = (Safety::Process, Receipt::Wanted);
        turn.order(Effect::Record { run, record, safety, receipt, expires: None });
    }

    /// A main command was found: it is this broker's if it was handed over, and is to go else.
    pub(crate) fn main_recovered(&mut self, id: ChildId, is_own: bool, turn: &mut Turn<'_>) {
        if is_own && self.config.main.is_some() && self.main == MainState::Absent {
            self.main = MainState::Present(id);
        } else {
            self.stop_child(id, ExitReason::BrokerLost, None, turn);
        }
    }

    /// Whether this is the main command, and not that of an earlier broker.
    fn is_main(&self, id: ChildId) -> bool {
        self.main == MainState::Present(id)
    }

    /// A main process has ended: if it is that of the main command, everything ends.
    pub(crate) fn main_exited(&mut self, id: ChildId, status: ExitStatus, turn: &mut Turn<'_>) {
        if self.is_main(id) {
            self.main_is_over(MainExit::Status(status), turn);
        }
    }

    /// The main command could not be started.
    pub(crate) fn main_not_started(&mut self, id: ChildId, failure: &SpawnFailure, turn: &mut Turn<'_>) {
        if self.is_main(id) {
            let errno = (failure.step == "exec").then_some(failure.errno);
            self.main_is_over(MainExit::NotStarted { errno }, turn);
        }
    }

    /// The main command could not be recorded, and is not started. There is no client whom the error would tell.
    pub(crate) fn main_not_recorded(&mut self, run: Run, failure: &RecordFailure, turn: &mut Turn<'_>) {
        if self.is_main(run.child)
            && let Some(child) = self.children.get(run.child)
        {
            let message = format!("it could not be recorded: {}", failure.message);
            let child = Arc::clone(child.view());
            turn.order(Effect::Report(Report::StartFailed { child, message }));
            self.main_is_over(MainExit::NotStarted { errno: None }, turn);
        }
    }

    fn main_is_over(&mut self, exit: MainExit, turn: &mut Turn<'_>) {
        self.main = MainState::Over(exit);
        self.shut_down(None, false, turn);
    }

    /// Nothing of a main command is left: the next one may begin.
    pub(crate) fn main_is_gone(&mut self, turn: &mut Turn<'_>) {
        if self.main == MainState::Waiting {
            self.start_main(turn);
        }
    }

    /// Passes a signal on to the main command, if that is there.
    pub(crate) fn pass_on(&self, signal: Signal, turn: &mut Turn<'_>) {
        let MainState::Present(id) = self.main else {
            return;
        };
        if let Some(child) = self.children.get(id).filter(|child| child.has_main_process()) {
            turn.order(Effect::Signal { run: child.run(), signal, scope: Scope::Main, call: None });
        }
    }
}
