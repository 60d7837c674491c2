//! The broker's own end: the children of each user by their order, all within one deadline.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::response::ShutdownReport;
use procbroker_protocol::{ChildId, Error, ErrorKind, EventKind, ExitReason, Response};

use crate::attempt::shutting_down;
use crate::broker::Broker;
use crate::child::{Child, Stop};
use crate::effect::{Effect, ExitCause, Report, ServiceState};
use crate::limits::SHUTDOWN_TIMEOUT_MIN;
use crate::main_process::MainState;
use crate::pending::WaitsFor;
use crate::turn::Turn;
use crate::waves::{BrokerState, Force, Shutdown, WaveKey, cleanup_share, shortened};

impl Broker {
    /// Begins the shutdown. If it is under way, a shorter time tightens it, and the second signal that
    /// `hurries` ends it. Without a time of its own it is to be over within that of the configuration from now on, whatever
    /// an earlier word has said.
    pub(crate) fn shut_down(&mut self, timeout: Option<Duration>, hurries: bool, turn: &mut Turn<'_>) {
        match &mut self.state {
            BrokerState::Serving => {
                let timeout = timeout.unwrap_or(self.config.shutdown_timeout);
                self.begin_shutdown(timeout.max(SHUTDOWN_TIMEOUT_MIN), hurries, turn);
            }
            BrokerState::Stopping(shutdown) => {
                let now = turn.now.instant;
                let again = shutdown.is_hurried_by(hurries, now);
                let within = timeout.unwrap_or(self.config.shutdown_timeout);
                if shutdown.tighten(now, within.max(SHUTDOWN_TIMEOUT_MIN)) {
                    for wave in shutdown.current() {
                        self.begin_wave(wave, turn);
                    }
                    self.set_shutdown_timer();
                }
                if again {
                    let children = u32::try_from(self.children.live_count()).unwrap_or(u32::MAX);
                    turn.order(Effect::Report(Report::Hurried { children }));
                    self.hurry(turn);
                }
            }
            BrokerState::Sweeping(_) | BrokerState::Exited => {}
        }
    }

    fn begin_shutdown(&mut self, timeout: Duration, told: bool, turn: &mut Turn<'_>) {
        let mut shutdown = Shutdown::new(turn.now.instant, timeout, told, &self.children);
        self.call_off_upgrade(turn);
        shutdown.set_timer(&mut self.timers);
        self.state = BrokerState::Stopping(Box::new(shutdown));
        let children = u32::try_from(self.children.live_count()).unwrap_or(u32::MAX);
        turn.order(Effect::Report(Report::ShuttingDown { children, timeout }));
        turn.order(Effect::Notify(ServiceState::Stopping { timeout, children }));
        self.publish_with(EventKind::ShuttingDown, None, turn);
        self.refuse_waiting_creates(turn);
        self.end_between_runs(turn);
        self.tell_without_tails(turn);
    }

    /// Children of which nothing is there between two of their runs have nothing to wait for any more, nor have those whose
    /// launch was cut short for another program, which takes over no more.
    fn end_between_runs(&mut self, turn: &mut Turn<'_>) {
        for id in self.children.live_ids() {
            if self.children.get(id).is_some_and(|child| child.is_between_runs() || child.is_put_off()) {
                self.stop_child(id, ExitReason::Shutdown, None, turn);
            }
        }
    }

    /// Creates that wait for a name or a place are new ones too.
    fn refuse_waiting_creates(&mut self, turn: &mut Turn<'_>) {
        for ticket in self.pending.tickets(|pending| pending.waits_for.is_unstarted()) {
            self.answer_pending(ticket, Err(shutting_down()), turn);
        }
    }

    /// Begins the next wave of each user when the one before is over, and ends the shutdown after the last of all.
    pub(crate) fn go_on_shutting_down(&mut self, turn: &mut Turn<'_>) {
        let mut has_begun = false;
        while let BrokerState::Stopping(shutdown) = &mut self.state {
            match shutdown.next_wave() {
                Some(wave) => {
                    self.begin_wave(wave, turn);
                    has_begun = true;
                }
                None if shutdown.is_over() => self.begin_sweep(turn),
                None => break,
            }
        }
        if has_begun {
            self.set_shutdown_timer();
        }
    }

    /// Sets the timer for what comes next in a shutdown that stops children: the end of a wave's time, or of all.
    fn set_shutdown_timer(&mut self) {
        if let BrokerState::Stopping(shutdown) = &mut self.state {
            shutdown.set_timer(&mut self.timers);
        }
    }

    /// Stops the children of one user and rank, or shares the time out anew when it has become shorter: where there is too
    /// little, their steps are shortened alike.
    fn begin_wave(&mut self, wave: WaveKey, turn: &mut Turn<'_>) {
        let BrokerState::Stopping(shutdown) = &mut self.state else {
            return;
        };
        let Some(time) = shutdown.time_of(wave, turn.now.instant, &self.children) else {
            return;
        };
        for id in time.children {
            self.with_child(id, turn, |child, orders| {
                let kept = cleanup_share(child, time.share);
                let for_steps = time.share.saturating_sub(kept);
                let steps = shortened(&child.params().stop, for_steps);
                let kill_by = Some(time.over.minus(kept));
                child.bound_cleanup(time.over, orders);
                child.begin_stop(Stop { reason: ExitReason::Shutdown, steps, kill_by }, orders)
            });
        }
    }

