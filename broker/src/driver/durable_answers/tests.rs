use std::path::PathBuf;
use std::time::Duration;

use procbroker_core::Safety;
use procbroker_protocol::{ChildId, ErrorKind};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::messages::{FromThread, Outbox, Outgoing};
use crate::os::journal::{self, Change, Entry, Host};
use crate::os::process::identity::BootId;
use crate::transit::Transit;

/// Longer than anything here takes, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The children that are on record at the beginning.
const CHILDREN: u128 = 3;

/// A record, two clients, and what is held of their answers.
struct Scene {
    _folder: TempDir,
    path: PathBuf,
    records: Records,
    reports: mpsc::Receiver<FromThread>,
    clients: Clients,
    outboxes: [mpsc::Receiver<Outgoing>; 2],
    durable_answers: DurableAnswers,
}

fn child(number: u128) -> ChildId {
    ChildId::from_uuid(Uuid::from_u128(number))
}

fn call(connection: u64, number: u64) -> Call {
    Call { connection: ConnectionId(connection), number }
}

impl Scene {
    fn new() -> Self {
        Self::waiting_for(PATIENCE)
    }

    /// The same, where the journal waits so long for whoever holds its file before it takes that for a refusal.
    fn waiting_for(patience: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let host = Host { boot: BootId(Uuid::from_u128(7)), cgroup_folder: None };
        let mut journal =
            journal::open_alone(&path).unwrap().0.start(&host, std::sync::Arc::new(drop)).unwrap();
        for number in 1..=CHILDREN {
            let change = Change::Intent(format!("intent {number}"));
            let _ = journal.submit(Entry {
                child: child(number),
                change,
                safety: Safety::Process,
                receipt: None,
            });
        }
        drop(journal);
        let (threads, reports) = mpsc::channel(16);
        let store = journal::open_alone(&path).unwrap().0.waiting_for(patience);
        let records = Records::start(store, &host, threads).unwrap();
        let mut clients = Clients::new(Transit::new(procbroker_core::Bounds::default().answer_bytes()));
        let outboxes = [0, 1].map(|connection| {
            let (outbox, received): (Outbox, _) = mpsc::channel(16);
            clients.insert(ConnectionId(connection), 7, outbox);
            received
        });
        Self {
            _folder: folder,
            path,
            records,
            reports,
            clients,
            outboxes,
            durable_answers: DurableAnswers::default(),
        }
    }

