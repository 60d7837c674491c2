//! The broker's own end: children by their order, all within one deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::response::ShutdownReport;
use procbroker_protocol::{Child, ChildId, Error, ErrorKind, EventKind, ExitReason, Response, Span};

use crate::broker::{Broker, Turn};
use crate::calls::{Cause, Ticket};
use crate::child::{self, Entry, Phase, Stop};
use crate::create::shutting_down;
use crate::effect::{Effect, ExitCause, Report, ServiceState};
use crate::limits::{HURRIED_CLEANUPS_MAX, KILL_AGAIN_FIRST, SHUTDOWN_TIMEOUT_MIN};
use crate::main_command::MainState;
use crate::moment::Moment;
use crate::record::Role;
use crate::shares::{bounds, cleanup_share, need, scale, shortened};
use crate::timers::Timer;

/// How far the broker is in its own life.
#[derive(Debug)]
pub(crate) enum Stage {
    /// It takes creates.
    Serving,
    /// It stops its children.
    Stopping(Box<Shutdown>),
    /// No child is left, and what descends from none is being ended.
    Sweeping(Box<Shutdown>),
    /// It has ordered its own exit.
    Exited,
}

/// A shutdown that is under way.
#[derive(Debug)]
pub(crate) struct Shutdown {
    began: Moment,
    /// When it is over, whatever is left.
    deadline: Moment,
    /// When everything that is left is killed, cleanups too.
    kill_at: Moment,
    force: Force,
    /// Whether SIGTERM or SIGINT is among what asked for it: the next one of them hurries.
    told: bool,
    due: Option<Moment>,
    /// The waves that are not over, in the order in which they are stopped.
    waves: BTreeMap<Rank, Wave>,
    /// The wave that is being stopped.
    current: Option<Rank>,
    ended: Vec<Arc<Child>>,
    forced: u32,
}

/// When something is stopped in a shutdown: the main command first, then children by their stop order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Main,
    Child(i32),
}

impl Rank {
    fn of(entry: &Entry) -> Self {
        match entry.role {
            Role::Main => Self::Main,
            Role::Child => Self::Child(entry.shown.stop_order),
        }
    }
}

/// How much force a shutdown uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Force {
    /// Children have their steps.
    None,
    /// Children are killed; their cleanups run.
    Hurried,
    /// Everything is killed.
    Full,
}

/// The children of one stop order.
#[derive(Debug, Default)]
struct Wave {
    left: BTreeSet<ChildId>,
    /// What the steps and the cleanup of the most patient of them add up to.
    need: Span,
}

impl Broker {
    /// Whether creates are taken.
    pub(crate) fn is_serving(&self) -> bool {
        match self.stage {
            Stage::Serving => true,
            Stage::Stopping(_) | Stage::Sweeping(_) | Stage::Exited => false,
        }
    }

    pub(crate) fn has_exited(&self) -> bool {
        match self.stage {
            Stage::Exited => true,
            Stage::Serving | Stage::Stopping(_) | Stage::Sweeping(_) => false,
        }
    }

    /// Begins the shutdown. If it is under way, a shorter time tightens it, and the second signal that
    /// `hurries` ends it.
    pub(crate) fn shut_down(&mut self, timeout: Option<Span>, hurries: bool, turn: &mut Turn<'_>) {
        match &mut self.stage {
            Stage::Serving => {
                let timeout = timeout.unwrap_or(self.config.shutdown_timeout);
                self.begin_shutdown(timeout.max(SHUTDOWN_TIMEOUT_MIN), hurries, turn);
            }
            Stage::Stopping(shutdown) => {
                let again = hurries && std::mem::replace(&mut shutdown.told, true);
                let shorter = timeout
                    .map(|timeout| bounds(turn.now.moment, timeout.max(SHUTDOWN_TIMEOUT_MIN)))
                    .filter(|(deadline, _)| *deadline < shutdown.deadline);
                if let Some((deadline, kill_at)) = shorter {
                    shutdown.deadline = deadline;
                    shutdown.kill_at = shutdown.kill_at.min(kill_at);
                    let current = shutdown.current;
                    self.follow_shutdown();
                    if let Some(order) = current {
                        self.begin_wave(order, turn);
                    }
                }
                if again {
                    let children = u32::try_from(self.table.live_count()).unwrap_or(u32::MAX);
                    turn.order(Effect::Report(Report::Hurried { children }));
                    self.hurry(turn);
                }
            }
            Stage::Sweeping(_) | Stage::Exited => {}
        }
    }

