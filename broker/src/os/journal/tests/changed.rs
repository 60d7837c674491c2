//! Rows that somebody else has changed, and files of brokers that sign none.

use std::os::unix::fs::FileExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use rusqlite::Connection;

use super::*;
use crate::os::journal::schema::{APPLICATION_ID, STEPS};
use crate::os::process::alone;

/// A file with three children in it, each with a process, closed in order.
fn three() -> (TempDir, PathBuf) {
    let (folder, path) = scratch();
    let mut writing = Writing::open(&path);
    for number in 1..=3 {
        writing.submit(number, intent(number));
        let process = Some(process(Birthmark::Inode(5), Some(6)));
        writing
            .submit(number, Change::Progress(StoredProgress { text: format!("progress {number}"), process }));
    }
    drop(writing);
    (folder, path)
}

fn change(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_row_that_somebody_has_changed_is_named_with_the_way_out_and_not_acted_on() {
    for (sql, words) in [
        ("UPDATE child SET intent = 'intent 7' WHERE seq = 2", "row 2 of its table child"),
        (
            "UPDATE child SET id = x'0102030405060708090a0b0c0d0e0f10' WHERE seq = 2",
            "row 2 of its table child",
        ),
        ("UPDATE child SET seq = 9 WHERE seq = 2", "row 9 of its table child"),
        ("UPDATE child SET signature = NULL WHERE seq = 3", "row 3 of its table child"),
        (
            "INSERT INTO child (seq, id, intent) VALUES (4, zeroblob(16), 'intent 4')",
            "row 4 of its table child",
        ),
        ("UPDATE progress SET text = 'progress 3' WHERE seq = 1", "row 1 of its table progress"),
        ("UPDATE progress SET pid = 1 WHERE seq = 3", "row 3 of its table progress"),
        ("UPDATE progress SET inode = NULL, start_ticks = 5 WHERE seq = 3", "row 3 of its table progress"),
        ("UPDATE progress SET cgroup = NULL WHERE seq = 2", "row 2 of its table progress"),
        ("UPDATE progress SET boot = zeroblob(16) WHERE seq = 2", "row 2 of its table progress"),
        ("UPDATE progress SET seq = 9 WHERE seq = 2", "row 9 of its table progress"),
        // Whole rows, each in the place of the other.
        (
            "UPDATE child SET seq = 9 WHERE seq = 1; UPDATE child SET seq = 1 WHERE seq = 2;
             UPDATE child SET seq = 2 WHERE seq = 9",
            "row 1 of its table child",
        ),
        (
            "UPDATE progress SET seq = 9 WHERE seq = 1; UPDATE progress SET seq = 1 WHERE seq = 2;
             UPDATE progress SET seq = 2 WHERE seq = 9",
            "row 1 of its table progress",
        ),
        ("UPDATE host SET value = zeroblob(16) WHERE key = 'boot'", "row \"boot\" of its table host"),
        ("UPDATE host SET value = zeroblob(16) WHERE key = 'key'", "row \"key\" of its table host"),
        (
            "UPDATE host SET value = x'2f' WHERE key = 'cgroup_folder'",
            "row \"cgroup_folder\" of its table host",
        ),
        ("UPDATE host SET key = 'cgroup' WHERE key = 'cgroup_folder'", "row \"cgroup\" of its table host"),
        ("UPDATE host SET key = 'sighed' WHERE key = 'signed'", "row \"sighed\" of its table host"),
    ] {
        let (_folder, path) = three();
        change(&path, sql);
        let before = fs::read(&path).unwrap();
        for error in [open(&path).unwrap_err(), check(&path).unwrap_err()] {
            let said = error.to_string();
            for words in
                [words, path.to_str().unwrap(), "damaged", "put back a good copy", "cleanups do not run"]
            {
                assert!(said.contains(words), "{sql}: no {words} in {said}");
            }
        }
        assert!(fs::read(&path).unwrap() == before, "{sql}: the file was changed");
    }
}

#[test]
fn the_row_of_one_child_can_be_removed_as_the_error_says_and_the_others_are_there() {
    let (_folder, path) = three();
    change(&path, "UPDATE child SET intent = 'intent 7' WHERE seq = 2");
    let said = open(&path).unwrap_err().to_string();
    let (_, rest) = said.split_once(&format!("sqlite3 {} '", path.display())).unwrap();
    let (statements, _) = rest.split_once('\'').unwrap();
    change(&path, statements);
    let found: Vec<_> = open(&path).unwrap().1.rows.into_iter().map(|row| row.child).collect();
    assert_eq!(found, [child(1), child(3)]);
}

#[test]
fn a_bit_that_has_flipped_in_the_text_of_a_row_is_found_wherever_it_is() {
    let (_folder, path) = three();
    let whole = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for text in ["intent 2", "progress 3"] {
        let at = whole.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap();
        for (byte, place) in text.bytes().zip(u64::try_from(at).unwrap()..) {
            file.write_all_at(&[byte ^ 1], place).unwrap();
            let error = open(&path).unwrap_err();
            assert!(matches!(error, JournalError::ChangedRow { .. }), "{error:?}");
            file.write_all_at(&[byte], place).unwrap();
        }
    }
    assert_eq!(open(&path).unwrap().1.rows.len(), 3);
}

/// What a broker that signs nothing does with a file at its start, and with a child.
fn write_as_before_signatures(path: &Path, seq: i64) {
    let connection = Connection::open(path).unwrap();
    connection.execute("DELETE FROM host", []).unwrap();
    let mut put = connection.prepare("INSERT INTO host (key, value) VALUES (?1, ?2)").unwrap();
    for (key, value) in [("boot", [7; 16].as_slice()), ("key", &[8; 16]), ("folded", &[0; 8])] {
        put.execute((key, value)).unwrap();
    }
    let id = u128::try_from(seq).unwrap().to_be_bytes();
    let row = (seq, id, format!("intent {seq}"));
    connection.execute("REPLACE INTO child (seq, id, intent) VALUES (?1, ?2, ?3)", row).unwrap();
    let row = (seq, format!("progress {seq}"));
    let put = "REPLACE INTO progress (seq, text, pid, inode, start_ticks, boot, cgroup)
               VALUES (?1, ?2, NULL, NULL, NULL, NULL, NULL)";
    connection.execute(put, row).unwrap();
}

/// A file as such a broker has left it.
fn unsigned() -> (TempDir, PathBuf) {
    let (folder, path) = scratch();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.execute_batch(STEPS[0]).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    for seq in 1..=3 {
        write_as_before_signatures(&path, seq);
    }
    (folder, path)
}

fn numbers(rows: &[Row]) -> Vec<u128> {
    rows.iter().map(|row| row.child.as_uuid().as_u128()).collect()
}

#[test]
fn a_file_of_a_broker_that_signed_nothing_is_read_and_signed_at_the_first_start() {
    let (_folder, path) = unsigned();
    assert_eq!(numbers(&check(&path).unwrap()), [1, 2, 3]);
    assert_eq!(signature::look(&Connection::open(&path).unwrap()), Ok(signature::Signed::Nowhere));
    assert_eq!(numbers(&open(&path).unwrap().1.rows), [1, 2, 3]);
    assert_eq!(signature::look(&Connection::open(&path).unwrap()), Ok(signature::Signed::Throughout));
    let mut writing = Writing::open(&path);
    writing.write(4, intent(4)).unwrap();
    drop(writing);
    change(&path, "UPDATE child SET intent = 'intent 7' WHERE seq = 2");
    assert!(matches!(open(&path), Err(JournalError::ChangedRow { table: "child", seq: 2, .. })));
}

#[test]
fn a_broker_that_signs_nothing_can_go_on_with_a_file_and_what_it_wrote_is_signed_after_it() {
    let (_folder, path) = three();
    write_as_before_signatures(&path, 2);
    write_as_before_signatures(&path, 4);
    assert_eq!(numbers(&check(&path).unwrap()), [1, 2, 3, 4]);
    // What it has not written is what it was.
    change(&path, "UPDATE progress SET pid = 1 WHERE seq = 3");
    assert!(matches!(open(&path), Err(JournalError::ChangedRow { table: "progress", seq: 3, .. })));
    change(&path, "UPDATE progress SET pid = 42 WHERE seq = 3");
    assert_eq!(numbers(&open(&path).unwrap().1.rows), [1, 2, 3, 4]);
    change(&path, "UPDATE progress SET text = 'progress 2' WHERE seq = 4");
    assert!(matches!(open(&path), Err(JournalError::ChangedRow { table: "progress", seq: 4, .. })));
}

#[test]
fn a_file_that_cannot_be_signed_for_want_of_room_is_gone_on_with_and_signed_when_there_is_some() {
    let name = "a_file_that_cannot_be_signed_for_want_of_room_is_gone_on_with_and_signed_when_there_is_some";
    if !alone::here(module_path!(), name) {
        return;
    }
    let (_folder, path) = unsigned();
    let signed = || signature::look(&Connection::open(&path).unwrap()).unwrap();
    change(&path, &format!("UPDATE child SET intent = '{}'", "x".repeat(60_000)));
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 64 << 10, hard).unwrap();
    let (store, stored) = open(&path).unwrap();
    assert_eq!((numbers(&stored.rows), signed()), (vec![1, 2, 3], signature::Signed::Nowhere));
    let mut writing = Writing::start(store);
    let refused = writing.write(4, intent(4)).unwrap_err();
    assert!(refused.message.contains("state.db"), "{refused:?}");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    writing.write(5, intent(5)).unwrap();
    assert_eq!(signed(), signature::Signed::Throughout);
    drop(writing);
    assert_eq!(numbers(&open(&path).unwrap().1.rows), [1, 2, 3, 5]);
}
