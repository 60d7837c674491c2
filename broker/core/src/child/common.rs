//! What a child has in every phase: how it was asked for, how clients see it, and its one timer.

use std::sync::Arc;

use procbroker_protocol::{
    Child as ChildView, ChildId, ChildState, Cleaned, CreateParams, EventKind, Exit, ExitReason, ExitStatus,
    Name, Signal, StepTaken, Timestamp,
};

use crate::effect::{Effect, Receipt, Record, Safety, SpawnOrder};
use crate::ids::{Incarnation, Pid, Run};
use crate::kept;
use crate::orders::Orders;
use crate::record::{Intent, Progress, RecordedLease, Role, Runs, Unready};
use crate::shown;
use crate::time::Instant;

/// What people call the main command, in the log. No client ever sees it.
const MAIN: &str = "main";

/// The part of a child that each of its phases may touch.
#[derive(Debug)]
pub(super) struct Common {
    order: Arc<SpawnOrder>,
    incarnation: Incarnation,
    view: Arc<ChildView>,
    role: Role,
    runs: Runs,
    due: Option<Instant>,
    /// When it has failed to start, if it is to be ready by some time and is not.
    ready_by: Option<Instant>,
    lease: RecordedLease,
    /// How many bytes it counts for.
    bytes: u64,
    memory: Memory,
    /// When its cleanup has to be over for the sake of others, in a shutdown.
    cleanup_by: Option<Instant>,
}

/// Whether the kernel has killed something of the present run for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// It has not, as far as is known.
    Enough,
    /// It has killed something, and the end of the run may be due to that.
    Lacking,
}

impl Common {
    pub(super) fn new(intent: &Intent) -> Self {
        let Intent {
            id,
            params,
            run_as,
            launch,
            owner,
            created_at,
            number: _,
            containment,
            outcome: _,
            role,
            lease,
        } = intent.clone();
        let (command, shortened) = shown::command(&params);
        let view = ChildView {
            id,
            name: label(role, &params),
            labels: params.labels.clone(),
            command,
            pid: None,
            owner,
            state: ChildState::Starting,
            created_at,
            started_at: None,
            restarts: 0,
            lifetime: params.lifetime,
            stop_order: params.stop_order,
            exit: None,
            cleanup: None,
            containment,
            status_text: None,
            usage: None,
            shortened,
        };
        let bytes = kept::bytes_of(&params);
        Self {
            order: Arc::new(SpawnOrder { params, run_as, launch }),
            incarnation: Incarnation::FIRST,
            view: Arc::new(view),
            role,
            runs: Runs { unready: Unready::Ever, ..Runs::default() },
            due: None,
            ready_by: None,
            lease,
            bytes,
            memory: Memory::Enough,
            cleanup_by: None,
        }
    }

    pub(super) fn id(&self) -> ChildId {
        self.view.id
    }

