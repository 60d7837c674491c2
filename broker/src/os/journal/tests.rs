use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{fs, iter};

use procbroker_core::{Incarnation, Pid, RecordFailure, Run, Safety};
use procbroker_protocol::ChildId;
use tempfile::TempDir;
use uuid::Uuid;

use super::wal::beside;
use super::*;
use crate::os::process::identity::{Birthmark, BootId, ProcessIdentity};

mod ahead;
mod awaiting;
mod changed;
mod failing;
mod files;
mod kill;

/// Longer than anything here takes, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file alone: everything waits for it.
fn open(path: &Path) -> std::result::Result<(Store, Stored), JournalError> {
    open_alone(path)
}

type Result<T = ()> = std::result::Result<T, RecordFailure>;

fn scratch() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    (folder, path)
}

fn child(number: u128) -> ChildId {
    ChildId::from_uuid(Uuid::from_u128(number))
}

fn run(number: u128) -> Run {
    Run { child: child(number), incarnation: Incarnation::FIRST }
}

fn host() -> Host {
    Host {
        boot: BootId(Uuid::from_u128(7)),
        cgroup_folder: Some("/sys/fs/cgroup/\u{e4}/procbroker.1".into()),
    }
}

fn intent(number: u128) -> Change {
    Change::Intent(format!("intent {number}"))
}

fn progress(text: &str) -> Change {
    Change::Progress(StoredProgress { text: text.to_owned(), process: None })
}

fn process(birthmark: Birthmark, cgroup: Option<u64>) -> ProcessIdentity {
    ProcessIdentity { pid: Pid::new(42).unwrap(), birthmark, boot: BootId(Uuid::from_u128(8)), cgroup }
}

fn row(number: u128, progress: Option<&str>) -> Row {
    let progress = progress.map(|text| StoredProgress { text: text.to_owned(), process: None });
    Row { child: child(number), intent: format!("intent {number}"), progress }
}

/// A journal, and the receipts that come of it.
struct Writing {
    journal: Journal,
    receipts: Receiver<(Run, Result)>,
    attempts: Receiver<Position>,
}

impl Writing {
    fn start(store: Store) -> Self {
        Self::start_at(store, &host())
    }

    fn start_at(store: Store, host: &Host) -> Self {
        let (sender, receipts) = channel();
        let (tell, attempts) = channel();
        let deliver = move |delivery| match delivery {
            Delivery::Receipt { run, result } => sender.send((run, result)).unwrap(),
            Delivery::Attempted { up_to } => tell.send(up_to).unwrap(),
        };
        Self { journal: store.start(host, Arc::new(deliver)).unwrap(), receipts, attempts }
    }

    fn open(path: &Path) -> Self {
        Self::start(open(path).unwrap().0)
    }

    fn submit(&mut self, number: u128, change: Change) {
        let _ = self.journal.submit(Entry {
            child: child(number),
            change,
            safety: Safety::Process,
            receipt: None,
        });
    }

    /// Waits for the receipt too.
    fn write_with(&mut self, safety: Safety, number: u128, change: Change) -> Result {
        let receipt = Some(run(number));
        let _ = self.journal.submit(Entry { child: child(number), change, safety, receipt });
        let (run_, result) = self.receipts.recv_timeout(PATIENCE).unwrap();
        assert_eq!(run_, run(number));
        result
    }

    fn write(&mut self, number: u128, change: Change) -> Result {
        self.write_with(Safety::Process, number, change)
    }
}

#[test]
fn what_was_written_is_found_again_in_the_order_of_the_intents() {
    let (_folder, path) = scratch();
    let (store, stored) = open(&path).unwrap();
    assert_eq!(stored, Stored { rows: Vec::new(), host: None });
    let mut writing = Writing::start(store);
    let marks = [Birthmark::Inode(u64::MAX), Birthmark::StartTicks(1_234)];
    for (number, birthmark) in [(2, marks[0]), (1, marks[1])] {
        writing.write(number, intent(number)).unwrap();
        let cgroup = (number == 1).then_some(u64::MAX - 1);
        let process = Some(process(birthmark, cgroup));
        let text = format!("progress {number}");
        writing
            .write_with(Safety::Power, number, Change::Progress(StoredProgress { text, process }))
            .unwrap();
    }
    writing.write_with(Safety::Power, 3, intent(3)).unwrap();
    drop(writing);
    assert!(!beside(&path, "-wal").exists(), "a journal that was closed has no log");

    let (store, stored) = open(&path).unwrap();
    assert_eq!(stored.host, Some(host()));
    let found: Vec<_> = stored.rows.iter().map(|row| (row.child, row.intent.as_str())).collect();
    assert_eq!(found, [(child(2), "intent 2"), (child(1), "intent 1"), (child(3), "intent 3")]);
    let found: Vec<_> = stored.rows.into_iter().filter_map(|row| row.progress?.process).collect();
    assert_eq!(found, [process(marks[0], None), process(marks[1], Some(u64::MAX - 1))]);
    drop(store);
}

#[test]
fn rows_are_changed_and_removed_by_later_journals_too() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    for number in 1..=3 {
        writing.write(number, intent(number)).unwrap();
    }
    writing.write(1, progress("on")).unwrap();
    drop(writing);
    let mut writing = Writing::open(&path);
    writing.write(1, Change::Remove).unwrap();
    writing.write(2, progress("on")).unwrap();
    writing.write(4, intent(4)).unwrap();
    drop(writing);
    assert_eq!(check(&path).unwrap(), [row(2, Some("on")), row(3, None), row(4, None)]);
    let (store, _) = open(&path).unwrap();
    let left = store.connection.query_row("SELECT count(*) FROM progress", [], |row| row.get(0));
    assert_eq!(left, Ok(1), "nothing of a removed child stays");
}

