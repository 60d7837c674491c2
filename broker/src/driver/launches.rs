//! Launches: what a process needs is made, it is started, and what comes of it is told to the core.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use procbroker_core::{Input, Pid, Purpose, Run, SpawnOrder};
use procbroker_protocol::create::Ready;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::LogStream;
use procbroker_protocol::{ChildId, CreateParams};

use super::effect_handler::{EffectHandler, KeptOutput, LaunchTag, user};
use crate::os::logs::StreamId;
use crate::os::spawn::environment::tell_where_to_notify;
use crate::os::spawn::{ErrorOutput, LaunchOutcome, Output, SpawnError, SpawnPlan, SpawnSpec, Step};

impl EffectHandler {
    /// Starts a process, or tells why it cannot be started.
    pub(super) fn spawn(
        &mut self,
        run: Run,
        order: &SpawnOrder,
        purpose: &Purpose,
        inputs: &mut VecDeque<Input>,
    ) {
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
        let plan = self.child_environment.spec(run.child, order, purpose, cgroup).and_then(|mut spec| {
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
            Ok(plan) => self.launch(plan, LaunchTag { run, output }, inputs),
            Err(failure) => inputs.push_back(Input::SpawnFailed { run, failure: told(failure) }),
        }
    }

    /// Makes the pipes that a child is to write to.
    fn open_output(
        &self,
        child: ChildId,
        spec: &SpawnSpec,
        params: &Arc<CreateParams>,
    ) -> Result<(), SpawnError> {
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
                let opened = self.logs.open(id, spec.credentials.uid().as_raw(), params);
                opened.map_err(|errno| SpawnError::Refused { step, errno })?;
            }
        }
        Ok(())
    }

    fn launch(&mut self, plan: SpawnPlan, tag: LaunchTag, inputs: &mut VecDeque<Input>) {
        let LaunchTag { run, output } = tag;
        // A probe has no output that is kept.
        let is_heard = output != KeptOutput::None;
        if is_heard {
            self.logs.starts(run.child);
        }
        let launched = self.launcher.launch(plan, tag);
        if is_heard && self.logs.passes_on() {
            let pid = self.launcher.pid(|launched| *launched == tag);
            let pid = pid.and_then(|pid| u32::try_from(pid.as_raw()).ok()).and_then(Pid::new);
            self.logs.runs(run.child, pid);
        }
        if let Err(outcome) = launched {
            self.launch_ended(*outcome, inputs);
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
        let path = opened.map_err(|errno| refused("notify", errno))?;
        if let Some(socket) = self.notices.socket(run.child) {
            self.fd_store.store_socket(run.child, socket);
        }
        Ok(Some(path))
    }

    /// Takes in what has come of launches, and says whether there was any.
    pub(super) fn take_launch_outcomes(&mut self, inputs: &mut VecDeque<Input>) -> bool {
        let mut outcomes = std::mem::take(&mut self.launch_outcomes);
        self.launcher.take_outcomes(&mut outcomes);
        let is_any = !outcomes.is_empty();
        for outcome in outcomes.drain(..) {
            self.launch_ended(outcome, inputs);
        }
        self.launch_outcomes = outcomes;
        is_any
    }

    fn launch_ended(&mut self, outcome: LaunchOutcome<LaunchTag>, inputs: &mut VecDeque<Input>) {
        let LaunchOutcome { of: LaunchTag { run, output }, mut plan, result, was_killed } = outcome;
        match (result, output) {
            (Ok(spawned), _) => {
                let Some(pid) = u32::try_from(spawned.pid.as_raw()).ok().and_then(Pid::new) else { return };
                self.reaper.watch(run, pid, spawned.pidfd.as_fd());
                if self.child_environment.has_terminal(run.child) {
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
                self.launch(plan, LaunchTag { run, output: KeptOutput::Missing }, inputs);
            }
            (Err(failure), KeptOutput::Wanted | KeptOutput::Missing)
                if failure.is_of_directory() && !was_killed && plan.start_at_root() =>
            {
                // What the child held is released even when the folder that it worked in is gone.
                self.launch(plan, LaunchTag { run, output }, inputs);
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
}

/// A failure to spawn, as clients are told of it.
fn told(failure: SpawnError) -> SpawnFailure {
    refused(failure.step_name(), failure.errno())
}

/// A step that was refused, as clients are told of it.
fn refused(step: &str, errno: Errno) -> SpawnFailure {
    SpawnFailure { errno: errno as i32, errno_name: format!("{errno:?}"), step: step.to_owned() }
}
