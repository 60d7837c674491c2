//! The cleanup of one child: after it and all its descendants are gone, a command releases what it held.
//!
//! That an attempt begins is on record before it does, and how it went before anybody is told that the child has
//! ended. So an attempt is repeated only where the broker itself died in its midst, and forgotten never.

use std::sync::Arc;

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ChildId, Cleaned, EventKind, Exit, ExitStatus, Span};

use crate::broker::Broker;
use crate::child::{Child, Cleaning, CleaningStage, Fate, Phase, Remains};
use crate::effect::{Effect, Purpose, Receipt, Report, Safety};
use crate::input::Members;
use crate::limits::{KILL_AGAIN_AFTER, KILL_AGAIN_FIRST};
use crate::time::Instant;
use crate::turn::Turn;

impl Broker {
    /// Nothing of a child is left: its cleanup comes next, if it has one, and its end else.
    pub(crate) fn clean_up(&mut self, id: ChildId, exit: Exit, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(id) else { return };
        if entry.params().cleanup.is_none() {
            return self.end(id, exit, None, turn);
        }
        self.children.update(id, |entry| {
            let stage = CleaningStage::Recording;
            entry.phase =
                Phase::Cleaning(Box::new(Cleaning { exit, attempts: 0, stage, fate: Fate::Finish }));
        });
        self.publish(EventKind::Cleaning, id, turn);
        if self.may_clean_up() {
            self.begin_attempt(id, turn);
        } else {
            self.cleanup_is_left(id, turn);
        }
    }

    /// Has the next attempt recorded, and begun then.
    pub(crate) fn begin_attempt(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let by = self.children.get(id).and_then(|entry| entry.cleanup_by);
        self.set_child_due(id, by);
        self.children.update(id, |entry| {
            entry.incarnation = entry.incarnation.next();
            if let Phase::Cleaning(cleaning) = &mut entry.phase {
                cleaning.attempts = cleaning.attempts.saturating_add(1);
                cleaning.stage = CleaningStage::Recording;
            }
        });
        self.record_progress(id, Safety::Process, Receipt::Wanted, turn);
        self.child_changed(id, turn);
    }

