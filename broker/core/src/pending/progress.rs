//! How far the requests are that are answered once each of several children has done its part.

use std::sync::Arc;

use procbroker_protocol::{Child as ChildView, ChildId};

use super::{PendingRequests, SignalRequest, SignalVerdict, WaitsFor};
use crate::ids::{Run, Ticket};
use crate::input::SignalOutcome;

impl PendingRequests {
    /// A child of a `destroy` has ended. Returns all of its children, each as it was at its end, once none is left.
    pub(crate) fn child_ended(
        &mut self,
        ticket: Ticket,
        child: &Arc<ChildView>,
    ) -> Option<Vec<Arc<ChildView>>> {
        self.unwatch(ticket, child.id);
        let WaitsFor::Destroy { ended, left } = &mut self.by_ticket.get_mut(&ticket)?.waits_for else {
            return None;
        };
        left.remove(&child.id);
        ended.insert(child.id, Arc::clone(child));
        left.is_empty().then(|| ended.values().cloned().collect())
    }

    /// A child of a `restart` is ready again, or has ended. Returns all of its children, once none is left.
    pub(crate) fn child_restarted(&mut self, ticket: Ticket, child: ChildId) -> Option<Vec<ChildId>> {
        self.unwatch(ticket, child);
        let WaitsFor::Restart { children, left, .. } = &mut self.by_ticket.get_mut(&ticket)?.waits_for else {
            return None;
        };
        left.remove(&child);
        left.is_empty().then(|| children.clone())
    }

    /// A child of a `signal` has a process, to which the signal is sent now, or `takes_signals` no more. Returns what the request is
    /// answered with, once nothing of it is outstanding.
    pub(crate) fn child_spawned(
        &mut self,
        ticket: Ticket,
        child: ChildId,
        takes_signals: bool,
    ) -> Option<SignalVerdict> {
        self.unwatch(ticket, child);
        let signal = self.signal_mut(ticket)?;
        signal.spawned(child, takes_signals);
        signal.verdict()
    }

    /// The kernel has spoken about one signal of a request. Returns what that is answered with, once nothing of it is outstanding.
    pub(crate) fn signalled(
        &mut self,
        ticket: Ticket,
        run: Run,
        outcome: SignalOutcome,
    ) -> Option<SignalVerdict> {
        let signal = self.signal_mut(ticket)?;
        signal.answered(run.child, outcome);
        signal.verdict()
    }

    fn signal_mut(&mut self, ticket: Ticket) -> Option<&mut SignalRequest> {
        let WaitsFor::Signal(signal) = &mut self.by_ticket.get_mut(&ticket)?.waits_for else {
            return None;
        };
        Some(signal)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::child::Child;
    use crate::child::tests::intent;
    use crate::pending::Meant;
    use crate::pending::tests::{add, child};

    #[test]
    fn a_destroy_waits_for_the_last_of_its_children_and_looks_no_more_at_those_that_have_ended() {
        let mut pending = PendingRequests::default();
        let left = [child(2), child(3)].into();
        let [ticket] = add(&mut pending, [WaitsFor::Destroy { ended: BTreeMap::new(), left }]);
        let view = |number| Arc::clone(Child::new(&intent(number, |_| {})).view());
        assert_eq!(pending.child_ended(ticket, &view(3)), None);
        assert_eq!((pending.watchers(child(2)), pending.watchers(child(3))), (vec![ticket], Vec::new()));
        assert_eq!(pending.child_ended(ticket, &view(2)), Some(vec![view(2), view(3)]));
    }

    #[test]
    fn a_restart_waits_for_the_last_of_its_children() {
        let mut pending = PendingRequests::default();
        let (children, left) = (vec![child(2), child(3)], [(child(2), 1), (child(3), 1)].into());
        let meant = Meant::WhatMatches;
        let [ticket] = add(&mut pending, [WaitsFor::Restart { children: children.clone(), left, meant }]);
        assert_eq!(pending.child_restarted(ticket, child(2)), None);
        assert_eq!(pending.watchers(child(2)), []);
        assert_eq!(pending.child_restarted(ticket, child(3)), Some(children));
    }
}
