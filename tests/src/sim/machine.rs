//! The model operating system: carries out the broker's orders, and says later what became of them.
//!
//! It fails, delays and reorders what a real one can, and nothing else: an exit is never reported
//! before its spawn, a process that is reported gone is gone, and what was left behind is reported
//! whenever it has become less.

use std::collections::BTreeMap;

use procbroker_core::{Effect, Input, Pid, RecordFailure, Run, SignalOutcome};
use procbroker_protocol::Signal;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::Scope;

use crate::sim::agenda::{Agenda, MILLISECOND, SECOND};
use crate::sim::dice::Dice;
use crate::sim::event::Event;
use crate::sim::family::{Family, own_end};
use crate::sim::setting::Setting;

/// How long a report about an end takes to the broker, at most.
const REPORT_MILLIS: u64 = 2;

/// How long a sweep takes at most, in nanoseconds, where nothing keeps it.
pub const SWEEP_TIME: u64 = 20 * MILLISECOND;

/// The model operating system.
#[derive(Debug, Default)]
pub struct Machine {
    /// The processes of each run, until it is released.
    pub families: BTreeMap<Run, Family>,
    /// How many spawns were ordered and have not succeeded or failed.
    pub spawning: u32,
    /// How many records were ordered and are not answered.
    pub recording: u32,
    /// How many processes descend from the broker, belong to no child and cannot be ended.
    pub strays: u32,
    pids: u32,
}

/// What the machine needs to act.
#[derive(Debug)]
pub struct Means<'a> {
    /// What is planned.
    pub agenda: &'a mut Agenda<Event>,
    /// Chance.
    pub dice: &'a mut Dice,
    /// The circumstances.
    pub setting: &'a Setting,
}

impl Machine {
    /// Carries out one order.
    pub fn perform(&mut self, effect: &Effect, means: &mut Means<'_>) {
        match effect {
            Effect::Record { run, record: procbroker_core::Record::Intent { .. } } => {
                self.record(*run, means);
            }
            Effect::Spawn { run, .. } => self.spawn(*run, means),
            Effect::Signal { run, signal, scope, call } => {
                let outcome = self.signal(*run, *signal, *scope, means);
                let delay = if means.dice.chance(4) { 1_500 } else { 1 };
                let input = Input::Signalled { run: *run, call: *call, outcome };
                means.agenda.after(means.dice.within_millis(delay), Event::Input(input));
            }
            Effect::Kill { run } => self.kill(*run, means),
            Effect::Release { run } => {
                self.families.remove(run);
            }
            Effect::Sweep => self.sweep(means),
            Effect::Record { .. }
            | Effect::Admit { .. }
            | Effect::Refuse { .. }
            | Effect::Answer { .. }
            | Effect::Forget { .. }
            | Effect::Report(_)
            | Effect::Notify(_)
            | Effect::Exit(_) => {}
        }
    }

