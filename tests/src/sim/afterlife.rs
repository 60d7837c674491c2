//! What becomes of the model machine when the broker dies, and what the next one finds.

use procbroker_core::{
    Finding, HandedOver, Incarnation, Kinship, Members, ProcessState, Progress, Recovered, Run, paired_id,
};
use procbroker_protocol::{ChildId, ExitStatus};

use crate::sim::disk::{Loss, Row};
use crate::sim::event::Event;
use crate::sim::family::{FamilyId, Launch, Part};
use crate::sim::machine::{Machine, Means};

impl Machine {
    /// The broker is gone, and with it all that was on its way to it or from it.
    pub fn bereave(&mut self, loss: Loss, kinship: Kinship, means: &mut Means<'_>) {
        let cancelled = means.agenda.drop_unless(Event::outlives_the_broker);
        for event in cancelled {
            // A process that was being started comes to be, or not.
            let Event::Executed { run } = event else { continue };
            match (loss, means.dice.below(5)) {
                (Loss::Process, 0..=2) if !self.doomed.contains(&run) => drop(self.execute(run, 0, means)),
                (Loss::Process, 3) => self.left_on_its_way(run, means),
                (Loss::Process | Loss::Power | Loss::Nothing, _) => {}
            }
        }
        self.disk.lose(loss, means.dice);
        self.flights.clear();
        self.shot_down.clear();
        self.doomed.clear();
        self.bound.clear();
        self.anchors.watched.clear();
        self.strays = 0;
        if loss == Loss::Power {
            self.families.clear();
            self.anchors.die();
            self.boot += 1;
        }
        // One that is replaced in place has not died.
        self.brokers += u32::from(kinship == Kinship::Foreign);
        for family in self.families.values_mut() {
            family.run = None;
            family.own &= kinship == Kinship::Own;
        }
    }

    /// Everything on record, with what is found of it by a broker that starts now.
    pub fn findings(&mut self, means: &mut Means<'_>) -> Vec<Recovered> {
        let rows = self.disk.rows();
        let mut found = Vec::with_capacity(rows.len());
        for (child, row) in rows {
            let mut out_of_memory = false;
            let finding = if row.has_ended() {
                Finding::Gone { status: ExitStatus::Unknown, members: Members::Nothing }
            } else {
                let finding = self.find(child, &row, means);
                let run = Run { child, incarnation: Incarnation::FIRST };
                let family = self.bound.get(&run).and_then(|id| self.families.get(id));
                out_of_memory = family.is_some_and(|family| family.has_starved);
                finding
            };
            found.push(Recovered {
                intent: (*row.intent).clone(),
                progress: row.progress,
                finding,
                probe: self.find_probe(child),
                out_of_memory,
                handed_over: HandedOver::default(),
            });
        }
        self.families.retain(|_, family| family.run.is_some() || family.is_alive());
        found
    }

    fn find(&mut self, child: ChildId, row: &Row, means: &mut Means<'_>) -> Finding {
        let is_of_this_boot = row.process.is_none_or(|process| process.boot == self.boot);
        // Since then its cleanup may have been begun, and that is not on record where the disk was full.
        if !is_of_this_boot && self.search(child).is_none() {
            return Finding::Rebooted;
        }
        let on_record = row.process.map(|process| process.family).filter(|id| self.families.contains_key(id));
        let Some(id) = on_record.or_else(|| self.search(child)) else {
            return self.never_seen(child, row, means);
        };
        let run = Run { child, incarnation: Incarnation::FIRST };
        let Some(family) = self.families.get_mut(&id) else { return Finding::NeverStarted };
        family.run = Some(run);
        self.bound.insert(run, id);
        if family.launch != Launch::Executed && family.part == Part::Main && !family.is_alive() {
            family.reported = true;
            return Finding::Gone { status: ExitStatus::Unknown, members: Members::Nothing };
        }
        if family.launch != Launch::Executed && family.part == Part::Main {
            family.launch = Launch::Held;
            family.reported = false;
            return Finding::Unexecuted { pid: family.pid };
        }
        // That of a cleanup that has no program yet is what is left of it.
        let is_on_its_way = family.launch != Launch::Executed;
        if is_on_its_way
            || family.part == Part::Cleanup && !matches!(row.progress, Some(Progress::Cleaning { .. }))
        {
            // The disk was full when the cleanup was to be recorded. It is known by what it was told, and is what is
            // left of the child.
            family.is_remnant = true;
            family.reported = true;
            return Finding::Gone { status: ExitStatus::Unknown, members: family.members() };
        }
        // What an earlier broker has left to the one before this one is not its own after an upgrade either.
        let kinship = if family.own { Kinship::Own } else { Kinship::Foreign };
        // One that has died may not have been reaped so far: by nobody but the broker, where it is its own.
        let lingers = !family.reported && (family.own || means.dice.chance(20));
        if family.leads() || lingers {
            family.reported = false;
            let state = if family.leads() { ProcessState::Running } else { ProcessState::Zombie };
            if state == ProcessState::Zombie {
                let delay = means.dice.within_millis(2);
                means.agenda.after(delay, Event::Reaped { family: id });
            }
            return Finding::Process { pid: family.pid, kinship, state };
        }
        family.reported = true;
        let is_kept = row.process.is_some() && (family.own || means.dice.chance(40));
        let status = if is_kept { family.status } else { ExitStatus::Unknown };
        Finding::Gone { status, members: family.members() }
    }

    /// What is left of a command that was to find out whether this child is ready: it is known by what it was told.
    fn find_probe(&mut self, child: ChildId) -> Members {
        let run = Run { child: paired_id(child), incarnation: Incarnation::FIRST };
        let Some(id) = self.search(run.child) else { return Members::Nothing };
        let Some(family) = self.families.get_mut(&id) else { return Members::Nothing };
        (family.run, family.is_remnant, family.reported) = (Some(run), true, true);
        self.bound.insert(run, id);
        family.members()
    }

    /// The processes that have the mark of this child: the last ones, because there are no others.
    #[must_use]
    pub fn search(&self, child: ChildId) -> Option<FamilyId> {
        let is_meant = |id: &&FamilyId| {
            self.families.get(id).is_some_and(|family| family.child == child && family.is_alive())
        };
        self.families.keys().rev().find(is_meant).copied()
    }

    /// There is nothing of a child: it is not always known whether there ever was.
    fn never_seen(&self, child: ChildId, row: &Row, means: &mut Means<'_>) -> Finding {
        let is_unspawned = matches!(row.progress, None | Some(Progress::Unwanted { .. }));
        let is_between_runs = matches!(row.progress, Some(Progress::Restarting { .. }));
        let was_never = if is_between_runs {
            self.unmarked.contains(&child)
        } else {
            is_unspawned && !self.past(child).has_run
        };
        if was_never && means.dice.chance(60) {
            return Finding::NeverStarted;
        }
        Finding::Gone { status: ExitStatus::Unknown, members: Members::Nothing }
    }
}