    /// Whether a cleanup may still be begun.
    pub(crate) fn may_clean_up(&self) -> bool {
        match &self.stage {
            Stage::Serving => true,
            Stage::Stopping(shutdown) => shutdown.force != Force::Full,
            Stage::Sweeping(_) | Stage::Exited => false,
        }
    }

    fn begin_shutdown(&mut self, timeout: Span, told: bool, turn: &mut Turn<'_>) {
        let began = turn.now.moment;
        let (deadline, kill_at) = bounds(began, timeout);
        let mut waves: BTreeMap<Rank, Wave> = BTreeMap::new();
        for entry in self.table.live() {
            let wave = waves.entry(Rank::of(entry)).or_default();
            wave.left.insert(entry.shown.id);
            wave.need = wave.need.max(need(entry, began, kill_at.since(began)));
        }
        self.call_off_upgrade(turn);
        self.stage = Stage::Stopping(Box::new(Shutdown {
            began,
            deadline,
            kill_at,
            force: Force::None,
            told,
            due: None,
            waves,
            current: None,
            ended: Vec::new(),
            forced: 0,
        }));
        self.follow_shutdown();
        let children = u32::try_from(self.table.live_count()).unwrap_or(u32::MAX);
        turn.order(Effect::Report(Report::ShuttingDown { children, timeout }));
        turn.order(Effect::Notify(ServiceState::Stopping { timeout, children }));
        self.publish_with(EventKind::ShuttingDown, None, turn);
        self.refuse_waiting_creates(turn);
    }

    /// Creates that wait for a name are new ones too.
    fn refuse_waiting_creates(&mut self, turn: &mut Turn<'_>) {
        let tickets: Vec<Ticket> = self.calls.tickets(|waiting| match waiting.cause {
            Cause::Name { .. } => true,
            Cause::Start { .. }
            | Cause::Destroy { .. }
            | Cause::Wait { .. }
            | Cause::Signal { .. }
            | Cause::Logs { .. }
            | Cause::Upgrade
            | Cause::Shutdown => false,
        });
        for ticket in tickets {
            self.conclude(ticket, Err(shutting_down()), turn);
        }
    }

    fn follow_shutdown(&mut self) {
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        let due = Some(match shutdown.force {
            Force::None | Force::Hurried => shutdown.kill_at,
            Force::Full => shutdown.deadline,
        });
        self.timers.set(Timer::Shutdown, shutdown.due, due);
        shutdown.due = due;
    }

    /// Begins the next wave when the one before is over, and ends the shutdown after the last.
    pub(crate) fn go_on_shutting_down(&mut self, turn: &mut Turn<'_>) {
        while let Stage::Stopping(shutdown) = &mut self.stage {
            if let Some(current) = shutdown.current {
                if shutdown.waves.get(&current).is_some_and(|wave| !wave.left.is_empty()) {
                    return;
                }
                shutdown.waves.remove(&current);
            }
            let next = shutdown.waves.keys().next().copied();
            shutdown.current = next;
            match next {
                Some(order) => self.begin_wave(order, turn),
                None => self.begin_sweep(turn),
            }
        }
    }