    /// Whether any process of any child is there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.families.values().any(Family::is_alive)
    }

    /// Whether something is there, or on its way, that no broker could end in time.
    #[must_use]
    pub fn has_excuse(&self) -> bool {
        let undying = self
            .families
            .values()
            .flat_map(|family| &family.processes)
            .any(|process| !process.temper.is_mortal());
        undying || self.spawning > 0 || self.recording > 0 || self.strays > 0
    }

    fn record(&mut self, run: Run, means: &mut Means<'_>) {
        let often = if means.setting.failing { 30 } else { 2 };
        let delay = if means.dice.chance(often) { 40_000 } else { 4 };
        let result = if means.dice.chance(often) {
            Err(RecordFailure { message: "no space left on device".to_owned() })
        } else {
            Ok(())
        };
        self.recording += 1;
        means.agenda.after(means.dice.within_millis(delay), Event::Input(Input::Recorded { run, result }));
    }

    fn spawn(&mut self, run: Run, means: &mut Means<'_>) {
        let often = if means.setting.failing { 30 } else { 2 };
        self.spawning += 1;
        let delay = if means.dice.chance(often) {
            20 * SECOND + means.dice.within_millis(180_000)
        } else {
            means.dice.within_millis(8)
        };
        let event = if means.dice.chance(often) {
            let failure = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
            Event::Input(Input::SpawnFailed { run, failure })
        } else {
            Event::Executed { run }
        };
        means.agenda.after(delay, event);
    }

    /// The program of a run begins.
    pub fn executed(&mut self, run: Run, means: &mut Means<'_>) {
        self.pids += 1;
        let Some(pid) = Pid::new(self.pids) else { return };
        let told_at = means.agenda.now() + means.dice.within_millis(3);
        means.agenda.at(told_at, Event::Input(Input::Spawned { run, pid }));
        let family = Family::roll(pid, told_at, means.dice, means.setting);
        for process in 0..family.processes.len() {
            if let Some(delay) = own_end(means.dice) {
                means.agenda.after(delay, Event::Dies { run, process, of: None });
            }
        }
        for _ in 0..family.forks_left {
            if means.dice.chance(50) {
                means.agenda.after(means.dice.within_millis(15_000), Event::Forks { run });
            }
        }
        self.families.insert(run, family);
    }

    /// A process forks, if one is there that can.
    pub fn forks(&mut self, run: Run, means: &mut Means<'_>) {
        if let Some(family) = self.families.get_mut(&run) {
            family.fork(means.dice, means.setting);
        }
    }

    /// A process dies, unless it has already.
    pub fn dies(&mut self, run: Run, index: usize, of: Option<Signal>, means: &mut Means<'_>) {
        let Some(family) = self.families.get_mut(&run) else { return };
        let Some(process) = family.processes.get_mut(index).filter(|process| process.alive) else { return };
        process.alive = false;
        let delay = means.dice.within_millis(REPORT_MILLIS);
        if index > 0 {
            if family.reported {
                means.agenda.after(delay, Event::Remaining { run });
            }
            return;
        }
        if let Some(signal) = of
            && (signal == Signal::KILL || means.dice.chance(50))
        {
            family.status = procbroker_protocol::ExitStatus::Signal(signal);
        }
        for (member, process) in family.processes.iter().enumerate().skip(1) {
            if process.alive && process.tied && process.temper.is_mortal() {
                let delay = means.dice.within_millis(30);
                means.agenda.after(delay, Event::Dies { run, process: member, of: None });
            }
        }
        let at = (means.agenda.now() + delay).max(family.told_at);
        means.agenda.at(at, Event::Reaped { run });
    }

    /// The end of a main process comes to the broker's ears.
    pub fn reaped(&mut self, run: Run) -> Option<Input> {
        let family = self.families.get_mut(&run)?;
        family.reported = true;
        Some(Input::Exited { run, status: family.status, members: family.members() })
    }

    /// What is left of a run comes to the broker's ears.
    #[must_use]
    pub fn remaining(&self, run: Run) -> Option<Input> {
        let family = self.families.get(&run).filter(|family| family.reported)?;
        Some(Input::MembersLeft { run, members: family.members() })
    }

    fn signal(&mut self, run: Run, signal: Signal, scope: Scope, means: &mut Means<'_>) -> SignalOutcome {
        let Some(family) = self.families.get_mut(&run) else { return SignalOutcome::Gone };
        let (outcome, deaths) = family.signal(signal, scope, means.dice);
        for (process, delay) in deaths {
            means.agenda.after(delay, Event::Dies { run, process, of: Some(signal) });
        }
        outcome
    }

    /// SIGKILL to all that is there now; what is forked at this very moment gets away.
    fn kill(&mut self, run: Run, means: &mut Means<'_>) {
        self.signal(run, Signal::KILL, Scope::All, means);
        let Some(family) = self.families.get_mut(&run) else { return };
        if means.dice.chance(30) {
            family.fork(means.dice, means.setting);
        }
        if family.reported {
            means.agenda.after(means.dice.within_millis(REPORT_MILLIS), Event::Remaining { run });
        }
    }

    fn sweep(&mut self, means: &mut Means<'_>) {
        self.strays = if means.setting.undying && means.dice.chance(20) { 2 } else { 0 };
        if self.strays == 0 || means.dice.chance(50) {
            let delay = means.dice.below(SWEEP_TIME);
            means.agenda.after(delay, Event::Input(Input::Swept { left: self.strays }));
        }
    }
}
