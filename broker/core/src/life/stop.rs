//! The stop of one child: signals in turn, then SIGKILL to all that is left, then its end.

use std::sync::Arc;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{
    ChildId, Cleaned, EventKind, Exit, ExitReason, ExitStatus, Signal, Span, StepTaken,
};

use crate::broker::Broker;
use crate::child::{Child, Leader, Phase, Stop, StopStage, Stopping};
use crate::effect::{Effect, Receipt, Record, Report, Safety};
use crate::ids::{Pid, Run};
use crate::input::Members;
use crate::limits::{KILL_AGAIN_AFTER, KILL_AGAIN_FIRST};
use crate::record::Role;
use crate::time::Instant;
use crate::turn::Turn;

/// What a look at a child that is being stopped has shown.
enum Outlook {
    /// Nothing of it is left.
    Over,
    /// Only processes that its signals do not reach are left.
    Unreachable,
    /// Something is there, and what was sent to it last has its time.
    Alive,
}

/// What becomes of a stop that is asked for.
enum Beginning {
    /// It begins with this process.
    Now(Pid),
    /// It begins as soon as there is a process.
    Put,
    /// Another one is under way, or there is nothing to stop any more.
    Joined,
}

impl Broker {
    /// Stops a child by its own steps or by others, unless that is under way already.
    pub(crate) fn stop_child(
        &mut self,
        id: ChildId,
        reason: ExitReason,
        steps: Option<Vec<StopStep>>,
        turn: &mut Turn<'_>,
    ) {
        let Some(entry) = self.children.get(id) else { return };
        let steps = steps.unwrap_or_else(|| entry.params().stop.clone());
        self.begin_stop(id, Stop { reason, steps, kill_by: None }, turn);
    }

    /// Begins a stop, or joins the one that is under way: that one keeps its reason and its steps, and
    /// the earlier of both bounds on its time. Only that its create has failed becomes the reason of one
    /// that waits for its process.
    pub(crate) fn begin_stop(&mut self, id: ChildId, stop: Stop, turn: &mut Turn<'_>) {
        if let Some(Child { phase: Phase::Queued, .. }) = self.children.get(id) {
            return self.end_queued(id, stop.reason, turn);
        }
        let join = |earlier: &mut Option<Instant>| {
            *earlier = earliest(*earlier, stop.kill_by);
            Beginning::Joined
        };
        let beginning = self.children.update(id, |entry| match &mut entry.phase {
            Phase::Recording { cancelled: Some(earlier) } | Phase::Spawning { stop: Some(earlier) } => {
                if stop.reason == ExitReason::StartFailed && earlier.reason != ExitReason::StartFailed {
                    // A later broker has to know, too, that its request is free to start another.
                    earlier.reason = ExitReason::StartFailed;
                    Beginning::Put
                } else {
                    join(&mut earlier.kill_by)
                }
            }
            Phase::Recording { cancelled: pending @ None } | Phase::Spawning { stop: pending @ None } => {
                *pending = Some(stop.clone());
                Beginning::Put
            }
            Phase::Running { pid } => Beginning::Now(*pid),
            Phase::Stopping(stopping) => join(&mut stopping.kill_by),
            Phase::Queued | Phase::Cleaning(_) | Phase::Ended => Beginning::Joined,
        });
        match beginning {
            Some(Beginning::Now(pid)) => self.enter_stop(id, stop, Leader::Alive { pid }, turn),
            Some(Beginning::Put) => self.record_progress(id, Safety::Process, Receipt::NotWanted, turn),
            Some(Beginning::Joined) | None => self.follow_stop(id),
        }
    }

    pub(crate) fn enter_stop(&mut self, id: ChildId, stop: Stop, leader: Leader, turn: &mut Turn<'_>) {
        let Stop { reason, steps, kill_by } = stop;
        let stopping = Stopping {
            reason,
            leader,
            steps: steps.into(),
            stage: StopStage::Asking { until: turn.now.instant },
            taken: Vec::new(),
            forced: false,
            kill_by,
        };
        self.children.update(id, |entry| entry.phase = Phase::Stopping(Box::new(stopping)));
        let event = match leader {
            Leader::Alive { .. } => EventKind::Stopping,
            Leader::Gone { .. } => EventKind::Exited,
        };
        self.publish(event, id, turn);
        self.next_step(id, turn);
    }

