//! What `top` knows and shows, and what each key makes of it. It has no terminal, no clock and no broker.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use procbroker_protocol::request::LogStream;
use procbroker_protocol::{ChildId, ChildState, Event, EventKind, PartialChildren, Signal, Timestamp};

use super::rows::ChildRow;
use crate::cli::print::escape::escaped;

/// How long a child that has ended is still shown.
const ENDED_SHOWN: Duration = Duration::from_secs(5);

/// How many lines of output are kept for the pane.
pub(super) const LOG_LINES: u32 = 500;

/// What somebody wants who has pressed a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserAction {
    Quit,
    Suspend,
    Stop(ChildId),
    Restart(ChildId),
    Signal(ChildId, Signal),
}

/// What to ask the broker next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopQuery {
    List,
    Log(ChildId, LogStream),
}

/// The end of a child's output.
#[derive(Clone, Debug)]
pub(super) struct LogPane {
    pub(super) child: ChildId,
    pub(super) stream: LogStream,
    pub(super) text: String,
    /// Whether its standard error has a log of its own.
    pub(super) has_two: bool,
}

/// What is shown of an output.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    child: ChildId,
    stream: LogStream,
    pub(super) lines: Vec<String>,
    has_two: bool,
}

/// The lines of the pane for output, its title among them, on a screen of so many.
pub(super) fn pane_lines(height: u16) -> u16 {
    (height.saturating_sub(3) / 2).max(2)
}

/// What children are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SortOrder {
    Age,
    Name,
    State,
    Cpu,
    Memory,
    Restarts,
}

impl SortOrder {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Name => "name",
            Self::State => "state",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Restarts => "restarts",
        }
    }

    pub(super) fn next(self) -> Self {
        match self {
            Self::Age => Self::Name,
            Self::Name => Self::State,
            Self::State => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::Restarts,
            Self::Restarts => Self::Age,
        }
    }

    fn apply(self, rows: &mut [&ChildRow]) {
        match self {
            // That of their ids.
            Self::Age => {}
            Self::Name => rows.sort_by(|one, other| one.title.cmp(&other.title)),
            Self::State => rows.sort_by_key(|row| row.state.as_str()),
            Self::Cpu => {
                rows.sort_by(|one, other| other.cpu.unwrap_or(-1.0).total_cmp(&one.cpu.unwrap_or(-1.0)));
            }
            Self::Memory => rows.sort_by_key(|row| Reverse(row.memory)),
            Self::Restarts => rows.sort_by_key(|row| Reverse(row.restarts)),
        }
    }
}

/// What the next key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    Help,
    /// The filter is typed.
    Filter,
    /// A stop or a restart is to be confirmed.
    Confirm {
        wish: UserAction,
        question: String,
    },
    /// The signal is typed.
    Signal {
        child: ChildId,
        title: String,
        text: String,
    },
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<ChildId, ChildRow>,
    pub(super) selected: Option<ChildId>,
    pub(super) order: SortOrder,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// Whether the output of the selected child is shown.
    pub(super) has_pane: bool,
    /// Which output of it.
    pub(super) stream: LogStream,
    /// The output that came last, and whose it is.
    pub(super) log: Option<Shown>,
    /// How many lines below those that are shown of it are out of sight. While there are some, nothing new comes.
    pub(super) below: usize,
    /// How many lines the screen has.
    pub(super) height: u16,
    /// Something to tell, until the next key.
    pub(super) notice: Option<String>,
    pub(super) now: Timestamp,
    pub(super) asked_last: TopQuery,
}

