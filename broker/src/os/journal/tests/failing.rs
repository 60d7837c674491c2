use std::io::Write;
use std::sync::Mutex;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use rusqlite::wal::CheckpointMode;

use super::*;
use crate::os::host::own_folder::OwnFolder;
use crate::os::process::alone;

/// Lets the file have so many pages more: what SQLite does then is what it does on a full disk.
fn leave_room(store: &Store, pages: i64) {
    let count: i64 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let set = |max: i64| {
        store.connection.pragma_update_and_check(None, "max_page_count", max, |row| row.get::<_, i64>(0))
    };
    assert_eq!(set(count + pages).unwrap(), count + pages);
}

/// Something that takes a page.
fn large() -> Change {
    Change::Intent("x".repeat(3_500))
}

#[test]
fn on_a_full_disk_creates_are_refused_and_forgotten_and_all_else_goes_on() {
    let (_folder, path) = scratch();
    let (store, _) = open(&path).unwrap();
    leave_room(&store, 8);
    let mut writing = Writing::start(store);
    let mut written: Vec<u128> = Vec::new();
    let failure = (1..).find_map(|number| match writing.write(number, large()) {
        Ok(()) => {
            written.push(number);
            None
        }
        Err(failure) => Some(failure),
    });
    let message = failure.unwrap().message;
    let is_plain = message.contains(&format!("cannot write {}", path.display()))
        && message.contains("disk is full")
        && message.contains("make room");
    assert!(is_plain, "{message}");
    assert!(written.len() > 2, "{written:?}");

    writing.write(1, progress("on")).unwrap();
    writing.write(1, Change::Remove).unwrap();
    writing.write(2, Change::Remove).unwrap();
    writing.write(1_000, large()).unwrap();
    written.push(1_000);
    drop(writing);
    let found: Vec<_> = check(&path).unwrap().into_iter().map(|row| row.child).collect();
    let expected: Vec<_> = written.into_iter().skip(2).map(child).collect();
    assert_eq!(found, expected);
}

#[test]
fn one_intent_that_finds_no_room_does_not_hold_up_what_came_with_it() {
    let (_folder, path) = scratch();
    let (store, _) = open(&path).unwrap();
    leave_room(&store, 1);
    let mut writer = writer::Writer::new(&store.connection, store.index, store.next_seq, None);
    let mut batch = pending::Batch::new();
    let entry =
        |number, change, receipt| Entry { child: child(number), change, safety: Safety::Process, receipt };
    pending::add(&mut batch, entry(1, intent(1), None));
    writer.write(&batch, Position::default()).unwrap();
    batch.clear();

    pending::add(&mut batch, entry(1, progress("on"), Some(run(1))));
    pending::add(&mut batch, entry(2, Change::Intent("x".repeat(30_000)), Some(run(2))));
    writer.write(&batch, Position::default()).unwrap_err();
    let refused = pending::refuse(&mut batch);
    assert_eq!((refused.receipts, refused.intents), (vec![run(1), run(2)], 1));
    writer.write(&batch, Position::default()).unwrap();
    drop(writer);
    assert_eq!(check(&path).unwrap(), [row(1, Some("on"))]);
}

/// SQLite writes a transaction to its log before it syncs that: a failed sync leaves it there as if it were whole.
#[test]
fn what_a_failed_write_may_have_left_in_the_log_is_overwritten() {
    let (_folder, path) = scratch();
    let (store, _) = open(&path).unwrap();
    leave_room(&store, 0);
    let mut writer = writer::Writer::new(&store.connection, store.index, store.next_seq, None);
    let pages = || store.connection.wal_checkpoint_v2(Some(c"main"), CheckpointMode::NOOP).unwrap().0;
    let mut batch = pending::Batch::new();
    writer.write(&batch, Position::default()).unwrap();
    assert_eq!(pages(), 0, "nothing to write, nothing written");
    let change = Change::Intent("x".repeat(30_000));
    pending::add(&mut batch, Entry { child: child(1), change, safety: Safety::Power, receipt: Some(run(1)) });
    writer.write(&batch, Position::default()).unwrap_err();
    pending::refuse(&mut batch);
    assert!(batch.is_empty() && pages() == 0);
    writer.write(&batch, Position::default()).unwrap();
    assert_eq!(pages(), 1);
    writer.write(&batch, Position::default()).unwrap();
    assert_eq!(pages(), 1);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_of_the_start() {
    let (_folder, path) = scratch();
    for (pragma, said) in [("query_only", "readonly"), ("max_page_count", "full")] {
        let (store, _) = open(&path).unwrap();
        match pragma {
            "query_only" => store.connection.pragma_update(None, pragma, true).unwrap(),
            _ => leave_room(&store, 0),
        }
        let long = Host { cgroup_folder: Some("x".repeat(9_000).into()), ..host() };
        let error = store.start(&long, Arc::new(|_| ())).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, JournalError::Database { .. }), "{error:?}");
        assert!(message.contains("state.db") && message.contains(said), "{message}");
    }
    assert_eq!(open(&path).unwrap().1.host, None);
}

