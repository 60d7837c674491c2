//! Carries out the core's orders, each with the one module of the edge that can.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use procbroker_core::{
    Call, Effect, ExitCause, Input, LogExcerpt, Pid, Receipt, Run, ServiceState, SpawnOrder, UpgradeFailure,
    UsageQuery,
};
use procbroker_protocol::create::{Probe, Ready};
use procbroker_protocol::{ChildId, ExitStatus, Got, Response, Timestamp, Usage};

use super::effect_handler::{EffectHandler, user};
use crate::causes::with_causes;
use crate::counted;
use crate::follower::LogQuery;
use crate::limits::{LOGS_PATIENCE, SWEEP_PATIENCE, TIDYING_PATIENCE};
use crate::messages::FromThread;
use crate::os::host::fs_rights::Rights;
use crate::os::journal::Submitted;
use crate::os::process::anchor_watch::Watching;
use crate::os::process::reaper::{Backlog, Reaped};
use crate::os::service::notices::{NoticeOrigin, ReceivedNotices, Rest};
use crate::os::tree::Groups;
use crate::prober::ProbeRequest;
use crate::upgrade;

/// Whose turn the broker's own work that may block takes: root's, since nobody else asks for an upgrade but the broker's
/// own user.
const OWN_USER: u32 = 0;

/// Room for so many is kept when nothing is started.
const SPENT_KEPT: usize = 64;

/// When so many have ended at once, perhaps nothing lives any more.
const MANY_ENDED: usize = 8;

/// As long as something lives somewhere, so many are looked at one by one before it is asked again whether anything does: in a
/// shutdown the last ones end while the first are being taken in.
const LOOKED_AT_EACH: usize = 32;

/// A word on a child's socket that is of none of the child's processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stray {
    pub(super) child: ChildId,
    /// Whose processes can reach the socket, beside root's.
    pub(super) user: u32,
    pub(super) sender: Pid,
}

impl EffectHandler {
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
            Effect::Unread { connection } => self.clients.unread(connection),
            Effect::Publish { connection, notifications } => self.clients.publish(connection, notifications),
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
                self.followers.read_tail(call, (child, kept_in), user);
            }
            Effect::Probe { run, order, since } => self.probe(run, &order, since),
            Effect::EndLog { child } => {
                self.notices.end(child);
                self.fd_store.remove_socket(child);
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
            Effect::Kill { run } => {
                // One that has no program yet has nothing else either, and is not started in another way.
                if !self.launcher.kill(|tag| tag.run == run) {
                    self.containment.kill(run);
                }
                self.logs.touch(run.child);
            }
            Effect::Release { run } => {
                self.fd_store.remove(run);
                self.containment.release(run);
            }
            Effect::AwaitRun { child } => self.logs.awaits_run(child),
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
        let runtime = self.runtime.folder().try_clone();
        tokio::spawn(async move {
            let check = move || {
                let accounts = flags.look_up().map_err(|error| with_causes(&error))?;
                let runtime = runtime.map_err(|error| error.to_string())?;
                upgrade::check(&program, &record, &runtime).map_err(|error| error.to_string())?;
                Ok(accounts)
            };
            let result = pool.run(OWN_USER, check).await.unwrap_or_else(|error| Err(error.to_string()));
            let result = result.map_err(|message| UpgradeFailure { message });
            // A driver that has gone needs no report any more.
            let _ = threads.send(FromThread::UpgradeChecked(result)).await;
        });
    }

    /// Has it found out whether a child is ready.
    fn probe(&mut self, run: Run, order: &SpawnOrder, since: Timestamp) {
        if let Ready::Probe(Probe { check, .. }) = &order.params.ready {
            let user = user(&order.run_as).unwrap_or_else(nix::unistd::geteuid).as_raw();
            let rights = Rights::of(&order.run_as);
            self.prober.ask(ProbeRequest { run, user, rights, check: check.clone(), since });
        }
    }

    /// Takes in what children tell of themselves, as much as one turn has time for. Who else has sent something is not heard,
    /// and returned.
    pub(super) fn hear(&mut self, inputs: &mut VecDeque<Input>) -> Vec<Stray> {
        let Self { notices, containment, unheard, .. } = self;
        let mut strays = Vec::new();
        *unheard = notices.read(Instant::now(), |ReceivedNotices { run, sender, user, notices }| {
            if containment.is_of(run, sender) {
                inputs.push_back(Input::Notified { run, notices });
                NoticeOrigin::Child
            } else {
                strays.push(Stray { child: run.child, user, sender });
                NoticeOrigin::Stray
            }
        });
        strays
    }

    /// Keeps the output of a child no longer, nor its record.
    fn forget(&mut self, child: ChildId) {
        self.records.forget(child);
        self.logs.forget(child);
    }

    /// Reaps a batch of what has ended, and says whether that is much.
    pub(super) fn reap(&mut self, inputs: &mut VecDeque<Input>) -> bool {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.backlog = self.reaper.reap(self.launcher.in_flight(), &mut reaped);
        let are_many = reaped.len() >= MANY_ENDED;
        // One look for each of a few costs less than one for all that shows nothing, as long as others live.
        let may_be_empty = are_many || self.reaper.watched() == 0;
        let mut groups = Groups::Unknown;
        let heirs = self.reaper.heirs();
        let mut orphans = false;
        for (number, one) in reaped.drain(..).enumerate() {
            if may_be_empty && groups == Groups::Unknown && number % LOOKED_AT_EACH == 0 {
                groups = self.containment.look_at_groups();
            }
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
        are_many
    }

    /// Lets go of everything, in the order in which it depends on each other.
    pub(super) fn finish(self) {
        drop(self.clients);
        drop(self.followers);
        drop(self.records);
        self.logs.settle(LOGS_PATIENCE);
        // Its stacks, some hundreds, go with the process.
        std::mem::forget(self.launcher);
        self.containment.shut_down(TIDYING_PATIENCE);
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
