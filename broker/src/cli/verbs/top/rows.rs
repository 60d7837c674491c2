//! One child as `top` shows it, with what it used lately.

use std::collections::VecDeque;
use std::time::Duration;

use procbroker_protocol::usage::Usage;
use procbroker_protocol::{Child, ChildId, ChildState, Field, Fields, PartialChild, Timestamp};

use crate::cli::print::escape::{escaped, shown_command_line};
use crate::cli::print::words::{exit_word, how_ended};

/// How many of the last seconds are remembered for the graph.
pub(super) const HISTORY: usize = 10;

/// What is asked for of each child.
pub(super) fn wanted() -> Fields {
    [
        Field::Name,
        Field::Labels,
        Field::Command,
        Field::Pid,
        Field::State,
        Field::CreatedAt,
        Field::StartedAt,
        Field::Restarts,
        Field::Exit,
        Field::StatusText,
        Field::Usage,
    ]
    .into_iter()
    .collect()
}

/// One child. Its texts are harmless to a terminal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChildRow {
    pub(super) id: ChildId,
    /// Its name, or its id.
    pub(super) title: String,
    /// Its labels, `key=value`.
    pub(super) labels: Vec<String>,
    pub(super) command: String,
    pub(super) pid: Option<u32>,
    pub(super) state: ChildState,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) restarts: u32,
    /// How it ended, last.
    pub(super) exit: Option<String>,
    /// That its cleanup has failed, and how it ended, so short that it has room in a narrow line.
    pub(super) failed_cleanup: Option<String>,
    /// What it says of itself.
    pub(super) status_text: Option<String>,
    /// Resident memory, in bytes.
    pub(super) memory: Option<u64>,
    /// How much of one processor it had since the answer before.
    pub(super) cpu: Option<f64>,
    /// What it had before, the last at the end.
    pub(super) history: VecDeque<f64>,
    /// When it was seen to have ended.
    pub(super) ended_at: Option<Timestamp>,
    /// In how many answers in turn it was not.
    pub(super) missed: u8,
    /// The processor time of an answer, and when that came.
    measured: Option<(Duration, Timestamp)>,
}

impl ChildRow {
    /// Takes in a child of an event.
    pub(super) fn of(child: &Child) -> Self {
        Self {
            id: child.id,
            title: child.name.as_ref().map_or_else(|| child.id.to_string(), ToString::to_string),
            labels: child.labels.iter().map(|(key, value)| escaped(&format!("{key}={value}"))).collect(),
            command: shown_command_line(&child.command, child.shortened),
            pid: child.pid,
            state: child.state,
            created_at: child.created_at,
            started_at: child.started_at,
            restarts: child.restarts,
            exit: child.exit.as_ref().map(|exit| how_ended(exit, child.cleanup.as_ref())),
            failed_cleanup: failed_cleanup(child),
            status_text: child.status_text.as_deref().map(escaped),
            memory: None,
            cpu: None,
            history: VecDeque::new(),
            ended_at: None,
            missed: 0,
            measured: None,
        }
    }

    /// Takes in a child of an answer. None where it lacks what was asked for.
    pub(super) fn of_listed(child: &PartialChild<'_>) -> Option<Self> {
        let labels = child.labels()?.iter().map(|(key, value)| escaped(&format!("{key}={value}")));
        Some(Self {
            id: child.id(),
            title: child.name()?.as_ref().map_or_else(|| child.id().to_string(), ToString::to_string),
            labels: labels.collect(),
            command: shown_command_line(child.command()?, child.shortened()),
            pid: *child.pid()?,
            state: *child.state()?,
            created_at: *child.created_at()?,
            started_at: *child.started_at()?,
            restarts: *child.restarts()?,
            // One that is listed lives, and has not been cleaned up.
            exit: child.exit()?.as_ref().map(|exit| how_ended(exit, None)),
            failed_cleanup: None,
            status_text: child.status_text()?.as_deref().map(escaped),
            memory: None,
            cpu: None,
            history: VecDeque::new(),
            ended_at: None,
            missed: 0,
            measured: None,
        })
    }

    /// Takes over from what was known before what is told seldom.
    pub(super) fn after(self, before: Self) -> Self {
        Self {
            exit: self.exit.or(before.exit),
            memory: before.memory,
            cpu: before.cpu,
            history: before.history,
            ended_at: before.ended_at,
            measured: before.measured,
            ..self
        }
    }

    /// Takes in what it uses now.
    pub(super) fn measure(&mut self, usage: Option<&Usage>, now: Timestamp) {
        let measured = usage.and_then(|usage| usage.cpu).map(|cpu| (cpu, now));
        self.memory = usage.and_then(|usage| usage.memory);
        self.cpu = self.measured.zip(measured).and_then(|((before, then), (cpu, now))| {
            let micros = now.as_micros().checked_sub(then.as_micros()).filter(|micros| *micros > 0)?;
            // One that was started anew begins at nothing.
            let spent = cpu.checked_sub(before)?;
            Some(spent.as_secs_f64() / Duration::from_micros(micros).as_secs_f64())
        });
        self.measured = measured;
        if let Some(share) = self.cpu {
            self.history.push_back(share);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }

    /// Nothing of it is left that could use anything.
    pub(super) fn uses_nothing(&mut self) {
        self.memory = None;
        self.cpu = None;
    }

    /// Whether a text is part of its name or command, or one of its labels.
    pub(super) fn has(&self, text: &str) -> bool {
        self.title.contains(text)
            || self.command.contains(text)
            || self.labels.iter().any(|label| label == text)
    }
}

fn failed_cleanup(child: &Child) -> Option<String> {
    let failed = child.cleanup.as_ref().is_some_and(|cleanup| !cleanup.ok);
    let exit = child.exit.as_ref().filter(|_| failed)?;
    Some(format!("cleanup failed ({})", exit_word(exit.status)))
}
