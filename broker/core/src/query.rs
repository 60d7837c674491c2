//! The methods on children that are there: destroy, list, get, wait, signal, and status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::request::{DestroyParams, ListParams, OneParams, SignalParams, Until, WaitParams};
use procbroker_protocol::response::Created;
use procbroker_protocol::{
    Child, ChildId, Error, ErrorKind, ExitReason, Response, Status, Target, version::PROTOCOL,
};

use crate::authorize;
use crate::broker::{Broker, Turn};
use crate::calls::{Cause, SignalResult, Ticket};
use crate::child::Entry;
use crate::effect::Effect;
use crate::ids::{Call, ConnectionId, Run};
use crate::input::SignalOutcome;

impl Broker {
    /// `destroy`: stops children, and answers when they have ended, or at once with `no_wait`.
    pub(crate) fn destroy(&mut self, call: Call, params: &DestroyParams, turn: &mut Turn<'_>) {
        let children = match self.resolve(call.connection, &params.target, Entry::is_live) {
            Ok(children) => children,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let left: BTreeSet<ChildId> =
            children.iter().copied().filter(|id| self.table.get(*id).is_some_and(Entry::is_live)).collect();
        if params.no_wait || left.is_empty() {
            let mut shown = self.shown(&children);
            for id in left {
                self.stop_child(id, ExitReason::Destroyed, params.stop.clone(), turn);
            }
            // One that waited for its turn to be started is gone at once, and shown as it was.
            for child in &mut shown {
                if let Some(entry) = self.table.get(child.id) {
                    *child = Arc::clone(&entry.shown);
                }
            }
            return self.promise(call, Ok(Response::Children(shown)), turn);
        }
        let ended = self
            .shown(&children)
            .into_iter()
            .filter(|child| !left.contains(&child.id))
            .map(|child| (child.id, child))
            .collect();
        self.park(call, Cause::Destroy { ended, left: left.clone() }, None);
        for id in left {
            self.stop_child(id, ExitReason::Destroyed, params.stop.clone(), turn);
        }
    }

    /// `list`: the caller's children, oldest first.
    pub(crate) fn list(&mut self, call: Call, params: &ListParams, turn: &mut Turn<'_>) {
        let Some(connection) = self.connection(call.connection) else { return };
        let wanted = |entry: &&Entry| {
            authorize::may_act_on(&self.config, &connection.peer, entry.shown.owner)
                && has_labels(&entry.shown, &params.labels)
        };
        let shown = |entry: &Entry| Arc::clone(&entry.shown);
        let children = if params.all {
            self.table.all().filter(wanted).map(shown).collect()
        } else {
            self.table.live_children().filter(wanted).map(shown).collect()
        };
        self.answer(call, Ok(Response::Children(children)), turn);
    }

    /// `get`: one child, live or ended.
    pub(crate) fn get(&mut self, call: Call, params: &OneParams, turn: &mut Turn<'_>) {
        let result =
            self.find(call.connection, &params.target).map(|entry| Response::Child(Arc::clone(&entry.shown)));
        self.answer(call, result, turn);
    }

    /// `wait`: answers when a child is ready, or has ended.
    pub(crate) fn wait(&mut self, call: Call, params: &WaitParams, turn: &mut Turn<'_>) {
        let entry = match self.find(call.connection, &params.target) {
            Ok(entry) => entry,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        if is_reached(entry, params.until) {
            let child = Arc::clone(&entry.shown);
            return self.promise(call, Ok(Response::Child(child)), turn);
        }
        let child = entry.shown.id;
        let due = params.timeout.map(|timeout| turn.now.moment.plus(timeout));
        self.park(call, Cause::Wait { child, until: params.until }, due);
    }

    /// `signal`: sends a signal, and answers when the kernel has said whether it was delivered.
    pub(crate) fn signal(&mut self, call: Call, params: &SignalParams, turn: &mut Turn<'_>) {
        let children = match self.resolve(call.connection, &params.target, Entry::takes_signals) {
            Ok(children) => children,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let entries = children.iter().filter_map(|id| self.table.get(*id));
        let live: Vec<&Entry> = entries.filter(|entry| entry.takes_signals()).collect();
        if live.is_empty() {
            let result = match params.target {
                Target::Id(_) | Target::Name(_) => Err(has_ended(&params.target)),
                Target::Labels(_) | Target::All => Ok(Response::Children(Vec::new())),
            };
            return self.answer(call, result, turn);
        }
        let (unspawned, spawned): (Vec<&Entry>, Vec<&Entry>) =
            live.into_iter().partition(|entry| entry.is_unspawned());
        let runs: Vec<Run> = spawned.into_iter().map(Entry::run).collect();
        let cause = Cause::Signal {
            signal: params.signal,
            scope: params.scope,
            unspawned: unspawned.into_iter().map(|entry| entry.shown.id).collect(),
            sent: runs.iter().map(|run| run.child).collect(),
            children,
            result: SignalResult::default(),
        };
        self.park(call, cause, None);
        for run in runs {
            let (signal, scope) = (params.signal, params.scope);
            turn.order(Effect::Signal { run, signal, scope, call: Some(call) });
        }
    }

    /// The kernel has spoken about one signal of a request.
    pub(crate) fn signalled(&mut self, run: Run, call: Call, outcome: SignalOutcome, turn: &mut Turn<'_>) {
        let Some(ticket) = self.ticket(call) else { return };
        let Some(waiting) = self.calls.get_mut(ticket) else { return };
        if let Cause::Signal { sent, result, .. } = &mut waiting.cause {
            if !sent.remove(&run.child) {
                return;
            }
            match outcome {
                SignalOutcome::Delivered => result.delivered += 1,
                SignalOutcome::Gone => result.gone = Some(run.child),
                SignalOutcome::Refused => result.refused = Some(run.child),
            }
            self.conclude_signal(ticket, turn);
        }
    }

    /// The place of a request that waits.
    pub(crate) fn ticket(&self, call: Call) -> Option<Ticket> {
        let connection = self.connection(call.connection)?;
        let is_meant =
            |ticket: &&Ticket| self.calls.get(**ticket).is_some_and(|waiting| waiting.call == call);
        connection.waiting.iter().find(is_meant).copied()
    }

    /// Answers a `signal` when nothing of it is outstanding.
    fn conclude_signal(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(waiting) = self.calls.get_mut(ticket) else { return };
        let Cause::Signal { signal, unspawned, sent, children, result, .. } = &waiting.cause else { return };
        if !unspawned.is_empty() || !sent.is_empty() {
            return;
        }
        let answer = match result {
            SignalResult { refused: Some(id), .. } => Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "cannot send {signal} to the child {id}: the kernel does not let the broker signal it"
                ),
            )),
            SignalResult { delivered: 0, gone: Some(id), .. } => Err(has_ended(&Target::Id(*id))),
            SignalResult { .. } => Ok(children.clone()),
        };
        let answer = answer.map(|children| Response::Children(self.shown(&children)));
        self.conclude(ticket, answer, turn);
    }

