//! How far the broker is in its own life, and the waves in which a shutdown stops its children.

mod budget;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::{Child as ChildView, ChildId};

use crate::child::Child;
use crate::children::Children;
use crate::limits::{HURRIED_CLEANUPS_MAX, SECOND_SIGNAL_AFTER};
use crate::orders::Permits;
use crate::record::Role;
use crate::time::Instant;
use crate::timers::{Timer, Timers};
use budget::{bounds, need, scale};

pub use budget::steps_within;
pub(crate) use budget::{cleanup_share, shortened};

/// How far the broker is in its own life.
#[derive(Debug)]
pub(crate) enum BrokerState {
    /// It takes creates, and no shutdown is under way.
    Serving,
    /// It stops its children.
    Stopping(Box<Shutdown>),
    /// No child is left, and what descends from none is being ended.
    Sweeping(Box<Shutdown>),
    /// It has ordered its own exit.
    Exited,
}

impl BrokerState {
    /// Whether creates are taken.
    pub(crate) fn is_serving(&self) -> bool {
        match self {
            Self::Serving => true,
            Self::Stopping(_) | Self::Sweeping(_) | Self::Exited => false,
        }
    }

    /// Whether the broker has ordered its own exit.
    pub(crate) fn has_exited(&self) -> bool {
        match self {
            Self::Exited => true,
            Self::Serving | Self::Stopping(_) | Self::Sweeping(_) => false,
        }
    }

    /// Returns what a child may still begin.
    pub(crate) fn permits(&self) -> Permits {
        Permits { may_start: self.is_serving(), may_clean_up: self.may_clean_up() }
    }

    /// Whether a cleanup may still be begun.
    fn may_clean_up(&self) -> bool {
        match self {
            Self::Serving => true,
            Self::Stopping(shutdown) => shutdown.force != Force::Full,
            Self::Sweeping(_) | Self::Exited => false,
        }
    }
}

/// A shutdown that is under way.
#[derive(Debug)]
pub(crate) struct Shutdown {
    began: Instant,
    /// When it is over, whatever is left.
    deadline: Instant,
    /// When everything that is left is killed, cleanups too.
    kill_at: Instant,
    force: Force,
    /// When SIGTERM or SIGINT first asked for it: one of them that comes a while later hurries.
    told: Option<Instant>,
    due: Option<Instant>,
    /// The waves that are not over, in the order in which they are stopped.
    waves: BTreeMap<Rank, Wave>,
    /// The wave that is being stopped.
    current: Option<Rank>,
    ended: Vec<Arc<ChildView>>,
    forced: u32,
}

/// When something is stopped in a shutdown: the main command first, then children by their stop order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// That of the main command, which is stopped before any child.
    Main,
    /// The children of one stop order.
    Child(i32),
}

/// How much force a shutdown uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Force {
    /// Children have their steps.
    None,
    /// Children are killed; their cleanups run.
    Hurried,
    /// Everything is killed, cleanups too.
    Full,
}

/// The children of one rank.
#[derive(Debug, Default)]
struct Wave {
    left: BTreeSet<ChildId>,
    /// What the steps and the cleanup of the most patient of them add up to.
    need: Duration,
}

/// The time that the children of a wave have.
#[derive(Debug)]
pub(crate) struct WaveTime {
    /// The children that are left of it.
    pub(crate) children: Vec<ChildId>,
    /// The time of each, for its stop and its cleanup.
    pub(crate) share: Duration,
    /// When the time is over, where there is less than all waves would like.
    pub(crate) over: Option<Instant>,
    /// When cleanups have to be over: they may take longer than their share as long as nobody else wants the time.
    pub(crate) cleanups_over: Instant,
}

impl Rank {
    fn of(child: &Child) -> Self {
        match child.role() {
            Role::Main => Self::Main,
            Role::Child => Self::Child(child.view().stop_order),
        }
    }
}

impl Shutdown {
    /// Makes the plan for a shutdown that begins now and may take so long.
    pub(crate) fn new(began: Instant, timeout: Duration, told: bool, children: &Children) -> Self {
        let (deadline, kill_at) = bounds(began, timeout);
        let mut waves: BTreeMap<Rank, Wave> = BTreeMap::new();
        for child in children.live() {
            let wave = waves.entry(Rank::of(child)).or_default();
            wave.left.insert(child.id());
            wave.need = wave.need.max(need(child, began, kill_at.since(began)));
        }
        Self {
            began,
            deadline,
            kill_at,
            force: Force::None,
            told: told.then_some(began),
            due: None,
            waves,
            current: None,
            ended: Vec::new(),
            forced: 0,
        }
    }

    /// Takes in one more signal. Returns whether it hurries the shutdown: it is one of those that do, and the first was
    /// a while ago. Terminals and launchers send both at once, or one of them twice.
    pub(crate) fn is_hurried_by(&mut self, hurries: bool, now: Instant) -> bool {
        hurries && now.since(*self.told.get_or_insert(now)) >= SECOND_SIGNAL_AFTER
    }

