//! Notes since when children are in their states, as far as can be seen from here, and makes the lines that tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use procbroker_client::Broker;
use procbroker_protocol::{Child, ChildId, ChildState};

use super::awaited::{Awaited, End};
use super::line::Line;
use super::look::{INTERVAL, LINES_MAX, Stops, bounded, children};
use super::phase::{Phase, joined, phase};
use super::remarks::Remarks;
use crate::cli::print::words::title;
use crate::counted;

/// Since when children are in their states, as far as was seen from here.
pub(super) struct Seen {
    /// What they are to become.
    end: End,
    began: Instant,
    states: BTreeMap<ChildId, (ChildState, Instant)>,
    /// Those whose stop had begun before: by which steps, and when, is not told.
    stopping_before: BTreeSet<ChildId>,
}

impl Seen {
    fn since(began: Instant, end: End) -> Self {
        Self { end, began, states: BTreeMap::new(), stopping_before: BTreeSet::new() }
    }

    /// What there is to see before anything is asked for.
    pub(super) async fn before(broker: &Broker, awaited: &Awaited, told: Remarks, stops: &mut Stops) -> Self {
        let Awaited { targets, end, goes_on: _ } = awaited;
        let (found, end) = match (end, told) {
            (End::Seen(_), _) | (_, Remarks::GoesOn) => (Vec::new(), end.clone()),
            // The request itself would wait for a broker that does not answer, and is not held up for long.
            (End::Stopped(_) | End::ShutDown(_) | End::Restarted | End::Started(_), Remarks::All) => {
                let look = async { (children(broker, targets, stops).await, bounded(broker, end).await) };
                let looked = tokio::time::timeout(INTERVAL, look).await;
                looked.unwrap_or_else(|_| (Vec::new(), end.clone()))
            }
        };
        let mut seen = Self::since(Instant::now(), end);
        seen.note_stopping(&found);
        seen
    }

    fn note_stopping(&mut self, found: &[Arc<Child>]) {
        let stopping = found.iter().filter(|child| child.state == ChildState::Stopping);
        self.stopping_before.extend(stopping.map(|child| child.id));
    }

    /// A line for each child that is still waited for, and one for those that had no room.
    pub(super) fn lines(&mut self, children: &[Arc<Child>], stops: &Stops, now: Instant) -> Vec<Line> {
        let is_first = self.states.is_empty();
        let mut lines = Vec::new();
        let mut in_turn = 0_usize;
        for child in children {
            let begin = if is_first { self.began } else { now };
            let entry = self.states.entry(child.id).or_insert((child.state, begin));
            if entry.0 != child.state {
                *entry = (child.state, now);
            }
            if child.state != ChildState::Stopping {
                self.stopping_before.remove(&child.id);
            }
            let phase = if self.stopping_before.contains(&child.id) {
                Phase::Awaited(joined(&self.end, now.saturating_duration_since(self.began)))
            } else {
                phase(child.state, &self.end, stops.of(child.id), now.saturating_duration_since(entry.1))
            };
            match phase {
                Phase::Awaited(what) => lines.push(Line { title: title(child), what }),
                Phase::InTurn => in_turn += 1,
                Phase::Over => {}
            }
        }
        if let (true, End::Started(start)) = (lines.is_empty(), &self.end) {
            lines.extend(start.line(now.saturating_duration_since(self.began)));
        }
        let hidden = lines.len().saturating_sub(LINES_MAX);
        lines.truncate(LINES_MAX);
        if hidden > 0 {
            lines.push(Line::of_several(format!("and {hidden} more")));
        }
        if in_turn > 0 {
            lines.push(Line::of_several(format!("{} to be stopped after them", counted::children(in_turn))));
        }
        lines
    }
}
