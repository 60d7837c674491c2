use std::os::unix::fs::FileExt;

use nix::unistd::truncate;

use super::*;
use crate::os::host::own_folder::OwnFolder;
use crate::os::process::alone;
use crate::os::process::variables::CHILD_ID_VARIABLE;

/// A journal with a log of intents beside its file, which waits for whoever holds that.
fn with_log(path: &Path) -> Writing {
    let runtime = OwnFolder::open(path.parent().unwrap()).unwrap();
    Writing::start(store::open(path, &runtime).unwrap().0.waiting_for(PATIENCE))
}

#[test]
fn a_change_is_safe_at_once_while_nothing_can_be_written_to_the_file() {
    let (folder, path) = scratch();
    let mut writing = with_log(&path);
    let lock = rusqlite::Connection::open(&path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut submit = |number, safety| {
        let (change, receipt) = (intent(number), Some(run(number)));
        writing.journal.submit(Entry { child: child(number), change, safety, receipt })
    };
    assert_eq!(submit(1, Safety::Process), Submitted::Safe);
    assert_eq!(submit(2, Safety::Power), Submitted::Waits);
    assert_eq!(submit(3, Safety::Process), Submitted::Safe);
    let awaited = writing.journal.await_attempt().unwrap();
    // As another broker would find it that is started now.
    let runtime = OwnFolder::open(folder.path()).unwrap();
    let ahead = read::ahead(&lock, &path).unwrap();
    let place =
        intent_log::Place::new(&runtime, (path.clone(), ahead.key), BootId::current().unwrap()).unwrap();
    let left: Vec<_> = place.read(ahead.folded).unwrap().iter().map(|entry| entry.child).collect();
    assert_eq!(left, [child(1), child(2), child(3)]);
    drop(lock);
    assert!(writing.attempts.recv_timeout(PATIENCE).unwrap() >= awaited);
    assert_eq!(writing.receipts.recv_timeout(PATIENCE), Ok((run(2), Ok(()))));
    drop(writing.journal);
    assert!(writing.receipts.recv().is_err(), "of what was safe at once nobody is told again");
    assert_eq!(check(&path).unwrap(), [row(1, None), row(2, None), row(3, None)]);
    assert!(!folder.path().join("intents").exists(), "a journal that was closed has no log");
}

#[test]
fn what_is_in_the_log_comes_into_the_file_without_anybody_asking() {
    let (_folder, path) = scratch();
    let mut writing = with_log(&path);
    writing.submit(1, intent(1));
    while check(&path).unwrap().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(writing.journal.await_attempt(), None);
}

#[test]
fn more_than_the_log_has_room_for_is_written_and_nothing_is_lost() {
    let (_folder, path) = scratch();
    let mut writing = with_log(&path);
    let mut waits = 0;
    for number in 1..=300 {
        let (change, receipt) = (Change::Intent("x".repeat(30_000)), Some(run(number)));
        let safety = Safety::Process;
        match writing.journal.submit(Entry { child: child(number), change, safety, receipt }) {
            Submitted::Safe => {}
            Submitted::Waits => {
                assert_eq!(writing.receipts.recv_timeout(PATIENCE), Ok((run(number), Ok(()))));
                waits += 1;
            }
        }
    }
    assert!(waits < 150, "{waits}");
    writing.journal.flush(PATIENCE).unwrap();
    assert_eq!(check(&path).unwrap().len(), 300);
}

/// Nothing may be started beside what lives of those in the log of another file; there is none of it then that was not there
/// before.
fn refused_as_another(path: &Path, survivor: u32) {
    let runtime = OwnFolder::open(path.parent().unwrap()).unwrap();
    let before = fs::read(path).ok();
    let error = store::open(path, &runtime).unwrap_err();
    assert!(matches!(error, JournalError::OtherState { .. }), "{error:?}");
    let said = error.to_string();
    let process = format!("process {survivor}:");
    for words in
        [path.to_str().unwrap(), "/intents", &process, "put the state folder back", "cleanups do not run"]
    {
        assert!(said.contains(words), "no {words} in {said}");
    }
    assert_eq!(fs::read(path).ok(), before);
}

/// A folder that is called as a runtime folder usually is.
fn usual() -> (TempDir, PathBuf) {
    let folder = tempfile::Builder::new().suffix(".d").tempdir().unwrap();
    let path = folder.path().join("state.db");
    (folder, path)
}

fn copied(from: &Path, to: &Path) {
    for name in ["state.db", "state.db-wal", "intents"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_state_file_that_was_removed_or_has_lost_its_log_is_no_silent_fresh_start_while_a_child_lives() {
    let (folder, path) = scratch();
    let known = ChildId::from_uuid(Uuid::now_v7());
    let mut writing = with_log(&path);
    let entry = Entry { child: known, change: intent(1), safety: Safety::Process, receipt: None };
    let _ = writing.journal.submit(entry);
    writing.journal.flush(PATIENCE).unwrap();
    let mut survivor = std::process::Command::new("sleep");
    let mut survivor = survivor.arg("infinity").env(CHILD_ID_VARIABLE, known.to_string()).spawn().unwrap();
    // As a broker leaves them that is killed now.
    let (killed, copy) = usual();
    copied(folder.path(), killed.path());
    let wal = beside(&copy, "-wal");
    fs::File::create(&wal).unwrap();
    refused_as_another(&copy, survivor.id());
    let _absent = fs::remove_file(&wal);
    refused_as_another(&copy, survivor.id());
    fs::remove_file(&copy).unwrap();
    refused_as_another(&copy, survivor.id());
    assert!(!copy.exists());
    copied(folder.path(), killed.path());
    let runtime = OwnFolder::open(killed.path()).unwrap();
    assert_eq!(store::open(&copy, &runtime).unwrap().1.rows.len(), 1);
    survivor.kill().unwrap();
    survivor.wait().unwrap();
    // Removed on purpose.
    for name in ["state.db", "state.db-wal", "intents"] {
        let _absent = fs::remove_file(killed.path().join(name));
    }
    assert_eq!(store::open(&copy, &runtime).unwrap().1.rows, []);
}

#[test]
fn what_a_log_has_all_of_is_known_without_its_state_file_when_nobody_lives() {
    let (folder, path) = scratch();
    let mut writing = with_log(&path);
    // Of the first it is overwritten what they were started with.
    let numbers: Vec<ChildId> = (0..40).map(|_| ChildId::from_uuid(Uuid::now_v7())).collect();
    for child in &numbers {
        let change = Change::Intent("x".repeat(100_000));
        let _ =
            writing.journal.submit(Entry { child: *child, change, safety: Safety::Process, receipt: None });
        writing.journal.flush(PATIENCE).unwrap();
    }
    for child in [numbers[0], numbers[39]] {
        let entry = Entry { child, change: progress("on"), safety: Safety::Process, receipt: None };
        let _ = writing.journal.submit(entry);
    }
    writing.journal.flush(PATIENCE).unwrap();
    let (killed, copy) = usual();
    fs::copy(folder.path().join("intents"), killed.path().join("intents")).unwrap();
    let runtime = OwnFolder::open(killed.path()).unwrap();
    // The second finds what the first has left that was killed before it had a log of its own.
    for _ in 0..2 {
        let rows = store::open(&copy, &runtime).unwrap().1.rows;
        let last: Vec<ChildId> = numbers[40 - rows.len()..].to_vec();
        assert!((10..30).contains(&rows.len()), "{}", rows.len());
        assert_eq!(rows.iter().map(|row| row.child).collect::<Vec<_>>(), last);
        assert_eq!(rows.iter().filter(|row| row.progress.is_some()).count(), 1);
    }
    drop(Writing::start(store::open(&copy, &runtime).unwrap().0));
    assert!(check(&copy).unwrap().len() >= 10);
}

#[test]
fn a_log_that_was_never_written_to_hinders_no_fresh_start() {
    let (folder, path) = scratch();
    let writing = with_log(&path);
    let (killed, copy) = scratch();
    fs::copy(folder.path().join("intents"), killed.path().join("intents")).unwrap();
    drop(writing);
    let mut writing = with_log(&copy);
    writing.submit(1, intent(1));
    drop(writing);
    assert_eq!(check(&copy).unwrap(), [row(1, None)]);
}

#[test]
fn a_log_that_was_damaged_under_its_writer_is_whole_when_all_is_written_and_goes_on() {
    let (folder, path) = scratch();
    let runtime = OwnFolder::open(folder.path()).unwrap();
    let mut writing = with_log(&path);
    let log = folder.path().join("intents");
    let damages: [&dyn Fn(); 4] = [
        &|| fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap(),
        &|| fs::remove_file(&log).unwrap(),
        &|| fs::write(&log, "something else").unwrap(),
        &|| fs::File::options().write(true).open(&log).unwrap().write_all_at(&[0; 2_000], 0).unwrap(),
    ];
    for (number, damage) in (1..).zip(damages) {
        writing.submit(number, intent(number));
        damage();
        // What is written since does not make it whole.
        writing.submit(number, progress("on"));
        writing.journal.flush(PATIENCE).unwrap();
        let ahead = read::ahead(&rusqlite::Connection::open(&path).unwrap(), &path).unwrap();
        let place =
            intent_log::Place::new(&runtime, (path.clone(), ahead.key), BootId::current().unwrap()).unwrap();
        assert_eq!(place.read(ahead.folded).unwrap(), []);
        writing.submit(100 + number, intent(100 + number));
        assert_eq!(place.read(ahead.folded).unwrap().len(), 1);
    }
    writing.journal.flush(PATIENCE).unwrap();
    assert_eq!(check(&path).unwrap().len(), 8);
}

#[test]
fn a_state_file_that_was_replaced_under_its_writer_is_no_file_to_go_on_with() {
    let (folder, path) = scratch();
    let mut writing = with_log(&path);
    writing.submit(1, intent(1));
    writing.journal.flush(PATIENCE).unwrap();
    let (other, another) = scratch();
    drop(Writing::open(&another));
    fs::rename(&another, &path).unwrap();
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
    writing.submit(2, intent(2));
    let error = writing.journal.flush(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("state.db"), "{error}");
    drop((other, folder));
}

#[test]
fn a_journal_outlives_the_loss_of_its_shared_memory_and_loses_nothing() {
    if !alone::here(module_path!(), "a_journal_outlives_the_loss_of_its_shared_memory_and_loses_nothing") {
        return;
    }
    let (folder, path) = scratch();
    let mut writing = with_log(&path);
    let rest = |writing: &Writing| {
        while !writing.journal.queue.is_at_rest() {
            std::thread::yield_now();
        }
    };
    for (number, bytes) in (1..).zip([0, 100, 4_096, 0]) {
        writing.submit(number, intent(number));
        writing.journal.flush(PATIENCE).unwrap();
        rest(&writing);
        // To open it here, and close it, would give up the journal's locks.
        truncate(&beside(&path, "-shm"), bytes).unwrap();
        writing.submit(number, progress("on"));
        writing.journal.flush(PATIENCE).unwrap();
    }
    rest(&writing);
    // As a broker leaves them that is killed now.
    let (killed, copy) = scratch();
    copied(folder.path(), killed.path());
    let expected = [1, 2, 3, 4].map(|number| row(number, Some("on")));
    assert_eq!(check(&copy).unwrap(), expected);
    truncate(&beside(&path, "-shm"), 0).unwrap();
    drop(writing);
    assert_eq!(check(&path).unwrap(), expected);
}
