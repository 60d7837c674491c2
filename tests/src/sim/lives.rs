//! One broker after the other: deaths between any two orders, live upgrades, orderly exits, and the starts after them.

use std::collections::BTreeMap;

use procbroker_core::{Broker, EventHistory, Finding, HandedOver, Instant, Kinship, Progress, Recovered};
use procbroker_protocol::ChildId;

use crate::sim::agenda::SECOND;
use crate::sim::checks;
use crate::sim::dice::Dice;
use crate::sim::disk::Loss;
use crate::sim::event::Event;
use crate::sim::finding::Checked;
use crate::sim::machine::Means;
use crate::sim::run::Simulation;
use crate::sim::setting::Setting;

/// When brokers die, and what the next one comes into.
#[derive(Debug)]
pub struct Fates {
    /// How many orders are carried out until the broker dies, if it does.
    orders_left: Option<u64>,
    /// How often it dies after that.
    crashes_left: u64,
    /// How often it is started again after an orderly exit.
    restarts_left: u64,
    /// What its end has done to the disk.
    loss: Loss,
    /// Whether it is taking over what an earlier one left.
    recovers: bool,
    /// The events that the next program goes on with, after an upgrade.
    history: Option<EventHistory>,
    /// What it is told of children beside what is on record.
    handed_over: BTreeMap<ChildId, HandedOver>,
}

impl Fates {
    /// The fates of a run.
    pub fn roll(dice: &mut Dice, setting: &Setting) -> Self {
        let mut fates = Self {
            orders_left: None,
            crashes_left: setting.crashes,
            restarts_left: setting.restarts,
            loss: Loss::Nothing,
            recovers: false,
            history: None,
            handed_over: BTreeMap::new(),
        };
        fates.roll_next(dice);
        fates
    }

    /// When the present broker dies, if it does: in the midst of its recovery not seldom.
    fn roll_next(&mut self, dice: &mut Dice) {
        self.orders_left = None;
        if self.crashes_left > 0 {
            self.crashes_left -= 1;
            let most = dice.choose([6, 30, 100, 300]);
            self.orders_left = Some(dice.below(most));
        }
    }

    /// Whether these were the orders that a broker gives at its start; no later ones are.
    pub fn begins(&mut self) -> bool {
        std::mem::take(&mut self.recovers)
    }