    /// Sets the timer of a stop that is under way.
    pub(crate) fn follow_stop(&mut self, id: ChildId) {
        if let Some(Child { phase: Phase::Stopping(stopping), .. }) = self.children.get(id) {
            let due = stopping.due();
            self.set_child_due(id, Some(due));
        }
    }

    /// A child's timer has run out.
    pub(crate) fn child_due(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get_mut(id) else { return };
        entry.due = None;
        match &entry.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } => {
                self.not_ready_in_time(id, turn);
            }
            Phase::Stopping(stopping) => match stopping.stage {
                StopStage::Killing { .. } => self.kill(id, turn),
                StopStage::Asking { .. } if stopping.kill_by.is_some_and(|by| by <= turn.now.instant) => {
                    self.kill(id, turn);
                }
                StopStage::Asking { .. } => self.next_step(id, turn),
            },
            Phase::Cleaning(_) => self.cleanup_due(id, turn),
            Phase::Running { .. } | Phase::Ended => {}
        }
    }

    /// Sends the next signal of a stop, or SIGKILL after the last.
    fn next_step(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let now = turn.now;
        let main_scope = self.config.main.as_ref().map_or(Scope::Group, |main| main.stop_scope);
        let Some(entry) = self.children.get_mut(id) else { return };
        let role = entry.role;
        let Phase::Stopping(stopping) = &mut entry.phase else { return };
        let Some(step) = stopping.steps.pop_front() else { return self.kill(id, turn) };
        stopping.stage = StopStage::Asking { until: now.instant.plus(step.grace) };
        stopping.taken.push(StepTaken { signal: step.signal, at: now.wall });
        // A stop that somebody asked for goes to the process group. Descendants of a child that ended by
        // itself may have no group of its left, and get the steps themselves.
        let scope = match (stopping.reason, role) {
            (ExitReason::Exited, _) => Scope::All,
            (_, Role::Child) => Scope::Group,
            (_, Role::Main) => main_scope,
        };
        self.children.update(id, |_| ());
        self.follow_stop(id);
        self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
        if let Some(entry) = self.children.get(id) {
            turn.order(Effect::Signal { run: entry.run(), signal: step.signal, scope, call: None });
        }
    }

    /// Sends SIGKILL to everything of a child, and again after a while.
    pub(crate) fn kill(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(Child { phase: Phase::Stopping(stopping), .. }) = self.children.get_mut(id) else { return };
        let first = !stopping.forced;
        if first {
            stopping.forced = true;
            stopping.taken.push(StepTaken { signal: Signal::KILL, at: now.wall });
        }
        let pause = match stopping.stage {
            StopStage::Asking { .. } => KILL_AGAIN_FIRST,
            StopStage::Killing { pause, .. } => {
                Span::from_nanos(pause.as_nanos().saturating_mul(2)).min(KILL_AGAIN_AFTER)
            }
        };
        stopping.stage = StopStage::Killing { again: now.instant.plus(pause), pause };
        self.children.update(id, |_| ());
        self.follow_stop(id);
        if first {
            self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
        }
        if let Some(entry) = self.children.get(id) {
            turn.order(Effect::Kill { run: entry.run() });
        }
    }

    /// The main process of a child has ended.
    pub(crate) fn exited(&mut self, run: Run, status: ExitStatus, members: Members, turn: &mut Turn<'_>) {
        let id = run.child;
        let Some(entry) = self.children.get_mut(id).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        let gone = Leader::Gone { status, at: turn.now.wall, members };
        match &mut entry.phase {
            Phase::Running { .. } => {
                let steps = entry.params().stop.clone();
                if members == Members::Nothing {
                    let exit = Exit {
                        status,
                        reason: ExitReason::Exited,
                        forced: false,
                        steps: Vec::new(),
                        at: turn.now.wall,
                    };
                    self.publish_exit(id, &exit, turn);
                    self.release(id, exit, turn);
                } else {
                    let stop = Stop { reason: ExitReason::Exited, steps, kill_by: None };
                    self.enter_stop(id, stop, gone, turn);
                }
            }
            Phase::Stopping(stopping) => {
                stopping.leader = gone;
                self.children.update(id, |_| ());
                self.publish(EventKind::Exited, id, turn);
                if members != Members::Nothing {
                    self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
                }
                self.look_at(id, turn);
            }
            Phase::Cleaning(_) => self.cleanup_exited(id, status, members, turn),
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning { .. } | Phase::Ended => {}
        }
        self.main_exited(id, status, turn);
    }

    /// What a child left behind has, or may have, become less.
    pub(crate) fn members_left(&mut self, run: Run, left: Members, turn: &mut Turn<'_>) {
        let id = run.child;
        let Some(entry) = self.children.get_mut(id).filter(|entry| entry.incarnation == run.incarnation)
        else {
            return;
        };
        match &mut entry.phase {
            Phase::Stopping(stopping) => match &mut stopping.leader {
                Leader::Alive { .. } => {}
                Leader::Gone { members, .. } => {
                    *members = left;
                    self.look_at(id, turn);
                }
            },
            Phase::Cleaning(_) => self.cleanup_members_left(id, left, turn),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning { .. }
            | Phase::Running { .. }
            | Phase::Ended => {}
        }
    }

    /// Goes on with a stop as far as what is left of the child allows.
    pub(crate) fn look_at(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(Child { phase: Phase::Stopping(stopping), .. }) = self.children.get(id) else { return };
        let finding = match (&stopping.leader, stopping.stage) {
            (Leader::Gone { members: Members::Nothing, .. }, _) => Outlook::Over,
            (Leader::Gone { members: Members::Outside, .. }, StopStage::Asking { .. })
                if stopping.reason != ExitReason::Exited =>
            {
                Outlook::Unreachable
            }
            // Every kill is followed by such a report, so that to kill again at once would go round and
            // round: the timer does it.
            (Leader::Alive { .. }, _)
            | (Leader::Gone { .. }, StopStage::Asking { .. } | StopStage::Killing { .. }) => Outlook::Alive,
        };
        match finding {
            Outlook::Over => {
                if let Some(exit) = stopping.exit() {
                    self.release(id, exit, turn);
                }
            }
            Outlook::Unreachable => self.kill(id, turn),
            Outlook::Alive => {}
        }
    }

    /// Nothing of a child is left. Its cleanup is still to come.
    pub(crate) fn release(&mut self, id: ChildId, exit: Exit, turn: &mut Turn<'_>) {
        self.set_child_due(id, None);
        let Some(entry) = self.children.get(id) else { return };
        turn.order(Effect::Release { run: entry.run() });
        self.clean_up(id, exit, turn);
    }

    /// A child is over: gives free what it held, and tells everybody who waits for it.
    pub(crate) fn end(&mut self, id: ChildId, exit: Exit, cleaned: Option<Cleaned>, turn: &mut Turn<'_>) {
        self.set_child_due(id, None);
        // The end of a cleanup is on record already.
        let is_news = cleaned.is_none();
        self.children.update(id, |entry| {
            entry.phase = Phase::Ended;
            let shown = Arc::make_mut(&mut entry.shown);
            shown.exit = Some(exit);
            shown.cleanup = cleaned;
        });
        match self.children.get(id).map(|entry| entry.role) {
            Some(Role::Main) => drop(self.children.end_unseen(id)),
            Some(Role::Child) | None => self.children.end(id, turn.now.instant),
        }
        if is_news {
            self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
        }
        let Some(entry) = self.children.get(id) else { return };
        let is_main = entry.role == Role::Main;
        turn.order(Effect::Report(Report::Ended { child: Arc::clone(&entry.shown) }));
        self.publish(EventKind::Ended, id, turn);
        self.end_logs(id, turn);
        self.left_wave(id, turn);
        self.child_changed(id, turn);
        if is_main {
            self.children.forget(id);
            turn.order(Effect::Forget { child: id });
            self.main_is_gone(turn);
        }
        self.forget_expired(turn);
    }

    /// Has a child's progress recorded in the place of what was recorded of it before.
    pub(crate) fn record_progress(&self, id: ChildId, safety: Safety, receipt: Receipt, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(id) else { return };
        if let Some(progress) = entry.progress(turn.now) {
            let record = Record::Progress(progress);
            turn.order(Effect::Record { run: entry.run(), record, safety, receipt });
        }
    }
}

/// The earlier of two bounds, either of which may be absent.
fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (bound, None) | (None, bound) => bound,
    }
}
