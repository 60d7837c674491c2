use super::*;
use crate::os::journal::check::check_with;
use crate::os::journal::schema::{Migration, STEPS};
use crate::os::journal::store::{Former, Log, make_safe, open_with};

/// A file with so many children in it, closed in order.
fn file_with(children: u128) -> (TempDir, PathBuf) {
    let (folder, path) = scratch();
    let mut writing = Writing::open(&path);
    for number in 1..=children {
        writing.submit(number, intent(number));
        writing.submit(number, progress(&"on ".repeat(100)));
    }
    drop(writing);
    (folder, path)
}

/// Nothing may be started with this file, and it stays as it is.
fn refused(path: &Path) -> JournalError {
    let before = fs::read(path).ok();
    let error = open(path).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(check(path).is_err());
    assert_eq!(before, fs::read(path).ok());
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names.filter(|name| !name.to_str().unwrap().starts_with("state.db")).collect();
    assert!(strange.is_empty(), "{strange:?}");
    error
}

fn change(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// Changes rows as a broker would that writes them so.
fn change_and_sign(path: &Path, sql: &str) {
    change(path, sql);
    let connection = rusqlite::Connection::open(path).unwrap();
    signature::teach(&connection).unwrap();
    let unsign = "UPDATE child SET signature = NULL; UPDATE progress SET signature = NULL; DELETE FROM host";
    connection.execute_batch(unsign).unwrap();
    signature::complete(&connection).unwrap();
}

#[test]
fn a_damaged_file_is_refused_and_named_with_the_way_out() {
    let (_folder, path) = file_with(200);
    let whole = fs::read(&path).unwrap();
    let mut broken = whole.clone();
    // The header of the second page, and of each that follows.
    broken.chunks_mut(4_096).skip(1).for_each(|page| page[..8].fill(0xff));
    let header = [&[0; 100], &whole[100..]].concat();
    let cut = whole[..whole.len() / 2].to_vec();
    let pages = whole[..4_096].to_vec();
    let text = b"{\"children\": []}\n".repeat(100);
    for content in [broken, header, cut, pages, text, Vec::new()] {
        fs::write(&path, content).unwrap();
        let error = refused(&path);
        assert!(matches!(error, JournalError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("cleanups do not run"), "{error}");
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(open(&path).unwrap().1.rows.len(), 200);
}

#[test]
fn a_flipped_byte_is_noticed_or_costs_no_child() {
    let (_folder, path) = file_with(30);
    let whole = fs::read(&path).unwrap();
    let mut noticed = 0;
    for place in (0..whole.len()).step_by(41) {
        let mut flipped = whole.clone();
        flipped[place] ^= 0xff;
        fs::write(&path, flipped).unwrap();
        match check(&path) {
            Ok(rows) => assert_eq!(rows.len(), 30, "at byte {place}"),
            Err(_) => noticed += 1,
        }
        for suffix in ["-wal", "-shm"] {
            let _absent = fs::remove_file(beside(&path, suffix));
        }
    }
    assert!(noticed > 10, "{noticed}");
}

#[test]
fn a_row_that_cannot_have_been_written_is_damage() {
    for sql in [
        "UPDATE progress SET pid = 4 WHERE seq = 2",
        "UPDATE progress SET pid = 0, inode = 1, boot = zeroblob(16) WHERE seq = 2",
        "UPDATE progress SET pid = -1, inode = 1, boot = zeroblob(16) WHERE seq = 2",
        "UPDATE child SET id = x'00' WHERE seq = 2",
        "UPDATE child SET id = (SELECT id FROM child WHERE seq = 1) WHERE seq = 2",
        "UPDATE child SET intent = CAST(x'ff' AS TEXT) WHERE seq = 2",
    ] {
        let (_folder, path) = file_with(3);
        change_and_sign(&path, sql);
        let error = refused(&path);
        assert!(
            matches!(&error, JournalError::Damaged { finding, .. } if finding.contains("row 2")),
            "{error:?}"
        );
    }
}

#[test]
fn a_file_of_a_later_version_is_left_to_it() {
    let (_folder, path) = file_with(1);
    change(&path, "PRAGMA user_version = 12");
    let error = refused(&path);
    assert!(matches!(error, JournalError::Newer { version: 12, .. }), "{error:?}");
    assert!(error.to_string().contains("use the version"), "{error}");
    change(&path, "PRAGMA user_version = -1");
    assert!(matches!(refused(&path), JournalError::Damaged { .. }));
}

#[test]
fn a_file_of_another_program_is_left_to_it() {
    for sql in ["PRAGMA application_id = 0x0f055112; CREATE TABLE blob (x)", "CREATE TABLE song (title)"] {
        let (_folder, path) = scratch();
        change(&path, sql);
        let error = refused(&path);
        assert!(matches!(error, JournalError::Foreign { .. }), "{error:?}");
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}

#[test]
fn a_missing_file_is_not_made_while_its_log_is_there() {
    let (_folder, path) = file_with(1);
    let log = beside(&path, "-wal");
    fs::rename(&path, &log).unwrap();
    let error = refused(&path);
    assert!(matches!(error, JournalError::Missing { .. }), "{error:?}");
    fs::remove_file(&log).unwrap();
    assert_eq!(open(&path).unwrap().1.rows, []);
}

#[test]
fn a_file_that_cannot_be_opened_or_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("missing/state.db")] {
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    let path = folder.path().join("state.db");
    assert!(matches!(check(&path), Err(JournalError::Database { .. })));
    assert!(!path.exists(), "a check makes nothing");
    // What a crash left of an earlier attempt is no hindrance.
    fs::write(beside(&path, ".new"), "half").unwrap();
    assert_eq!(open(&path).unwrap().1.rows, []);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

const FIRST: Migration = STEPS[0];
const SECOND: Migration = "ALTER TABLE child ADD COLUMN note TEXT NOT NULL DEFAULT 'none'";
const BROKEN: Migration = "CREATE TABLE extra (x); UPDATE nothing SET x = 1";

#[test]
fn an_older_file_is_brought_up_to_this_version() {
    let (_folder, path) = file_with(3);
    let rows = check_with(&path, &[FIRST, SECOND]).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(check(&path).unwrap(), rows, "a check changes nothing");
    let (store, stored) = open_with(&path, &[FIRST, SECOND], Former::Unknown, None).unwrap();
    assert_eq!(stored.rows, rows);
    let note: String =
        store.connection.query_row("SELECT max(note) FROM child", [], |row| row.get(0)).unwrap();
    assert_eq!(note, "none");
    drop(store);
    assert!(matches!(open(&path), Err(JournalError::Newer { version: 2, known: 1, .. })));
    assert_eq!(open_with(&path, &[FIRST, SECOND], Former::Unknown, None).unwrap().1.rows, rows);
}

#[test]
fn a_step_that_fails_leaves_the_file_as_it_was() {
    let (_folder, path) = file_with(3);
    for error in [
        check_with(&path, &[FIRST, SECOND, BROKEN]).unwrap_err(),
        open_with(&path, &[FIRST, SECOND, BROKEN], Former::Unknown, None).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, JournalError::Migration { from: 1, to: 3, .. }), "{error:?}");
    }
    let (store, stored) = open(&path).unwrap();
    assert_eq!(stored.rows.len(), 3);
    let count = "SELECT count(*) FROM sqlite_schema WHERE name = 'extra' OR sql LIKE '%note%'";
    assert_eq!(store.connection.query_row(count, [], |row| row.get(0)), Ok(0));
    drop(store);
    let folder = path.parent().unwrap();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "no copy is left");
}

/// The files as a broker leaves them that is killed now, in a folder of their own.
fn as_killed(path: &Path) -> (TempDir, PathBuf) {
    let (folder, copy) = scratch();
    for suffix in ["", "-wal"] {
        fs::copy(beside(path, suffix), beside(&copy, suffix)).unwrap();
    }
    (folder, copy)
}

#[test]
fn a_log_is_taken_for_unsafe_unless_the_file_is_new_or_was_closed_in_order() {
    let (_folder, path) = scratch();
    let (store, _) = open(&path).unwrap();
    assert_eq!(store.log, Log::New);
    let mut writing = Writing::start(store);
    writing.write(1, intent(1)).unwrap();
    let (_copies, killed) = as_killed(&path);
    drop(writing);
    assert_eq!(open(&path).unwrap().0.log, Log::New);
    let (store, stored) = open(&killed).unwrap();
    assert_eq!((store.log, stored.rows), (Log::Left, vec![row(1, None)]));
}

#[test]
fn what_cannot_be_made_safe_against_a_loss_of_power_is_not_acted_on() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    writing.write(1, intent(1)).unwrap();
    let (_copies, killed) = as_killed(&path);
    let file = fs::File::open(&killed).unwrap();
    make_safe(&killed, &file).unwrap();
    fs::remove_file(beside(&killed, "-wal")).unwrap();
    let error = make_safe(&killed, &file).unwrap_err();
    assert!(matches!(&error, JournalError::File { attempt: "sync", .. }), "{error:?}");
    assert!(error.to_string().contains("state.db-wal"), "{error}");
}