impl Model {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            rows: BTreeMap::new(),
            selected: None,
            order: SortOrder::Age,
            filter: String::new(),
            mode: Mode::Browse,
            has_pane: false,
            stream: LogStream::Stdout,
            log: None,
            below: 0,
            height: 24,
            notice: None,
            now,
            asked_last: TopQuery::List,
        }
    }

    // What the broker tells.

    /// The live children have been listed.
    pub(super) fn listed(&mut self, children: &PartialChildren, now: Timestamp) {
        self.now = now;
        for row in self.rows.values_mut() {
            row.missed = row.missed.saturating_add(1);
        }
        for child in children.iter() {
            let Some(mut row) = ChildRow::of_listed(&child) else { continue };
            if let Some(before) = self.rows.remove(&row.id) {
                // What was asked for before it had ended is answered after.
                if before.state == ChildState::Ended {
                    self.rows.insert(before.id, before);
                    continue;
                }
                row = row.after(before);
            }
            row.measure(child.usage().and_then(|usage| usage.as_deref()), now);
            self.rows.insert(row.id, row);
        }
        // One of which an event has told just now is not in an answer that was on its way. One that is in no answer any
        // more has ended, and the event was missed.
        self.rows.retain(|_, row| row.missed < 2 || row.ended_at.is_some());
        self.forget_ended();
    }

    /// Something has happened.
    pub(super) fn happened(&mut self, event: &Event) {
        let Some(child) = event.child.as_deref() else {
            if event.kind == EventKind::ShuttingDown {
                self.notice = Some("the broker is shutting down".to_owned());
            }
            return;
        };
        let mut row = ChildRow::of(child);
        if let Some(before) = self.rows.remove(&row.id) {
            row = row.after(before);
        }
        if row.state == ChildState::Ended {
            row.ended_at = Some(event.at);
            row.uses_nothing();
        }
        self.rows.insert(row.id, row);
    }

    /// This is the end of a child's output.
    pub(super) fn logged(&mut self, output: &LogPane) {
        let LogPane { child, stream, ref text, has_two } = *output;
        if self.below > 0 {
            return;
        }
        let lines: Vec<String> = text.lines().map(escaped).collect();
        let first = lines.len().saturating_sub(usize::try_from(LOG_LINES).unwrap_or(usize::MAX));
        let lines = lines.get(first..).unwrap_or_default().to_vec();
        self.log = Some(Shown { child, stream, lines, has_two });
    }

    pub(super) fn passed(&mut self, now: Timestamp) {
        self.now = now;
        self.forget_ended();
    }

    fn forget_ended(&mut self) {
        let now = self.now.as_micros();
        let shown = u64::try_from(ENDED_SHOWN.as_micros()).unwrap_or(u64::MAX);
        self.rows.retain(|_, row| row.ended_at.is_none_or(|at| now.saturating_sub(at.as_micros()) < shown));
    }

    /// Whether an output is to be shown that was not asked for yet, so that whoever has pressed a key waits for it.
    pub(super) fn lacks_output(&self) -> bool {
        self.has_pane && self.below == 0 && self.asked_last == TopQuery::List && self.log().is_none()
    }

    /// What to ask next: the list, and every other time the output that is shown.
    pub(super) fn question(&mut self) -> TopQuery {
        let wants_output = self.has_pane && self.below == 0;
        self.asked_last = match (self.asked_last, wants_output, self.selected()) {
            (TopQuery::List, true, Some(row)) => TopQuery::Log(row.id, self.stream),
            (TopQuery::List | TopQuery::Log(..), _, _) => TopQuery::List,
        };
        self.asked_last
    }

    // What is shown.

    /// Returns the children to show, in their order.
    pub(super) fn visible(&self) -> Vec<&ChildRow> {
        let mut rows: Vec<&ChildRow> = self.rows.values().filter(|row| row.has(&self.filter)).collect();
        self.order.apply(&mut rows);
        rows
    }

    /// Returns every child that is known.
    pub(super) fn all(&self) -> impl Iterator<Item = &ChildRow> {
        self.rows.values()
    }

    /// Returns the place of the selected child among those that are shown: the first of them where none was selected.
    pub(super) fn selected_place(&self, visible: &[&ChildRow]) -> usize {
        visible.iter().position(|row| Some(row.id) == self.selected).unwrap_or(0)
    }

    /// Returns the selected child.
    pub(super) fn selected(&self) -> Option<&ChildRow> {
        let visible = self.visible();
        visible.get(self.selected_place(&visible)).copied()
    }

    /// Returns the output of the selected child, once it has come.
    pub(super) fn log(&self) -> Option<&[String]> {
        let shown = self.shown().filter(|shown| shown.stream == self.stream)?;
        Some(&shown.lines)
    }

    /// Whether the standard error of the selected child is known to have a log of its own.
    pub(super) fn has_two(&self) -> bool {
        self.shown().is_some_and(|shown| shown.has_two)
    }

    pub(super) fn shown(&self) -> Option<&Shown> {
        let selected = self.selected()?.id;
        self.log.as_ref().filter(|shown| shown.child == selected)
    }
}
