//! What the broker orders, taken down after it was checked.

use procbroker_core::{Effect, Record, Report};
use procbroker_protocol::ChildState;

use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::{Start, Track};

impl Ledger {
    /// Takes down one order.
    pub fn record(&mut self, effect: &Effect) {
        let now = self.now;
        match effect {
            Effect::Admit { connection } => {
                self.open_links += 1;
                if let Some(link) = self.links.get_mut(connection) {
                    link.admitted = true;
                }
            }
            Effect::Refuse { connection, .. } => {
                if let Some(link) = self.links.get_mut(connection) {
                    link.refused = true;
                    link.open = false;
                }
            }
            Effect::Answer { call, .. } => self.answered(*call),
            Effect::Record { run, record } => self.recorded(*run, record),
            Effect::Spawn { run, .. } => self.change(*run, |track| track.start = Start::Ordered),
            Effect::Signal { run, signal, call: None, .. } => {
                self.change(*run, |track| track.sent.push((now, *signal)));
            }
            Effect::Signal { run, call: Some(call), .. } => {
                if let Some(asked) = self.calls.get_mut(call) {
                    asked.sent.insert(run.child);
                    asked.outstanding.insert(run.child);
                }
            }
            Effect::Kill { run } => self.change(*run, |track| {
                track.killed = Some((track.killed.map_or(now, |(first, _)| first), now));
            }),
            Effect::Release { run } => self.released(*run),
            Effect::Forget { child } => {
                self.visible.retain(|(_, id)| id != child);
                if let Some(track) = self.tracks.get_mut(child) {
                    track.forgotten = true;
                }
            }
            Effect::Report(Report::Idle) => self.close(None, false),
            Effect::Sweep => {
                if let Some(closing) = &mut self.closing {
                    closing.swept = Some(now);
                }
            }
            Effect::Exit(_) => self.exited = true,
            Effect::Report(_) | Effect::Notify(_) => {}
        }
    }

    fn answered(&mut self, call: procbroker_core::Call) {
        self.waiting.remove(&call);
        if let Some(asked) = self.calls.get_mut(&call) {
            asked.answered = true;
        }
        if let Some(link) = self.links.get_mut(&call.connection) {
            link.unanswered = link.unanswered.saturating_sub(1);
        }
    }

    fn recorded(&mut self, run: procbroker_core::Run, record: &Record) {
        match record {
            Record::Intent { order, child } => {
                let Some(call) = self.handed_out.get(&run.child) else { return };
                let params = std::sync::Arc::clone(&order.params);
                let track = Track::new(run, *call, child, params, order.run_as.clone(), self.now);
                self.tracks.insert(run.child, track);
                self.live.insert(run.child);
            }
            Record::Progress { child } => self.change(run, |track| {
                track.recorded_start |= child.pid.is_some();
                track.recorded_end |= child.state == ChildState::Ended;
            }),
            Record::Void => self.change(run, |track| track.void = true),
        }
    }

    fn released(&mut self, run: procbroker_core::Run) {
        let now = self.now;
        self.live.remove(&run.child);
        let Some(track) = self.tracks.get_mut(&run.child) else { return };
        track.released = Some(now);
        if !track.void {
            self.visible.push_back((now, run.child));
        }
    }
}