#[test]
fn a_log_of_sqlite_with_a_damaged_head_is_no_silent_fresh_start() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    for number in 1..=20 {
        writing.write(number, intent(number)).unwrap();
    }
    let (_copies, killed) = as_killed(&path);
    let log = beside(&killed, "-wal");
    let whole = fs::read(&log).unwrap();
    for damage in [0..512, 0..4, 3..4, 16..17, 24..32] {
        let mut damaged = whole.clone();
        damaged[damage].iter_mut().for_each(|byte| *byte = u8::from(*byte == 0));
        fs::write(&log, damaged).unwrap();
        let error = open(&killed).unwrap_err();
        assert!(
            matches!(&error, JournalError::Damaged { finding, .. } if finding.contains("-wal")),
            "{error}"
        );
    }
    for length in [1, 31] {
        fs::write(&log, &whole[..length]).unwrap();
        assert!(matches!(open(&killed), Err(JournalError::Damaged { .. })), "{length} bytes");
    }
    fs::write(&log, &whole).unwrap();
    assert_eq!(open(&killed).unwrap().1.rows.len(), 20);
}

#[test]
fn a_frame_that_is_damaged_is_told_from_one_that_is_left_of_an_earlier_round() {
    let (_folder, path) = scratch();
    let log = beside(&path, "-wal");
    let mut writing = Writing::open(&path);
    let frames = || usize::try_from(fs::metadata(&log).unwrap().len()).unwrap() / (24 + 4_096);
    let mut write = |upto: u128| {
        for number in 1..=upto {
            writing.write(number, Change::Intent("x".repeat(3_000))).unwrap();
        }
    };
    write(20);
    wal::check_frames(&path).unwrap();
    let (whole, count) = (fs::read(&log).unwrap(), frames());
    for (frame, place) in [(1, 0), (1, 9), (3, 4), (3, 20), (4, 23), (5, 4_000), (count, 24)] {
        let mut damaged = whole.clone();
        damaged[32 + (frame - 1) * (24 + 4_096) + place] ^= 0x10;
        fs::write(&log, damaged).unwrap();
        let said = wal::check_frames(&path).unwrap_err().to_string();
        assert!(said.contains(&format!("frame {frame} of")) && said.contains("state.db-wal"), "{said}");
    }
    fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    assert!(wal::check_frames(&path).is_err(), "a frame that was cut");
    fs::write(&log, &whole).unwrap();
    // The next round begins at the start of the log, and leaves the rest of this one there.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    write(1);
    assert_eq!(frames(), count);
    wal::check_frames(&path).unwrap();
}

/// Whether this process has a lock on the file that others can see. What `/proc/locks` shows of a busy machine is not of one
/// moment, so that each descriptor is asked (`proc_pid_fdinfo(5)`).
fn is_locked(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap();
    fs::read_dir("/proc/self/fd").unwrap().flatten().any(|entry| {
        let is_it = fs::read_link(entry.path()).is_ok_and(|target| target == path);
        let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
        is_it && fs::read_to_string(info).unwrap_or_default().lines().any(|line| line.starts_with("lock:"))
    })
}

/// Without the lock, another process that looks at the file and closes it would take the log for a left-over.
#[test]
fn a_file_is_locked_against_others_for_as_long_as_it_is_written_to() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    writing.write(1, intent(1)).unwrap();
    assert!(is_locked(&path), "a new file");
    let (_copies, killed) = as_killed(&path);
    drop(writing);
    assert!(!is_locked(&path));
    for path in [path, killed] {
        let mut writing = Writing::open(&path);
        writing.write(2, intent(2)).unwrap();
        assert!(is_locked(&path), "a file that was there");
    }
}
