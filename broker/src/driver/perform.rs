//! Carries out the core's orders, each with the one module of the edge that can.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::Uid;
use procbroker_core::{
    Call, Effect, ExitCause, Input, LogExcerpt, Pid, Purpose, Receipt, Run, RunAs, ServiceState, SpawnOrder,
    UpgradeFailure, UsageQuery,
};
use procbroker_protocol::create::{Probe, Ready};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::LogStream;
use procbroker_protocol::{ChildId, CreateParams, ExitStatus, Got, Response, Timestamp, Usage};
use tokio::sync::mpsc;

use super::clients::Clients;
use super::records::Records;
use crate::blocking_pool::BlockingPool;
use crate::causes::with_causes;
use crate::counted;
use crate::flagged_accounts::{AccountFlags, FlaggedAccounts};
use crate::follower::{Followers, LogQuery};
use crate::limits::{LOGS_PATIENCE, SWEEP_PATIENCE, TIDYING_PATIENCE};
use crate::messages::FromThread;
use crate::os::environment::{Surroundings, tell_where_to_notify};
use crate::os::host::fs_rights::Rights;
use crate::os::host::nofile::Nofile;
use crate::os::host::terminal::Job;
use crate::os::journal::Submitted;
use crate::os::logs::{Logs, StreamId};
use crate::os::notices::{Notices, Rest, Told};
use crate::os::process::anchor_watch::{AnchorWatch, Watching};
use crate::os::process::reaper::{Backlog, Reaped, Reaper};
use crate::os::runtime_dir::RuntimeDir;
use crate::os::service::fd_store::FdStore;
use crate::os::service::notify::ServiceOwner;
use crate::os::spawn::{self, ErrorOutput, Landing, Launcher, Output, SpawnPlan, SpawnSpec, Step};
use crate::os::state_dir::StateDir;
use crate::os::tree::{Containment, Groups};
use crate::prober::{Prober, Question};
use crate::upgrade::{self, Program};

/// Whose turn the broker's own work that may block takes: root's, since nobody else asks for an upgrade but the broker's
/// own user.
const OWN_USER: u32 = 0;

/// Room for so many is kept when nothing is started.
const SPENT_KEPT: usize = 64;

/// When so many have ended at once, perhaps nothing lives any more.
const MANY_ENDED: usize = 8;

/// What the driver acts with.
#[derive(Debug)]
pub struct Hands {
    /// The clients, by connection.
    pub clients: Clients,
    /// Does what may block.
    pub pool: BlockingPool,
    /// Starts processes.
    pub launcher: Launcher<Errand>,
    /// Reaps them.
    pub reaper: Reaper,
    /// Watches the processes that their lives hang on.
    pub anchors: AnchorWatch,
    /// Signals and finds what belongs to them.
    pub containment: Containment,
    /// The main command that has the broker's terminal, if there is one.
    pub job: Job,
    /// What children find around them.
    pub surroundings: Surroundings,
    /// Keeps what children write.
    pub logs: Logs,
    /// Asks children whether they are ready.
    pub prober: Prober,
    /// Clients that are sent what children write.
    pub followers: Followers,
    /// What outlives the broker.
    pub records: Records,
    /// Processes that systemd keeps hold of, should the broker be killed.
    pub fd_store: FdStore,
    /// The folder for what a crash leaves. It is given up before the state folder, which has a note of it.
    pub runtime: RuntimeDir,
    /// The folder that the broker has for itself as long as it lives.
    pub state: StateDir,
    /// The limit on open files that children get.
    pub nofile: Nofile,
    /// The accounts that are looked up again for a program that takes over.
    pub account_flags: Arc<AccountFlags>,
    /// Those, as they were found when a program was asked last whether it can take over.
    pub accounts: Option<FlaggedAccounts>,
    /// The program that takes over in an upgrade.
    pub program: Arc<Program>,
    /// Where other threads report to.
    pub threads: mpsc::Sender<FromThread>,
    /// Who owns the broker's service, if anybody does.
    pub owner: ServiceOwner,
    /// Whether the reaper has more than one batch could take.
    pub backlog: Backlog,
    /// Hears what children tell of themselves.
    pub notices: Notices,
    /// Whether they have told more than could be taken in at a time.
    pub unheard: Rest,
    /// Room for what they tell at a time.
    pub told: Vec<Told>,
    /// How many answers wait for what their children use.
    pub measuring: usize,
    /// Room for what is reaped at a time.
    pub reaped: Vec<Reaped>,
    /// Room for what has come of launches at a time.
    pub landed: Vec<Landing<Errand>>,
    /// What processes were started with that have their programs now.
    pub spent: Vec<SpawnPlan>,
}

