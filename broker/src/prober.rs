//! Finds out whether a child that is starting is ready: one question at a time, each answered in bounded time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};
use procbroker_core::{Input, Run};
use procbroker_protocol::Timestamp;
use procbroker_protocol::create::Check;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::blocking_pool::BlockingPool;
use crate::inbox;
use crate::limits::{LOG_TEXT_BYTES_MAX, PROBE_PATIENCE, PROBES_MAX, PROBES_OF_A_USER_MAX};
use crate::messages::Fact;
use crate::os::host::fs_rights::{self, Rights};
use crate::os::logs::stamps::Stamps;
use crate::os::logs::{Continuation, ExcerptRange, Logs, StreamId, read};

/// Makes the probes of all children, each as a task of its own.
#[derive(Debug)]
pub struct Prober {
    means: Means,
    /// Each user's places, for as long as one of its probes is under way.
    users: BTreeMap<u32, Weak<Semaphore>>,
}

/// What probes are made with.
#[derive(Clone, Debug)]
struct Means {
    logs: Logs,
    pool: BlockingPool,
    facts: inbox::Sender<Fact>,
    places: Arc<Semaphore>,
}

/// One probe that is due: of which run, by whose right, and what is asked.
#[derive(Clone, Debug)]
pub struct ProbeRequest {
    /// The run that is to become ready.
    pub run: Run,
    /// Whose user's processes it has.
    pub user: u32,
    /// What these may reach in the file system.
    pub rights: Rights,
    /// What shows that it is ready.
    pub check: Check,
    /// When its process was ordered to be started.
    pub since: Timestamp,
}

impl Prober {
    /// Probes are answered as facts.
    #[must_use]
    pub fn new(logs: &Logs, pool: BlockingPool, facts: inbox::Sender<Fact>) -> Self {
        let places = Arc::new(Semaphore::new(PROBES_MAX));
        Self { means: Means { logs: logs.clone(), pool, facts, places }, users: BTreeMap::new() }
    }

    /// Asks one question, in its user's turn: whoever has many that nobody answers holds up none but their own. To be
    /// called in the event loop.
    pub fn ask(&mut self, request: ProbeRequest) {
        let places = self.places_of(request.user);
        let (means, facts) = (self.means.clone(), self.means.facts.of(request.user));
        tokio::spawn(async move {
            let run = request.run;
            // Nobody closes them.
            let _place_of_user = places.acquire().await;
            let _place = means.places.acquire().await;
            let is_ready = timeout(PROBE_PATIENCE, means.answer(request)).await.unwrap_or(false);
            // A driver that has gone needs no report any more.
            let _ = facts.send(Fact::Input(Input::Probed { run, is_ready })).await;
        });
    }

    fn places_of(&mut self, user: u32) -> Arc<Semaphore> {
        if let Some(places) = self.users.get(&user).and_then(Weak::upgrade) {
            return places;
        }
        self.users.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(PROBES_OF_A_USER_MAX));
        self.users.insert(user, Arc::downgrade(&places));
        places
    }
}

impl Means {
    async fn answer(&self, request: ProbeRequest) -> bool {
        let ProbeRequest { run, user, rights, check, since } = request;
        match check {
            Check::Tcp(address) => accepts(address).await,
            // A path may lead to where nothing answers.
            Check::Unix(path) => {
                let work = move || fs_rights::with(&rights, || listens(&path, user)).unwrap_or(false);
                self.pool.run(user, work).await.unwrap_or(false)
            }
            Check::Log(text) => {
                let [stdout, stderr] = StreamId::both(run.child);
                self.is_written(stdout, user, &text, since).await
                    || self.is_written(stderr, user, &text, since).await
            }
            // The core orders those to be spawned.
            Check::Command(_) => false,
        }
    }

    /// Whether a line of an output contains this text, as far as it is kept.
    async fn is_written(&self, id: StreamId, user: u32, text: &str, since: Timestamp) -> bool {
        let Some(kept) = self.logs.kept(id).await else { return false };
        let wanted = ExcerptRange {
            tail: None,
            since: Some(since),
            from: None,
            stamps: Stamps::Unwanted,
            continuation: Continuation::Nothing,
            text_bytes_max: LOG_TEXT_BYTES_MAX,
        };
        let found = self.pool.run(user, move || read(&kept, wanted)).await;
        found.is_ok_and(|found| found.is_ok_and(|found| found.text.contains(text)))
    }
}

/// Whether something accepts connections at an address.
async fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Whether a process of this user listens at a path. Another user's socket says nothing of the child, even where the child
/// may reach it.
///
/// The path leads through no link of `/proc`: `/proc/PID/root` and the like jump over closed folders for who may trace that
/// process, as the broker may, and into what a user has mounted for himself, which can hold up whoever looks at it for ever.
fn listens(path: &str, user: u32) -> bool {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let Ok(place) = openat2(AT_FDCWD, path, how) else { return false };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // What was found is connected to, wherever the path leads by now.
    let found = format!("/proc/self/fd/{}", place.as_raw_fd());
    let Ok(address) = UnixAddr::new(found.as_str()) else { return false };
    let Ok(socket) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return false };
    connect(socket.as_raw_fd(), &address).is_ok()
        && getsockopt(&socket, PeerCredentials).is_ok_and(|peer| peer.uid() == user)
}

#[cfg(test)]
mod tests {
    use procbroker_core::Incarnation;
    use procbroker_protocol::ChildId;
    use tokio::net::{TcpListener, TcpSocket};
    use uuid::Uuid;

    use super::*;
    use crate::os::logs::pipes::Pipes;
    use crate::os::logs::{LogBounds, LogSettings};

    const SILENT: u32 = 1;
    const BRISK: u32 = 2;

    /// A user, and where something is to accept connections.
    fn request(user: u32, address: SocketAddr) -> ProbeRequest {
        let child = ChildId::from_uuid(Uuid::from_u128(user.into()));
        let run = Run { child, incarnation: Incarnation::FIRST };
        let (rights, since) = (Rights::Own, Timestamp::from_micros(0));
        ProbeRequest { run, user, rights, check: Check::Tcp(address), since }
    }

    fn listener(backlog: u32) -> TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(backlog).unwrap()
    }

    #[tokio::test]
    async fn one_users_unanswered_probes_hold_up_no_other_users() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            folder: folder.path().join("logs"),
            pipes: Pipes::open(folder.path().join("output")).unwrap(),
            bounds: LogBounds { per_child: 1 << 20, in_all: 1 << 20 },
            forward: None,
            children: Vec::new(),
            inherited: Vec::new(),
        };
        let (tell, mut facts) = inbox::inbox(1, 0);
        let logs = Logs::start(settings).unwrap();
        let mut prober = Prober::new(&logs, BlockingPool::start().unwrap(), tell);
        // One connection that nobody accepts fills such a listener: what comes after it waits (listen(2)).
        let (silent, brisk) = (listener(0), listener(1));
        let address = silent.local_addr().unwrap();
        let _filling = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 * PROBES_MAX {
            prober.ask(request(SILENT, address));
        }
        let asked = request(BRISK, brisk.local_addr().unwrap());
        let run = asked.run;
        prober.ask(asked);
        let mut before = 0;
        loop {
            match facts.recv().await {
                Fact::Input(Input::Probed { run: of, is_ready }) if of == run => {
                    assert!(is_ready);
                    break;
                }
                Fact::Input(Input::Probed { is_ready, .. }) => assert!(!is_ready),
                other => panic!("{other:?}"),
            }
            before += 1;
        }
        assert!(before < PROBES_MAX, "it waited for {before} of another user's");
    }
}
