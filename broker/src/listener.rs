//! Takes clients in: one task for each listening socket, one for each client.

mod heap_trim;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use procbroker_core::{ConnectionId, Peer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::blocking_pool::BlockingPool;
use crate::connection::{self, ConnectionContext};
use crate::inbox;
use crate::limits::{ACCEPT_PAUSE, ANSWERS_WAITING, REFUSED_PATIENTLY, STALLED_PATIENCE, TRIM_AFTER};
use crate::messages::{Fact, Who};
use crate::os::host::caller::{Baseline, StatusCache};
use crate::os::host::disposal::Disposals;
use crate::os::host::exposed_socket::ExposedSocket;
use crate::os::host::heap;
use crate::os::host::nofile::Provision;
use crate::os::host::peer;
use crate::transit::Transit;
use crate::turns::{SLICE, Turns};
use heap_trim::TrimTrigger;

/// What tells when an acceptor and all of its clients are gone.
#[derive(Debug)]
pub struct ClientsGone(mpsc::Receiver<()>);

impl ClientsGone {
    /// Waits until the last client is gone.
    pub async fn wait(mut self) {
        // Nothing is ever sent: the channel closes with the last sender.
        while self.0.recv().await.is_some() {}
    }
}

/// What all listeners of a broker share.
#[derive(Clone, Debug)]
pub struct Acceptor {
    facts: inbox::Sender<Fact>,
    next_id: Arc<AtomicU64>,
    /// Clients at a time: those that the core admits, and a few that it refuses. Further ones wait in the
    /// kernel's queue.
    places: Arc<Semaphore>,
    /// Who may take time to be refused.
    refusals: Arc<Semaphore>,
    max_pipelined: usize,
    pool: BlockingPool,
    transit: Transit,
    turns: Turns,
    baseline: Baseline,
    disposals: Disposals,
    /// Places for those whose processes are held to be looked at again.
    caller_statuses: Arc<Semaphore>,
    partial_message_timeout: Duration,
    trim_trigger: Arc<TrimTrigger>,
    /// Held by every client's task, so that the last one's end can be waited for.
    _presence: mpsc::Sender<()>,
}

impl Acceptor {
    /// An acceptor for a broker with these bounds, and what ends when the last client of it is gone.
    #[must_use]
    pub fn new(
        facts: inbox::Sender<Fact>,
        bounds: &procbroker_core::Bounds,
        (pool, transit, turns): (BlockingPool, Transit, Turns),
        (baseline, disposals): (Baseline, Disposals),
    ) -> (Self, ClientsGone) {
        let (presence, clients_gone) = mpsc::channel(1);
        let number = |bound: u32| usize::try_from(bound).unwrap_or(usize::MAX);
        let places = number(bounds.max_connections).saturating_add(Provision::RefusedClients.at_hand());
        let acceptor = Self {
            facts,
            next_id: Arc::new(AtomicU64::new(1)),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(patient_refusals(Provision::RefusedClients.at_hand()))),
            max_pipelined: number(bounds.max_pipelined),
            pool,
            transit,
            turns,
            baseline,
            disposals,
            caller_statuses: Arc::new(Semaphore::new(Provision::CallerStatuses.at_hand())),
            partial_message_timeout: bounds.partial_message_timeout,
            trim_trigger: Arc::default(),
            _presence: presence,
        };
        (acceptor, ClientsGone(clients_gone))
    }

    /// Takes clients from one socket, until the task is dropped.
    pub async fn receive(self, listener: Listener) {
        let mut began = Instant::now();
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok(stream) => {
                    self.clone().welcome(stream, place);
                    // Many at the door hold up nobody who is inside.
                    if began.elapsed() >= SLICE {
                        tokio::task::yield_now().await;
                        began = Instant::now();
                    }
                }
                Err(error) => {
                    // Out of descriptors or memory: those who are connected go on, and may free some.
                    tracing::warn!(%error, "cannot take a client in; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a client by a task of its own, in its user's turns.
    fn welcome(self, stream: Stream, place: OwnedSemaphorePermit) {
        let Stream::UdSocket(stream) = stream;
        let socket = match OwnedFd::try_from(stream) {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "cannot take a client over; closing"),
        };
        let peer = peer::peer(socket.as_fd());
        let user = peer.as_ref().map_or(inbox::BROKER, |peer| peer.uid);
        let socket = ExposedSocket::new(socket, user, &self.disposals);
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => return tracing::warn!(%error, "cannot tell who a client is; closing"),
        };
        let turns = self.turns.clone();
        self.trim_trigger.opened();
        tokio::spawn(turns.of(user, async move {
            self.serve(socket, peer).await;
            drop(place);
            if self.trim_trigger.closed() {
                tokio::spawn(trim(Arc::clone(&self.trim_trigger), self.pool.clone()));
            }
        }));
    }

    async fn serve(&self, socket: ExposedSocket, peer: Peer) {
        let id = ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let facts = self.facts.of(peer.uid);
        let (sender, outbox) = mpsc::channel(self.max_pipelined.saturating_add(ANSWERS_WAITING));
        let (user, pid) = (peer.uid, peer.pid);
        let who = if self.baseline.is_unmapped(user, pid) { Who::Unmapped } else { Who::Known(peer) };
        let connect = Fact::Connected { connection: id, who, outbox: sender };
        if facts.send(connect).await.is_ok() {
            let context = ConnectionContext {
                id,
                facts,
                outbox,
                user,
                pid,
                pool: self.pool.clone(),
                transit: self.transit.clone(),
                baseline: self.baseline,
                status_cache: StatusCache::new(Arc::clone(&self.caller_statuses)),
                login: None,
                partial_message_timeout: self.partial_message_timeout,
                stalled_patience: STALLED_PATIENCE,
                refusals: Arc::clone(&self.refusals),
            };
            connection::serve(socket, context).await;
        }
    }
}

/// How many of those that are refused may take time: never all of the places, so that others come through.
fn patient_refusals(places: usize) -> usize {
    REFUSED_PATIENTLY.min(places / 2)
}

/// Gives back to the system what clients have used that are gone. It takes milliseconds, in which nobody waits for it but who
/// needs memory.
async fn trim(trigger: Arc<TrimTrigger>, pool: BlockingPool) {
    tokio::time::sleep(TRIM_AFTER).await;
    trigger.begun();
    // Where it cannot be done now, those who go next have it done.
    let _ = pool.run(inbox::BROKER, heap::trim).await;
}
