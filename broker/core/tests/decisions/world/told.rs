//! What the broker has answered and ordered so far.

use std::sync::Arc;

use procbroker_core::{Call, ConnectionId, Effect, ExitCause, Record, Run};
use procbroker_protocol::request::Scope;
use procbroker_protocol::response::Created;
use procbroker_protocol::{Child, Error, ErrorKind, Response, Signal};

use super::{World, get, id};

impl World {
    pub(crate) fn is_answered(&self, call: Call) -> bool {
        self.answers.contains_key(&call)
    }

    pub(crate) fn answer(&self, call: Call) -> Result<Response, Error> {
        self.answers.get(&call).unwrap_or_else(|| panic!("{call:?} is not answered")).clone()
    }

    pub(crate) fn created(&self, call: Call) -> Created {
        match self.answer(call) {
            Ok(Response::Created(created)) => created,
            other => panic!("a create was answered with {other:?}"),
        }
    }

    pub(crate) fn refused(&self, call: Call) -> ErrorKind {
        self.error(call).kind
    }

    pub(crate) fn error(&self, call: Call) -> Error {
        self.answer(call).unwrap_err()
    }

    pub(crate) fn child(&self, call: Call) -> Arc<Child> {
        match self.answer(call) {
            Ok(Response::Child(child)) => child,
            Ok(Response::Got(got)) => got.child,
            other => panic!("answered with {other:?}"),
        }
    }

    pub(crate) fn children(&self, call: Call) -> Vec<Arc<Child>> {
        match self.answer(call) {
            Ok(Response::Children(children)) => children,
            other => panic!("answered with {other:?}"),
        }
    }

    /// How a client sees a child now.
    pub(crate) fn shown(&mut self, connection: ConnectionId, run: Run) -> Arc<Child> {
        let call = self.call(connection, get(id(run)));
        self.child(call)
    }

    /// The orders so far.
    pub(crate) fn orders(&self) -> &[Effect] {
        &self.orders
    }

    /// Takes the orders so far.
    pub(crate) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.orders)
    }

    /// Takes the orders so far, and keeps the signals and kills among them, but for the SIGCONT after each signal of a
    /// stop.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let mut sent = self.all_sent();
        let mut last = None;
        sent.retain(|next| {
            let is_continued = match (&last, next) {
                (Some(Sent::Signal(run, _, scope)), Sent::Signal(again, Signal::CONT, reach)) => {
                    (run, scope) == (again, reach)
                }
                (None | Some(Sent::Signal(..) | Sent::Kill(_)), Sent::Signal(..) | Sent::Kill(_)) => false,
            };
            last = Some(*next);
            !is_continued
        });
        sent
    }

    /// Takes the orders so far, and keeps all signals and kills among them.
    pub(crate) fn all_sent(&mut self) -> Vec<Sent> {
        self.take()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Signal { run, signal, scope, .. } => Some(Sent::Signal(run, signal, scope)),
                Effect::Kill { run } => Some(Sent::Kill(run)),
                Effect::Admit { .. }
                | Effect::Refuse { .. }
                | Effect::Answer { .. }
                | Effect::Record { .. }
                | Effect::Publish { .. }
                | Effect::Unread { .. }
                | Effect::ReadLog { .. }
                | Effect::ReadTail { .. }
                | Effect::Probe { .. }
                | Effect::EndLog { .. }
                | Effect::Measure { .. }
                | Effect::CheckUpgrade
                | Effect::HandOver
                | Effect::Spawn { .. }
                | Effect::Release { .. }
                | Effect::AwaitRun { .. }
                | Effect::Forget { .. }
                | Effect::ForgetAnswers { .. }
                | Effect::Report(_)
                | Effect::Notify(_)
                | Effect::Sweep
                | Effect::Watch { .. }
                | Effect::Unwatch { .. }
                | Effect::Exit(_) => None,
            })
            .collect()
    }

    /// Takes the orders so far, and tells which processes are to be started.
    pub(crate) fn spawns(&mut self) -> Vec<Run> {
        let spawn = |effect| {
            if let Effect::Spawn { run, .. } = effect { Some(run) } else { None }
        };
        self.take().into_iter().filter_map(spawn).collect()
    }

    /// Takes the orders so far, and tells which intents are to be recorded.
    pub(crate) fn intents(&mut self) -> Vec<Run> {
        let intent = |effect| match effect {
            Effect::Record { run, record: Record::Intent(_), .. } => Some(run),
            _ => None,
        };
        self.take().into_iter().filter_map(intent).collect()
    }

    pub(crate) fn exit(&self) -> Option<ExitCause> {
        self.exit
    }
}

/// A signal, or SIGKILL to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Signal(Run, Signal, Scope),
    Kill(Run),
}