/// What a log line is written to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

/// Nothing may grow any more, or everything may: a limit on the size of files, which is that of the process.
fn allow_writes(allow: bool) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, if allow { hard } else { 1 }, hard).unwrap();
}

#[test]
fn what_the_disk_refuses_is_told_at_once_and_written_when_it_can_be() {
    if !alone::here(module_path!(), "what_the_disk_refuses_is_told_at_once_and_written_when_it_can_be") {
        return;
    }
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    // The thread that writes inherits the mask: EFBIG is enough.
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    for number in 1..=2 {
        writing.write(number, intent(number)).unwrap();
    }
    allow_writes(false);
    for result in
        [writing.write(3, intent(3)), writing.write(1, progress("on")), writing.write(2, Change::Remove)]
    {
        let message = result.unwrap_err().message;
        assert!(message.contains("cannot write") && message.contains("disk I/O error"), "{message}");
    }
    writing.submit(1, progress("still on"));
    let awaited = writing.journal.await_attempt();
    while awaited.is_some_and(|awaited| writing.journal.attempted() < awaited) {
        assert!(writing.attempts.recv_timeout(PATIENCE).unwrap() >= awaited.unwrap());
    }
    writing.submit(1, progress("on"));
    let error = writing.journal.flush(PATIENCE).unwrap_err();
    assert!(matches!(error, JournalError::Unwritten { .. }), "{error:?}");
    // A create that nobody waits for is no answer to anybody: it is kept.
    writing.submit(4, intent(4));
    assert_eq!((lines.count("ERROR"), lines.count("INFO")), (1, 0));

    allow_writes(true);
    writing.journal.flush(PATIENCE).unwrap();
    assert_eq!(check(&path).unwrap(), [row(1, Some("on")), row(4, None)]);
    writing.write(5, intent(5)).unwrap();
    assert_eq!((lines.count("ERROR"), lines.count("written again")), (1, 1));
    allow_writes(false);
    writing.submit(6, intent(6));
    drop(writing);
    assert_eq!(lines.count("are lost"), 1);
    allow_writes(true);
    assert_eq!(check(&path).unwrap(), [row(1, Some("on")), row(4, None), row(5, None)]);
}

const TMPFS: &str = "exec unshare -m sh -c 'mount -t tmpfs -o size=1m tmpfs \"$PROCBROKER_TEST_DISK\" && exec \"$@\"' sh \"$@\"";

/// Takes all the room that there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let error =
        iter::repeat_with(|| file.write_all(&[b'x'; 512])).find_map(std::result::Result::err).unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_log_that_takes_all_the_room_is_emptied_before_a_create_is_refused() {
    let test = "a_log_that_takes_all_the_room_is_emptied_before_a_create_is_refused";
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    if !alone::here_by(module_path!(), test, TMPFS, |command| {
        command.env("PROCBROKER_TEST_DISK", folder.path());
    }) {
        return;
    }
    let disk = PathBuf::from(std::env::var_os("PROCBROKER_TEST_DISK").unwrap());
    let path = disk.join("state.db");
    let mut writing = Writing::open(&path);
    for number in 1..=4 {
        writing.write(number, large()).unwrap();
    }
    // Closed in order, the file has the room that they need.
    drop(writing);
    let mut writing = Writing::open(&path);
    // Several times what the disk has, each time to the end of the log.
    for number in 1..=400 {
        writing.write(1 + number % 4, large()).unwrap();
    }
    assert_eq!(check(&path).unwrap().len(), 4);
    fill(&disk.join("filler"));
    let refused = (5..).find_map(|number| writing.write(number, large()).err()).unwrap();
    assert!(refused.message.contains("make room"), "{refused:?}");
    writing.write(1, progress("on")).unwrap();
}