    /// A cleanup's record is safe, or cannot be written. A resource is not held for that.
    pub(crate) fn cleanup_recorded(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get_mut(id) else { return };
        let uid = entry.shown.owner.uid;
        let Phase::Cleaning(cleaning) = &mut entry.phase else { return };
        match &cleaning.stage {
            CleaningStage::Recording => {
                cleaning.stage = CleaningStage::Queued;
                self.spawn_queue.enqueue(uid, id);
            }
            CleaningStage::Closing { cleaned } => {
                let (exit, cleaned) = (cleaning.exit.clone(), cleaned.clone());
                self.end(id, exit, Some(cleaned), turn);
            }
            CleaningStage::Queued
            | CleaningStage::Spawning
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. }
            | CleaningStage::Left => {}
        }
    }

    /// It is a cleanup's turn to be started.
    pub(crate) fn start_cleanup(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get_mut(id) else { return };
        let (run, order) = (entry.run(), Arc::clone(&entry.order));
        let Phase::Cleaning(cleaning) = &mut entry.phase else { return };
        cleaning.stage = CleaningStage::Spawning;
        let purpose = Purpose::Cleanup { exit: cleaning.exit.clone() };
        turn.order(Effect::Spawn { run, order, purpose });
    }

    /// A cleanup's process runs.
    pub(crate) fn cleanup_spawned(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(entry) = self.children.get_mut(id) else { return };
        let timeout = entry.params().cleanup.as_ref().map_or(Span::ZERO, |cleanup| cleanup.timeout);
        let until = now.plus(timeout);
        let bounded = entry.cleanup_by.map_or(until, |by| until.min(by));
        let Phase::Cleaning(cleaning) = &mut entry.phase else { return };
        cleaning.stage = CleaningStage::Running { until };
        let fate = cleaning.fate;
        self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
        match fate {
            Fate::Finish => self.set_child_due(id, Some(bounded)),
            Fate::Leave => self.kill_cleanup(id, Remains::Process, turn),
        }
    }

    /// A cleanup could not be started.
    pub(crate) fn cleanup_not_spawned(&mut self, id: ChildId, failure: &SpawnFailure, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get(id) else { return };
        let command = entry.params().cleanup.as_ref().and_then(|cleanup| cleanup.command.first());
        let message = format!(
            "cannot start {:?}: {} failed with {}",
            command.map_or("", String::as_str),
            failure.step,
            failure.errno_name
        );
        let (run, child) = (entry.run(), Arc::clone(&entry.shown));
        turn.order(Effect::Report(Report::CleanupFailed { child, message }));
        turn.order(Effect::Release { run });
        self.conclude_attempt(id, None, turn);
    }

    /// The process of a cleanup has ended.
    pub(crate) fn cleanup_exited(
        &mut self,
        id: ChildId,
        status: ExitStatus,
        members: Members,
        turn: &mut Turn<'_>,
    ) {
        let Some(Child { phase: Phase::Cleaning(cleaning), .. }) = self.children.get(id) else { return };
        let remains = match &cleaning.stage {
            CleaningStage::Running { .. } | CleaningStage::Killing { remains: Remains::Process, .. } => {
                Remains::Descendants(status)
            }
            CleaningStage::Killing { remains: Remains::Interrupted, .. } => Remains::Interrupted,
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning
            | CleaningStage::Killing { remains: Remains::Descendants(_), .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => return,
        };
        if members == Members::Nothing {
            return self.attempt_is_over(id, remains, turn);
        }
        match &cleaning.stage {
            // It is being killed already, and the timer does it again.
            CleaningStage::Killing { again, pause, .. } => {
                let stage = CleaningStage::Killing { remains, again: *again, pause: *pause };
                self.children.update(id, |entry| {
                    if let Phase::Cleaning(cleaning) = &mut entry.phase {
                        cleaning.stage = stage;
                    }
                });
            }
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning
            | CleaningStage::Running { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => self.kill_cleanup(id, remains, turn),
        }
        // Its outcome is known, though it is not over: another program that takes over now does not repeat it.
        self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
    }

    /// What a cleanup has left behind has become less.
    pub(crate) fn cleanup_members_left(&mut self, id: ChildId, members: Members, turn: &mut Turn<'_>) {
        let Some(Child { phase: Phase::Cleaning(cleaning), .. }) = self.children.get(id) else { return };
        if let CleaningStage::Killing { remains, .. } = cleaning.stage
            && remains != Remains::Process
            && members == Members::Nothing
        {
            self.attempt_is_over(id, remains, turn);
        }
    }

    /// The timer of a cleanup has run out: its time is over, or what was killed is still there.
    pub(crate) fn cleanup_due(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(Child { phase: Phase::Cleaning(cleaning), .. }) = self.children.get(id) else { return };
        match cleaning.stage {
            CleaningStage::Running { until } if until <= turn.now.instant => {
                self.kill_cleanup(id, Remains::Process, turn);
            }
            // The shutdown has no more time for it, whatever its own time is.
            CleaningStage::Recording | CleaningStage::Queued | CleaningStage::Running { .. } => {
                self.leave_cleanup(id, turn);
            }
            CleaningStage::Killing { remains, .. } => self.kill_cleanup(id, remains, turn),
            CleaningStage::Spawning | CleaningStage::Closing { .. } | CleaningStage::Left => {}
        }
    }

    /// Sends SIGKILL to everything of a cleanup, and again after a while.
    pub(crate) fn kill_cleanup(&mut self, id: ChildId, remains: Remains, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(entry) = self.children.get_mut(id) else { return };
        let run = entry.run();
        let Phase::Cleaning(cleaning) = &mut entry.phase else { return };
        let pause = match cleaning.stage {
            CleaningStage::Killing { pause, .. } => {
                Span::from_nanos(pause.as_nanos().saturating_mul(2)).min(KILL_AGAIN_AFTER)
            }
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning
            | CleaningStage::Running { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => KILL_AGAIN_FIRST,
        };
        let again = now.plus(pause);
        cleaning.stage = CleaningStage::Killing { remains, again, pause };
        self.set_child_due(id, Some(again));
        turn.order(Effect::Kill { run });
    }

    /// Nothing of an attempt is left.
    pub(crate) fn attempt_is_over(&mut self, id: ChildId, remains: Remains, turn: &mut Turn<'_>) {
        self.set_child_due(id, None);
        let Some(entry) = self.children.get(id) else { return };
        turn.order(Effect::Release { run: entry.run() });
        match remains {
            Remains::Interrupted if self.may_clean_up() => self.begin_attempt(id, turn),
            Remains::Interrupted => self.cleanup_is_left(id, turn),
            Remains::Process => self.conclude_attempt(id, Some(ExitStatus::Unknown), turn),
            Remains::Descendants(status) => self.conclude_attempt(id, Some(status), turn),
        }
    }

    /// An attempt has had its outcome, or was cut short by the shutdown.
    pub(crate) fn conclude_attempt(&mut self, id: ChildId, status: Option<ExitStatus>, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get_mut(id) else { return };
        let child = Arc::clone(&entry.shown);
        let Phase::Cleaning(cleaning) = &mut entry.phase else { return };
        let ok = status == Some(ExitStatus::Code(0));
        if cleaning.fate == Fate::Leave && !ok {
            return self.cleanup_is_left(id, turn);
        }
        let cleaned = Cleaned { ok, exit: status, attempts: cleaning.attempts };
        cleaning.stage = CleaningStage::Closing { cleaned };
        if let Some(status) = status.filter(|_| !ok) {
            let message = format!("it ended with {status}");
            turn.order(Effect::Report(Report::CleanupFailed { child, message }));
        }
        // It would be run again if the machine lost this.
        self.record_progress(id, Safety::Power, Receipt::Wanted, turn);
    }

    /// The shutdown goes on without this cleanup: the next broker begins it anew.
    pub(crate) fn leave_cleanup(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.children.get_mut(id) else { return };
        let uid = entry.shown.owner.uid;
        let Phase::Cleaning(cleaning) = &mut entry.phase else { return };
        cleaning.fate = Fate::Leave;
        match cleaning.stage {
            CleaningStage::Recording => self.cleanup_is_left(id, turn),
            CleaningStage::Queued => {
                self.spawn_queue.withdraw(uid, id);
                self.cleanup_is_left(id, turn);
            }
            CleaningStage::Running { .. } => self.kill_cleanup(id, Remains::Process, turn),
            CleaningStage::Spawning
            | CleaningStage::Killing { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => {}
        }
    }

    /// Nothing of an attempt is there, and none will be begun.
    fn cleanup_is_left(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        self.set_child_due(id, None);
        self.children.update(id, |entry| {
            if let Phase::Cleaning(cleaning) = &mut entry.phase {
                cleaning.stage = CleaningStage::Left;
            }
        });
        self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
        let Some(entry) = self.children.get(id) else { return };
        turn.order(Effect::Report(Report::CleanupLeft { child: Arc::clone(&entry.shown) }));
        self.left_wave(id, turn);
    }

    /// Bounds the time of a child's cleanup, for the sake of those that are stopped after it.
    pub(crate) fn bound_cleanup(&mut self, id: ChildId, by: Instant) {
        let Some(entry) = self.children.get_mut(id) else { return };
        let by = entry.cleanup_by.map_or(by, |earlier| earlier.min(by));
        entry.cleanup_by = Some(by);
        let Phase::Cleaning(cleaning) = &entry.phase else { return };
        match cleaning.stage {
            CleaningStage::Recording | CleaningStage::Queued => self.set_child_due(id, Some(by)),
            CleaningStage::Running { until } => self.set_child_due(id, Some(until.min(by))),
            CleaningStage::Spawning
            | CleaningStage::Killing { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => {}
        }
    }
}
