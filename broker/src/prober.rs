//! Finds out whether a child that is starting is ready: one question at a time, each answered in bounded time.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};
use procbroker_core::{Input, Run};
use procbroker_protocol::Timestamp;
use procbroker_protocol::create::Check;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::blocking_pool::BlockingPool;
use crate::driver::Fact;
use crate::limits::{LOG_TEXT_BYTES_MAX, PROBE_PATIENCE, PROBES_MAX};
use crate::os::logs::stamps::Stamps;
use crate::os::logs::{Continuation, Logs, StreamId, Wanted, read};

/// What probes are made with.
#[derive(Clone, Debug)]
pub struct Prober {
    logs: Logs,
    pool: BlockingPool,
    facts: mpsc::Sender<Fact>,
    places: Arc<Semaphore>,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose it is.
    pub run: Run,
    /// Whose user's processes it has.
    pub user: u32,
    /// What shows that it is ready.
    pub check: Check,
    /// When its process was started.
    pub since: Timestamp,
}

impl Prober {
    /// Probes are answered as facts.
    #[must_use]
    pub fn new(logs: &Logs, pool: BlockingPool, facts: mpsc::Sender<Fact>) -> Self {
        Self { logs: logs.clone(), pool, facts, places: Arc::new(Semaphore::new(PROBES_MAX)) }
    }

    /// Asks one question. To be called in the event loop.
    pub fn ask(&self, question: Question) {
        let prober = self.clone();
        tokio::spawn(async move {
            let run = question.run;
            // Nobody closes it.
            let _place = prober.places.acquire().await;
            let is_ready = timeout(PROBE_PATIENCE, prober.answer(question)).await.unwrap_or(false);
            // A driver that has gone needs no report any more.
            let _ = prober.facts.send(Fact::Input(Input::Probed { run, is_ready })).await;
        });
    }

    async fn answer(&self, question: Question) -> bool {
        let Question { run, user, check, since } = question;
        match check {
            Check::Tcp(address) => accepts(address).await,
            // A path may lead to where nothing answers.
            Check::Unix(path) => self.pool.run(user, move || listens(&path, user)).await.unwrap_or(false),
            Check::Log(text) => {
                let [stdout, stderr] = StreamId::both(run.child);
                self.is_written(stdout, &text, since).await || self.is_written(stderr, &text, since).await
            }
            // The core refuses it.
            Check::Command(_) => false,
        }
    }

    /// Whether a line of an output contains this text, as far as it is kept.
    async fn is_written(&self, id: StreamId, text: &str, since: Timestamp) -> bool {
        let Some(kept) = self.logs.kept(id).await else { return false };
        let wanted = Wanted {
            tail: None,
            since: Some(since),
            stamps: Stamps::Unwanted,
            continuation: Continuation::Nothing,
            text_bytes_max: LOG_TEXT_BYTES_MAX,
        };
        let found = tokio::task::spawn_blocking(move || read(&kept, wanted)).await;
        found.is_ok_and(|found| found.is_ok_and(|found| found.text.contains(text)))
    }
}

/// Whether something accepts connections at an address.
async fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Whether a process of this user listens at a path: a broker that is root reaches sockets that the child could not, and
/// what listens there is none of the child's then.
fn listens(path: &str, user: u32) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(address) = UnixAddr::new(path) else { return false };
    let Ok(socket) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return false };
    connect(socket.as_raw_fd(), &address).is_ok()
        && getsockopt(&socket, PeerCredentials).is_ok_and(|peer| peer.uid() == user)
}
