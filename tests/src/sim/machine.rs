//! The model operating system: carries out the broker's orders, and says later what became of them.
//!
//! It fails, delays and reorders what a real one can, and nothing else: an exit is never reported
//! before its spawn, a process that is reported gone is gone, and what was left behind is reported
//! whenever it has become less. It outlives the broker: see [`crate::sim::afterlife`].

mod launches;

use std::collections::{BTreeMap, BTreeSet};

use procbroker_core::{
    Call, Effect, Input, Instant, LogOutcome, Progress, Receipt, Record, RecordFailure, Run, Safety,
    SignalOutcome,
};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, ExitStatus, Signal};

use crate::sim::agenda::{Agenda, MILLISECOND};
use crate::sim::anchors::Anchors;
use crate::sim::conduct::Manners;
use crate::sim::dice::Dice;
use crate::sim::disk::{Disk, Identity};
use crate::sim::event::Event;
use crate::sim::family::{Family, FamilyId, Launch, Part};
use crate::sim::setting::Setting;

pub use launches::{is_shortage, killed};

/// How long a report about an end takes to the broker, at most.
const REPORT_MILLIS: u64 = 2;

/// How long a sweep takes at most, in nanoseconds, where nothing keeps it.
pub const SWEEP_TIME: u64 = 20 * MILLISECOND;

/// What has truly happened to a child, whoever was there to see it.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Whether its main process was started.
    pub has_run: bool,
    /// How its main process ended.
    pub status: Option<ExitStatus>,
    /// How those of the runs before ended.
    pub statuses_before: Vec<ExitStatus>,
    /// How many attempts at its cleanup came to their end.
    pub cleanups: u32,
    /// Which broker has begun its cleanup last.
    pub cleaned_by: Option<u32>,
}

/// The model operating system.
#[derive(Debug, Default)]
pub struct Machine {
    /// All processes, and those of which a broker may still ask.
    pub families: BTreeMap<FamilyId, Family>,
    /// Which of them the present broker means.
    pub bound: BTreeMap<Run, FamilyId>,
    /// The spawns that were ordered and have not succeeded or failed.
    pub flights: BTreeMap<Run, Part>,
    /// Those of them that were killed before they got to their program.
    pub shot_down: BTreeSet<Run>,
    /// Those of them that were killed, and take long to die of it.
    pub doomed: BTreeSet<Run>,
    /// What is on record.
    pub disk: Disk,
    /// What has truly happened.
    pub past: BTreeMap<ChildId, Past>,
    /// The children whose last run was executed, and whose next one was not, by the mark of that.
    pub unmarked: BTreeSet<ChildId>,
    /// The processes that clients name.
    pub anchors: Anchors,
    /// How many processes descend from the broker, belong to no child and cannot be ended.
    pub strays: u32,
    /// How often the machine was started.
    pub boot: u32,
    /// How many brokers there were before the present one.
    pub brokers: u32,
    /// How the processes of each child were asked to behave.
    pub manners: BTreeMap<ChildId, Manners>,
    count: u32,
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

impl Means<'_> {
    /// How often what can fail or hang does, out of a hundred.
    pub(super) fn trouble(&self) -> u64 {
        if self.setting.failing { 30 } else { 2 }
    }

    /// Tells the broker something, up to so many milliseconds from now.
    pub(super) fn tell(&mut self, within_millis: u64, input: Input) {
        let delay = self.dice.within_millis(within_millis);
        self.agenda.after(delay, Event::Input(input));
    }
}

