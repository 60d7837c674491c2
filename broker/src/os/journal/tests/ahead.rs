use super::*;
use crate::os::own::OwnFolder;

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

/// Nothing may be started beside what is in the log of another file; there is none of it then that was not there before.
fn refused_as_another(path: &Path) {
    let runtime = OwnFolder::open(path.parent().unwrap()).unwrap();
    let before = fs::read(path).ok();
    let error = store::open(path, &runtime).unwrap_err();
    assert!(matches!(error, JournalError::OtherState { .. }), "{error:?}");
    let said = error.to_string();
    for words in [path.to_str().unwrap(), "/intents", "put the state folder back", "cleanups do not run"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    assert_eq!(fs::read(path).ok(), before);
}

#[test]
fn a_state_file_that_was_removed_or_has_lost_its_log_is_no_silent_fresh_start() {
    let (folder, path) = scratch();
    let mut writing = with_log(&path);
    writing.submit(1, intent(1));
    writing.journal.flush(PATIENCE).unwrap();
    // As a broker leaves them that is killed now.
    let (killed, copy) = scratch();
    let names = ["state.db", "state.db-wal", "intents"];
    let restore = |name| {
        fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    };
    names.into_iter().for_each(restore);
    let wal = beside(&copy, "-wal");
    fs::File::create(&wal).unwrap();
    refused_as_another(&copy);
    let _absent = fs::remove_file(&wal);
    refused_as_another(&copy);
    fs::remove_file(&copy).unwrap();
    refused_as_another(&copy);
    assert!(!copy.exists());
    names.into_iter().for_each(restore);
    let runtime = OwnFolder::open(killed.path()).unwrap();
    assert_eq!(store::open(&copy, &runtime).unwrap().1.rows, [row(1, None)]);
    // Removed on purpose.
    for name in ["state.db", "intents"] {
        fs::remove_file(killed.path().join(name)).unwrap();
    }
    for suffix in ["-wal", "-shm"] {
        let _absent = fs::remove_file(beside(&copy, suffix));
    }
    assert_eq!(store::open(&copy, &runtime).unwrap().1.rows, []);
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