/// What a process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errand {
    run: Run,
    output: KeptOutput,
}

/// How much the output of a process matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptOutput {
    /// It is not started without.
    Needed,
    /// It is started all the same.
    Wanted,
    /// It has none: it could not be kept.
    Missing,
    /// It has none: nobody reads what a command says that finds out whether a child is ready.
    None,
}

impl Hands {
    /// Whether more has ended than one batch could take.
    pub(super) fn has_backlog(&self) -> bool {
        match self.backlog {
            Backlog::Nothing => false,
            Backlog::More => true,
        }
    }

    /// Whether children have told more than could be taken in at a time.
    pub(super) fn has_unheard(&self) -> bool {
        match self.unheard {
            Rest::Nothing => false,
            Rest::More => true,
        }
    }

    /// Carries out one order. What is known of its outcome at once goes to `inputs`.
    pub(super) fn perform(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) {
        match effect {
            Effect::Admit { connection } => self.clients.admit(connection),
            Effect::Refuse { connection, error } => self.clients.refuse(connection, error),
            Effect::Answer { call, result: Ok(answer), after: _, usage: Some(query) } => {
                self.measure(call, answer, query);
            }
            Effect::Answer { call, result, after: _, usage: _ } => self.clients.answer(call, result),
            Effect::Publish { connection, notification } => self.clients.publish(connection, notification),
            Effect::Record { run, record, safety, receipt, expires } => {
                let process = self.containment.identity(run);
                let submitted = self.records.submit(run, (&record, expires), safety, receipt, process);
                match (submitted, receipt) {
                    (Ok(Submitted::Safe), Receipt::Wanted) => {
                        inputs.push_back(Input::Recorded { run, result: Ok(()) });
                    }
                    (Ok(Submitted::Safe | Submitted::Waits), Receipt::Wanted | Receipt::NotWanted) => {}
                    (Err(failure), Receipt::Wanted | Receipt::NotWanted) => {
                        tracing::error!("{}", failure.message);
                        inputs.push_back(Input::Recorded { run, result: Err(failure) });
                    }
                }
            }
            Effect::Spawn { run, order, purpose } => self.spawn(run, &order, &purpose, inputs),
            Effect::ReadLog { call, child, excerpt, user } => self.read_log(call, child, excerpt, user),
            Effect::ReadTail { call, child, kept_in, user } => {
                self.followers.read_tail(call, StreamId { child, stream: kept_in }, user);
            }
            Effect::Probe { run, order, since } => self.probe(run, &order, since),
            Effect::EndLog { child } => {
                self.notices.end(child);
                self.logs.end(child);
                self.followers.child_ended(child);
            }
            Effect::Watch { anchor } => match self.anchors.watch(anchor) {
                Watching::Begun => {}
                Watching::Over => inputs.push_back(Input::AnchorEnded { anchor }),
            },
            Effect::Unwatch { anchor } => self.anchors.unwatch(anchor),
            Effect::CheckUpgrade => self.check_upgrade(),
            Effect::Signal { run, signal, scope, call } => {
                inputs.extend(self.containment.signal(run, signal, scope, call));
            }
            // One that has no program yet has nothing else either, and is not started in another way.
            Effect::Kill { run } if self.launcher.kill(|errand| errand.run == run) => {}
            Effect::Kill { run } => self.containment.kill(run),
            Effect::Release { run } => {
                self.fd_store.remove(run);
                self.containment.release(run);
            }
            Effect::Forget { child } => self.forget(child),
            Effect::ForgetAnswers { on_record } => {
                for id in on_record {
                    self.records.forget(id);
                }
            }
            Effect::Notify(ServiceState::Stopping { timeout, children }) => {
                self.owner.stopping(timeout, &format!("Stopping {}", counted::children(children)));
            }
            Effect::Sweep => self.containment.sweep(Instant::now() + SWEEP_PATIENCE),
            // The driver itself takes these.
            Effect::HandOver
            | Effect::Measure { .. }
            | Effect::Report(_)
            | Effect::Exit(ExitCause::Done | ExitCause::Left(_) | ExitCause::Main(_)) => {}
        }
    }