#[test]
fn changes_of_one_child_that_wait_together_become_one() {
    let entry = |change, receipt| Entry { child: child(1), change, safety: Safety::Process, receipt };
    let mut batch = pending::Batch::new();
    pending::add(&mut batch, entry(intent(1), Some(run(1))));
    pending::add(&mut batch, entry(progress("first"), None));
    pending::add(&mut batch, Entry { safety: Safety::Power, ..entry(progress("second"), Some(run(1))) });
    let due = batch.get(&child(1)).unwrap();
    assert!(matches!(&due.content, pending::Content::New { intent, progress: Some(progress) }
            if intent.text == "intent 1" && progress.text == "second"));
    assert_eq!((due.safety, due.receipts.len()), (Safety::Power, 2));
    pending::add(&mut batch, entry(Change::Remove, None));
    pending::add(&mut batch, entry(progress("too late"), None));
    assert_eq!(batch.len(), 1);
    let due = batch.remove(&child(1)).unwrap();
    assert!(matches!(due.content, pending::Content::Gone));
    assert_eq!((due.safety, due.receipts.len()), (Safety::Power, 2));
}

#[test]
fn what_could_not_be_written_does_not_undo_what_came_since() {
    let entry =
        |number, change| Entry { child: child(number), change, safety: Safety::Process, receipt: None };
    let (mut earlier, mut batch) = (pending::Batch::new(), pending::Batch::new());
    for number in 1..=3 {
        pending::add(&mut earlier, entry(number, intent(number)));
    }
    pending::add(&mut batch, entry(2, progress("since")));
    pending::add(&mut batch, entry(3, Change::Remove));
    pending::put_back(&mut batch, earlier);
    let is_new = |number, has_progress: bool| {
        matches!(&batch.get(&child(number)).unwrap().content, pending::Content::New { progress, .. }
            if progress.is_some() == has_progress)
    };
    assert!(is_new(1, false) && is_new(2, true));
    assert!(matches!(batch.get(&child(3)).unwrap().content, pending::Content::Gone));
}

#[test]
fn everybody_who_waits_gets_one_receipt_and_the_last_progress_stays() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    let numbers = || 1..=50_u128;
    for number in numbers() {
        let entry = |change| Entry {
            child: child(number),
            change,
            safety: Safety::Process,
            receipt: Some(run(number)),
        };
        let _ = writing.journal.submit(entry(intent(number)));
        for step in 0..20 {
            let _ = writing.journal.submit(entry(progress(&format!("step {step}"))));
        }
    }
    let mut counts = std::collections::BTreeMap::<_, usize>::new();
    for _ in 0..50 * 21 {
        let (run, result) = writing.receipts.recv_timeout(PATIENCE).unwrap();
        result.unwrap();
        *counts.entry(run).or_default() += 1;
    }
    assert_eq!(counts, numbers().map(|number| (run(number), 21)).collect());
    drop(writing.journal);
    assert!(writing.receipts.recv().is_err(), "nobody is answered twice");
    let rows: Vec<_> = numbers().map(|number| row(number, Some("step 19"))).collect();
    assert_eq!(check(&path).unwrap(), rows);
}

#[test]
fn what_nobody_waits_for_is_written_by_a_flush_and_at_the_end() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    writing.journal.flush(Duration::ZERO).unwrap();
    writing.submit(1, intent(1));
    writing.journal.flush(PATIENCE).unwrap();
    assert_eq!(check(&path).unwrap(), [row(1, None)]);
    writing.submit(2, intent(2));
    drop(writing);
    assert_eq!(check(&path).unwrap(), [row(1, None), row(2, None)]);
}

#[test]
fn what_becomes_of_a_child_without_an_intent_is_refused() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    let failure = writing.write(1, progress("on")).unwrap_err();
    assert!(failure.message.contains("not on record"), "{failure:?}");
    writing.write(1, Change::Remove).unwrap();
    writing.submit(1, progress("on"));
    writing.journal.flush(PATIENCE).unwrap();
    drop(writing);
    assert_eq!(check(&path).unwrap(), []);
}

#[test]
fn the_log_starts_anew_before_it_gets_long() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    let long = "x".repeat(20_000);
    for number in 1..=1_200 {
        writing.write(1 + number % 4, Change::Intent(long.clone())).unwrap();
    }
    let pages = fs::metadata(beside(&path, "-wal")).unwrap().len() / 4_096;
    assert!((1_000..3_000).contains(&pages), "{pages}");
}

#[test]
fn nobody_else_may_read_the_files() {
    let (_folder, path) = scratch();
    let modes = || {
        iter::once("").chain(["-wal", "-shm"]).map(|suffix| {
            let mode = fs::metadata(beside(&path, suffix)).unwrap().permissions().mode();
            mode & 0o777
        })
    };
    let writing = Writing::open(&path);
    assert_eq!(modes().collect::<Vec<_>>(), [0o600; 3]);
    drop(writing);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _writing = Writing::open(&path);
    assert_eq!(modes().next(), Some(0o600));
}