    /// Whether the broker dies before its next order is carried out.
    pub fn strikes(&mut self) -> bool {
        match &mut self.orders_left {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

impl Simulation<'_> {
    /// The broker dies, or the whole machine.
    pub fn crash(&mut self) {
        let power = self.dice.chance(self.setting.power_cuts);
        let tally = &mut self.tally;
        tally.crashes += 1;
        tally.runs_with_crashes = 1;
        tally.power_cuts += u64::from(power);
        tally.crashes_in_recovery += u64::from(self.fates.recovers);
        tally.crashes_in_shutdown += u64::from(self.ledger.closing.is_some());
        let delay = self.dice.choose([0, 3_000_000, SECOND, 60 * SECOND]);
        self.bereave(if power { Loss::Power } else { Loss::Process }, Kinship::Foreign, delay);
    }

    /// Another program has taken over in place.
    pub fn hand_over(&mut self) {
        self.tally.upgrades += 1;
        self.fates.history = self.broker.as_ref().map(Broker::event_history);
        let now = self.agenda.now();
        let told = self.broker.as_ref().map(|broker| broker.handed_over(Instant::from_nanos(now)));
        self.fates.handed_over = told.unwrap_or_default();
        self.ledger.handed_over_at = Some(now);
        let delay = self.dice.within_millis(20);
        self.bereave(Loss::Nothing, Kinship::Own, delay);
    }

    /// The broker has left in order; answers whether it is started again.
    ///
    /// # Errors
    /// When it has not left things in order.
    pub fn leave(&mut self) -> Result<bool, crate::sim::finding::Finding> {
        checks::lives::leaves(&self.ledger, &self.machine)?;
        if let Some(broker) = &self.broker {
            checks::events::last(&mut self.ledger, broker)?;
        }
        if self.fates.restarts_left == 0 {
            return Ok(false);
        }
        self.fates.restarts_left -= 1;
        self.tally.restarts += 1;
        let delay = self.dice.choose([0, SECOND, 30 * SECOND]);
        self.bereave(Loss::Nothing, Kinship::Foreign, delay);
        Ok(true)
    }

    fn bereave(&mut self, loss: Loss, kinship: Kinship, delay: u64) {
        self.trace
            .line(|| format!("{:>15} THE END of this broker: {loss:?}, {kinship:?}", self.agenda.now()));
        self.let_go(loss == Loss::Nothing);
        let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
        self.machine.bereave(loss, kinship, &mut means);
        self.broker = None;
        self.clients.cut_off();
        self.fates.loss = loss;
        self.agenda.after(delay, Event::Start);
    }

    /// A broker starts, and takes over what there is.
    ///
    /// # Errors
    /// When something of it is missing, or the broker does something wrong.
    pub fn start(&mut self) -> Checked {
        let now = self.agenda.now();
        let ends =
            |event: &Event| matches!(event, Event::End | Event::EndAgain | Event::Quieten | Event::Inspect);
        if !self.agenda.plans(ends) {
            let delay = self.dice.below(20 * SECOND);
            self.agenda.after(delay, Event::End);
        }
        let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
        let mut found = self.machine.findings(&mut means);
        let mut handed_over = std::mem::take(&mut self.fates.handed_over);
        for recovered in &mut found {
            recovered.handed_over = handed_over.remove(&recovered.intent.id).unwrap_or_default();
        }
        for recovered in &found {
            self.trace.line(|| {
                let Recovered { intent, progress, finding, probe: _, out_of_memory: _, handed_over: _ } =
                    recovered;
                format!("{now:>15} found {}: {progress:?} {finding:?}", intent.id)
            });
            self.count(recovered);
        }
        let answers = self.machine.disk.answers();
        checks::promises::answers_kept(&self.ledger, &found, &answers, self.fates.loss)?;
        let lost = self.ledger.begin_anew(now, &found, &answers);
        checks::lives::lost(&lost, self.fates.loss, &self.machine)?;
        checks::lives::begins(&self.ledger, &self.machine, &found)?;
        checks::promises::kept(&mut self.ledger, &found, self.fates.loss)?;
        self.fates.roll_next(&mut self.dice);
        self.fates.recovers = true;
        let mut effects = Vec::new();
        let config = self.setting.config.clone();
        let history = self.fates.history.take();
        let broker =
            Broker::recover(config, self.ledger.clock.at(now), found, answers, history.clone(), &mut effects);
        checks::events::go_on(history.as_ref(), &broker.event_history(), &self.setting.config)?;
        if history.is_some() {
            checks::events::ends_are_told(&self.ledger, &broker.event_history())?;
        }
        checks::events::happened(&mut self.ledger, &broker, &effects)?;
        self.broker = Some(broker);
        let result = self.perform(&effects);
        self.fates.recovers = false;
        result
    }

    fn count(&mut self, recovered: &Recovered) {
        let tally = &mut self.tally;
        tally.found_unexecuted += u64::from(matches!(recovered.finding, Finding::Unexecuted { .. }));
        let Finding::Process { kinship, .. } = recovered.finding else { return };
        tally.found_alive += 1;
        match recovered.progress {
            None | Some(Progress::Unwanted { .. }) => tally.unrecorded += 1,
            Some(Progress::Stopping(_)) => tally.stops_resumed += 1,
            Some(Progress::Cleaning { .. }) if kinship == Kinship::Foreign => tally.cleanups_interrupted += 1,
            Some(
                Progress::Starting { .. }
                | Progress::Running { .. }
                | Progress::Restarting { .. }
                | Progress::Cleaning { .. }
                | Progress::Ended { .. },
            ) => {}
        }
    }
}