    /// Stops the children of one order, or shares the time out anew when it has become shorter. When the
    /// time left is shorter than all waves to come would like, each gets its share of it, and its
    /// children's steps are shortened alike.
    fn begin_wave(&mut self, order: Rank, turn: &mut Turn<'_>) {
        let now = turn.now.moment;
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        let left = shutdown.kill_at.since(now);
        if let Some(wave) = shutdown.waves.get_mut(&order) {
            // A destroy may have begun with other steps since, and some of the time may be over.
            let children = wave.left.iter().filter_map(|id| self.table.get(*id));
            wave.need = children.map(|entry| need(entry, now, left)).max().unwrap_or_default();
        }
        // Nobody gets more for asking for more than there is, and nobody anything who has gone.
        let wish = |wave: &Wave| if wave.left.is_empty() { Span::ZERO } else { wave.need.min(left) };
        let wanted = shutdown
            .waves
            .values()
            .fold(Span::ZERO, |sum, wave| Span::from_nanos(sum.as_nanos() + wish(wave).as_nanos()));
        let Some(wave) = shutdown.waves.get(&order) else { return };
        let is_short = wanted > left || wave.need > left;
        let share = if is_short { scale(wish(wave), left, wanted) } else { wave.need };
        let children: Vec<ChildId> = wave.left.iter().copied().collect();
        let over = is_short.then(|| now.plus(share));
        // A cleanup may take longer than its share as long as nobody else wants the time.
        let others = wanted.as_nanos().saturating_sub(wish(wave).as_nanos());
        let cleanups_over = over.unwrap_or(shutdown.kill_at.minus(Span::from_nanos(others)));
        for id in children {
            let Some(entry) = self.table.get(id) else { continue };
            let kept = cleanup_share(entry, share);
            let for_steps = Span::from_nanos(share.as_nanos().saturating_sub(kept.as_nanos()));
            let steps = shortened(&entry.params().stop, for_steps);
            let kill_by = over.map(|over| over.minus(kept));
            self.bound_cleanup(id, cleanups_over);
            self.begin_stop(id, Stop { reason: ExitReason::Shutdown, steps, kill_by }, turn);
        }
    }

    /// Kills every child at once, and gives the cleanups a little time.
    fn hurry(&mut self, turn: &mut Turn<'_>) {
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        if shutdown.force == Force::None {
            shutdown.force = Force::Hurried;
            shutdown.kill_at = shutdown.kill_at.min(turn.now.moment.plus(HURRIED_CLEANUPS_MAX));
            self.follow_shutdown();
            self.kill_children(turn);
        }
    }

    /// Kills everything that is left, in every wave. A cleanup that is cut short, or does not come to begin, is
    /// the next broker's.
    fn kill_all(&mut self, turn: &mut Turn<'_>) {
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        shutdown.force = Force::Full;
        self.follow_shutdown();
        let children: Vec<ChildId> = self.table.live().map(|entry| entry.shown.id).collect();
        for id in children {
            self.leave_cleanup(id, turn);
        }
        self.kill_children(turn);
    }

    fn kill_children(&mut self, turn: &mut Turn<'_>) {
        let children: Vec<ChildId> = self.table.live().map(|entry| entry.shown.id).collect();
        for id in children {
            let now = turn.now.moment;
            // One that is being killed may have been left alone for a while: its next kill comes now too.
            self.table.update(id, |entry| {
                if let Phase::Stopping(stopping) = &mut entry.phase
                    && let child::Stage::Killing { pause, .. } = stopping.stage
                    && pause > KILL_AGAIN_FIRST
                {
                    stopping.stage = child::Stage::Killing { again: now, pause: KILL_AGAIN_FIRST };
                }
            });
            let stop = Stop { reason: ExitReason::Shutdown, steps: Vec::new(), kill_by: Some(now) };
            self.begin_stop(id, stop, turn);
        }
    }

