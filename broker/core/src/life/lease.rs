//! Transitions: a lease is bound, renewed or ended when connections, times or processes are.

use procbroker_protocol::ChildId;
use procbroker_protocol::create::Lifetime;

use crate::anchor::Anchor;
use crate::broker::Broker;
use crate::child::Next;
use crate::effect::Effect;
use crate::ids::ConnectionId;
use crate::leases::Lease;
use crate::limits::LINGER_AFTER_A_CRASH_MIN;
use crate::record::RecordedLease;
use crate::turn::Turn;

impl Broker {
    /// Binds the life of a new child to its time, to another process, or to the connection that creates it.
    pub(crate) fn bind(&mut self, id: ChildId, creator: ConnectionId, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(child) = self.children.get(id) else {
            return;
        };
        let params = child.params();
        let lease = match (params.lifetime, child.lease()) {
            (Lifetime::Ttl(length), RecordedLease::Until(until)) => Lease::timed(length, *until),
            (Lifetime::Connection, _) => Lease::unheld(params.linger, now.plus(params.linger)),
            (Lifetime::Pid(_), RecordedLease::Process(anchor)) => Lease::Process(*anchor),
            (Lifetime::Broker | Lifetime::Pid(_) | Lifetime::Ttl(_), _) => return,
        };
        self.lease(id, lease, turn);
        self.hold(id, creator, turn);
    }

    /// Binds the life of a child that an earlier broker has left. Whoever held it has lost its connection, and has a while
    /// to come back, once; if nobody had held it any more, it goes on lingering. One whose start is not on record may have been renewed before that: it has its whole time again. A
    /// process that has ended meanwhile is told of as soon as it is looked for.
    pub(crate) fn bind_again(&mut self, id: ChildId, is_unspawned: bool, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(child) = self.children.get(id).filter(|child| child.is_live()) else {
            return;
        };
        let params = child.params();
        let mut is_to_be_recorded = false;
        let lease = match (params.lifetime, child.lease()) {
            (Lifetime::Ttl(length), RecordedLease::Until(_)) if is_unspawned => {
                is_to_be_recorded = true;
                Lease::timed(length, now.plus(length))
            }
            (Lifetime::Ttl(length), RecordedLease::Until(until)) => Lease::timed_before(length, *until, now),
            // Nobody had held it any more.
            (Lifetime::Connection, RecordedLease::Until(until)) => Lease::unheld(params.linger, *until),
            (Lifetime::Connection, RecordedLease::None | RecordedLease::Process(_)) => {
                is_to_be_recorded = true;
                Lease::unheld(params.linger, now.plus(params.linger.max(LINGER_AFTER_A_CRASH_MIN)))
            }
            (Lifetime::Pid(_), RecordedLease::Process(anchor)) => Lease::Process(*anchor),
            (Lifetime::Broker | Lifetime::Pid(_) | Lifetime::Ttl(_), _) => return,
        };
        let until = lease.until();
        self.lease(id, lease, turn);
        if let Some(until) = until.filter(|_| is_to_be_recorded) {
            self.with_child(id, turn, |child, orders| {
                child.expires_at(until, orders);
                Next::Nothing
            });
        }
    }

    /// Has it recorded until when a child lingers whose holders were lost: after the next death of the broker they have no more
    /// time than that.
    pub(crate) fn record_linger(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        self.with_child(id, turn, |child, orders| {
            if child.params().lifetime == Lifetime::Connection {
                child.record_again(orders);
            }
            Next::Nothing
        });
    }

    fn lease(&mut self, id: ChildId, lease: Lease, turn: &mut Turn<'_>) {
        if let Some(anchor) = self.leases.insert(id, lease, &mut self.timers) {
            turn.order(Effect::Watch { anchor });
        }
    }

    /// A child is over: nothing of its life hangs on anything any more.
    pub(crate) fn unbind(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        if let Some(anchor) = self.leases.remove(id, &mut self.timers) {
            turn.order(Effect::Unwatch { anchor });
        }
    }

    /// A connection is answered with a child, or waits for it: it holds the child from now on.
    pub(crate) fn hold(&mut self, id: ChildId, connection: ConnectionId, turn: &mut Turn<'_>) {
        self.leases.hold(id, connection, &mut self.timers);
        self.with_child(id, turn, |child, orders| {
            child.is_held(orders);
            Next::Nothing
        });
    }

    /// Nobody has held a child for as long as it lingers, or its time is over.
    pub(crate) fn lease_due(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        if let Some(reason) = self.leases.run_out(id, turn.now.instant, &mut self.timers) {
            self.stop_child(id, reason, None, turn);
        }
    }

    /// A process has ended: so do the children whose lives hang on it, and any that is started in the place of one of them.
    pub(crate) fn anchor_ended(&mut self, anchor: Anchor, turn: &mut Turn<'_>) {
        while let Some(id) = self.leases.anchored_to(anchor) {
            self.lease_due(id, turn);
        }
    }
}
