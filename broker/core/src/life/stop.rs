//! What the processes of children do at their end, and what the end of a child means to those who wait for it or for what it held.

use procbroker_protocol::create::StopStep;
use procbroker_protocol::{ChildId, ExitReason, ExitStatus};

use crate::broker::Broker;
use crate::child::{Child, Next};
use crate::effect::Effect;
use crate::ids::Run;
use crate::input::Members;
use crate::record::Role;
use crate::turn::Turn;

impl Broker {
    /// Stops a child by its own steps or by others, unless that is under way already.
    pub(crate) fn stop_child(
        &mut self,
        id: ChildId,
        reason: ExitReason,
        steps: Option<Vec<StopStep>>,
        turn: &mut Turn<'_>,
    ) {
        self.with_child(id, turn, |child, orders| child.stop(reason, steps, orders));
    }

    /// A child's timer has run out.
    pub(crate) fn child_due(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        self.with_child(id, turn, Child::due);
    }

    /// A process has ended: the main one of a child, or that of its cleanup.
    pub(crate) fn exited(&mut self, run: Run, status: ExitStatus, members: Members, turn: &mut Turn<'_>) {
        if self.with_run(run, turn, |child, orders| child.exited(status, members, orders)) {
            self.main_exited(run.child, status, turn);
        } else {
            self.with_probe(run, turn, |child, orders| child.probe_exited(status, members, orders));
        }
    }

    /// The kernel has killed something of a child for want of memory.
    pub(crate) fn ran_out_of_memory(&mut self, run: Run, turn: &mut Turn<'_>) {
        self.with_run(run, turn, |child, _| {
            child.ran_out_of_memory();
            Next::Nothing
        });
    }

    /// What a child left behind has, or may have, become less.
    pub(crate) fn members_left(&mut self, run: Run, left: Members, turn: &mut Turn<'_>) {
        if !self.with_run(run, turn, |child, orders| child.members_left(left, orders)) {
            self.with_probe(run, turn, |child, orders| child.probe_left(left, orders));
        }
    }

    /// A child is over.
    pub(crate) fn end(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let is_main = self.children.get(id).is_some_and(|child| child.role() == Role::Main);
        // It is visible to the end of the turn: whoever is answered in it may be told of it.
        self.children.end(id, turn.now.instant);
        self.unbind(id, turn);
        self.end_logs(id, turn);
        self.left_wave(id, turn);
        self.tell_that_it_failed(id, turn);
        self.child_changed(id, turn);
        self.name_is_free(id, turn);
        if let Some(key) = self.children.get(id).and_then(Child::limit_key) {
            self.offer_places(&key, turn);
        }
        if is_main {
            self.children.forget(id);
            turn.order(Effect::Forget { child: id });
            self.main_is_gone(turn);
        }
    }
}
