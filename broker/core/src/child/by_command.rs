//! A child that is asked by a command whether it is ready: each input is given to the command, and nothing follows for its child
//! before that is gone.

use procbroker_protocol::ExitStatus;
use procbroker_protocol::error::{ProbeFailure, SpawnFailure};

use crate::child::{Child, Next, Phase};
use crate::ids::Run;
use crate::input::Members;
use crate::orders::Orders;

impl Child {
    /// Returns the process of its probe, the last one where none is under way.
    pub(crate) fn probe_run(&self) -> Run {
        self.ready_command.run(&self.common)
    }

    /// Whether a process of a probe may be there.
    pub(crate) fn is_asked(&self) -> bool {
        self.ready_command.may_have_processes()
    }

    /// Returns why the last command that asked the present run has said no, if that is known.
    pub(crate) fn probe_failure(&self) -> Option<&ProbeFailure> {
        self.ready_command.failure()
    }

    /// Says so for people.
    pub(crate) fn why_not_ready(&self) -> Option<String> {
        self.ready_command.why_not_ready(&self.common)
    }

    /// It is the turn of its command to be started.
    pub(crate) fn start_probe(&mut self, orders: &mut Orders<'_>) {
        self.ready_command.start(&self.common, orders);
    }

    /// The program of its command was executed.
    pub(crate) fn probe_spawned(&mut self, orders: &mut Orders<'_>) -> Next {
        self.ready_command.spawned(&self.common, orders);
        Next::Nothing
    }

    /// Its command could not be started.
    pub(crate) fn probe_not_spawned(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) -> Next {
        let found = self.ready_command.not_spawned(failure, &self.common, orders);
        self.probe_has_found(found, orders)
    }

    /// The process of its command has ended.
    pub(crate) fn probe_exited(
        &mut self,
        status: ExitStatus,
        members: Members,
        orders: &mut Orders<'_>,
    ) -> Next {
        let found = self.ready_command.exited(status, members, &self.common, orders);
        self.probe_has_found(found, orders)
    }

    /// What its command has left behind has, or may have, become less.
    pub(crate) fn probe_left(&mut self, members: Members, orders: &mut Orders<'_>) -> Next {
        let found = self.ready_command.left(members, &self.common, orders);
        self.probe_has_found(found, orders)
    }

    /// The timer of its command has run out.
    pub(crate) fn probe_due(&mut self, orders: &mut Orders<'_>) -> Next {
        self.ready_command.due(&self.common, orders);
        Next::Nothing
    }

    /// Another program is to take over, which knows nothing of its command.
    pub(crate) fn cut_probe_short(&mut self, orders: &mut Orders<'_>) {
        self.ready_command.cut_short(&self.common, orders);
    }

    /// An earlier broker has left these processes of its command, if any.
    pub(crate) fn resume_probe(&mut self, members: Members, orders: &mut Orders<'_>) {
        self.ready_command.resume(members, &self.common, orders);
    }

    /// Once nothing of its command is left, the answer of that counts, or its child goes on without.
    fn probe_has_found(&mut self, found: Option<bool>, orders: &mut Orders<'_>) -> Next {
        let Some(is_ready) = found else {
            return Next::Nothing;
        };
        match &mut self.phase {
            Phase::Starting { probing, .. } if probing.is_asking() => {
                self.probed_while_starting(is_ready, orders)
            }
            Phase::Stopping(stopping) => {
                let over = stopping.over(&self.common);
                self.stop_is_over(over, orders)
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => Next::Nothing,
        }
    }
}