    /// Lets go of what is not needed any more, and wakes the thread that keeps output if there is something for it.
    pub(super) fn let_go(&mut self) {
        self.logs.wake();
        self.containment.let_go();
        self.spent.clear();
        self.spent.shrink_to(SPENT_KEPT);
    }

    /// Has made ahead what the next children need.
    pub(super) fn prepare_more(&mut self) {
        self.containment.refill();
    }

    /// Has a child's output read and sent to its client, by a task that goes at the client's pace.
    fn read_log(&mut self, call: Call, child: ChildId, excerpt: LogExcerpt, user: u32) {
        if let Some(to) = self.clients.paced(call.connection) {
            self.followers.serve(LogQuery { call, child, excerpt, user, to });
        }
    }

    /// Finds out what children use, on a thread that can wait for the files that tell it. Where there is none, it is not
    /// told.
    fn measure(&mut self, call: Call, answer: Response, UsageQuery { user, runs }: UsageQuery) {
        self.measuring += 1;
        let meter = self.containment.meter(&runs);
        let (pool, threads) = (self.pool.clone(), self.threads.clone());
        tokio::spawn(async move {
            let used = pool.run(user, move || meter.read()).await.unwrap_or_default();
            let answer = Box::new(with_usage(answer, &used));
            // A driver that has gone has no clients any more.
            let _ = threads.send(FromThread::Measured { call, answer }).await;
        });
    }

    /// Looks up what the other program needs, and asks it, on a thread that can wait for it.
    fn check_upgrade(&self) {
        let (program, record, threads) =
            (Arc::clone(&self.program), self.state.record(), self.threads.clone());
        let (pool, flags) = (self.pool.clone(), Arc::clone(&self.account_flags));
        tokio::spawn(async move {
            let check = move || {
                let accounts = flags.look_up().map_err(|error| with_causes(&error))?;
                upgrade::check(&program, &record).map_err(|error| error.to_string())?;
                Ok(accounts)
            };
            let result = pool.run(OWN_USER, check).await.unwrap_or_else(|error| Err(error.to_string()));
            let result = result.map_err(|message| UpgradeFailure { message });
            // A driver that has gone needs no report any more.
            let _ = threads.send(FromThread::UpgradeChecked(result)).await;
        });
    }

    fn spawn(&mut self, run: Run, order: &SpawnOrder, purpose: &Purpose, inputs: &mut VecDeque<Input>) {
        if *purpose != Purpose::Probe {
            self.fd_store.expect(run);
        }
        let cgroup = match self.containment.prepare(run, order.resources_for(purpose)) {
            Ok(cgroup) => cgroup,
            Err(errno) => {
                return inputs.push_back(Input::SpawnFailed { run, failure: refused("resources", errno) });
            }
        };
        let output = match purpose {
            Purpose::Main => KeptOutput::Needed,
            Purpose::Probe => KeptOutput::None,
            // What its child held is released even on a disk that takes nothing any more.
            Purpose::Cleanup { .. } => KeptOutput::Wanted,
        };
        let notify = match self.open_notices(run, order, purpose) {
            Ok(notify) => notify,
            Err(failure) => return inputs.push_back(Input::SpawnFailed { run, failure }),
        };
        let plan = self.surroundings.spec(run.child, order, purpose, cgroup).and_then(|mut spec| {
            if let Some(socket) = notify {
                tell_where_to_notify(&mut spec, socket, order.params.watchdog);
            }
            match (self.open_output(run.child, &spec, &order.params), output) {
                (Err(failure), KeptOutput::Needed | KeptOutput::None) => return Err(failure),
                // A cleanup finds that there is none.
                (Err(_), KeptOutput::Wanted | KeptOutput::Missing) | (Ok(()), _) => {}
            }
            SpawnPlan::prepare(spec)
        });
        match plan {
            Ok(plan) => self.launch(plan, Errand { run, output }, inputs),
            Err(failure) => inputs.push_back(Input::SpawnFailed { run, failure: told(failure) }),
        }
    }