impl Machine {
    /// Carries out one order.
    pub fn perform(&mut self, effect: &Effect, means: &mut Means<'_>) {
        match effect {
            Effect::Record { run, record, safety, receipt, expires } => {
                self.record(*run, (record, *expires), *safety, *receipt, means);
            }
            Effect::Spawn { run, purpose, order } => {
                self.manners.insert(run.child, Manners::of(order));
                self.spawn(*run, purpose, means);
            }
            Effect::Signal { run, signal, scope, call } => {
                let outcome = self.signal(*run, *signal, *scope, means);
                if call.is_none() {
                    self.asks_for_time(*run, means);
                }
                let delay = if means.dice.chance(4) { 1_500 } else { 1 };
                let call = call.map(|asked| asked.call);
                means.tell(delay, Input::Signalled { run: *run, call, outcome });
            }
            Effect::Kill { run } => self.kill(*run, means),
            Effect::Release { run } => self.release(*run),
            Effect::AwaitRun { child } => drop(self.unmarked.insert(*child)),
            Effect::Forget { child } => self.disk.forget(*child),
            Effect::ForgetAnswers { on_record } => self.disk.forget_answers(on_record),
            Effect::Watch { anchor } => self.anchors.watch(*anchor, means),
            Effect::Unwatch { anchor } => drop(self.anchors.watched.remove(anchor)),
            Effect::Sweep => self.sweep(means),
            Effect::ReadLog { call, .. } => Self::read_log(*call, means),
            Effect::ReadTail { call, .. } => {
                means.tell(10, Input::TailRead { call: *call, tail: "the last of it".to_owned() });
            }
            Effect::Probe { run, .. } => {
                let is_ready = means.dice.chance(35) && self.family(*run).is_some_and(Family::leads);
                let delay = if means.dice.chance(8) { 2_500 } else { 20 };
                means.tell(delay, Input::Probed { run: *run, is_ready });
            }
            Effect::CheckUpgrade => {
                let result = if means.dice.chance(75) { Ok(()) } else { Err(refusal()) };
                let delay = means.dice.choose([0, 5, 5, 20_000]);
                means.tell(delay, Input::UpgradeChecked { result });
            }
            // What is on its way to the broker comes to it until the last moment.
            Effect::HandOver if means.dice.chance(75) => {
                let delay = means.dice.within_millis(50);
                means.agenda.after(delay, Event::Replaced);
            }
            Effect::HandOver => means.tell(50, Input::HandOverFailed { failure: refusal() }),
            // A client reads at once, or late.
            Effect::Unread { connection } => {
                let mut dice = means.dice.aside();
                let within = dice.choose([0, 0, 2, 2, 300, 20_000]);
                let delay = dice.within_millis(within);
                means.agenda.after(delay, Event::Reads { connection: *connection });
            }
            Effect::Admit { .. }
            | Effect::Refuse { .. }
            | Effect::Answer { .. }
            | Effect::Publish { .. }
            | Effect::EndLog { .. }
            | Effect::Measure { .. }
            | Effect::Report(_)
            | Effect::Notify(_)
            | Effect::Exit(_) => {}
        }
    }

