//! The model disk: what is written in its order, and what a crash leaves of that.
//!
//! What was acknowledged is kept, as far as it was asked to be: through the death of the broker, or through that of
//! the machine. Of what came later any part may be kept, but nothing without all that was written before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use procbroker_core::{Answered, Instant, Intent, Progress, RecordedLease, Safety};
use procbroker_protocol::ChildId;
use procbroker_protocol::create::Lifetime;

use crate::sim::dice::Dice;
use crate::sim::family::FamilyId;

/// What identifies a process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which processes.
    pub family: FamilyId,
    /// In which run of the kernel.
    pub boot: u32,
}

/// What is on record of one child.
#[derive(Clone, Debug)]
pub struct Row {
    /// How it was asked for.
    pub intent: Arc<Intent>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Its process.
    pub process: Option<Identity>,
}

impl Row {
    /// Whether it is over, as far as is on record.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.progress, Some(Progress::Ended { .. }))
    }
}

/// One thing that is written.
#[derive(Clone, Debug)]
enum Write {
    Intent(Arc<Intent>),
    /// With its process, and when the child expires.
    Progress(ChildId, Box<Progress>, Option<Identity>, Option<Instant>),
    Forget(ChildId),
    Answered(Answered),
    ForgetAnswer(ChildId),
}

/// What an end does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything was written before.
    Nothing,
    /// The broker has died.
    Process,
    /// The machine has died.
    Power,
}

/// The model disk.
#[derive(Debug, Default)]
pub struct Disk {
    log: Vec<Write>,
    /// So many of them outlive the broker.
    process_safe: usize,
    /// So many of them outlive the machine.
    power_safe: usize,
    /// So many of them the present broker wants to outlive the machine.
    power_wanted: usize,
}

/// How far the log has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// So that so many of its writes outlive the broker.
    process: usize,
    /// So that so many of its writes outlive the machine.
    power: usize,
}

impl Disk {
    /// Takes in an intent; answers its place.
    pub fn intend(&mut self, intent: &Arc<Intent>, safety: Safety) -> usize {
        self.write(Write::Intent(Arc::clone(intent)), safety)
    }

    /// Takes in how far a child is; answers its place.
    pub fn progress(
        &mut self,
        child: ChildId,
        progress: &Progress,
        (process, expires): (Option<Identity>, Option<Instant>),
        safety: Safety,
    ) -> usize {
        self.write(Write::Progress(child, Box::new(progress.clone()), process, expires), safety)
    }

    /// Takes in that a child is not to be known any more.
    pub fn forget(&mut self, child: ChildId) {
        self.write(Write::Forget(child), Safety::Process);
    }

    /// Takes in how a request was answered.
    pub fn answered(&mut self, answered: &Answered, safety: Safety) -> usize {
        self.write(Write::Answered(*answered), safety)
    }

    /// Takes in that answers are not to be known any more.
    pub fn forget_answers(&mut self, on_record: &[ChildId]) {
        for id in on_record {
            self.write(Write::ForgetAnswer(*id), Safety::Process);
        }
    }

    /// The answers that are on record, oldest first.
    #[must_use]
    pub fn answers(&self) -> Vec<Answered> {
        let mut answers: BTreeMap<ChildId, Answered> = BTreeMap::new();
        for write in &self.log {
            match write {
                Write::Answered(answered) => drop(answers.insert(answered.id, *answered)),
                Write::ForgetAnswer(id) => drop(answers.remove(id)),
                Write::Intent(_) | Write::Progress(..) | Write::Forget(_) => {}
            }
        }
        answers.into_values().collect()
    }

    fn write(&mut self, write: Write, safety: Safety) -> usize {
        self.log.push(write);
        match safety {
            Safety::Process => {}
            Safety::Power => self.power_wanted = self.log.len(),
        }
        self.log.len()
    }

    /// How far everything is that was ordered and is not as safe as it was asked to be, if anything is not.
    #[must_use]
    pub fn outstanding(&self) -> Option<Place> {
        let is_safe = self.process_safe >= self.log.len() && self.power_safe >= self.power_wanted;
        (!is_safe).then_some(Place { process: self.log.len(), power: self.power_wanted })
    }

    /// What was written up to here is as safe as it was asked to be.
    pub fn attempted(&mut self, place: Place) {
        self.process_safe = self.process_safe.max(place.process);
        self.power_safe = self.power_safe.max(place.power);
    }

    /// What was written up to here is safe.
    pub fn acknowledge(&mut self, place: usize, safety: Safety) {
        self.process_safe = self.process_safe.max(place);
        match safety {
            Safety::Process => {}
            Safety::Power => self.power_safe = self.power_safe.max(place),
        }
    }

    /// Whether this child's intent outlives the machine.
    #[must_use]
    pub fn outlives_power(&self, child: ChildId) -> bool {
        let is_meant = |write: &Write| matches!(write, Write::Intent(intent) if intent.id == child);
        self.log.iter().take(self.power_safe).any(is_meant)
    }

    /// Whether it outlives the machine that this child has ended.
    #[must_use]
    pub fn end_outlives_power(&self, child: ChildId) -> bool {
        let is_meant = |write: &Write| matches!(write, Write::Progress(id, progress, ..) if *id == child && matches!(**progress, Progress::Ended { .. }));
        self.log.iter().take(self.power_safe).any(is_meant)
    }

    /// Loses what an end loses.
    pub fn lose(&mut self, loss: Loss, dice: &mut Dice) {
        let safe = match loss {
            Loss::Nothing => {
                self.power_safe = self.power_safe.max(self.power_wanted);
                self.log.len()
            }
            Loss::Process => self.process_safe,
            Loss::Power => self.power_safe,
        };
        // Mostly everything or nothing of the rest, because that is where the cases are.
        let rest = self.log.len() - safe;
        let some = dice.index(rest + 1);
        let kept = safe + dice.choose([0, rest, some]);
        self.log.truncate(kept);
        self.process_safe = kept;
        match loss {
            // What was not written as safely as it was to be is made so before the next broker acts on it.
            Loss::Process | Loss::Power => self.power_safe = kept,
            Loss::Nothing => {}
        }
        self.power_wanted = self.power_safe;
    }

    /// Everything that is on record, oldest first.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<ChildId, Row> {
        let mut rows: BTreeMap<ChildId, Row> = BTreeMap::new();
        for write in &self.log {
            match write {
                Write::Intent(intent) => {
                    let row = Row { intent: Arc::clone(intent), progress: None, process: None };
                    rows.insert(intent.id, row);
                }
                Write::Progress(child, progress, process, expires) => {
                    if let Some(row) = rows.get_mut(child) {
                        (row.progress, row.process) = (Some(Progress::clone(progress)), *process);
                        // That of a child which lives by its connections is for as long as nobody holds it.
                        if expires.is_some() || row.intent.params.lifetime == Lifetime::Connection {
                            Arc::make_mut(&mut row.intent).lease =
                                expires.map_or(RecordedLease::None, RecordedLease::Until);
                        }
                    }
                }
                Write::Forget(child) => {
                    rows.remove(child);
                }
                Write::Answered(_) | Write::ForgetAnswer(_) => {}
            }
        }
        rows
    }
}