    /// Makes the pipes that a child is to write to.
    fn open_output(
        &self,
        child: ChildId,
        spec: &SpawnSpec,
        params: &Arc<CreateParams>,
    ) -> Result<(), spawn::SpawnFailure> {
        let stderr = match &spec.stderr {
            ErrorOutput::Stdout => None,
            ErrorOutput::Own(output) => Some(output),
        };
        let streams = [
            (LogStream::Stdout, Some(&spec.stdout), Step::Stdout),
            (LogStream::Stderr, stderr, Step::Stderr),
        ];
        for (stream, output, step) in streams {
            if let Some(Output::Append(_)) = output {
                let id = StreamId { child, stream };
                let opened = self.logs.open(id, spec.identity.uid().as_raw(), params);
                opened.map_err(|errno| spawn::SpawnFailure::Refused { step, errno })?;
            }
        }
        Ok(())
    }

    fn launch(&mut self, plan: SpawnPlan, errand: Errand, inputs: &mut VecDeque<Input>) {
        let Errand { run, output } = errand;
        // A probe has no output that is kept.
        let is_heard = output != KeptOutput::None;
        if is_heard {
            self.logs.starts(run.child);
        }
        let launched = self.launcher.launch(plan, errand);
        if is_heard && self.logs.passes_on() {
            let pid = self.launcher.pid(|launched| *launched == errand);
            let pid = pid.and_then(|pid| u32::try_from(pid.as_raw()).ok()).and_then(Pid::new);
            self.logs.runs(run.child, pid);
        }
        if let Err(landing) = launched {
            self.has_landed(*landing, inputs);
        }
    }

    /// Makes the socket on which a child is to tell how it is, where it does.
    fn open_notices(
        &mut self,
        run: Run,
        order: &SpawnOrder,
        purpose: &Purpose,
    ) -> Result<Option<PathBuf>, SpawnFailure> {
        match (purpose, &order.params.ready) {
            (Purpose::Main, Ready::Notify) => {}
            (
                Purpose::Main | Purpose::Probe | Purpose::Cleanup { .. },
                Ready::Spawn | Ready::Notify | Ready::Probe(_),
            ) => {
                return Ok(None);
            }
        }
        let opened = self.notices.open_for(run.child, &self.runtime, user(&order.run_as));
        opened.map(Some).map_err(|errno| refused("notify", errno))
    }

    /// Has it found out whether a child is ready.
    fn probe(&mut self, run: Run, order: &SpawnOrder, since: Timestamp) {
        if let Ready::Probe(Probe { check, .. }) = &order.params.ready {
            let user = user(&order.run_as).unwrap_or_else(nix::unistd::geteuid).as_raw();
            let rights = Rights::of(&order.run_as);
            self.prober.ask(Question { run, user, rights, check: check.clone(), since });
        }
    }

    /// Takes in what children tell of themselves. Who else has sent something is not heard.
    pub(super) fn hear(&mut self, inputs: &mut VecDeque<Input>) {
        let mut told = std::mem::take(&mut self.told);
        self.unheard = self.notices.read(Instant::now(), &mut told);
        for Told { run, sender, notices } in told.drain(..) {
            if self.containment.is_of(run, sender) {
                inputs.push_back(Input::Notified { run, notices });
            } else {
                tracing::warn!(child = %run.child, pid = %sender, "a process told something that is not the child's");
            }
        }
        self.told = told;
    }

    /// Keeps the output of a child no longer, nor its record.
    fn forget(&mut self, child: ChildId) {
        self.records.forget(child);
        self.logs.forget(child);
    }

    /// Takes in what has come of launches, and says whether there was any.
    pub(super) fn land(&mut self, inputs: &mut VecDeque<Input>) -> bool {
        let mut landed = std::mem::take(&mut self.landed);
        self.launcher.landed(&mut landed);
        let is_any = !landed.is_empty();
        for landing in landed.drain(..) {
            self.has_landed(landing, inputs);
        }
        self.landed = landed;
        is_any
    }

