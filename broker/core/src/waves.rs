//! How far the broker is in its own life, and the waves in which a shutdown stops its children.

mod budget;
mod of_user;

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
use budget::{OTHERS_SHARE_DIVISOR, bounds, kill_reserve, need};
use of_user::UserWaves;

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
            Self::Stopping(shutdown) => shutdown.force < Force::Full,
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
    /// When whatever descends from the broker is killed, if something is left by then.
    sweep_at: Instant,
    /// What a sweep has left that began before all children had ended, once it is over.
    swept: Option<u32>,
    /// When SIGTERM or SIGINT first asked for it: one of them that comes a while later hurries.
    told: Option<Instant>,
    due: Option<Instant>,
    /// The waves of each user: nobody's wait for another's, but for the main command.
    users: BTreeMap<u32, UserWaves>,
    /// Whose main command is left.
    main: Option<u32>,
    /// The users of whose children none is being stopped, and whose next wave may have its turn.
    between: BTreeSet<u32>,
    ended: Vec<Arc<ChildView>>,
    forced: u32,
}

/// When something of a user is stopped in a shutdown: the main command first, then children by their stop order.
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
    /// Something has not ended by that: whatever descends from the broker is killed, whoever's it is, and nothing but the deadline
    /// is waited for.
    Sweep,
}

/// The children of one user and one rank, whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaveKey {
    /// Whose they are.
    uid: u32,
    rank: Rank,
}

/// The time that the children of a wave have.
#[derive(Debug)]
pub(crate) struct WaveTime {
    /// The children that are left of it.
    pub(crate) children: Vec<ChildId>,
    /// The time of each, for its stop and its cleanup.
    pub(crate) share: Duration,
    /// When the time is over. They may take longer than their share as long as no other wave would like the time.
    pub(crate) over: Instant,
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
        let mut users: BTreeMap<u32, UserWaves> = BTreeMap::new();
        let mut main = None;
        for child in children.live() {
            let (uid, rank) = (child.owner().uid, Rank::of(child));
            let need = need(child, began, kill_at.since(began));
            users.entry(uid).or_default().add(rank, child.id(), need);
            main = main.or((rank == Rank::Main).then_some(uid));
        }
        let between = users.keys().copied().collect();
        Self {
            began,
            deadline,
            kill_at,
            force: Force::None,
            sweep_at: deadline,
            swept: None,
            told: told.then_some(began),
            due: None,
            users,
            main,
            between,
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

    /// Leaves nothing any more time. Half of what is left is for what a last sweep kills.
    pub(crate) fn use_full_force(&mut self, now: Instant) {
        self.force = Force::Full;
        self.sweep_at = now.plus(self.deadline.since(now) / 2);
    }

    /// Begins the last sweep.
    pub(crate) fn begin_last_sweep(&mut self) {
        self.force = Force::Sweep;
    }

    /// A sweep that began before all children had ended is over.
    pub(crate) fn last_sweep_is_over(&mut self, left: u32) {
        self.swept = Some(left);
    }

    /// Returns what that sweep has left, if it is over.
    pub(crate) fn left_by_last_sweep(&self) -> Option<u32> {
        self.swept
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
            Force::None => {
                let given_up = self.users.values().filter_map(UserWaves::given_up_at).min();
                given_up.map_or(self.kill_at, |at| at.min(self.kill_at))
            }
            Force::Hurried => self.kill_at,
            Force::Full => self.sweep_at.min(self.deadline),
            Force::Sweep => self.deadline,
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

    /// Returns the waves that are being stopped.
    pub(crate) fn current(&self) -> Vec<WaveKey> {
        let current = |(uid, user): (&u32, &UserWaves)| Some(WaveKey { uid: *uid, rank: user.current()? });
        self.users.iter().filter_map(current).collect()
    }

    /// Whether nothing is left that could be stopped.
    pub(crate) fn is_over(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether all that is left is to be killed by now.
    pub(crate) fn is_time_over(&self, now: Instant) -> bool {
        self.kill_at <= now
    }

    /// Lets those have their turn who wait for a wave whose time is over, and of which something is left in spite of the
    /// kill. What is left of it is waited for at the end.
    pub(crate) fn give_up_waves(&mut self, now: Instant) {
        for (uid, user) in &mut self.users {
            if user.given_up_at().is_some_and(|at| at <= now) {
                if user.current() == Some(Rank::Main) {
                    self.main = None;
                }
                user.give_up();
                self.between.insert(*uid);
            }
        }
    }

    /// Goes on to the next wave of a user of whose last one nothing is left, if there is one.
    pub(crate) fn next_wave(&mut self) -> Option<WaveKey> {
        loop {
            // Everybody waits for the main command.
            let uid = match self.main {
                Some(uid) => self.between.take(&uid)?,
                None => self.between.pop_first()?,
            };
            let Some(user) = self.users.get_mut(&uid) else { continue };
            match user.next() {
                Some(rank) => return Some(WaveKey { uid, rank }),
                None if user.is_over() => drop(self.users.remove(&uid)),
                None => {}
            }
        }
    }

    /// Shares the time of a user out: where what is left is shorter than all its waves to come would like, each gets its share.
    pub(crate) fn time_of(&mut self, wave: WaveKey, now: Instant, children: &Children) -> Option<WaveTime> {
        let left = self.kill_at.since(now);
        let WaveKey { uid, rank } = wave;
        self.users.get_mut(&uid)?.look_again(rank, |id| children.get(id).map(|child| need(child, now, left)));
        let user = self.users.get(&uid)?;
        let own = user.wanted(left);
        // Of what the others would like after the main command, it leaves them no more than a part.
        let others = match rank {
            Rank::Main => self.wanted_by_others(uid, left).min(left / OTHERS_SHARE_DIVISOR),
            Rank::Child(_) => Duration::ZERO,
        };
        let share = user.share(rank, left).min(left.saturating_sub(others));
        let is_short = share < user.need(rank) || own > left;
        let later = own.saturating_sub(user.wish(rank, left)).max(others);
        let over = if is_short { now.plus(share) } else { self.kill_at.minus(later) };
        let children = user.left(rank);
        let given_up_at = over.plus(kill_reserve(self.kill_at.since(over)));
        self.users.get_mut(&uid)?.give_up_at(given_up_at);
        Some(WaveTime { children, share, over })
    }

    /// What the waves of that one of the other users would like who would like most.
    fn wanted_by_others(&self, uid: u32, left: Duration) -> Duration {
        let others = self.users.iter().filter(|(other, _)| **other != uid);
        others.map(|(_, user)| user.wanted(left)).max().unwrap_or_default()
    }

    /// Takes a child off its wave. Returns whether it needed force.
    pub(crate) fn leave(&mut self, child: &Child) -> bool {
        let (uid, rank) = (child.owner().uid, Rank::of(child));
        if let Some(user) = self.users.get_mut(&uid) {
            user.leave(rank, child.id());
            if !user.is_in_wave() {
                self.between.insert(uid);
            }
        }
        if rank == Rank::Main {
            self.main = None;
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
