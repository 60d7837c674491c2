//! What is known of the commands that find out whether children are ready: one process at a time, whose answer counts when nothing
//! of it is left.

use procbroker_core::{Incarnation, Input, Members, Run, paired_id};
use procbroker_protocol::ExitStatus;
use procbroker_protocol::create::{Check, Probe, Ready};
use procbroker_protocol::error::ProbeFailure;

use crate::sim::agenda::SECOND;
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::Track;

/// How long a command may take, from the order to start it, in nanoseconds.
const PATIENCE: u64 = 5 * SECOND;

/// The command of one child, if something of it may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The number of its last process.
    pub incarnation: Incarnation,
    /// How far it is.
    pub stage: Stage,
    /// What was left of it beside its process, as the broker last heard.
    pub members: Members,
    /// When SIGKILL was ordered first, and last, since its process is known.
    pub killed: Option<(u64, u64)>,
    /// Whether it was killed before it had ended: whatever it says comes too late.
    pub is_cut_short: bool,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    Absent,
    /// Its start was ordered.
    Ordered {
        /// When.
        since: u64,
    },
    /// Its process is there.
    Running {
        /// When its start was ordered.
        since: u64,
    },
    /// Its process has ended, or never was.
    Over {
        /// What it has found.
        is_ready: bool,
    },
}

impl Command {
    /// That of a child that nobody has asked so far.
    #[must_use]
    pub fn absent() -> Self {
        Self {
            incarnation: Incarnation::FIRST,
            stage: Stage::Absent,
            members: Members::Nothing,
            killed: None,
            is_cut_short: false,
        }
    }

    /// What an earlier broker has left of one.
    #[must_use]
    pub fn left(members: Members) -> Self {
        match members {
            Members::Nothing => Self::absent(),
            Members::Outside | Members::Group => {
                Self { stage: Stage::Over { is_ready: false }, members, ..Self::absent() }
            }
        }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_late(&self, now: u64) -> bool {
        match self.stage {
            Stage::Ordered { since } | Stage::Running { since } => now >= since + PATIENCE,
            Stage::Absent | Stage::Over { .. } => false,
        }
    }
}

impl Track {
    /// Whether a command finds out whether it is ready.
    #[must_use]
    pub fn is_asked_by_command(&self) -> bool {
        matches!(self.params.ready, Ready::Probe(Probe { check: Check::Command(_), .. }))
    }

    /// Whether something of a command may be there.
    #[must_use]
    pub fn has_command(&self) -> bool {
        self.command.stage != Stage::Absent
    }

    /// Whether nothing of its run is left but what was to find out whether it is ready.
    #[must_use]
    pub fn is_outlived(&self) -> bool {
        let is_gone = self.exit.is_some() && self.members == Members::Nothing;
        is_gone && self.cleaning.is_none() && self.known_exit.is_none() && self.has_command()
    }
}

impl Ledger {
    /// Whether a process is that of a command which finds out whether a child is ready.
    #[must_use]
    pub fn is_command(&self, run: Run) -> bool {
        !self.tracks.contains_key(&run.child) && self.tracks.contains_key(&paired_id(run.child))
    }

    /// Something is told of the process of a command.
    pub(super) fn told_of_command(&mut self, input: &Input) {
        match input {
            Input::Spawned { run, .. } => self.change_command(*run, |command| {
                if let Stage::Ordered { since } = command.stage {
                    (command.stage, command.killed) = (Stage::Running { since }, None);
                }
            }),
            Input::SpawnFailed { run, failure } => {
                self.said_no(*run, ProbeFailure::NotStarted(failure.clone()));
                self.change_command(*run, |command| command.stage = Stage::Over { is_ready: false });
            }
            Input::Exited { run, status, members } => {
                if *status != ExitStatus::Code(0) {
                    self.said_no(*run, ProbeFailure::Ended(*status));
                }
                self.change_command(*run, |command| {
                    let is_ready = *status == ExitStatus::Code(0) && !command.is_cut_short;
                    (command.stage, command.members) = (Stage::Over { is_ready }, *members);
                });
            }
            Input::MembersLeft { run, members } => {
                self.change_command(*run, |command| command.members = *members);
            }
            _ => {}
        }
    }

    /// The start of a command is ordered.
    pub(super) fn command_begins(&mut self, run: Run) {
        let now = self.now;
        if let Some(track) = self.tracks.get_mut(&paired_id(run.child)) {
            track.is_asked_about();
            let stage = Stage::Ordered { since: now };
            track.command = Command { incarnation: run.incarnation, stage, ..Command::absent() };
        }
    }

    /// A command has said no, unless it was killed before.
    fn said_no(&mut self, run: Run, failure: ProbeFailure) {
        let Some(track) = self.tracks.get_mut(&paired_id(run.child)) else { return };
        let command = &track.command;
        if command.incarnation == run.incarnation && track.has_command() && !command.is_cut_short {
            let is_news = track.readiness.failure.as_ref() != Some(&failure);
            track.readiness.is_unreported |= is_news && matches!(failure, ProbeFailure::NotStarted(_));
            track.readiness.failure = Some(failure);
        }
    }

    /// SIGKILL is ordered to all of a command.
    pub(super) fn command_is_killed(&mut self, run: Run) {
        let now = self.now;
        let track = self.tracks.get(&paired_id(run.child));
        if track.is_some_and(|track| track.command.is_late(now)) {
            self.said_no(run, ProbeFailure::TimedOut);
        }
        self.change_command(run, |command| {
            command.killed = Some((command.killed.map_or(now, |(first, _)| first), now));
            command.is_cut_short |= !matches!(command.stage, Stage::Over { .. });
        });
    }

    /// Nothing of a command is left: its answer counts, if anybody needs it still.
    pub(super) fn command_is_over(&mut self, run: Run) {
        let now = self.now;
        let Some(track) = self.tracks.get_mut(&paired_id(run.child)) else { return };
        let is_ready = track.command.stage == Stage::Over { is_ready: true };
        track.command = Command { incarnation: run.incarnation, ..Command::absent() };
        track.is_found(is_ready, now);
        let of = track.run;
        self.note_run(of);
    }

    fn change_command(&mut self, run: Run, change: impl FnOnce(&mut Command)) {
        if let Some(track) = self.tracks.get_mut(&paired_id(run.child))
            && track.has_command()
            && track.command.incarnation == run.incarnation
        {
            change(&mut track.command);
        }
    }
}
