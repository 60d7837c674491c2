//! Readiness, for those who wait for it: a word of a child is passed on to it, and who waited for one that has failed is told
//! why, with the last of what it wrote.

use std::sync::Arc;

use procbroker_protocol::{ChildId, Error, ErrorKind, Exit, ExitReason, duration};

use crate::broker::Broker;
use crate::effect::Effect;
use crate::ids::{Call, Run, Ticket};
use crate::notice::Notice;
use crate::pending::WaitsFor;
use crate::shown;
use crate::turn::Turn;

impl Broker {
    /// A process of a child has told something of itself.
    pub(crate) fn notified(&mut self, run: Run, notices: &[Notice], turn: &mut Turn<'_>) {
        for notice in notices {
            self.with_run(run, turn, |child, orders| child.notified(notice, orders));
        }
    }

    /// A child was not ready in time: its creator gets the error, and it is stopped.
    pub(crate) fn not_ready_in_time(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        // A later run that is late is that of a child whose create was answered well.
        if let Some(child) = self.children.get(id).filter(|child| child.is_unanswered()) {
            let allowed = duration::display(child.params().ready_timeout.0);
            let title = shown::title(child.view());
            let mut message =
                format!("the child {title} was not ready within {allowed} (ready_timeout), and is stopped");
            if let Some(why) = child.why_not_ready() {
                message.push_str("; ");
                message.push_str(&why);
            }
            let failure = child.probe_failure().cloned().map(Box::new);
            let error = Error::new(ErrorKind::Timeout(failure), message);
            self.fail_start(id, &error, turn);
            self.children.forget_request(id);
        }
        self.stop_child(id, ExitReason::StartFailed, None, turn);
    }

    /// A child is over: if it never was ready, who waits for that is told, as soon as the last of its output is read.
    pub(crate) fn tell_that_it_failed(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(child) = self.children.get(id).filter(|child| child.is_unanswered()) else {
            return;
        };
        let (view, kept_in) = (Arc::clone(child.view()), child.last_words());
        // Who asks again for one that was replaced gets what has taken its place.
        if !child.is_superseded() {
            self.children.forget_request(id);
        }
        let Some(exit) = &view.exit else {
            return;
        };
        for ticket in self.pending.watchers_by(id, WaitsFor::is_start).0 {
            let Some(pending) = self.take_pending(ticket) else {
                continue;
            };
            self.wait_for(pending.call, WaitsFor::Tail { child: id, exit: Box::new(exit.clone()) }, None);
            if self.is_serving() {
                turn.order(Effect::ReadTail { call: pending.call, child: id, kept_in, user: pending.uid });
            }
        }
        if !self.is_serving() {
            self.tell_without_tails(turn);
        }
    }

    /// The last of a child's output is read.
    pub(crate) fn tail_read(&mut self, call: Call, tail: String, turn: &mut Turn<'_>) {
        if let Some(ticket) = self.pending.ticket(call) {
            self.answer_with_tail(ticket, tail, turn);
        }
    }

    /// The broker is shutting down, and nobody waits for what is read any more.
    pub(crate) fn tell_without_tails(&mut self, turn: &mut Turn<'_>) {
        for ticket in self.pending.tickets(|pending| pending.waits_for.is_tail()) {
            self.answer_with_tail(ticket, String::new(), turn);
        }
    }

    fn answer_with_tail(&mut self, ticket: Ticket, log_tail: String, turn: &mut Turn<'_>) {
        let waits_for = self.pending.get(ticket).map(|pending| &pending.waits_for);
        let Some(WaitsFor::Tail { child, exit }) = waits_for else { return };
        let message = failed(&self.children.title(*child), exit);
        let exit = exit.clone();
        let error = Error::new(ErrorKind::StartFailed { exit, log_tail }, message);
        self.answer_pending(ticket, Err(error), turn);
    }
}

/// Says that a child has failed to start, and which: nobody else has told its creator.
fn failed(child: &str, exit: &Exit) -> String {
    let (status, reason) = (exit.status, exit.reason);
    if reason == ExitReason::StartFailed {
        format!("the child {child} ended before it was ready ({status}); its log tells more")
    } else {
        format!("the child {child} was stopped before it was ready ({})", reason.as_str())
    }
}
