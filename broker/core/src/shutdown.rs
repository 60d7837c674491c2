//! The broker's own end: children by their order, all within one deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::response::ShutdownReport;
use procbroker_protocol::{Child, ChildId, Error, ErrorKind, ExitReason, Response, Span};

use crate::broker::{Broker, Turn};
use crate::calls::{Cause, Ticket};
use crate::child::{self, Entry, Phase, Stop};
use crate::create::shutting_down;
use crate::effect::{Effect, ExitCause, Report, ServiceState};
use crate::limits::{
    KILL_AGAIN_FIRST, KILL_RESERVE_DIVISOR, KILL_RESERVE_MAX, KILL_RESERVE_MIN, SHUTDOWN_TIMEOUT_MIN,
};
use crate::moment::Moment;
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
    /// When everything that is left is killed.
    kill_at: Moment,
    killed: bool,
    /// Whether SIGTERM or SIGINT is among what asked for it: the next one of them hurries.
    told: bool,
    due: Option<Moment>,
    /// The waves that are not over, by their stop order.
    waves: BTreeMap<i32, Wave>,
    /// The wave that is being stopped.
    current: Option<i32>,
    ended: Vec<Arc<Child>>,
    forced: u32,
}

/// The children of one stop order.
#[derive(Debug, Default)]
struct Wave {
    left: BTreeSet<ChildId>,
    /// What the steps of the most patient of them add up to.
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
                    self.kill_all(turn);
                }
            }
            Stage::Sweeping(_) | Stage::Exited => {}
        }
    }

    fn begin_shutdown(&mut self, timeout: Span, told: bool, turn: &mut Turn<'_>) {
        let began = turn.now.moment;
        let (deadline, kill_at) = bounds(began, timeout);
        let mut waves: BTreeMap<i32, Wave> = BTreeMap::new();
        for entry in self.table.live() {
            let wave = waves.entry(entry.shown.stop_order).or_default();
            wave.left.insert(entry.shown.id);
            wave.need = wave.need.max(need(entry, began));
        }
        self.stage = Stage::Stopping(Box::new(Shutdown {
            began,
            deadline,
            kill_at,
            killed: false,
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
            | Cause::Shutdown => false,
        });
        for ticket in tickets {
            self.conclude(ticket, Err(shutting_down()), turn);
        }
    }

    fn follow_shutdown(&mut self) {
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        let due = Some(if shutdown.killed { shutdown.deadline } else { shutdown.kill_at });
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
    fn begin_wave(&mut self, order: i32, turn: &mut Turn<'_>) {
        let now = turn.now.moment;
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        if let Some(wave) = shutdown.waves.get_mut(&order) {
            // A destroy may have begun with other steps since, and some of the time may be over.
            let needs = wave.left.iter().filter_map(|id| self.table.get(*id)).map(|entry| need(entry, now));
            wave.need = needs.max().unwrap_or_default();
        }
        let left = shutdown.kill_at.since(now);
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
        let kill_by = is_short.then(|| now.plus(share));
        for id in children {
            let Some(entry) = self.table.get(id) else { continue };
            let steps = shortened(&entry.params().stop, share);
            self.begin_stop(id, Stop { reason: ExitReason::Shutdown, steps, kill_by }, turn);
        }
    }

    /// Kills everything that is left, in every wave.
    fn kill_all(&mut self, turn: &mut Turn<'_>) {
        let Stage::Stopping(shutdown) = &mut self.stage else { return };
        shutdown.killed = true;
        self.follow_shutdown();
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
        if let Some(wave) = shutdown.waves.get_mut(&entry.shown.stop_order) {
            wave.left.remove(&id);
        }
        if entry.shown.started_at.is_some() {
            shutdown.ended.push(Arc::clone(&entry.shown));
        }
        if entry.shown.exit.as_ref().is_some_and(|exit| exit.forced) {
            shutdown.forced += 1;
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
                if shutdown.killed {
                    let left = u32::try_from(self.table.live_count()).unwrap_or(u32::MAX);
                    self.exit(left, turn);
                } else {
                    self.kill_all(turn);
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
                Cause::Name { .. } => Err(shutting_down()),
                Cause::Start { .. } | Cause::Destroy { .. } | Cause::Wait { .. } | Cause::Signal { .. } => {
                    Err(Error::new(
                        ErrorKind::ShuttingDown,
                        "the broker exits at its shutdown deadline, and the child has not ended",
                    ))
                }
            };
            self.answer(waiting.call, result, turn);
        }
        turn.order(Effect::Report(Report::ShutDown { children, forced, left, took }));
        turn.order(Effect::Exit(if left == 0 { ExitCause::Done } else { ExitCause::Left(left) }));
    }

    /// There was nothing to do for the time that was set.
    pub(crate) fn idle(&mut self, turn: &mut Turn<'_>) {
        if self.is_serving() {
            turn.order(Effect::Report(Report::Idle));
            self.begin_shutdown(self.config.shutdown_timeout, false, turn);
        }
    }
}

/// When a shutdown that may take so long is over, and when it kills: the rest of the time is kept for the kill
/// itself to do its work.
fn bounds(now: Moment, timeout: Span) -> (Moment, Moment) {
    let part = |divisor: u64| Span::from_nanos(timeout.as_nanos() / divisor);
    let least = part(2).min(KILL_RESERVE_MIN);
    let reserve = part(KILL_RESERVE_DIVISOR).max(least).min(KILL_RESERVE_MAX);
    let deadline = now.plus(timeout);
    (deadline, deadline.minus(reserve))
}

/// How long a child's stop takes if nothing answers its signals.
fn need(entry: &Entry, now: Moment) -> Span {
    let sum = |steps: &mut dyn Iterator<Item = &StopStep>| {
        steps.fold(0_u64, |sum, step| sum.saturating_add(step.grace.as_nanos()))
    };
    let nanoseconds = match &entry.phase {
        Phase::Stopping(stopping) => match stopping.stage {
            child::Stage::Asking { .. } => {
                stopping.due().since(now).as_nanos().saturating_add(sum(&mut stopping.steps.iter()))
            }
            // The steps that are left are not taken any more.
            child::Stage::Killing { .. } => 0,
        },
        Phase::Recording { cancelled: Some(stop) } | Phase::Spawning { stop: Some(stop) } => {
            sum(&mut stop.steps.iter())
        }
        Phase::Recording { cancelled: None }
        | Phase::Queued
        | Phase::Spawning { stop: None }
        | Phase::Running { .. }
        | Phase::Ended => sum(&mut entry.params().stop.iter()),
    };
    Span::from_nanos(nanoseconds)
}

/// `span` in the proportion of `part` to `whole`.
fn scale(span: Span, part: Span, whole: Span) -> Span {
    let product = u128::from(span.as_nanos()) * u128::from(part.as_nanos());
    let scaled = product / u128::from(whole.as_nanos()).max(1);
    Span::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// The steps with their graces shortened alike, so that together they take no longer than `share`.
fn shortened(steps: &[StopStep], share: Span) -> Vec<StopStep> {
    let total = steps.iter().fold(0_u64, |sum, step| sum.saturating_add(step.grace.as_nanos()));
    let total = Span::from_nanos(total);
    if total <= share {
        return steps.to_vec();
    }
    steps.iter().map(|step| StopStep { grace: scale(step.grace, share, total), ..*step }).collect()
}