    /// `status`: the broker itself.
    pub(crate) fn status(&mut self, call: Call, turn: &mut Turn<'_>) {
        let config = &self.config;
        let status = Status {
            version: config.version.clone(),
            protocol: PROTOCOL,
            pid: config.pid,
            instance: config.instance,
            started_at: config.started_at,
            shutting_down: !self.is_serving(),
            children: self.table.counts(),
            connections: u32::try_from(self.connections.open.len()).unwrap_or(u32::MAX),
            facilities: config.facilities.clone(),
            limits: config.bounds.shown(config.shutdown_timeout),
        };
        self.answer(call, Ok(Response::Status(Box::new(status))), turn);
    }

    /// Looks again at one request that waits, after one of its children has changed.
    pub(crate) fn reconsider(&mut self, ticket: Ticket, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id) else { return };
        let (live, settled, ending) = (entry.is_live(), entry.is_settled(), entry.is_ending());
        let takes_signals = entry.takes_signals();
        let (shown, run) = (Arc::clone(&entry.shown), entry.run());
        let Some(waiting) = self.calls.get_mut(ticket) else { return };
        let call = waiting.call;
        match &mut waiting.cause {
            Cause::Name { attempt, .. } => {
                let reuses = attempt.params.if_exists == procbroker_protocol::create::IfExists::Reuse;
                if (!live || reuses && settled && !ending)
                    && let Some(waiting) = self.unpark(ticket)
                    && let Cause::Name { attempt, .. } = waiting.cause
                {
                    self.decide(call, *attempt, turn);
                }
            }
            Cause::Start { outcome, .. } if settled => {
                let outcome = *outcome;
                self.conclude(ticket, Ok(Response::Created(Created { outcome, child: shown })), turn);
            }
            Cause::Destroy { ended, left } if !live => {
                left.remove(&id);
                ended.insert(id, shown);
                let over = left.is_empty();
                let children: Vec<_> = if over { ended.values().cloned().collect() } else { Vec::new() };
                self.unwatch(ticket, id);
                if over {
                    self.conclude(ticket, Ok(Response::Children(children)), turn);
                }
            }
            Cause::Wait { until, .. } => {
                if is_reached(entry_of(&self.table, id), *until) {
                    self.conclude(ticket, Ok(Response::Child(shown)), turn);
                }
            }
            Cause::Signal { signal, scope, unspawned, sent, result, .. } if settled => {
                let (signal, scope) = (*signal, *scope);
                unspawned.remove(&id);
                if takes_signals {
                    sent.insert(id);
                    turn.order(Effect::Signal { run, signal, scope, call: Some(call) });
                } else {
                    result.gone = Some(id);
                }
                self.unwatch(ticket, id);
                self.conclude_signal(ticket, turn);
            }
            Cause::Start { .. }
            | Cause::Destroy { .. }
            | Cause::Signal { .. }
            | Cause::Logs { .. }
            | Cause::Upgrade
            | Cause::Shutdown => {}
        }
    }

    fn unwatch(&mut self, ticket: Ticket, id: ChildId) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.watchers.remove(&ticket);
        }
    }

    /// The one child that a target means, if the caller may see it.
    pub(crate) fn find(&self, connection: ConnectionId, target: &Target) -> Result<&Entry, Error> {
        let visible = self.connection(connection).and_then(|connection| {
            self.table
                .find(target)
                .filter(|entry| authorize::may_act_on(&self.config, &connection.peer, entry.shown.owner))
        });
        visible.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no child {target} among those that you may see; list shows them"),
            )
        })
    }

    /// The children that a target means, oldest first: one that must be there, or those that are `wanted`.
    fn resolve(
        &self,
        connection: ConnectionId,
        target: &Target,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<ChildId>, Error> {
        let none = BTreeMap::new();
        let labels = match target {
            Target::Id(_) | Target::Name(_) => {
                return self.find(connection, target).map(|entry| vec![entry.shown.id]);
            }
            Target::Labels(labels) => labels,
            Target::All => &none,
        };
        let Some(caller) = self.connection(connection) else { return Ok(Vec::new()) };
        Ok(self
            .table
            .live_children()
            .filter(|entry| {
                wanted(entry)
                    && authorize::may_act_on(&self.config, &caller.peer, entry.shown.owner)
                    && has_labels(&entry.shown, labels)
            })
            .map(|entry| entry.shown.id)
            .collect())
    }

    /// How clients see these children, as far as they are visible.
    fn shown(&self, children: &[ChildId]) -> Vec<Arc<Child>> {
        children.iter().filter_map(|id| self.table.get(*id)).map(|entry| Arc::clone(&entry.shown)).collect()
    }
}

fn entry_of(table: &crate::table::Table, id: ChildId) -> Option<&Entry> {
    table.get(id)
}

/// Whether what a `wait` waits for has come.
fn is_reached<'a>(entry: impl Into<Option<&'a Entry>>, until: Until) -> bool {
    let Some(entry) = entry.into() else { return true };
    match until {
        Until::Ready => entry.is_settled(),
        Until::Ended => !entry.is_live(),
    }
}

pub(crate) fn has_labels(child: &Child, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| child.labels.get(key) == Some(value))
}

fn has_ended(target: &Target) -> Error {
    Error::new(ErrorKind::NotFound, format!("the child {target} has ended; there is nothing to signal"))
}
