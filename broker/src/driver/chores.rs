//! What is done once the clients have their answers: nobody waits for it.
//!
//! To wake another thread, to write a line of the log and to let go of memory takes as long as the answer itself. So the
//! connections write first what came of a turn.

use procbroker_core::Report;

use super::audit::AuditEntry;
use super::effect_handler::EffectHandler;
use crate::report;

/// What waits for the end of the turn.
#[derive(Debug, Default)]
pub(super) struct Chores {
    lines: Vec<Line>,
    /// Processes have got to their programs: one may have ended before it was watched, with a signal that came too early.
    pub(super) has_launched: bool,
    /// Something is not needed any more.
    pub(super) let_go: bool,
    /// For how many turns there was something more urgent.
    put_off: usize,
}

/// A line of the log.
#[derive(Debug)]
enum Line {
    Report(Report),
    Audit(AuditEntry),
}

/// Room for so many lines is kept from one turn to the next.
const ROOM_KEPT: usize = 64;

/// For so many turns at the most others go first.
const PUT_OFF_MAX: usize = 32;

impl Chores {
    /// Whether there is anything to do.
    pub(super) fn is_any(&self) -> bool {
        self.has_launched || self.let_go || !self.lines.is_empty()
    }

    /// Lets others go first for one more turn, if there is anything to do.
    pub(super) fn wait(&mut self) -> bool {
        self.put_off += usize::from(self.is_any());
        self.is_any()
    }

    /// Whether they have waited for long enough.
    pub(super) fn are_overdue(&self) -> bool {
        self.put_off >= PUT_OFF_MAX
    }

    /// Has the core's report written.
    pub(super) fn report(&mut self, report: Report) {
        self.lines.push(Line::Report(report));
    }

    /// Has it written who has asked for what.
    pub(super) fn audit(&mut self, entry: Option<AuditEntry>) {
        self.lines.extend(entry.map(Line::Audit));
    }

    /// Does all but the reaping, which is the driver's.
    pub(super) fn do_all(&mut self, handler: &mut EffectHandler) {
        self.put_off = 0;
        for line in self.lines.drain(..) {
            match line {
                Line::Report(report) => report::write(&report),
                Line::Audit(entry) => entry.write(),
            }
        }
        self.lines.shrink_to(ROOM_KEPT);
        if self.has_launched {
            handler.prepare_more();
        }
        if std::mem::take(&mut self.let_go) || self.has_launched {
            handler.let_go();
        }
    }
}
