//! How processes start in the model: at once, late or never, and what keeps one from its program.

use procbroker_core::{Input, Pid, Purpose, Run};
use procbroker_protocol::ChildId;
use procbroker_protocol::error::SpawnFailure;

use crate::sim::agenda::SECOND;
use crate::sim::event::Event;
use crate::sim::family::{Family, FamilyId, Launch, Part, Temper, own_end};
use crate::sim::machine::{Machine, Means};

/// How many of a hundred runs lose a process to a want of memory.
const STARVING: u64 = 10;

impl Machine {
    /// A process is to be started.
    pub(super) fn spawn(&mut self, run: Run, purpose: &Purpose, means: &mut Means<'_>) {
        let part = match purpose {
            Purpose::Main => Part::Main,
            Purpose::Probe => Part::Probe,
            Purpose::Cleanup { .. } => {
                self.past.entry(run.child).or_default().cleaned_by = Some(self.brokers);
                Part::Cleanup
            }
        };
        self.flights.insert(run, part);
        let delay = if means.dice.chance(means.trouble()) {
            20 * SECOND + means.dice.within_millis(180_000)
        } else {
            means.dice.within_millis(8)
        };
        let event = if means.dice.chance(means.trouble()) {
            let (errno, name) =
                means.dice.choose([(2, "ENOENT"), (11, "EAGAIN"), (12, "ENOMEM"), (28, "ENOSPC")]);
            let failure = SpawnFailure { errno, errno_name: name.to_owned(), step: "exec".to_owned() };
            if part == Part::Cleanup && is_shortage(&failure) {
                // Nothing of it has run.
                self.past.entry(run.child).or_default().cleaned_by = None;
            }
            Event::Input(Input::SpawnFailed { run, failure })
        } else {
            Event::Executed { run }
        };
        means.agenda.after(delay, event);
    }

    /// The program of a run begins, and the broker will hear of it.
    pub fn executed(&mut self, run: Run, means: &mut Means<'_>) {
        if self.doomed.contains(&run) {
            return means.tell(10, Input::SpawnFailed { run, failure: killed() });
        }
        let told_at = means.agenda.now() + means.dice.within_millis(3);
        let Some((id, pid)) = self.execute(run, told_at, means) else { return };
        self.bound.insert(run, id);
        means.agenda.at(told_at, Event::Input(Input::Spawned { run, pid }));
    }

    /// The program of a run begins.
    pub(in crate::sim) fn execute(
        &mut self,
        run: Run,
        told_at: u64,
        means: &mut Means<'_>,
    ) -> Option<(FamilyId, Pid)> {
        let part = *self.flights.get(&run).filter(|_| !self.shot_down.contains(&run))?;
        let pid = self.free_pid()?;
        self.count += 1;
        let id = FamilyId(self.count);
        let family = Family::roll((run, part), pid, told_at, means.dice, means.setting);
        for process in 0..family.processes.len() {
            if let Some(delay) = own_end(part, means.dice) {
                means.agenda.after(delay, Event::Dies { family: id, process, of: None });
            }
        }
        if part == Part::Main && means.dice.chance(STARVING) {
            let process = means.dice.index(family.processes.len());
            let delay = means.dice.within_millis(15_000);
            means.agenda.after(delay, Event::Starves { family: id, process });
        }
        for _ in 0..family.forks_left {
            if means.dice.chance(50) {
                means.agenda.after(means.dice.within_millis(15_000), Event::Forks { family: id });
            }
        }
        if part == Part::Main {
            self.unmarked.remove(&run.child);
        }
        self.families.insert(id, family);
        self.begins(run.child, part, id, means);
        Some((id, pid))
    }

    /// A program begins.
    fn begins(&mut self, child: ChildId, part: Part, id: FamilyId, means: &mut Means<'_>) {
        if part == Part::Main {
            self.past.entry(child).or_default().has_run = true;
            if let Some(manners) = self.manners.get(&child) {
                manners.plan(id, means);
            }
        }
    }

    /// The broker has died, and a process that it was starting is on its way, still.
    pub(in crate::sim) fn left_on_its_way(&mut self, run: Run, means: &mut Means<'_>) {
        let Some(part) = self.flights.get(&run).copied() else { return };
        let Some(pid) = self.free_pid().filter(|_| !self.is_killed(run)) else { return };
        self.count += 1;
        let family = FamilyId(self.count);
        self.families.insert(family, Family::left_on_its_way((run, part), pid, means.dice, means.setting));
        if means.dice.chance(60) {
            let within = means.dice.choose([3, 3_000, 90_000]);
            let delay = means.dice.within_millis(within);
            means.agenda.after(delay, Event::GetsThere { family });
        }
    }

    /// One that was left on its way to its program gets there, if nobody holds it.
    pub fn gets_there(&mut self, id: FamilyId, means: &mut Means<'_>) {
        let is_free = |family: &&mut Family| family.is_alive() && family.launch == Launch::Underway;
        let Some(family) = self.families.get_mut(&id).filter(is_free) else { return };
        let (child, part) = (family.child, family.part);
        family.launch = Launch::Executed;
        for process in &mut family.processes {
            process.temper = Temper::roll(means.dice, means.setting);
        }
        if let Some(delay) = own_end(part, means.dice) {
            means.agenda.after(delay, Event::Dies { family: id, process: 0, of: None });
        }
        self.begins(child, part, id, means);
    }

    /// Whether a start was killed.
    fn is_killed(&self, run: Run) -> bool {
        self.shot_down.contains(&run) || self.doomed.contains(&run)
    }

    /// The lowest number that no main process has: those of the dead are given anew at once.
    fn free_pid(&self) -> Option<Pid> {
        let is_taken = |pid: &Pid| {
            let has = |family: &Family| family.leads() || family.run.is_some() && !family.reported;
            self.families.values().any(|family| family.pid == *pid && has(family))
        };
        (1..).find_map(|number| Pid::new(number).filter(|pid| !is_taken(pid)))
    }

    /// A process that has not got to its program is killed, unless nothing ends it.
    pub(super) fn shoot_down(&mut self, run: Run, means: &mut Means<'_>) {
        let Some(part) = self.flights.get(&run).copied() else { return };
        if self.bound.contains_key(&run) || self.is_killed(run) {
            return;
        }
        if part == Part::Cleanup {
            // Nothing of it has run.
            self.past.entry(run.child).or_default().cleaned_by = None;
        }
        if means.setting.undying && means.dice.chance(20) {
            self.doomed.insert(run);
        } else {
            self.shot_down.insert(run);
            means.tell(10, Input::SpawnFailed { run, failure: killed() });
        }
    }

    /// A start has come to its end: whether the broker has not heard of that so far.
    pub fn end_launch(&mut self, run: Run) -> bool {
        self.shot_down.remove(&run);
        self.doomed.remove(&run);
        self.flights.remove(&run).is_some()
    }
}

/// The failure of a start that was killed.
#[must_use]
pub fn killed() -> SpawnFailure {
    let (errno, errno_name, step) = (125, "ECANCELED".to_owned(), "killed".to_owned());
    SpawnFailure { errno, errno_name, step }
}

/// Whether a process could not be started for want of something that there may be enough of in a moment.
#[must_use]
pub fn is_shortage(failure: &SpawnFailure) -> bool {
    ["EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC"].contains(&failure.errno_name.as_str())
}
