//! What model processes tell of themselves in the words of `sd_notify(3)`: early, late, twice, never, and when nobody listens.

use std::time::Duration;

use procbroker_core::{Input, Notice, Run, SpawnOrder};
use procbroker_protocol::create::Ready;

use crate::sim::agenda::SECOND;
use crate::sim::event::Event;
use crate::sim::family::FamilyId;
use crate::sim::machine::{Machine, Means};

/// How long a word waits for a broker, where it is kept.
const KEPT_FOR: u64 = SECOND;

/// How the processes of a child were asked to behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// Whether it says when it is ready.
    pub notifies: bool,
    /// How often it has to say that it is well.
    pub watchdog: Option<Duration>,
}

impl Manners {
    /// What a child was asked for.
    #[must_use]
    pub fn of(order: &SpawnOrder) -> Self {
        Self { notifies: order.params.ready == Ready::Notify, watchdog: order.params.watchdog }
    }

    /// Plans what the main process of a run tells.
    pub fn plan(self, family: FamilyId, means: &mut Means<'_>) {
        if !self.notifies {
            return;
        }
        let says = |after: u64, notices: Vec<Notice>, means: &mut Means<'_>| {
            means.agenda.after(after, Event::Says { family, notices });
        };
        if means.dice.chance(20) {
            let after = means.while_it_starts();
            let time = Duration::from_millis(means.dice.choose([0, 1, 900, 5_000, 60_000]));
            says(after, vec![Notice::MoreTime(time)], means);
        }
        if means.dice.chance(5) {
            says(means.dice.within_millis(10_000), vec![Notice::Unwell], means);
        }
        if means.dice.chance(10) {
            says(means.dice.within_millis(10_000), vec![Notice::Stopping], means);
        }
        if means.dice.chance(12) {
            return;
        }
        let ready = means.while_it_starts();
        let words = match means.dice.below(6) {
            0 => vec![Notice::Status("up".to_owned()), Notice::Ready],
            1 => vec![Notice::Ready, Notice::Well],
            2 => vec![Notice::Ready, Notice::Ready],
            _ => vec![Notice::Ready],
        };
        says(ready, words, means);
        if means.dice.chance(15) {
            says(ready + means.dice.within_millis(3_000), vec![Notice::Ready], means);
        }
        let Some(period) = self.watchdog else { return };
        let mut at = ready;
        for _ in 0..means.dice.choose([0, 1, 3, 8]) {
            let percent = 20 + means.dice.below(85);
            at += u64::try_from(period.as_nanos()).unwrap_or(u64::MAX) / 100 * percent;
            says(at, vec![Notice::Well], means);
        }
    }
}

impl Means<'_> {
    /// After how long a process says something that is about its start.
    fn while_it_starts(&mut self) -> u64 {
        let most = self.dice.choose([0, 3, 3, 500, 3_000, 40_000]);
        self.dice.within_millis(most)
    }
}

impl Machine {
    /// A main process that is told to end may ask for more time for that, where it tells anything.
    pub(super) fn asks_for_time(&mut self, run: Run, means: &mut Means<'_>) {
        let mut dice = means.dice.aside();
        let notifies = self.manners.get(&run.child).is_some_and(|manners| manners.notifies);
        let family = self.bound.get(&run).filter(|_| notifies && dice.chance(30));
        if let Some(&family) = family {
            let time = Duration::from_millis(dice.choose([1, 900, 20_000, 600_000]));
            let delay = dice.within_millis(5);
            means.agenda.after(delay, Event::Says { family, notices: vec![Notice::MoreTime(time)] });
        }
    }

    /// A main process tells something, if it is there: it comes to the broker after it has heard of the start.
    pub fn says(&self, id: FamilyId, notices: Vec<Notice>, means: &mut Means<'_>) {
        let Some(family) = self.families.get(&id).filter(|family| family.leads()) else { return };
        let Some(run) = family.run else {
            // Where nobody listens, it is kept or lost.
            if means.dice.chance(60) {
                means.agenda.after(KEPT_FOR, Event::Says { family: id, notices });
            }
            return;
        };
        let most = if means.dice.chance(10) { 1_500 } else { 3 };
        let at = (means.agenda.now() + means.dice.within_millis(most)).max(family.told_at);
        means.agenda.at(at, Event::Input(Input::Notified { run, notices }));
    }
}