/// Nothing may grow beyond this: there is room for SQLite's shared memory.
const SMALL_BYTES: u64 = 64 << 10;

fn open_both(path: &Path) -> (Store, Stored) {
    let runtime = OwnFolder::open(path.parent().unwrap()).unwrap();
    store::open(path, &runtime).unwrap()
}

/// What a broker leaves that is killed while its log of intents has something that its state file has not.
fn killed() -> (TempDir, PathBuf) {
    let (folder, path) = scratch();
    let mut writing = Writing::start(open_both(&path).0.waiting_for(PATIENCE));
    for number in 1..=3 {
        writing.submit(number, Change::Intent("x".repeat(60_000)));
    }
    writing.journal.flush(PATIENCE).unwrap();
    let lock = rusqlite::Connection::open(&path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    writing.submit(4, intent(4));
    writing.submit(1, progress("on"));
    writing.submit(2, Change::Remove);
    writing.submit(4, progress("on"));
    writing.submit(5, progress("of none"));
    let (killed, copy) = scratch();
    for name in ["state.db", "state.db-wal", "intents"] {
        fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    drop(lock);
    (killed, copy)
}

fn seen(rows: &[Row]) -> Vec<(ChildId, Option<String>)> {
    let text = |row: &Row| row.progress.as_ref().map(|progress| progress.text.clone());
    rows.iter().map(|row| (row.child, text(row))).collect()
}

fn fill_up() {
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, SMALL_BYTES, hard).unwrap();
}

#[test]
fn what_is_in_the_log_of_intents_needs_no_room_in_the_file_to_be_acted_on() {
    if !alone::here(module_path!(), "what_is_in_the_log_of_intents_needs_no_room_in_the_file_to_be_acted_on")
    {
        return;
    }
    let (folder, path) = killed();
    let on = Some("on".to_owned());
    let expected = [(child(1), on.clone()), (child(3), None), (child(4), on)];
    fill_up();
    let log = fs::read(folder.path().join("intents")).unwrap();
    // Each finds what the one before it found, and leaves it as it was.
    for _ in 0..2 {
        let (store, stored) = open_both(&path);
        assert_eq!(seen(&stored.rows), expected);
        let journal = store.start(&host(), Arc::new(|_| ())).unwrap();
        assert!(matches!(journal.flush(PATIENCE), Err(JournalError::Unwritten { .. })));
        drop(journal);
        assert_eq!(fs::read(folder.path().join("intents")).unwrap(), log);
    }
    let mut writing = Writing::start(open_both(&path).0);
    allow_writes(true);
    writing.submit(6, intent(6));
    writing.journal.flush(PATIENCE).unwrap();
    let found = seen(&check(&path).unwrap());
    assert_eq!(found[..3], expected);
    assert_eq!(found[3..], [(child(6), None)]);
    drop(writing);
    assert_eq!(seen(&open_both(&path).1.rows), found);
}

#[test]
fn a_start_that_finds_no_room_to_say_where_it_is_goes_on_and_records_nothing_before_it_has_said_so() {
    let name =
        "a_start_that_finds_no_room_to_say_where_it_is_goes_on_and_records_nothing_before_it_has_said_so";
    if !alone::here(module_path!(), name) {
        return;
    }
    let (folder, path) = killed();
    fill_up();
    let log = fs::read(folder.path().join("intents")).unwrap();
    let elsewhere = Host { cgroup_folder: Some("/elsewhere".into()), ..host() };
    let mut writing = Writing::start_at(open_both(&path).0, &elsewhere);
    let refused = writing.write(6, intent(6)).unwrap_err();
    assert!(refused.message.contains("state.db"), "{refused:?}");
    assert_eq!(fs::read(folder.path().join("intents")).unwrap(), log);
    writing.submit(1, progress("further"));
    allow_writes(true);
    writing.journal.flush(PATIENCE).unwrap();
    // It is killed now: what was in the log is not written once more.
    let (copied, copy) = scratch();
    for name in ["state.db", "state.db-wal", "intents"] {
        fs::copy(folder.path().join(name), copied.path().join(name)).unwrap();
    }
    let further = Some("further".to_owned());
    let expected = [(child(1), further), (child(3), None), (child(4), Some("on".to_owned()))];
    let stored = open_both(&copy).1;
    assert_eq!((seen(&stored.rows), stored.host), (expected.to_vec(), Some(elsewhere)));
}