    /// Keeps the journal from writing until this is dropped.
    fn lock(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(&self.path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }

    /// A turn that orders the removal of a child's record, if any, and this answer.
    fn turn(&mut self, removed: Option<u128>, call: Call) {
        self.durable_answers.add(call, Err(Error::new(ErrorKind::NotFound, "gone")));
        if let Some(number) = removed {
            self.records.forget(child(number));
        }
        self.durable_answers.end_turn(&self.records, &mut self.clients);
    }

    /// Waits for the end of an attempt that is waited for.
    async fn attempt(&mut self) {
        match timeout(PATIENCE, self.reports.recv()).await.unwrap().unwrap() {
            FromThread::Attempted(up_to) => self.durable_answers.attempted(up_to, &mut self.clients),
            other @ (FromThread::Input(_) | FromThread::Measured { .. } | FromThread::UpgradeChecked(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// The numbers of the answers that a client has got since it was asked last.
    fn answers(&mut self, connection: usize) -> Vec<u64> {
        let outbox = &mut self.outboxes[connection];
        std::iter::from_fn(|| outbox.try_recv().ok())
            .map(|outgoing| match outgoing {
                Outgoing::Answer { number, .. } => number,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// The children on record.
    fn on_record(&self) -> Vec<u128> {
        let rows = journal::check(&self.path).unwrap();
        rows.into_iter().map(|row| row.child.as_uuid().as_u128()).collect()
    }
}

#[tokio::test]
async fn an_answer_goes_out_at_once_when_everything_is_on_record() {
    let mut scene = Scene::new();
    scene.turn(None, call(0, 1));
    assert_eq!(scene.answers(0), [1], "nothing was ever submitted");
    scene.records.forget(child(1));
    scene.records.flush(PATIENCE).unwrap();
    scene.turn(None, call(0, 2));
    assert_eq!(scene.answers(0), [2]);
    assert!(scene.durable_answers.is_empty());
    assert!(scene.reports.is_empty(), "what nobody waits for wakes nobody up");
}

#[tokio::test]
async fn an_answer_goes_out_only_after_what_it_tells_is_on_record() {
    let mut scene = Scene::new();
    let lock = scene.lock();
    scene.turn(Some(1), call(0, 1));
    assert!(scene.answers(0).is_empty());
    drop(lock);
    scene.attempt().await;
    assert_eq!((scene.answers(0), scene.on_record()), (vec![1], vec![2, 3]));
    assert!(scene.durable_answers.is_empty() && scene.reports.is_empty());
}

#[tokio::test]
async fn answers_go_out_in_the_order_of_their_turns() {
    let mut scene = Scene::new();
    let lock = scene.lock();
    scene.turn(Some(1), call(0, 1));
    scene.turn(Some(2), call(0, 2));
    // It tells of what others have changed.
    scene.turn(None, call(0, 3));
    scene.turn(Some(3), call(0, 4));
    drop(lock);
    let mut answers = Vec::new();
    while !scene.durable_answers.is_empty() {
        scene.attempt().await;
        answers.extend(scene.answers(0));
        let told_of = match answers.last().unwrap() {
            1 => 1,
            2 | 3 => 2,
            _ => 3,
        };
        assert!(scene.on_record().iter().all(|number| *number > told_of), "{answers:?}");
    }
    assert_eq!(answers, [1, 2, 3, 4]);
}

#[tokio::test]
async fn an_answer_goes_out_when_its_record_is_refused_and_the_record_is_tried_again() {
    let mut scene = Scene::waiting_for(Duration::ZERO);
    let lock = scene.lock();
    scene.turn(Some(1), call(0, 1));
    // The refusal may be there before the turn is over: nothing is held then, and nobody is told.
    while !scene.durable_answers.is_empty() {
        scene.attempt().await;
    }
    assert_eq!((scene.answers(0), scene.on_record()), (vec![1], vec![1, 2, 3]));
    // Nothing is outstanding: what is tried again holds up nobody.
    scene.turn(None, call(0, 2));
    assert_eq!(scene.answers(0), [2]);
    drop(lock);
    scene.records.flush(PATIENCE).unwrap();
    assert_eq!(scene.on_record(), [2, 3]);
}

#[tokio::test]
async fn answers_to_a_connection_that_has_closed_are_dropped_at_once() {
    let mut scene = Scene::new();
    let lock = scene.lock();
    scene.turn(Some(1), call(0, 1));
    scene.turn(Some(2), call(1, 1));
    scene.clients.remove(ConnectionId(0));
    scene.durable_answers.disconnected(ConnectionId(0));
    assert_eq!(scene.durable_answers.waiting.len(), 1);
    drop(lock);
    while !scene.durable_answers.is_empty() {
        scene.attempt().await;
    }
    assert_eq!((scene.answers(0), scene.answers(1)), (vec![], vec![1]));
}

#[tokio::test]
async fn at_the_end_all_of_them_go_out_in_their_order() {
    let mut scene = Scene::new();
    let _lock = scene.lock();
    scene.turn(Some(1), call(0, 1));
    scene.durable_answers.add(call(0, 2), Err(Error::new(ErrorKind::ShuttingDown, "shutting down")));
    scene.durable_answers.release_all(&mut scene.clients);
    assert_eq!(scene.answers(0), [1, 2]);
    assert!(scene.durable_answers.is_empty());
}