    /// Whether any process of any child is there, of whichever broker it was.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.families.values().any(Family::is_alive)
    }

    /// The processes that a run means.
    #[must_use]
    pub fn family(&self, run: Run) -> Option<&Family> {
        self.families.get(self.bound.get(&run)?)
    }

    fn family_mut(&mut self, run: Run) -> Option<&mut Family> {
        self.families.get_mut(self.bound.get(&run)?)
    }

    /// What has truly happened to a child.
    #[must_use]
    pub fn past(&self, child: ChildId) -> Past {
        self.past.get(&child).cloned().unwrap_or_default()
    }

    /// Whether something is there, or on its way, that no broker could end in time.
    #[must_use]
    pub fn has_excuse(&self) -> bool {
        let undying = self
            .families
            .values()
            .flat_map(|family| &family.processes)
            .any(|process| !process.temper.is_mortal());
        undying || !self.doomed.is_empty() || self.strays > 0
    }

    fn record(
        &mut self,
        run: Run,
        (record, expires): (&Record, Option<Instant>),
        safety: Safety,
        receipt: Receipt,
        means: &mut Means<'_>,
    ) {
        let fails = receipt == Receipt::Wanted && means.dice.chance(means.trouble());
        let place = match record {
            // What is refused is not on the disk, and does not come there.
            Record::Intent(_) if fails => 0,
            Record::Intent(intent) => self.disk.intend(intent, safety),
            Record::Progress(progress) => {
                let family = self.bound.get(&run);
                let family = family.copied().or(match progress {
                    // There is no process, and it is known all the same in which run of the kernel that was.
                    Progress::Restarting { .. } => Some(FamilyId(0)),
                    _ => None,
                });
                let process = family.map(|family| Identity { family, boot: self.boot });
                self.disk.progress(run.child, progress, (process, expires), safety)
            }
            Record::Answered(answered) => self.disk.answered(answered, safety),
        };
        if receipt == Receipt::NotWanted {
            return;
        }
        let delay = if means.dice.chance(means.trouble()) { 40_000 } else { 4 };
        if fails {
            let failure = RecordFailure { message: "no space left on device".to_owned() };
            return means.tell(delay, Input::Recorded { run, result: Err(failure) });
        }
        let delay = means.dice.within_millis(delay);
        means.agenda.after(delay, Event::Written { run, place, safety });
    }

    /// A record has become safe.
    pub fn written(&mut self, run: Run, place: usize, safety: Safety) -> Input {
        self.disk.acknowledge(place, safety);
        Input::Recorded { run, result: Ok(()) }
    }

    /// The kernel kills a process for want of memory, if it is still there, and counts that in the group of its run.
    pub fn starves(&mut self, id: FamilyId, index: usize, means: &mut Means<'_>) {
        let Some(family) = self.families.get_mut(&id) else { return };
        if family.processes.get(index).is_some_and(|process| process.alive && process.temper.is_mortal()) {
            family.has_starved = true;
            self.dies(id, index, Some(Signal::KILL), means);
        }
    }

    /// That the kernel has killed something of a run for want of memory comes to the broker's ears, if it has.
    #[must_use]
    pub fn starved(&self, family: FamilyId) -> Option<Input> {
        let family = self.families.get(&family).filter(|family| family.has_starved)?;
        family.run.map(|run| Input::OutOfMemory { run })
    }

    /// A process forks, if one is there that can.
    pub fn forks(&mut self, family: FamilyId, means: &mut Means<'_>) {
        if let Some(family) = self.families.get_mut(&family) {
            family.fork(means.dice, means.setting);
        }
    }

    /// A process dies, unless it has already.
    pub fn dies(&mut self, id: FamilyId, index: usize, of: Option<Signal>, means: &mut Means<'_>) {
        let Some(family) = self.families.get_mut(&id) else { return };
        let Some(process) = family.processes.get_mut(index).filter(|process| process.alive) else { return };
        process.alive = false;
        let delay = means.dice.within_millis(REPORT_MILLIS);
        if index > 0 || family.is_remnant {
            if family.reported && family.run.is_some() {
                means.agenda.after(delay, Event::Remaining { family: id });
            }
            return;
        }
        if let Some(signal) = of
            && (signal == Signal::KILL || means.dice.chance(50))
        {
            family.status = ExitStatus::Signal(signal);
        }
        for (member, process) in family.processes.iter().enumerate().skip(1) {
            if process.alive && process.tied && process.temper.is_mortal() {
                let delay = means.dice.within_millis(30);
                means.agenda.after(delay, Event::Dies { family: id, process: member, of: None });
            }
        }
        let past = self.past.entry(family.child).or_default();
        match family.part {
            _ if family.launch != Launch::Executed => {}
            Part::Main => past.statuses_before.extend(past.status.replace(family.status)),
            Part::Cleanup => past.cleanups += u32::from(family.own || of.is_none()),
            Part::Probe => {}
        }
        if family.run.is_some() {
            let at = (means.agenda.now() + delay).max(family.told_at);
            means.agenda.at(at, Event::Reaped { family: id });
        }
    }

    /// The end of a main process comes to the broker's ears: of one that is not its own, mostly without how.
    pub fn reaped(&mut self, family: FamilyId, means: &mut Means<'_>) -> Option<Input> {
        let family = self.families.get_mut(&family)?;
        let run = family.run?;
        family.reported = true;
        let is_told = family.own || means.dice.chance(40);
        let status = if is_told { family.status } else { ExitStatus::Unknown };
        Some(Input::Exited { run, status, members: family.members() })
    }

    /// What is left of a run comes to the broker's ears.
    #[must_use]
    pub fn remaining(&self, family: FamilyId) -> Option<Input> {
        let family = self.families.get(&family).filter(|family| family.reported)?;
        Some(Input::MembersLeft { run: family.run?, members: family.members() })
    }

    fn signal(&mut self, run: Run, signal: Signal, scope: Scope, means: &mut Means<'_>) -> SignalOutcome {
        let Some(&id) = self.bound.get(&run) else { return SignalOutcome::Gone };
        let Some(family) = self.families.get_mut(&id) else { return SignalOutcome::Gone };
        let (outcome, deaths) = family.signal(signal, scope, means.dice);
        for (process, delay) in deaths {
            means.agenda.after(delay, Event::Dies { family: id, process, of: Some(signal) });
        }
        outcome
    }

    /// SIGKILL to all that is there now; what is forked at this very moment gets away.
    fn kill(&mut self, run: Run, means: &mut Means<'_>) {
        self.signal(run, Signal::KILL, Scope::All, means);
        self.shoot_down(run, means);
        let forks = means.dice.chance(30);
        let id = self.bound.get(&run).copied();
        let Some(family) = self.family_mut(run) else { return };
        if forks {
            family.fork(means.dice, means.setting);
        }
        if let Some(family) = id.filter(|_| family.reported) {
            means.agenda.after(means.dice.within_millis(REPORT_MILLIS), Event::Remaining { family });
        }
    }

    /// Nothing of a run is left.
    fn release(&mut self, run: Run) {
        if let Some(id) = self.bound.remove(&run) {
            self.families.remove(&id);
        }
    }

    fn read_log(call: Call, means: &mut Means<'_>) {
        let outcome = if means.dice.chance(90) { LogOutcome::Text } else { LogOutcome::Error };
        means.tell(10, Input::LogRead { call, outcome });
    }

    fn sweep(&mut self, means: &mut Means<'_>) {
        self.strays = if means.setting.undying && means.dice.chance(20) { 2 } else { 0 };
        if self.strays == 0 || means.dice.chance(50) {
            let delay = means.dice.below(SWEEP_TIME);
            means.agenda.after(delay, Event::Input(Input::Swept { left: self.strays }));
        }
    }
}

fn refusal() -> procbroker_core::UpgradeFailure {
    procbroker_core::UpgradeFailure { message: "the other program says no".to_owned() }
}
