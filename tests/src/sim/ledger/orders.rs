//! What the broker orders, taken down after it was checked.

use procbroker_core::{Effect, Progress, Purpose, Receipt, Record, Report, Run};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, Signal};

use crate::sim::ledger::Ledger;
use crate::sim::ledger::cleaning::{Cleaning, Stage};
use crate::sim::ledger::readiness::Readiness;
use crate::sim::ledger::track::{Start, Track};
use crate::sim::ledger::upgrade::Upgrade;

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
            Effect::Record { run, record, receipt, .. } => self.recorded(*run, record, *receipt),
            Effect::Spawn { run, purpose: Purpose::Main, .. } => {
                self.change(*run, |track| {
                    track.start = Start::Ordered;
                    if track.runs.between.is_some() {
                        let by = now.saturating_add(nanos(track.params.ready_timeout.0));
                        track.readiness = Readiness::awaited(Some(by));
                        track.runs.ordered_at = Some(track.clock.wall(now));
                    }
                });
            }
            Effect::Spawn { run, purpose: Purpose::Cleanup { .. }, .. } => {
                self.change_cleaning(*run, |cleaning| {
                    (cleaning.stage, cleaning.short) = (Stage::Ordered { since: now }, None);
                    (cleaning.turned_back, cleaning.killed, cleaning.put_off) = (None, None, false);
                });
            }
            Effect::Signal { run, signal, scope, call: None } => self.step_taken(*run, *signal, *scope),
            Effect::Signal { run, call: Some(asked), .. } => {
                if let Some(asked) = self.calls.get_mut(&asked.call) {
                    asked.sent.insert(run.child);
                    asked.outstanding.insert(run.child);
                }
            }
            Effect::Kill { run } if self.is_command(*run) => self.command_is_killed(*run),
            Effect::Kill { run } => self.kill_ordered(*run),
            Effect::Release { run } if self.is_command(*run) => self.command_is_over(*run),
            Effect::Release { run } => self.released(*run),
            Effect::Forget { child } => {
                self.visible.retain(|(_, id)| id != child);
                if let Some(track) = self.tracks.get_mut(child) {
                    track.forgotten = true;
                }
            }
            Effect::Report(Report::Idle) => self.close(None, false),
            Effect::Report(Report::Ended { child }) => self.ended(child.id),
            Effect::Report(Report::CleanupLeft { child }) => {
                if let Some(Track { cleaning: Some(cleaning), .. }) = self.tracks.get_mut(&child.id) {
                    cleaning.stage = Stage::Left;
                }
            }
            Effect::Report(Report::ProbeFailed { child, .. }) => {
                if let Some(track) = self.tracks.get_mut(&child.id) {
                    track.readiness.is_unreported = false;
                }
            }
            Effect::Report(Report::UpgradeRefused { .. }) => self.upgrade = Upgrade::Refused,
            Effect::CheckUpgrade => self.upgrade = Upgrade::Checking,
            Effect::HandOver => self.upgrade = Upgrade::HandingOver,
            Effect::Sweep => {
                let is_early = self.live_tracks().any(|track| !track.is_left());
                if let Some(closing) = &mut self.closing {
                    if is_early {
                        closing.swept_early = Some(now);
                    } else {
                        closing.swept = Some(now);
                    }
                }
            }
            Effect::Exit(_) => self.exited = true,
            Effect::ReadLog { call, .. } | Effect::ReadTail { call, .. } => {
                if let Some(asked) = self.calls.get_mut(call) {
                    asked.reading = true;
                }
            }
            Effect::Watch { anchor } => drop(self.watched.insert(*anchor)),
            Effect::Unwatch { anchor } => drop(self.watched.remove(anchor)),
            Effect::Probe { run, .. } => self.change(*run, Track::is_asked_about),
            Effect::Spawn { run, purpose: Purpose::Probe, .. } => self.command_begins(*run),
            Effect::Unread { connection } => drop(self.readers.roused.insert(*connection)),
            Effect::Publish { .. }
            | Effect::AwaitRun { .. }
            | Effect::ForgetAnswers { .. }
            | Effect::EndLog { .. }
            | Effect::Measure { .. }
            | Effect::Report(_)
            | Effect::Notify(_) => {}
        }
    }

    /// SIGKILL is ordered to all of a run, or of an attempt at a cleanup.
    fn kill_ordered(&mut self, run: Run) {
        let now = self.now;
        let again = |killed: Option<(u64, u64)>| Some((killed.map_or(now, |(first, _)| first), now));
        self.change(run, |track| track.killed = again(track.killed));
        self.change_cleaning(run, |cleaning| cleaning.killed = again(cleaning.killed));
        if let Some(track) = self.tracks.get_mut(&run.child)
            && let Some(Stage::Running { since } | Stage::Ordered { since }) =
                track.cleaning.as_ref().map(|it| it.stage.clone())
        {
            let cut_short = now < track.cleanup_over_at(since);
            let is_for_upgrade = self.upgrade.is_clearing(now);
            self.change_cleaning(run, |cleaning| {
                cleaning.put_off |= cut_short && is_for_upgrade;
                cleaning.cut_short |= cut_short && !is_for_upgrade;
            });
        }
    }

    /// A stop sends a signal: of its next step, of the same one to more processes, or the SIGCONT that follows either.
    fn step_taken(&mut self, run: Run, signal: Signal, scope: Scope) {
        let now = self.now;
        self.change(run, |track| {
            if track.to_continue.take().is_none() {
                if !track.is_to_be_widened() {
                    track.sent.push((now, signal));
                }
                track.widened = scope == Scope::All;
                track.to_continue = is_to_be_continued(signal).then_some(scope);
            }
        });
    }

    /// A request has got its answer.
    pub(super) fn answered(&mut self, call: procbroker_core::Call) {
        self.place_declined(call);
        self.waiting.remove(&call);
        if let Some(asked) = self.calls.get_mut(&call) {
            asked.answered = true;
        }
        if let Some(link) = self.links.get_mut(&call.connection) {
            link.unanswered = link.unanswered.saturating_sub(1);
        }
    }

    fn recorded(&mut self, run: Run, record: &Record, receipt: Receipt) {
        match record {
            Record::Intent(intent) => {
                let Some(call) = self.handed_out.get(&run.child) else { return };
                let params = std::sync::Arc::clone(&intent.params);
                let (run_as, clock) = (intent.run_as.clone(), self.clock.clone());
                let mut track = Track::new(run, *call, intent.owner, params, run_as, self.now, clock);
                track.anchor = intent.lease.anchor();
                let call = *call;
                self.others_may_have_had_their_turns(call);
                self.place_given(call);
                self.tracks.insert(run.child, track);
                self.creations.insert(run.child, self.creations.len());
                self.has_won(call);
                self.begins_to_live(run.child, call);
                self.live.insert(run.child);
            }
            Record::Progress(progress) => {
                let Some(track) = self.tracks.get_mut(&run.child) else { return };
                track.recorded_start |= !matches!(progress, Progress::Unwanted { .. });
                track.recorded_end |= matches!(progress, Progress::Ended { .. });
                match (progress, &mut track.cleaning) {
                    (Progress::Cleaning { attempts, .. }, Some(cleaning)) if receipt == Receipt::Wanted => {
                        *cleaning = Cleaning {
                            incarnation: run.incarnation,
                            stage: Stage::Recording,
                            is_excused: cleaning.is_excused,
                            ..Cleaning::due(*attempts)
                        };
                    }
                    (Progress::Ended { cleanup: Some(cleaned), .. }, Some(cleaning)) => {
                        cleaning.stage = Stage::Closing { cleaned: cleaned.clone() };
                    }
                    (Progress::Restarting { .. }, None) => {
                        if let Some(between) = &mut track.runs.between {
                            between.unrecorded = None;
                        }
                    }
                    _ => {}
                }
            }
            Record::Answered(_) => {}
        }
    }

    /// Nothing is left of a child, or of an attempt at its cleanup.
    fn released(&mut self, run: Run) {
        let now = self.now;
        let Some(track) = self.tracks.get_mut(&run.child) else { return };
        let was_there = track.is_spawned() || track.runs.between.is_some();
        match &mut track.cleaning {
            Some(cleaning) => match &mut cleaning.stage {
                Stage::Over { released, .. } => *released = true,
                Stage::Interrupted { .. } => cleaning.stage = Stage::Due,
                Stage::Due
                | Stage::Recording
                | Stage::Recorded
                | Stage::Ordered { .. }
                | Stage::Running { .. }
                | Stage::Closing { .. }
                | Stage::Closed { .. }
                | Stage::Left => {}
            },
            // What was found of a run that never was, as far as anybody knows.
            None if track.runs.between.is_some() && matches!(track.start, Start::Recorded { .. }) => {}
            None if std::mem::take(&mut track.is_cut_short) => {}
            None if was_there => track.run_is_over(now, self.closing.is_some()),
            None => {
                track.void = true;
                track.released = Some(now);
                let name = track.params.name.clone();
                self.live.remove(&run.child);
                self.name_is_free(name.as_ref());
            }
        }
    }

    /// A child is over.
    fn ended(&mut self, child: ChildId) {
        let now = self.now;
        self.live.remove(&child);
        let Some(track) = self.tracks.get_mut(&child) else { return };
        track.released = Some(now);
        // Who asks again for one that was replaced gets what has taken its place.
        track.refused |= track.is_unanswered() && !track.superseded;
        if let Some(Cleaning { stage: Stage::Closed { cleaned }, .. }) = &track.cleaning {
            track.cleaned = Some(cleaned.clone());
        }
        let name = track.params.name.clone();
        self.visible.push_back((now, child));
        self.name_is_free(name.as_ref());
    }
}

/// Whether a suspended process does not take this signal before it is continued.
fn is_to_be_continued(signal: Signal) -> bool {
    ![Signal::STOP, Signal::CONT, Signal::KILL].contains(&signal)
}
