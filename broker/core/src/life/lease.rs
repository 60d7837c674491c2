//! What a child's life hangs on: who holds it, when it ends for want of them, and when its time is over.

use procbroker_protocol::ChildId;
use procbroker_protocol::create::Lifetime;

use crate::broker::Broker;
use crate::child::Next;
use crate::ids::ConnectionId;
use crate::leases::Lease;
use crate::limits::LINGER_AFTER_A_CRASH_MIN;
use crate::record::Tie;
use crate::time::Instant;
use crate::turn::Turn;

impl Broker {
    /// Binds the life of a new child to its time, or to the connection that creates it.
    pub(crate) fn bind(&mut self, id: ChildId, creator: ConnectionId, now: Instant) {
        let Some(child) = self.children.get(id) else {
            return;
        };
        let params = child.params();
        let lease = match (params.lifetime, child.tie()) {
            (Lifetime::Ttl(length), Tie::Until(until)) => Lease::Time { length, until: *until },
            (Lifetime::Connection, _) => Lease::unheld(params.linger, now.plus(params.linger)),
            (Lifetime::Broker | Lifetime::Pid(_) | Lifetime::Ttl(_), _) => return,
        };
        self.leases.insert(id, lease, &mut self.timers);
        self.hold(id, creator);
    }

    /// Binds the life of a child that an earlier broker has left. Whoever held it has lost its connection, and has a while
    /// to come back. One whose start is not on record may have been renewed before that: it has its whole time again.
    pub(crate) fn bind_again(&mut self, id: ChildId, is_unspawned: bool, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let Some(child) = self.children.get(id).filter(|child| child.is_live()) else {
            return;
        };
        let params = child.params();
        let lease = match (params.lifetime, child.tie()) {
            (Lifetime::Ttl(length), Tie::Until(_)) if is_unspawned => {
                Lease::Time { length, until: now.plus(length) }
            }
            (Lifetime::Ttl(length), Tie::Until(until)) => Lease::Time { length, until: *until },
            (Lifetime::Connection, _) => {
                Lease::unheld(params.linger, now.plus(params.linger.max(LINGER_AFTER_A_CRASH_MIN)))
            }
            (Lifetime::Broker | Lifetime::Pid(_) | Lifetime::Ttl(_), _) => return,
        };
        let until = lease.expires();
        self.leases.insert(id, lease, &mut self.timers);
        if let Some(until) = until.filter(|_| is_unspawned) {
            self.with_child(id, turn, |child, orders| {
                child.expires_at(until, orders);
                Next::Nothing
            });
        }
    }

    /// A connection is answered with a child, or waits for it: it holds the child from now on.
    pub(crate) fn hold(&mut self, id: ChildId, connection: ConnectionId) {
        self.leases.hold(id, connection, &mut self.timers);
    }

    /// Nobody has held a child for as long as it lingers, or its time is over.
    pub(crate) fn lease_due(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        if let Some(reason) = self.leases.run_out(id) {
            self.stop_child(id, reason, None, turn);
        }
    }
}
