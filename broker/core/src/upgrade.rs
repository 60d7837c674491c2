//! How far a live upgrade is, and why the last one has failed.

use procbroker_protocol::status::FailedUpgrade;

use crate::limits::{HAND_OVER_PATIENCE, LAUNCH_MOMENT_IN_AN_UPGRADE};
use crate::time::Instant;
use crate::timers::{Timer, Timers};

/// The upgrade that is under way, if one is.
#[derive(Debug)]
pub(crate) struct Upgrade {
    stage: UpgradeStage,
    last_failure: Option<FailedUpgrade>,
}

/// How far an upgrade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpgradeStage {
    /// None is under way.
    Idle,
    /// The other program is being asked whether it can take over.
    Checking,
    /// It can. No process is started any more, and those that are being started have until then to get to their programs.
    AwaitingLaunches {
        /// When those that have not got to their programs are killed.
        until: Instant,
    },
    /// Those that have not got to their programs are being killed.
    Clearing {
        /// When the upgrade is given up.
        until: Instant,
    },
    /// The other program is taking over.
    HandingOver,
}

/// What follows when processes take too long to get to their programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooLate {
    /// Those that are on their way are killed, which leaves them a while to be gone.
    Kill,
    /// The upgrade is given up: some that were killed are there still.
    GiveUp,
}

impl Upgrade {
    /// Makes a state in which none is under way, after one that has failed in this way, if one has.
    pub(crate) fn new(last_failure: Option<FailedUpgrade>) -> Self {
        Self { stage: UpgradeStage::Idle, last_failure }
    }

    /// Returns why the last one has failed, if it has.
    pub(crate) fn last_failure(&self) -> Option<&FailedUpgrade> {
        self.last_failure.as_ref()
    }

    /// Whether no process is to be started, because this program is about to be replaced.
    pub(crate) fn is_handing_over(&self) -> bool {
        match self.stage {
            UpgradeStage::Idle | UpgradeStage::Checking => false,
            UpgradeStage::AwaitingLaunches { .. }
            | UpgradeStage::Clearing { .. }
            | UpgradeStage::HandingOver => true,
        }
    }

    /// Whether it waits for the processes that are being started.
    pub(crate) fn waits_for_launches(&self) -> bool {
        self.until().is_some()
    }

    fn until(&self) -> Option<Instant> {
        match self.stage {
            UpgradeStage::AwaitingLaunches { until } | UpgradeStage::Clearing { until } => Some(until),
            UpgradeStage::Idle | UpgradeStage::Checking | UpgradeStage::HandingOver => None,
        }
    }

    /// Has the other program asked. Returns false where one is under way already, which is joined.
    pub(crate) fn begin(&mut self) -> bool {
        let is_new = self.stage == UpgradeStage::Idle;
        if is_new {
            self.stage = UpgradeStage::Checking;
        }
        is_new
    }

    /// Whether the other program is being asked.
    pub(crate) fn is_checking(&self) -> bool {
        self.stage == UpgradeStage::Checking
    }

    /// Whether the other program is taking over.
    pub(crate) fn is_at_the_other_program(&self) -> bool {
        self.stage == UpgradeStage::HandingOver
    }

    /// The other program can take over: what is being started has a moment to get to its program.
    pub(crate) fn await_launches(&mut self, now: Instant, timers: &mut Timers) {
        let until = now.plus(LAUNCH_MOMENT_IN_AN_UPGRADE);
        self.set(UpgradeStage::AwaitingLaunches { until }, timers);
    }

    /// Nothing is being started: the other program takes over.
    pub(crate) fn hand_over(&mut self, timers: &mut Timers) {
        self.set(UpgradeStage::HandingOver, timers);
    }

    /// Its timer has run out. Returns what follows.
    pub(crate) fn timer_ran_out(&mut self, timers: &mut Timers) -> Option<TooLate> {
        match self.stage {
            UpgradeStage::AwaitingLaunches { until } => {
                let until = until.plus(HAND_OVER_PATIENCE.saturating_sub(LAUNCH_MOMENT_IN_AN_UPGRADE));
                self.set(UpgradeStage::Clearing { until }, timers);
                Some(TooLate::Kill)
            }
            UpgradeStage::Clearing { .. } => Some(TooLate::GiveUp),
            UpgradeStage::Idle | UpgradeStage::Checking | UpgradeStage::HandingOver => None,
        }
    }

    /// It does not come about, because the broker shuts down.
    pub(crate) fn call_off(&mut self, timers: &mut Timers) {
        self.set(UpgradeStage::Idle, timers);
    }

    /// It has failed, and this program is still the broker.
    pub(crate) fn fail(&mut self, failure: FailedUpgrade, timers: &mut Timers) {
        self.set(UpgradeStage::Idle, timers);
        self.last_failure = Some(failure);
    }

    fn set(&mut self, stage: UpgradeStage, timers: &mut Timers) {
        let before = self.until();
        self.stage = stage;
        timers.set(Timer::Upgrade, before, self.until());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use procbroker_protocol::Timestamp;

    fn awaiting_launches(timers: &mut Timers) -> Upgrade {
        let mut upgrade = Upgrade::new(None);
        assert!(upgrade.begin());
        assert!(upgrade.is_checking() && !upgrade.is_handing_over());
        upgrade.await_launches(Instant::default(), timers);
        upgrade
    }

    #[test]
    fn one_that_is_under_way_is_joined() {
        let mut upgrade = awaiting_launches(&mut Timers::default());
        assert!(!upgrade.begin());
        assert!(upgrade.is_handing_over() && upgrade.waits_for_launches());
    }

    #[test]
    fn what_does_not_get_to_its_program_is_killed_and_then_given_up() {
        let timers = &mut Timers::default();
        let mut upgrade = awaiting_launches(timers);
        let end = Instant::default().plus(LAUNCH_MOMENT_IN_AN_UPGRADE);
        assert_eq!((timers.next(), timers.pop(end)), (Some(end), Some(Timer::Upgrade)));
        assert_eq!(upgrade.timer_ran_out(timers), Some(TooLate::Kill));
        let end = Instant::default().plus(HAND_OVER_PATIENCE);
        assert_eq!((timers.next(), timers.pop(end)), (Some(end), Some(Timer::Upgrade)));
        assert_eq!(upgrade.timer_ran_out(timers), Some(TooLate::GiveUp));
        let failure = FailedUpgrade { at: Timestamp::from_micros(5), message: "it hangs".to_owned() };
        upgrade.fail(failure.clone(), timers);
        assert_eq!((upgrade.last_failure(), timers.next()), (Some(&failure), None));
        assert!(upgrade.begin(), "the next one may begin");
    }

    #[test]
    fn one_that_hands_over_or_is_called_off_has_no_timer() {
        let timers = &mut Timers::default();
        let mut upgrade = awaiting_launches(timers);
        upgrade.hand_over(timers);
        assert!(upgrade.is_at_the_other_program() && !upgrade.waits_for_launches());
        assert_eq!((timers.next(), upgrade.timer_ran_out(timers)), (None, None));
        let mut upgrade = awaiting_launches(timers);
        upgrade.call_off(timers);
        assert_eq!((timers.next(), upgrade.is_handing_over()), (None, false));
    }
}
