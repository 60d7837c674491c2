//! `signal`: sends a signal, and answers when the kernel has said whether it was delivered.

use procbroker_protocol::request::{Scope, SignalParams};
use procbroker_protocol::{ChildState, Error, ErrorKind, Response, Signal, Target};

use crate::authorize;
use crate::broker::Broker;
use crate::child::Child;
use crate::connections::Connection;
use crate::effect::{Asked, Effect};
use crate::ids::{Call, Run, Ticket};
use crate::input::SignalOutcome;
use crate::pending::{SignalRequest, SignalVerdict, WaitsFor};
use crate::shown;
use crate::turn::Turn;

impl Broker {
    /// `signal`: sends a signal, and answers when the kernel has said whether it was delivered. One child may be waited for
    /// until it has a process; of many, those are meant that have one: what hangs on the way to its program holds up no word
    /// to the others.
    pub(crate) fn signal(&mut self, call: Call, params: &SignalParams, turn: &mut Turn<'_>) {
        let has_process = |child: &Child| child.takes_signals() && !child.is_unspawned();
        let children = match self.resolve(call.connection, &params.target, has_process) {
            Ok(children) => children,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let entries = children.iter().filter_map(|id| self.children.get(*id));
        let live: Vec<&Child> = entries.filter(|child| child.takes_signals()).collect();
        if live.is_empty() {
            let result = match params.target {
                Target::Id(_) | Target::Name(_) => {
                    let child = children.first().and_then(|id| self.children.get(*id));
                    let title =
                        child.map_or_else(|| params.target.to_string(), |child| shown::title(child.view()));
                    Err(nothing_to_signal(&title, child, params.scope))
                }
                Target::Labels(_) | Target::All => Ok(Response::Children(Vec::new())),
            };
            return self.answer(call, result, turn);
        }
        let (unspawned, spawned): (Vec<&Child>, Vec<&Child>) =
            live.into_iter().partition(|child| child.is_unspawned());
        let runs: Vec<Run> = spawned.into_iter().map(Child::run).collect();
        let (unspawned, spawned) = (unspawned.into_iter().map(Child::id), runs.iter().map(|run| run.child));
        let request = SignalRequest::new(params, children.clone(), spawned, unspawned);
        self.wait_for(call, WaitsFor::Signal(request), None);
        let asked = self.asked(call);
        for run in runs {
            let (signal, scope) = (params.signal, params.scope);
            turn.order(Effect::Signal { run, signal, scope, call: Some(asked) });
        }
    }

    /// Returns a request for a signal, and who has to have the right to send it.
    pub(crate) fn asked(&self, call: Call) -> Asked {
        let peer = self.connection(call.connection).map(Connection::peer);
        Asked { call, by: peer.and_then(|peer| authorize::asker(&self.config, peer)) }
    }

    /// The kernel has spoken about one signal of a request.
    pub(crate) fn signalled(&mut self, run: Run, call: Call, outcome: SignalOutcome, turn: &mut Turn<'_>) {
        if let Some(ticket) = self.pending.ticket(call) {
            let verdict = self.pending.signalled(ticket, run, outcome);
            self.conclude_signal(ticket, verdict, turn);
        }
    }

    /// Answers a `signal` when nothing of it is outstanding.
    pub(crate) fn conclude_signal(
        &mut self,
        ticket: Ticket,
        verdict: Option<SignalVerdict>,
        turn: &mut Turn<'_>,
    ) {
        let Some(verdict) = verdict else {
            return;
        };
        let waits_for = self.pending.get(ticket).map(|pending| &pending.waits_for);
        let Some(WaitsFor::Signal(request)) = waits_for else {
            return;
        };
        let (signal, scope) = request.what();
        let answer = match verdict {
            SignalVerdict::Delivered(children) => Ok(Response::Children(self.children.views(&children))),
            SignalVerdict::Refused(id) => Err(refused(signal, &self.children.title(id))),
            SignalVerdict::Gone(id) => {
                Err(nothing_to_signal(&self.children.title(id), self.children.get(id), scope))
            }
        };
        self.answer_pending(ticket, answer, turn);
    }
}

/// Says that the kernel protects a child from the caller.
fn refused(signal: Signal, title: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "cannot send {signal} to the child {title}: its process runs as another user (kill(2)); destroy ends it"
        ),
    )
}

/// Says why there is no process to signal, and what there is instead.
fn nothing_to_signal(title: &str, child: Option<&Child>, scope: Scope) -> Error {
    let state = child.map(|child| child.view().state);
    let message = match (state, scope) {
        (None | Some(ChildState::Ended), _) => {
            format!("the child {title} has ended; there is nothing to signal")
        }
        (Some(ChildState::Cleaning), _) => {
            format!("the child {title} has ended, and its cleanup, which takes no signals, is under way")
        }
        (Some(ChildState::Backoff), _) => format!(
            "the child {title} is between two runs, and there is no process to signal; restart begins the next one at once"
        ),
        (Some(ChildState::Starting | ChildState::Running | ChildState::Stopping), Scope::Main) => format!(
            "the main process of the child {title} has ended; what it has left behind is reached with the scope group or all"
        ),
        (Some(ChildState::Starting | ChildState::Running | ChildState::Stopping), Scope::Group) => format!(
            "the processes of the group of the child {title} have ended; what else it has left behind is reached with the \
             scope all"
        ),
        (Some(ChildState::Starting | ChildState::Running | ChildState::Stopping), Scope::All) => {
            format!("the processes of the child {title} have ended; there is nothing to signal")
        }
    };
    Error::new(ErrorKind::NotFound, message)
}
