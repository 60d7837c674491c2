//! Finds out whether a child that is starting is ready: one question at a time, each answered in bounded time.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use procbroker_core::{Input, Run};
use procbroker_protocol::Timestamp;
use procbroker_protocol::create::Check;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::blocking_pool::BlockingPool;
use crate::inbox;
use crate::limits::{
    LOG_TEXT_BYTES_MAX, LOOKS_OF_A_USER_MAX, LOOKS_PATIENCE, PROBE_PATIENCE, PROBES_MAX, PROBES_OF_A_USER_MAX,
};
use crate::messages::Fact;
use crate::os::host::fs_rights::Rights;
use crate::os::logs::stamps::Stamps;
use crate::os::logs::{Continuation, ExcerptRange, LogHandle, StreamId, read};
use crate::os::process::descriptor::watched_shared;
use crate::os::spawn::{self, PathLook, PathLooks};

/// Makes the probes of all children, each as a task of its own.
#[derive(Debug)]
pub struct Prober {
    means: Means,
    /// The places of each user for probes that are underway.
    places: UserPlaces,
}

/// What probes are made with.
#[derive(Clone, Debug)]
struct Means {
    logs: LogHandle,
    pool: BlockingPool,
    facts: inbox::Sender<Fact>,
    places: Arc<Semaphore>,
    looks: Arc<PathLooks>,
    /// Each user's places for looks.
    looking: UserPlaces,
}

/// Each user's places for something, for as long as one of them is taken.
#[derive(Clone, Debug)]
struct UserPlaces {
    of_a_user: usize,
    taken: Arc<Mutex<BTreeMap<u32, Weak<Semaphore>>>>,
}

impl UserPlaces {
    fn new(of_a_user: usize) -> Self {
        Self { of_a_user, taken: Arc::default() }
    }

    fn of(&self, user: u32) -> Arc<Semaphore> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = taken.get(&user).and_then(Weak::upgrade) {
            return places;
        }
        taken.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.of_a_user));
        taken.insert(user, Arc::downgrade(&places));
        places
    }
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
    pub fn new(logs: &LogHandle, looks: PathLooks, pool: BlockingPool, facts: inbox::Sender<Fact>) -> Self {
        let (places, looks) = (Arc::new(Semaphore::new(PROBES_MAX)), Arc::new(looks));
        let looking = UserPlaces::new(LOOKS_OF_A_USER_MAX);
        let means = Means { logs: logs.clone(), pool, facts, places, looks, looking };
        Self { means, places: UserPlaces::new(PROBES_OF_A_USER_MAX) }
    }

    /// Asks one question, in its user's turn: whoever has many that nobody answers holds up none but their own. To be
    /// called in the event loop.
    pub fn ask(&self, request: ProbeRequest) {
        let places = self.places.of(request.user);
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

    /// Ends what looks at something, before this program is replaced.
    pub fn end_all(&self) {
        self.means.looks.end_all(LOOKS_PATIENCE);
    }
}

impl Means {
    async fn answer(&self, request: ProbeRequest) -> bool {
        let ProbeRequest { run, user, rights, check, since } = request;
        match check {
            Check::Tcp(address) => match rights {
                Rights::Own => accepts(address).await,
                Rights::Of { .. } => self.look(|looks| looks.begin_at(address, &rights), user).await,
            },
            Check::Unix(path) => self.look(|looks| looks.begin(&path, &rights, user), user).await,
            Check::Log(text) => {
                let [stdout, stderr] = StreamId::both(run.child);
                self.is_written(stdout, user, &text, since).await
                    || self.is_written(stderr, user, &text, since).await
            }
            // The core orders those to be spawned.
            Check::Command(_) => false,
        }
    }

    /// Whether a process of its own finds a listener for a user, which may lead to where nothing answers.
    async fn look(&self, begin: impl FnOnce(&Arc<PathLooks>) -> io::Result<PathLook>, user: u32) -> bool {
        let places = self.looking.of(user);
        let Ok(place) = places.acquire_owned().await else { return false };
        let look = match begin(&self.looks) {
            Ok(look) => look,
            Err(error) => {
                tracing::debug!(user, %error, "cannot look for a listener");
                return false;
            }
        };
        let _wanted = WantedUntilDrop(Arc::clone(look.pidfd()));
        tokio::spawn(take(look, place)).await.unwrap_or(false)
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

/// Takes a look to its end. It keeps its place until then, be it that nobody waits for it any more.
async fn take(mut look: PathLook, _place: OwnedSemaphorePermit) -> bool {
    let Ok(ending) = watched_shared(Arc::clone(look.pidfd()), Interest::READABLE) else {
        // There is no memory to have it watched.
        spawn::kill(look.pidfd());
        while look.outcome().is_none() {
            sleep(PROBE_PATIENCE).await;
        }
        return false;
    };
    loop {
        let Ok(mut guard) = ending.readable().await else { return false };
        if let Some(is_heard) = look.outcome() {
            return is_heard;
        }
        guard.clear_ready();
    }
}

/// Kills a process when nobody waits for what it finds any more.
struct WantedUntilDrop(Arc<OwnedFd>);

impl Drop for WantedUntilDrop {
    fn drop(&mut self) {
        spawn::kill(&self.0);
    }
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
    use crate::os::spawn::SpawnFacilities;

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
        let logs = LogHandle::start(settings).unwrap();
        let looks = PathLooks::new(SpawnFacilities::probe().unwrap()).unwrap();
        let prober = Prober::new(&logs, looks, BlockingPool::start().unwrap(), tell);
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