    /// Kills every child at once, and gives the cleanups a little time.
    fn hurry(&mut self, turn: &mut Turn<'_>) {
        let BrokerState::Stopping(shutdown) = &mut self.state else {
            return;
        };
        if shutdown.hurry(turn.now.instant) {
            shutdown.set_timer(&mut self.timers);
            self.kill_children(turn);
        }
    }

    /// Kills everything that is left, in every wave. A cleanup that is cut short, or does not come to begin, is
    /// the next broker's.
    fn kill_all(&mut self, turn: &mut Turn<'_>) {
        let BrokerState::Stopping(shutdown) = &mut self.state else {
            return;
        };
        shutdown.use_full_force(turn.now.instant);
        shutdown.set_timer(&mut self.timers);
        for id in self.children.live_ids() {
            self.with_child(id, turn, Child::leave_cleanup);
        }
        self.kill_children(turn);
    }

    fn kill_children(&mut self, turn: &mut Turn<'_>) {
        for id in self.children.live_ids() {
            self.with_child(id, turn, Child::kill_now);
        }
    }

    /// A child has ended, during a shutdown or not.
    pub(crate) fn left_wave(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(child) = self.children.get(id) else {
            return;
        };
        let BrokerState::Stopping(shutdown) = &mut self.state else {
            return;
        };
        if shutdown.leave(child) {
            turn.order(Effect::Report(Report::Forced { child: Arc::clone(child.view()) }));
        }
    }

    /// All children have ended: what descends from none is ended, unless that is under way.
    fn begin_sweep(&mut self, turn: &mut Turn<'_>) {
        let before = std::mem::replace(&mut self.state, BrokerState::Exited);
        if let BrokerState::Stopping(mut shutdown) = before {
            shutdown.set_last_timer(&mut self.timers);
            let (force, swept) = (shutdown.force(), shutdown.left_by_last_sweep());
            self.state = BrokerState::Sweeping(shutdown);
            match (force, swept) {
                (Force::None | Force::Hurried | Force::Full, _) => turn.order(Effect::Sweep),
                (Force::Sweep, None) => {}
                (Force::Sweep, Some(left)) => self.exit(left, turn),
            }
        }
    }

    /// Something has not ended in spite of all force. What others have left must not outlive the broker for that.
    fn begin_last_sweep(&mut self, turn: &mut Turn<'_>) {
        if let BrokerState::Stopping(shutdown) = &mut self.state {
            shutdown.begin_last_sweep();
            shutdown.set_timer(&mut self.timers);
            turn.order(Effect::Sweep);
        }
    }

    /// Nothing that descends from the broker is left, or as much as cannot be ended.
    pub(crate) fn swept(&mut self, left: u32, turn: &mut Turn<'_>) {
        match &mut self.state {
            BrokerState::Sweeping(_) => self.exit(left, turn),
            // Children may have been there that it has ended, and of whose ends it is still to be heard.
            BrokerState::Stopping(shutdown) => shutdown.last_sweep_is_over(left),
            BrokerState::Serving | BrokerState::Exited => {}
        }
    }

    pub(crate) fn shutdown_due(&mut self, turn: &mut Turn<'_>) {
        match &mut self.state {
            BrokerState::Stopping(shutdown) => {
                shutdown.timer_ran_out();
                match shutdown.force() {
                    Force::None if !shutdown.is_time_over(turn.now.instant) => {
                        shutdown.give_up_waves(turn.now.instant);
                        shutdown.set_timer(&mut self.timers);
                    }
                    Force::None | Force::Hurried => self.kill_all(turn),
                    Force::Full => self.begin_last_sweep(turn),
                    Force::Sweep => {
                        // A sweep that has not come back in time has found something that it could not end.
                        let of_none = shutdown.left_by_last_sweep().unwrap_or(1);
                        let left = self.children.live().filter(|child| child.may_have_processes()).count();
                        self.exit(u32::try_from(left).unwrap_or(u32::MAX).max(of_none), turn);
                    }
                }
            }
            // The sweep has not come back in time, so that something must be left.
            BrokerState::Sweeping(_) => self.exit(1, turn),
            BrokerState::Serving | BrokerState::Exited => {}
        }
    }

    /// Answers everything that is still open, and leaves.
    fn exit(&mut self, left: u32, turn: &mut Turn<'_>) {
        let (BrokerState::Stopping(shutdown) | BrokerState::Sweeping(shutdown)) =
            std::mem::replace(&mut self.state, BrokerState::Exited)
        else {
            return;
        };
        let took = turn.now.instant.since(shutdown.began());
        let (ended, forced) = shutdown.into_ended();
        let children = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        let report = ShutdownReport { children: ended, forced, took };
        for ticket in self.pending.tickets(|_| true) {
            let Some(pending) = self.take_pending(ticket) else {
                continue;
            };
            let result = match pending.waits_for {
                WaitsFor::Shutdown => Ok(Response::ShutDown(report.clone())),
                WaitsFor::Name { .. } | WaitsFor::Place { .. } | WaitsFor::Upgrade => Err(shutting_down()),
                WaitsFor::Logs { .. } => Err(Error::new(
                    ErrorKind::ShuttingDown,
                    "the broker exits before it has sent the output of the child; ask the next broker for it",
                )),
                WaitsFor::Start { .. }
                | WaitsFor::Tail { .. }
                | WaitsFor::Destroy { .. }
                | WaitsFor::Restart { .. }
                | WaitsFor::Wait { .. }
                | WaitsFor::Signal(_) => Err(Error::new(
                    ErrorKind::ShuttingDown,
                    "the broker exits at its shutdown deadline, and the child has not ended",
                )),
            };
            self.answer(pending.call, result, turn);
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