    pub(super) fn uid(&self) -> u32 {
        self.view.owner.uid
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn order(&self) -> &Arc<SpawnOrder> {
        &self.order
    }

    pub(super) fn params(&self) -> &CreateParams {
        &self.order.params
    }

    pub(super) fn view(&self) -> &Arc<ChildView> {
        &self.view
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns what its life hangs on beside connections.
    pub(super) fn lease(&self) -> &RecordedLease {
        &self.lease
    }

    /// Has its life hang on this.
    pub(super) fn set_lease(&mut self, lease: RecordedLease) {
        self.lease = lease;
    }

    /// Returns its present process.
    pub(super) fn run(&self) -> Run {
        Run { child: self.id(), incarnation: self.incarnation }
    }

    /// Makes reports about its earlier processes late ones.
    pub(super) fn next_run(&mut self) {
        self.incarnation = self.incarnation.next();
        self.has_memory();
    }

    /// The kernel has killed something of the present run for want of memory.
    pub(super) fn lacks_memory(&mut self) {
        self.memory = Memory::Lacking;
    }

    /// What was killed for want of memory was none of the present run.
    pub(super) fn has_memory(&mut self) {
        self.memory = Memory::Enough;
    }

    pub(super) fn has_lacked_memory(&self) -> bool {
        match self.memory {
            Memory::Enough => false,
            Memory::Lacking => true,
        }
    }

    pub(super) fn runs(&self) -> &Runs {
        &self.runs
    }

    pub(super) fn runs_mut(&mut self) -> &mut Runs {
        &mut self.runs
    }

    /// A run has begun, which has said nothing of itself so far.
    pub(super) fn begin_run(&mut self, now: Instant) {
        self.runs.begin(now);
        self.show_status("");
    }

    /// Counts one more restart.
    pub(super) fn count_restart(&mut self) {
        self.runs.restarts = self.runs.restarts.saturating_add(1);
        Arc::make_mut(&mut self.view).restarts = self.runs.restarts;
    }

    /// Takes in what is on record of its runs.
    pub(super) fn resume_runs(&mut self, runs: Runs) {
        Arc::make_mut(&mut self.view).restarts = runs.restarts;
        self.runs = runs;
    }

    pub(super) fn set_due(&mut self, due: Option<Instant>, orders: &mut Orders<'_>) {
        orders.set_timer(self.id(), self.due, due);
        self.due = due;
    }

    pub(super) fn timer_ran_out(&mut self) {
        self.due = None;
    }

    /// Has its present run ready by then.
    pub(super) fn have_ready_by(&mut self, by: Instant) {
        self.ready_by = Some(by);
    }

    /// Another run of it is to come, which is not ready.
    pub(super) fn await_ready(&mut self) {
        self.ready_by = None;
        self.runs.unready = match self.runs.unready {
            Unready::No | Unready::Now => Unready::Now,
            Unready::Ever => Unready::Ever,
        };
    }

    /// It is ready, or was.
    pub(super) fn is_ready(&mut self) {
        self.ready_by = None;
        self.runs.unready = Unready::No;
    }

    /// Its create is answered, whether or not it is ready.
    pub(super) fn is_answered(&mut self) {
        self.runs.unready = match self.runs.unready {
            Unready::No => Unready::No,
            Unready::Now | Unready::Ever => Unready::Now,
        };
    }

    pub(super) fn unready(&self) -> Unready {
        self.runs.unready
    }

    pub(super) fn ready_by(&self) -> Option<Instant> {
        self.ready_by
    }

    pub(super) fn cleanup_by(&self) -> Option<Instant> {
        self.cleanup_by
    }

    /// Has its cleanup over by then, or by an earlier bound.
    pub(super) fn bound_cleanup(&mut self, by: Instant) {
        self.cleanup_by = Some(self.cleanup_by.map_or(by, |earlier| earlier.min(by)));
    }

    /// Brings what clients see in step with its phase.
    pub(super) fn show(&mut self, state: ChildState, pid: Option<Pid>, exit: Option<Exit>) {
        let view = Arc::make_mut(&mut self.view);
        view.state = state;
        view.pid = pid.map(Pid::get);
        view.exit = exit;
    }

    pub(super) fn show_start(&mut self, started_at: Option<Timestamp>) {
        Arc::make_mut(&mut self.view).started_at = started_at;
    }

    /// Shows what it says of itself, for people.
    pub(super) fn show_status(&mut self, text: &str) {
        let text = Some(text).filter(|text| !text.is_empty());
        if self.view.status_text.as_deref() != text {
            Arc::make_mut(&mut self.view).status_text = text.map(str::to_owned);
        }
    }

    pub(super) fn show_end(&mut self, exit: Exit, cleaned: Option<Cleaned>) {
        self.show(ChildState::Ended, None, Some(exit));
        Arc::make_mut(&mut self.view).cleanup = cleaned;
    }

    /// Has its progress recorded in the place of what was recorded of it before.
    pub(super) fn record(
        &self,
        progress: Progress,
        safety: Safety,
        receipt: Receipt,
        orders: &mut Orders<'_>,
    ) {
        let record = Record::Progress(progress);
        let expires = self.lease.expires();
        orders.order(Effect::Record { run: self.run(), record, safety, receipt, expires });
    }

    /// Keeps and tells that something has happened to it; nobody is told of the main command.
    pub(super) fn publish(&self, kind: EventKind, orders: &mut Orders<'_>) {
        self.publish_as(kind, Arc::clone(&self.view), orders);
    }

    /// Keeps and tells that its main process has ended, and nothing else of it is there.
    pub(super) fn publish_exit(&self, exit: &Exit, orders: &mut Orders<'_>) {
        let mut view = ChildView::clone(&self.view);
        view.exit = Some(exit.clone());
        view.pid = None;
        view.state = ChildState::Stopping;
        self.publish_as(EventKind::Exited, Arc::new(view), orders);
    }

    fn publish_as(&self, kind: EventKind, view: Arc<ChildView>, orders: &mut Orders<'_>) {
        match self.role {
            Role::Child => orders.publish(kind, view),
            Role::Main => {}
        }
    }
}

/// How a run ends that was never started: its process may have been killed on the way to its program.
pub(crate) fn exit_before_start(reason: ExitReason, killed: Option<Timestamp>, at: Timestamp) -> Exit {
    let steps = killed.map(|at| StepTaken { signal: Signal::KILL, at });
    let (forced, steps) = (steps.is_some(), steps.into_iter().collect());
    Exit { forced, steps, ..Exit::new(ExitStatus::Unknown, reason, at) }
}

/// How a child is shown at its end that an earlier program had on record and had not started. Without another reason to end it
/// has failed to start.
pub(crate) fn unstarted(intent: &Intent, reason: Option<ExitReason>, at: Timestamp) -> Arc<ChildView> {
    let mut common = Common::new(intent);
    common.show_end(exit_before_start(reason.unwrap_or(ExitReason::StartFailed), None, at), None);
    common.view
}

/// What a process is called: a child as its creator says.
fn label(role: Role, params: &CreateParams) -> Option<Name> {
    match role {
        Role::Child => params.name.clone(),
        Role::Main => MAIN.parse().ok(),
    }
}
