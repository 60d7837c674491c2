//! What others may read of a child, and the few notes that they leave with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::create::{StandardError, StandardOutput};
use procbroker_protocol::request::{LogStream, Until};
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{Child as ChildView, ChildId, CreateParams, ExitReason, Owner};

use crate::attempt::{Attempt, Claim, KeptPlace, Stage};
use crate::authorize::RunAs;
use crate::child::launching::Launching;
use crate::child::stopping::sum;
use crate::child::{Child, Phase, Stop};
use crate::effect::{LastWords, SpawnOrder};
use crate::ids::{ConnectionId, Run, SubscriptionId, Ticket};
use crate::record::{RecordedLease, Role, Unready};
use crate::time::Instant;

impl Child {
    /// Returns its id.
    pub(crate) fn id(&self) -> ChildId {
        self.common.id()
    }

    /// Returns who created it.
    pub(crate) fn owner(&self) -> Owner {
        self.view().owner
    }

    /// Returns what it is to the broker.
    pub(crate) fn role(&self) -> Role {
        self.common.role()
    }

    /// Returns what its creator asked for.
    pub(crate) fn params(&self) -> &CreateParams {
        self.common.params()
    }

    /// The run whose usage can be told: that of its main process, while that is there.
    pub(crate) fn measured_run(&self) -> Option<Run> {
        self.view().pid.map(|_| self.run())
    }

    /// Returns how many bytes it counts for.
    pub(crate) fn bytes(&self) -> u64 {
        self.common.bytes()
    }

    /// Returns whose rights it has.
    pub(crate) fn run_as(&self) -> &RunAs {
        &self.common.order().run_as
    }

    /// Returns how clients see it.
    pub(crate) fn view(&self) -> &Arc<ChildView> {
        self.common.view()
    }

    /// Returns what its life hangs on beside connections.
    pub(crate) fn lease(&self) -> &RecordedLease {
        self.common.lease()
    }

    /// Returns its present process.
    pub(crate) fn run(&self) -> Run {
        self.common.run()
    }

    /// Returns what its create answers, when the same request comes again.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether anything of it may be there: it then holds its name and its place under a limit.
    pub(crate) fn is_live(&self) -> bool {
        match self.phase {
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Cleaning(_) => true,
            Phase::Ended => false,
        }
    }

