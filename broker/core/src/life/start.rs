//! The start of a child: its intent is on record, then its process is started in its turn, or it never was.

use std::sync::Arc;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ChildId, Error, ErrorKind, EventKind, Exit, ExitReason, ExitStatus};

use crate::broker::Broker;
use crate::child::{Child, CleaningStage, Phase, Stop};
use crate::effect::{Effect, Purpose, Receipt, Report, Safety};
use crate::ids::{Pid, Run};
use crate::input::RecordFailure;
use crate::pending::shutting_down;
use crate::pending::{Ticket, WaitsFor};
use crate::turn::Turn;

impl Broker {
    /// The intent is on record: now, and not before, the process may be started.
    pub(crate) fn recorded(&mut self, run: Run, result: Result<(), RecordFailure>, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(run.child).filter(|entry| entry.incarnation == run.incarnation)
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
            return self.end_unstarted(run.child, ExitReason::StartFailed, &error, turn);
        }
        let (uid, cancelled) = (entry.shown.owner.uid, cancelled.as_ref().map(|stop| stop.reason));
        self.children.update(run.child, |entry| entry.phase = Phase::Queued);
        self.publish(EventKind::Created, run.child, turn);
        if let Some(reason) = cancelled {
            let error = self.ended_before_start(reason, turn);
            return self.end_unstarted(run.child, reason, &error, turn);
        }
        self.spawn_queue.enqueue(uid, run.child);
    }

    /// Has those started whose turn it is.
    pub(crate) fn start_next(&mut self, turn: &mut Turn<'_>) {
        while !self.is_handing_over()
            && let Some(child) = self.spawn_queue.next()
        {
            if self.children.get(child).is_some_and(Child::is_unspawned) {
                self.children.update(child, |entry| entry.phase = Phase::Spawning { stop: None });
                let Some(entry) = self.children.get(child) else { continue };
                let (run, order) = (entry.run(), Arc::clone(&entry.order));
                turn.order(Effect::Spawn { run, order, purpose: Purpose::Main });
            } else {
                self.start_cleanup(child, turn);
            }
        }
    }

    /// Takes back a child that waits for its turn.
    pub(crate) fn end_queued(&mut self, id: ChildId, reason: ExitReason, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(id) else { return };
        self.spawn_queue.withdraw(entry.shown.owner.uid, id);
        let error = self.ended_before_start(reason, turn);
        self.end_unstarted(id, reason, &error, turn);
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
        let Some(entry) =
            self.children.get_mut(run.child).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        let uid = entry.shown.owner.uid;
        let stop = match &mut entry.phase {
            Phase::Spawning { stop } => stop.take(),
            Phase::Cleaning(cleaning) if cleaning.stage == CleaningStage::Spawning => {
                self.spawn_queue.finish(uid);
                return self.cleanup_spawned(run.child, turn);
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => return,
        };
        self.spawn_queue.finish(uid);
        self.set_child_due(run.child, None);
        self.children.update(run.child, |entry| {
            entry.phase = Phase::Running { pid };
            Arc::make_mut(&mut entry.shown).started_at = Some(turn.now.wall);
        });
        if stop.is_none() {
            // Else what is on record is that it is to be stopped, until that has begun.
            self.record_progress(run.child, Safety::Process, Receipt::NotWanted, turn);
        }
        if let Some(entry) = self.children.get(run.child) {
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
        let Some(entry) = self.children.get(run.child).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        let uid = entry.shown.owner.uid;
        match &entry.phase {
            Phase::Spawning { .. } => self.spawn_queue.finish(uid),
            Phase::Cleaning(cleaning) if cleaning.stage == CleaningStage::Spawning => {
                self.spawn_queue.finish(uid);
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
        self.end_unstarted(run.child, ExitReason::StartFailed, &error, turn);
        self.main_not_started(run.child, failure, turn);
    }

    /// Takes back a child that never was: its creator gets the error, others see it end.
    fn end_unstarted(&mut self, id: ChildId, reason: ExitReason, error: &Error, turn: &mut Turn<'_>) {
        self.set_child_due(id, None);
        self.fail_start(id, error, turn);
        let at = turn.now.wall;
        let was_told_of = self.children.get(id).is_some_and(|entry| !entry.is_being_recorded());
        self.children.update(id, |entry| {
            entry.phase = Phase::Ended;
            Arc::make_mut(&mut entry.shown).exit =
                Some(Exit { status: ExitStatus::Unknown, reason, forced: false, steps: Vec::new(), at });
        });
        self.children.end_unseen(id);
        let Some(entry) = self.children.get(id) else { return };
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
            self.pending.get_mut(*ticket).is_some_and(|pending| match pending.waits_for {
                WaitsFor::Name { .. } => true,
                WaitsFor::Start { .. }
                | WaitsFor::Destroy { .. }
                | WaitsFor::Wait { .. }
                | WaitsFor::Signal { .. }
                | WaitsFor::Logs { .. }
                | WaitsFor::Upgrade
                | WaitsFor::Shutdown => false,
            })
        });
        for ticket in others {
            self.recheck(ticket, id, turn);
        }
        let attempts: Vec<_> = names.into_iter().filter_map(|ticket| self.take_pending(ticket)).collect();
        self.children.forget(id);
        turn.order(Effect::Forget { child: id });
        for pending in attempts {
            if let WaitsFor::Name { attempt, .. } = pending.waits_for {
                self.decide(pending.call, *attempt, turn);
            }
        }
    }

    /// Answers every create that waits for this child to start.
    fn fail_start(&mut self, id: ChildId, error: &Error, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(id) else { return };
        let tickets: Vec<Ticket> = entry.watchers.iter().copied().collect();
        for ticket in tickets {
            let starts = self.pending.get_mut(ticket).is_some_and(|pending| match pending.waits_for {
                WaitsFor::Start { .. } => true,
                WaitsFor::Name { .. }
                | WaitsFor::Destroy { .. }
                | WaitsFor::Wait { .. }
                | WaitsFor::Signal { .. }
                | WaitsFor::Logs { .. }
                | WaitsFor::Upgrade
                | WaitsFor::Shutdown => false,
            });
            if starts {
                self.answer_pending(ticket, Err(error.clone()), turn);
            }
        }
    }

    /// A child was not ready in time: its creator gets the error, and it is stopped.
    pub(crate) fn not_ready_in_time(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(id) else { return };
        let allowed = entry.params().ready_timeout.0;
        let error = Error::new(
            ErrorKind::Timeout,
            format!("the child was not ready within {allowed} (ready_timeout), and is stopped"),
        );
        self.fail_start(id, &error, turn);
        self.children.forget_request(id);
        let steps = entry_steps(self.children.get(id));
        self.begin_stop(id, Stop { reason: ExitReason::StartFailed, steps, kill_by: None }, turn);
    }
}

fn entry_steps(entry: Option<&Child>) -> Vec<StopStep> {
    entry.map(|entry| entry.params().stop.clone()).unwrap_or_default()
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
