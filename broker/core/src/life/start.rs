//! Starts what waits in the spawn queue, tells its child what came of it, and ends those that were never started.

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ChildId, Error, ErrorKind, ExitReason, Timestamp};

use crate::attempt::shutting_down;
use crate::broker::Broker;
use crate::child::{Child, Next, exit_before_start};
use crate::effect::Effect;
use crate::ids::{Pid, Run, paired_id};
use crate::input::RecordFailure;
use crate::pending::WaitsFor;
use crate::record::Role;
use crate::turn::Turn;

impl Broker {
    /// A record is safe, or cannot be written.
    pub(crate) fn recorded(&mut self, run: Run, result: Result<(), RecordFailure>, turn: &mut Turn<'_>) {
        if let Err(failure) = &result {
            self.main_not_recorded(run, failure, turn);
        }
        self.with_run(run, turn, |child, orders| child.recorded(result, orders));
    }

    /// Has those started whose turn it is.
    pub(crate) fn start_next(&mut self, turn: &mut Turn<'_>) {
        while !self.is_handing_over()
            && let Some(child) = self.spawn_queue.next()
        {
            if self.children.get(child).is_some() {
                self.with_child(child, turn, |child, orders| {
                    child.start(orders);
                    Next::Nothing
                });
            } else {
                self.with_child(paired_id(child), turn, |child, orders| {
                    child.start_probe(orders);
                    Next::Nothing
                });
            }
        }
    }

    /// A program was executed.
    pub(crate) fn spawned(&mut self, run: Run, pid: Pid, turn: &mut Turn<'_>) {
        if !self.with_run(run, turn, |child, orders| child.spawned(pid, orders)) {
            self.with_probe(run, turn, Child::probe_spawned);
        }
    }

    /// There is no process, and there will be none.
    pub(crate) fn spawn_failed(&mut self, run: Run, failure: &SpawnFailure, turn: &mut Turn<'_>) {
        if self.with_run(run, turn, |child, orders| child.spawn_failed(failure, orders)) {
            self.main_not_started(run.child, failure, turn);
        } else {
            self.with_probe(run, turn, |child, orders| child.probe_not_spawned(failure, orders));
        }
    }

    /// A child is over that never was: its creator gets the error, others see it end.
    pub(crate) fn end_unstarted(
        &mut self,
        id: ChildId,
        (reason, killed): (ExitReason, Option<Timestamp>),
        error: Option<Error>,
        turn: &mut Turn<'_>,
    ) {
        let is_main = self.children.get(id).is_some_and(|child| child.role() == Role::Main);
        let error = error.unwrap_or_else(|| self.ended_before_start(reason, killed, turn));
        self.fail_start(id, &error, turn);
        self.with_child(id, turn, |child, orders| {
            child.end_unstarted(reason, killed, orders);
            Next::Nothing
        });
        self.children.end_unseen(id);
        self.unbind(id, turn);
        self.left_wave(id, turn);
        self.end_logs(id, turn);
        // A create that waits for the name comes after the requests that wait for this child itself,
        // because it may be the same request once more: it must not find a child that never was.
        let (names, others) = self.pending.watchers_by(id, WaitsFor::is_name);
        for ticket in others {
            self.recheck(ticket, id, turn);
        }
        let waiting = names.into_iter().filter_map(|ticket| self.take_pending(ticket)).collect();
        let key = self.children.forget(id).and_then(|child| child.limit_key());
        turn.order(Effect::Forget { child: id });
        self.contest(waiting, turn);
        if let Some(key) = key {
            self.offer_places(&key, turn);
        }
        if is_main {
            self.main_is_gone(turn);
        }
    }

    fn ended_before_start(&self, reason: ExitReason, killed: Option<Timestamp>, turn: &Turn<'_>) -> Error {
        if !self.is_serving() {
            return shutting_down();
        }
        let exit = Box::new(exit_before_start(reason, killed, turn.now.wall));
        Error::new(
            ErrorKind::StartFailed { exit, log_tail: String::new() },
            format!("the child was stopped before it was started ({})", reason.as_str()),
        )
    }

    /// Answers every create that waits for this child to start.
    pub(crate) fn fail_start(&mut self, id: ChildId, error: &Error, turn: &mut Turn<'_>) {
        for ticket in self.pending.watchers_by(id, WaitsFor::is_start).0 {
            self.answer_pending(ticket, Err(error.clone()), turn);
        }
    }
}
