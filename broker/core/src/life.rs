//! What a child goes through: each input is given to its child, and what follows for others is seen to.

mod lease;
mod main_command;
mod places;
mod readiness;
mod recovery;
mod start;
mod stop;

use procbroker_protocol::ChildId;

use crate::broker::Broker;
use crate::child::{Child, Next};
use crate::ids::{Run, paired_id};
use crate::orders::{Lent, Orders};
use crate::turn::Turn;

impl Broker {
    /// Lets a child make a transition, and sees to what follows for others.
    pub(crate) fn with_child(
        &mut self,
        id: ChildId,
        turn: &mut Turn<'_>,
        transition: impl FnOnce(&mut Child, &mut Orders<'_>) -> Next,
    ) {
        let Self { children, timers, spawn_queue, event_log, metrics, config, state, .. } = self;
        let lent = Lent { timers, spawn_queue, event_log, metrics, config };
        let mut orders = Orders::new(turn.lend(), state.permits(), lent);
        if let Some(next) = children.update(id, |child| transition(child, &mut orders)) {
            self.see_to(id, next, turn);
        }
    }

    /// Lets a child make a transition that is about one of its processes. Returns false where that is an earlier one:
    /// the child has gone on, and nothing happens.
    pub(crate) fn with_run(
        &mut self,
        run: Run,
        turn: &mut Turn<'_>,
        transition: impl FnOnce(&mut Child, &mut Orders<'_>) -> Next,
    ) -> bool {
        let is_present = self.children.get(run.child).is_some_and(|child| child.run() == run);
        if is_present {
            self.with_child(run.child, turn, transition);
        }
        is_present
    }

    /// Lets a child make a transition that is about the process of its probe. Returns false where it is none.
    pub(crate) fn with_probe(
        &mut self,
        run: Run,
        turn: &mut Turn<'_>,
        transition: impl FnOnce(&mut Child, &mut Orders<'_>) -> Next,
    ) -> bool {
        let id = paired_id(run.child);
        let is_meant = self.children.get(id).is_some_and(|child| child.probe_run() == run);
        if is_meant {
            self.with_child(id, turn, transition);
        }
        is_meant
    }

    fn see_to(&mut self, id: ChildId, next: Next, turn: &mut Turn<'_>) {
        match next {
            Next::Nothing => {}
            Next::Changed => self.child_changed(id, turn),
            Next::NotReady => self.not_ready_in_time(id, turn),
            Next::NeverStarted { reason, killed, error } => {
                self.end_unstarted(id, (reason, killed), error, turn);
            }
            Next::NotStartedAgain { error, then } => {
                self.fail_restart(id, &error, turn);
                self.see_to(id, *then, turn);
            }
            Next::LeftBehind => self.left_wave(id, turn),
            Next::Over => self.end(id, turn),
        }
    }
}
