//! The live upgrade: another program takes over in place, asked first, and with nothing in the air.

use std::collections::BTreeMap;

use procbroker_protocol::status::FailedUpgrade;
use procbroker_protocol::{ChildId, Error, ErrorKind, Response, duration};

use crate::attempt::shutting_down;
use crate::broker::Broker;
use crate::child::{Child, Next};
use crate::effect::{Effect, Report};
use crate::ids::{Call, Ticket};
use crate::input::UpgradeFailure;
use crate::limits::{HAND_OVER_PATIENCE, STATUS_TEXTS_HANDED_OVER_BYTES_MAX};
use crate::pending::WaitsFor;
use crate::record::HandedOver;
use crate::time::Instant;
use crate::turn::Turn;
use crate::upgrade::TooLate;

impl Broker {
    /// `upgrade`, or the signal for it. One that is under way is joined.
    pub(crate) fn upgrade(&mut self, call: Option<Call>, turn: &mut Turn<'_>) {
        if !self.is_serving() {
            if let Some(call) = call {
                self.answer(call, Err(shutting_down()), turn);
            }
            return;
        }
        if let Some(call) = call {
            self.wait_for(call, WaitsFor::Upgrade, None);
        }
        if self.upgrade.begin() {
            turn.order(Effect::CheckUpgrade);
        }
    }

    /// Whether no process is to be started, because this program is about to be replaced.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.upgrade.is_handing_over()
    }

    /// Returns what the next program is told of children beside what is on record of them.
    #[must_use]
    pub fn handed_over(&self, now: Instant) -> BTreeMap<ChildId, HandedOver> {
        let mut text_bytes = 0_usize;
        let told = self.children.all().map(|child| {
            let mut told = child.handed_over(now);
            text_bytes = text_bytes.saturating_add(told.status_text.as_ref().map_or(0, String::len));
            if text_bytes > STATUS_TEXTS_HANDED_OVER_BYTES_MAX {
                told.status_text = None;
            }
            (child.id(), told)
        });
        told.filter(|(_, told)| !told.is_nothing()).collect()
    }

    /// The other program has said whether it can take over.
    pub(crate) fn upgrade_checked(&mut self, result: Result<(), UpgradeFailure>, turn: &mut Turn<'_>) {
        if !self.upgrade.is_checking() {
            return;
        }
        match result {
            Ok(()) => {
                self.upgrade.await_launches(turn.now.instant, &mut self.timers);
                self.cut_probes_short(turn);
            }
            Err(failure) => self.refuse_upgrade(&failure, turn),
        }
    }

    /// Hands over as soon as no process is being started. What is in the air could be lost.
    pub(crate) fn go_on_upgrading(&mut self, turn: &mut Turn<'_>) {
        if !self.upgrade.waits_for_launches() {
            return;
        }
        if !self.spawn_queue.is_idle() || self.children.live().any(Child::is_asked) {
            return;
        }
        self.upgrade.hand_over(&mut self.timers);
        for ticket in self.upgrade_tickets() {
            self.answer_pending(ticket, Ok(Response::Upgraded), turn);
        }
        turn.order(Effect::Report(Report::HandingOver));
        turn.order(Effect::HandOver);
    }

    /// The next program knows nothing of commands that find out whether a child is ready, and begins its own.
    fn cut_probes_short(&mut self, turn: &mut Turn<'_>) {
        let asked: Vec<ChildId> =
            self.children.live().filter(|child| child.is_asked()).map(Child::id).collect();
        for id in asked {
            self.with_child(id, turn, |child, orders| {
                child.cut_probe_short(orders);
                Next::Nothing
            });
        }
    }

    /// A process takes too long to get to its program, or to die on the way there.
    pub(crate) fn upgrade_due(&mut self, turn: &mut Turn<'_>) {
        match self.upgrade.timer_ran_out(&mut self.timers) {
            Some(TooLate::Kill) => self.put_launches_off(turn),
            Some(TooLate::GiveUp) => {
                let patience = duration::display(HAND_OVER_PATIENCE);
                let message = format!(
                    "a process has not got to execute its program within {patience}, and is there still; try again when \
                     it has, or is gone"
                );
                self.refuse_upgrade(&UpgradeFailure { message }, turn);
            }
            None => {}
        }
    }

    /// Kills all processes on the way to their programs. The next program would know nothing of them.
    fn put_launches_off(&mut self, turn: &mut Turn<'_>) {
        for id in self.children.live_ids() {
            self.with_child(id, turn, Child::put_off_launch);
        }
    }

    /// This program is still the broker.
    pub(crate) fn hand_over_failed(&mut self, failure: &UpgradeFailure, turn: &mut Turn<'_>) {
        if self.upgrade.is_at_the_other_program() {
            self.refuse_upgrade(failure, turn);
        }
    }

    /// A shutdown goes before an upgrade.
    pub(crate) fn call_off_upgrade(&mut self, turn: &mut Turn<'_>) {
        self.upgrade.call_off(&mut self.timers);
        for ticket in self.upgrade_tickets() {
            self.answer_pending(ticket, Err(shutting_down()), turn);
        }
    }

    fn refuse_upgrade(&mut self, failure: &UpgradeFailure, turn: &mut Turn<'_>) {
        let message = &failure.message;
        let failed = FailedUpgrade { at: turn.now.wall, message: message.clone() };
        self.upgrade.fail(failed, &mut self.timers);
        turn.order(Effect::Report(Report::UpgradeRefused { message: message.clone() }));
        let error =
            Error::new(ErrorKind::Internal, format!("not upgraded, and nothing has changed: {message}"));
        for ticket in self.upgrade_tickets() {
            self.answer_pending(ticket, Err(error.clone()), turn);
        }
    }

    fn upgrade_tickets(&self) -> Vec<Ticket> {
        self.pending.tickets(|pending| pending.waits_for.is_upgrade())
    }
}