    /// A child has ended, during a shutdown or not.
    pub(crate) fn left_wave(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id) else { return };
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        if let Some(wave) = shutdown.waves.get_mut(&Rank::of(entry)) {
            wave.left.remove(&id);
        }
        if entry.shown.started_at.is_some() && entry.role == Role::Child {
            shutdown.ended.push(Arc::clone(&entry.shown));
        }
        if entry.shown.exit.as_ref().is_some_and(|exit| exit.forced) {
            // What is counted is children, as those are that have ended.
            shutdown.forced += u32::from(entry.role == Role::Child);
            turn.order(Effect::Report(Report::Forced { child: Arc::clone(&entry.shown) }));
        }
    }

    fn begin_sweep(&mut self, turn: &mut Turn<'_>) {
        let before = std::mem::replace(&mut self.stage, Stage::Exited);
        if let Stage::Stopping(mut shutdown) = before {
            self.timers.set(Timer::Shutdown, shutdown.due, Some(shutdown.deadline));
            shutdown.due = Some(shutdown.deadline);
            self.stage = Stage::Sweeping(shutdown);
            turn.order(Effect::Sweep);
        }
    }

    /// Nothing that descends from the broker is left, or as much as cannot be ended.
    pub(crate) fn swept(&mut self, left: u32, turn: &mut Turn<'_>) {
        match &self.stage {
            Stage::Sweeping(_) => self.exit(left, turn),
            Stage::Serving | Stage::Stopping(_) | Stage::Exited => {}
        }
    }

    pub(crate) fn shutdown_due(&mut self, turn: &mut Turn<'_>) {
        match &mut self.stage {
            Stage::Stopping(shutdown) => {
                shutdown.due = None;
                match shutdown.force {
                    Force::None | Force::Hurried => self.kill_all(turn),
                    Force::Full => {
                        let left = self.table.live().filter(|entry| entry.may_have_processes()).count();
                        self.exit(u32::try_from(left).unwrap_or(u32::MAX), turn);
                    }
                }
            }
            // The sweep has not come back in time, so that something must be left.
            Stage::Sweeping(_) => self.exit(1, turn),
            Stage::Serving | Stage::Exited => {}
        }
    }

    /// Answers everything that is still open, and leaves.
    fn exit(&mut self, left: u32, turn: &mut Turn<'_>) {
        let (Stage::Stopping(shutdown) | Stage::Sweeping(shutdown)) =
            std::mem::replace(&mut self.stage, Stage::Exited)
        else {
            return;
        };
        let took = turn.now.moment.since(shutdown.began);
        let Shutdown { ended, forced, .. } = *shutdown;
        let children = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        let report = ShutdownReport { children: ended, forced, took };
        for ticket in self.calls.tickets(|_| true) {
            let Some(waiting) = self.unpark(ticket) else { continue };
            let result = match waiting.cause {
                Cause::Shutdown => Ok(Response::ShutDown(report.clone())),
                Cause::Name { .. } | Cause::Upgrade => Err(shutting_down()),
                Cause::Start { .. }
                | Cause::Destroy { .. }
                | Cause::Wait { .. }
                | Cause::Signal { .. }
                | Cause::Logs { .. } => Err(Error::new(
                    ErrorKind::ShuttingDown,
                    "the broker exits at its shutdown deadline, and the child has not ended",
                )),
            };
            self.answer(waiting.call, result, turn);
        }
        turn.order(Effect::Report(Report::ShutDown { children, forced, left, took }));
        turn.order(Effect::Exit(match self.main {
            MainState::Over(exit) => ExitCause::Main(exit),
            MainState::Absent | MainState::Waiting | MainState::Present(_) if left == 0 => ExitCause::Done,
            MainState::Absent | MainState::Waiting | MainState::Present(_) => ExitCause::Left(left),
        }));
    }

    /// There was nothing to do for the time that was set.
    pub(crate) fn idle(&mut self, turn: &mut Turn<'_>) {
        if self.is_serving() {
            turn.order(Effect::Report(Report::Idle));
            self.begin_shutdown(self.config.shutdown_timeout, false, turn);
        }
    }
}