    /// Shortens the time, unless it would become longer. Returns whether it did.
    pub(crate) fn tighten(&mut self, now: Instant, timeout: Duration) -> bool {
        let (deadline, kill_at) = bounds(now, timeout);
        let is_shorter = deadline < self.deadline;
        if is_shorter {
            self.deadline = deadline;
            self.kill_at = self.kill_at.min(kill_at);
        }
        is_shorter
    }

    /// Leaves children no more time, and their cleanups a little. Returns whether that is news.
    pub(crate) fn hurry(&mut self, now: Instant) -> bool {
        let is_news = self.force == Force::None;
        if is_news {
            self.force = Force::Hurried;
            self.kill_at = self.kill_at.min(now.plus(HURRIED_CLEANUPS_MAX));
        }
        is_news
    }

    /// Leaves nothing any more time.
    pub(crate) fn use_full_force(&mut self) {
        self.force = Force::Full;
    }

    /// Returns how much force is used.
    pub(crate) fn force(&self) -> Force {
        self.force
    }

    /// Returns when it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Sets the timer for the next use of force, or for the end of the shutdown after the last.
    pub(crate) fn set_timer(&mut self, timers: &mut Timers) {
        let due = match self.force {
            Force::None | Force::Hurried => self.kill_at,
            Force::Full => self.deadline,
        };
        timers.set(Timer::Shutdown, self.due, Some(due));
        self.due = Some(due);
    }

    /// Sets the timer for the end of the shutdown.
    pub(crate) fn set_last_timer(&mut self, timers: &mut Timers) {
        timers.set(Timer::Shutdown, self.due, Some(self.deadline));
        self.due = Some(self.deadline);
    }

    /// Takes in that the timer has run out.
    pub(crate) fn timer_ran_out(&mut self) {
        self.due = None;
    }

    /// Returns the wave that is being stopped.
    pub(crate) fn current(&self) -> Option<Rank> {
        self.current
    }

    /// Returns whether children of the wave that is being stopped are left.
    pub(crate) fn is_in_wave(&self) -> bool {
        let wave = self.current.and_then(|rank| self.waves.get(&rank));
        wave.is_some_and(|wave| !wave.left.is_empty())
    }

    /// Goes on to the next wave, if there is one.
    pub(crate) fn next_wave(&mut self) -> Option<Rank> {
        if let Some(over) = self.current {
            self.waves.remove(&over);
        }
        self.current = self.waves.keys().next().copied();
        self.current
    }

    /// Shares the time out: where what is left is shorter than all waves to come would like, each gets its share.
    pub(crate) fn time_of(&mut self, rank: Rank, now: Instant, children: &Children) -> Option<WaveTime> {
        let left = self.kill_at.since(now);
        if let Some(wave) = self.waves.get_mut(&rank) {
            // A destroy may have begun with other steps since, and some of the time may be over.
            let children = wave.left.iter().filter_map(|id| children.get(*id));
            wave.need = children.map(|child| need(child, now, left)).max().unwrap_or_default();
        }
        // Nobody gets more for asking for more than there is, and nobody anything who has gone.
        let wish = |wave: &Wave| {
            if wave.left.is_empty() { Duration::ZERO } else { wave.need.min(left) }
        };
        let wanted = self.waves.values().fold(Duration::ZERO, |sum, wave| sum.saturating_add(wish(wave)));
        let wave = self.waves.get(&rank)?;
        let is_short = wanted > left || wave.need > left;
        let share = if is_short { scale(wish(wave), left, wanted) } else { wave.need };
        let over = is_short.then(|| now.plus(share));
        let others = wanted.saturating_sub(wish(wave));
        let cleanups_over = over.unwrap_or(self.kill_at.minus(others));
        Some(WaveTime { children: wave.left.iter().copied().collect(), share, over, cleanups_over })
    }

    /// Takes a child off its wave. Returns whether it needed force.
    pub(crate) fn leave(&mut self, child: &Child) -> bool {
        if let Some(wave) = self.waves.get_mut(&Rank::of(child)) {
            wave.left.remove(&child.id());
        }
        let needed_force = child.view().exit.as_ref().is_some_and(|exit| exit.forced);
        // One that never was has not ended either, though its process may have been killed on the way to its program.
        if child.view().started_at.is_some() && child.role() == Role::Child {
            self.ended.push(Arc::clone(child.view()));
            self.forced += u32::from(needed_force);
        }
        needed_force
    }

    /// Returns the children that it ended, and how many of them needed force.
    pub(crate) fn into_ended(self) -> (Vec<Arc<ChildView>>, u32) {
        (self.ended, self.forced)
    }
}