    /// Whether a signal may find something of it: there is a process, or will be.
    pub(crate) fn takes_signals(&self) -> bool {
        match &self.phase {
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_) => true,
            Phase::Restarting(restarting) => !restarting.is_pausing(),
            Phase::Cleaning(_) | Phase::Ended => false,
        }
    }

    /// Whether it is between two runs, and no process is being started.
    pub(crate) fn is_between_runs(&self) -> bool {
        match &self.phase {
            Phase::Restarting(restarting) => !restarting.is_spawning(),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => false,
        }
    }

    /// Whether its process was killed on the way to its program, for another broker that was to take over.
    pub(crate) fn is_put_off(&self) -> bool {
        match &self.phase {
            Phase::Spawning(launching) => launching.is_put_off(),
            Phase::Restarting(restarting) => restarting.is_put_off(),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => false,
        }
    }

    /// Whether its main process is there.
    pub(crate) fn has_main_process(&self) -> bool {
        match &self.phase {
            Phase::Starting { .. } | Phase::Running { .. } => true,
            Phase::Stopping(stopping) => stopping.is_leader_alive(),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => false,
        }
    }

    /// Whether a process of it may be there, of its cleanup too.
    pub(crate) fn may_have_processes(&self) -> bool {
        match &self.phase {
            Phase::Spawning(_) | Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping(_) => true,
            Phase::Restarting(restarting) => restarting.is_spawning(),
            Phase::Cleaning(cleaning) => cleaning.may_have_processes(),
            Phase::Recording { .. } | Phase::Queued | Phase::Ended => false,
        }
    }

    /// Whether it is on its way to its end, or there.
    pub(crate) fn is_ending(&self) -> bool {
        match &self.phase {
            Phase::Recording { cancelled: stop } => stop.is_some(),
            Phase::Spawning(launching) => launching.stop.is_some(),
            Phase::Restarting(restarting) => {
                let is_for_good = |stop: &Stop| {
                    // That a later run is late does not end it, unless that is the answer to its create.
                    stop.reason != ExitReason::StartFailed || self.is_unanswered()
                };
                restarting.stop().is_some_and(is_for_good)
            }
            Phase::Queued | Phase::Starting { .. } | Phase::Running { .. } => false,
            Phase::Stopping(stopping) => stopping.is_for_good(),
            Phase::Cleaning(_) | Phase::Ended => true,
        }
    }

    /// Whether it is over as soon as it is stopped: nothing of it has to end first.
    pub(crate) fn ends_when_stopped(&self) -> bool {
        matches!(self.phase, Phase::Queued) || self.is_between_runs()
    }

    /// Whether there is no process yet, or none at the moment.
    pub(crate) fn is_unspawned(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } | Phase::Queued | Phase::Spawning(_) | Phase::Restarting(_) => true,
            Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => false,
        }
    }

    /// Whether its present run is being stopped for the sake of another one.
    fn is_to_run_again(&self) -> bool {
        match &self.phase {
            Phase::Stopping(stopping) => !stopping.is_for_good(),
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => false,
        }
    }

    /// Whether a `wait` for it to be ready is over: it has been ready, or has ended without.
    pub(crate) fn is_settled(&self) -> bool {
        !self.is_to_run_again() && self.was_ready() || !self.is_live()
    }

    /// Whether it is ready, or its present run has been.
    pub(crate) fn was_ready(&self) -> bool {
        self.common.unready() == Unready::No
    }

    /// Whether what its create waits for has not come: no run of it was ever ready.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.common.unready() == Unready::Ever
    }

    /// Whether a create that waits for this is to be answered.
    pub(crate) fn has_come_to(&self, stage: Stage) -> bool {
        match stage {
            Stage::Spawned => !self.is_unspawned() && !self.is_to_run_again(),
            Stage::Ready => self.is_settled(),
        }
    }

    /// Whether what a `wait` waits for has come.
    pub(crate) fn has_reached(&self, until: Until) -> bool {
        match until {
            // One that is on its way to its end is not ready any more.
            Until::Ready => self.is_settled() && !self.is_ending() || !self.is_live(),
            Until::Ended => !self.is_live(),
        }
    }

    /// Whether a `restart` is over for it: it has been restarted so many times and is ready, or it has ended.
    pub(crate) fn is_restarted(&self, restarts: u32) -> bool {
        let is_ready = self.is_settled() && !self.is_ending();
        !self.is_live() || self.view().restarts >= restarts && is_ready
    }

    /// Returns where it says last what went wrong: many a program does so on its standard output.
    pub(crate) fn last_words(&self) -> LastWords {
        match (self.params().stdout, self.params().stderr) {
            (StandardOutput::Log, StandardError::Log) => LastWords::InBoth,
            (StandardOutput::Null | StandardOutput::Inherit, StandardError::Log) => {
                LastWords::In(LogStream::Stderr)
            }
            (_, StandardError::Stdout | StandardError::Null | StandardError::Inherit) => {
                LastWords::In(LogStream::Stdout)
            }
        }
    }

    /// Returns how long its stop takes if nothing answers its signals.
    pub(crate) fn stop_need(&self, now: Instant) -> Duration {
        match &self.phase {
            // Nothing of it may be left but a command that was to ask it.
            Phase::Stopping(stopping) if stopping.over(&self.common).is_some() => Duration::ZERO,
            Phase::Stopping(stopping) => stopping.need(now),
            // No step is taken any more.
            Phase::Spawning(launching) if launching.killed.is_some() => Duration::ZERO,
            Phase::Restarting(restarting) if restarting.was_killed() => Duration::ZERO,
            Phase::Recording { cancelled: Some(stop) }
            | Phase::Spawning(Launching { stop: Some(stop), .. }) => sum(Duration::ZERO, stop.steps.iter()),
            Phase::Restarting(restarting) if restarting.is_spawning() => {
                let steps = restarting.stop().map_or(&self.params().stop, |stop| &stop.steps);
                sum(Duration::ZERO, steps.iter())
            }
            Phase::Restarting(_) | Phase::Cleaning(_) => Duration::ZERO,
            Phase::Recording { cancelled: None }
            | Phase::Queued
            | Phase::Spawning(Launching { stop: None, .. })
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Ended => sum(Duration::ZERO, self.params().stop.iter()),
        }
    }

    /// Whether it was replaced before it was ready.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// Keeps in mind that it is replaced before it was ready.
    pub(crate) fn is_replaced_unready(&mut self) {
        self.superseded = true;
    }

    /// Returns what is left to do of its create after it was replaced: to find the child that takes its place.
    pub(crate) fn superseded_attempt(&self, arrived: Ticket) -> Attempt {
        let SpawnOrder { params, run_as, launch } = self.common.order().as_ref();
        Attempt {
            params: Arc::clone(params),
            run_as: run_as.clone(),
            launch: launch.clone(),
            anchor: self.lease().anchor(),
            id: self.id(),
            outcome: self.outcome,
            claim: Claim::Superseded,
            arrived,
            place_by: None,
            kept: KeptPlace::None,
        }
    }

    /// Has a subscription told when its output ends.
    pub(crate) fn follow(&mut self, connection: ConnectionId, subscription: SubscriptionId) {
        self.followers.insert((connection, subscription));
    }

    /// Forgets a subscription to its output.
    pub(crate) fn unfollow(&mut self, connection: ConnectionId, subscription: SubscriptionId) {
        self.followers.remove(&(connection, subscription));
    }

    /// Takes all subscriptions to its output, which has ended.
    pub(crate) fn take_followers(&mut self) -> BTreeSet<(ConnectionId, SubscriptionId)> {
        std::mem::take(&mut self.followers)
    }
}