    fn has_landed(&mut self, landing: Landing<Errand>, inputs: &mut VecDeque<Input>) {
        let Landing { of: Errand { run, output }, mut plan, result, was_killed } = landing;
        match (result, output) {
            (Ok(spawned), _) => {
                let Some(pid) = u32::try_from(spawned.pid.as_raw()).ok().and_then(Pid::new) else { return };
                self.reaper.watch(run, pid, spawned.pidfd.as_fd());
                if self.surroundings.has_terminal(run.child) {
                    self.job.begin(pid);
                }
                if output != KeptOutput::None {
                    self.fd_store.store(run, spawned.pidfd.as_fd());
                }
                self.containment.adopt(run, pid, spawned.pidfd);
                if output == KeptOutput::Needed {
                    self.notices.hear(run);
                }
                inputs.push_back(Input::Spawned { run, pid });
                self.spent.push(plan);
            }
            (Err(failure), KeptOutput::Wanted) if failure.is_of_output() && !was_killed => {
                tracing::warn!(child = %run.child, "the output of a cleanup cannot be kept: {failure}");
                plan.keep_no_output();
                self.launch(plan, Errand { run, output: KeptOutput::Missing }, inputs);
            }
            (Err(failure), KeptOutput::Wanted | KeptOutput::Missing)
                if failure.is_of_directory() && !was_killed && plan.start_at_root() =>
            {
                // What the child held is released even when the folder that it worked in is gone.
                self.launch(plan, Errand { run, output }, inputs);
            }
            (Err(failure), _) => {
                // Its pipe would say, after a crash of the broker, that it may have run.
                if output == KeptOutput::Needed {
                    self.logs.never_ran(run.child);
                }
                inputs.push_back(Input::SpawnFailed { run, failure: told(failure) });
            }
        }
    }

    /// Reaps a batch of what has ended.
    pub(super) fn reap(&mut self, inputs: &mut VecDeque<Input>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.backlog = self.reaper.reap(self.launcher.in_flight(), &mut reaped);
        // One look for each of a few costs less than one for all that shows nothing.
        let groups =
            if reaped.len() < MANY_ENDED { Groups::Unknown } else { self.containment.look_at_groups() };
        let heirs = self.reaper.heirs();
        let mut orphans = false;
        for one in reaped.drain(..) {
            match one {
                Reaped::Child { run, status, pid } => {
                    self.job.reaped(pid);
                    if status != ExitStatus::Code(0) && self.containment.has_run_out_of_memory(run) {
                        inputs.push_back(Input::OutOfMemory { run });
                    }
                    inputs.extend(self.containment.exited(run, status, groups, heirs));
                }
                Reaped::Orphan { .. } => orphans = true,
            }
        }
        if orphans {
            self.containment.orphan_reaped();
        }
        self.reaped = reaped;
    }

    /// Lets go of everything, in the order in which it depends on each other.
    pub(super) fn finish(self) {
        drop(self.clients);
        drop(self.followers);
        drop(self.records);
        self.logs.settle(LOGS_PATIENCE);
        self.containment.shut_down(TIDYING_PATIENCE);
    }
}

/// Whose the processes of a child are, where they are not the broker's own user's.
#[must_use]
pub fn user(run_as: &RunAs) -> Option<Uid> {
    match run_as {
        RunAs::Broker => None,
        RunAs::User { uid, .. } => Some(Uid::from_raw(*uid)),
    }
}

/// Adds to an answer what its children use.
fn with_usage(answer: Response, used: &HashMap<ChildId, Usage>) -> Response {
    match answer {
        Response::Got(Got { mut child, spec }) => {
            if let Some(usage) = used.get(&child.id) {
                Arc::make_mut(&mut child).usage = Some(Box::new(*usage));
            }
            Response::Got(Got { child, spec })
        }
        Response::PartialChildren(children) => {
            Response::PartialChildren(children.with_usage(|child| used.get(&child).copied()))
        }
        other => other,
    }
}

/// A failure to spawn, as clients are told of it.
fn told(failure: spawn::SpawnFailure) -> SpawnFailure {
    refused(failure.step_name(), failure.errno())
}

/// A step that was refused, as clients are told of it.
fn refused(step: &str, errno: Errno) -> SpawnFailure {
    SpawnFailure { errno: errno as i32, errno_name: format!("{errno:?}"), step: step.to_owned() }
}
