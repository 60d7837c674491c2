use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use procbroker_core::Pid;
use procbroker_protocol::ExitStatus;
use uuid::Uuid;

use super::*;

/// Holds the ends as a service's owner does.
#[derive(Default)]
struct Owner(Vec<(String, OwnedFd)>);

impl Owner {
    fn open(&mut self) -> FdStore {
        let (store, found) = FdStore::open_at(StoredQueue::default(), |name, end| {
            self.0.push((name.to_owned(), end.try_clone_to_owned()?));
            Ok(())
        });
        assert!(found.processes.is_empty() && found.sockets.is_empty() && store.0.is_some());
        store
    }

    fn hand_back(&self) -> StoredQueue {
        let mut kept = StoredQueue::default();
        for (name, end) in &self.0 {
            assert!(StoredQueue::knows(name));
            kept.take(name, end.try_clone().unwrap());
        }
        kept
    }

    fn reopen(&self) -> (FdStore, BTreeMap<Run, OwnedFd>) {
        let (store, found) = self.reopen_all();
        (store, found.processes)
    }

    fn reopen_all(&self) -> (FdStore, HandedBack) {
        FdStore::open_at(self.hand_back(), |name, _| panic!("{name} was there"))
    }
}

fn run(number: u32) -> Run {
    Run { child: ChildId::from_uuid(Uuid::new_v4()), incarnation: Incarnation(number) }
}

fn start(script: &str) -> (Child, OwnedFd) {
    let child = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let pidfd = pidfd::open(Pid::new(child.id()).unwrap()).unwrap();
    (child, pidfd)
}

fn own() -> OwnedFd {
    pidfd::open(Pid::new(std::process::id()).unwrap()).unwrap()
}

fn contents(store: &FdStore) -> &Contents {
    store.0.as_ref().unwrap()
}

#[test]
fn how_a_process_ended_is_known_though_it_was_reaped_while_no_broker_held_it() {
    if !pidfd::Abilities::probe().exit_status {
        return;
    }
    let mut owner = Owner::default();
    let mut store = owner.open();
    let ends = [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 7", ExitStatus::Code(7)),
        ("kill -s KILL $$", ExitStatus::Signal(procbroker_protocol::Signal::KILL)),
    ];
    let started = ends.map(|(script, status)| {
        let (child, pidfd) = start(&format!("read line; {script}"));
        let run = run(1);
        store.store(run, pidfd.as_fd());
        (child, run, status)
    });
    drop(store);
    let started = started.map(|(mut child, run, status)| {
        drop(child.stdin.take());
        child.wait().unwrap();
        (run, status)
    });
    let (_store, mut found) = owner.reopen();
    for (run, status) in started {
        assert_eq!(pidfd::exit_status(found.remove(&run).unwrap().as_fd()), Ok(status));
    }
    assert!(found.is_empty());
}

#[test]
fn of_two_processes_of_a_child_the_latest_is_found() {
    let mut owner = Owner::default();
    let mut store = owner.open();
    let (mut child, other) = start("read line");
    let main = run(1);
    let cleanup = Run { incarnation: main.incarnation.next(), ..main };
    store.store(main, own().as_fd());
    store.expect(main);
    store.remove(main);
    store.expect(cleanup);
    store.store(cleanup, other.as_fd());
    drop(store);
    // The next broker counts anew.
    for expected in [cleanup, main, main] {
        let (mut store, found) = owner.reopen();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [expected]);
        assert_eq!(pidfd::number(found[&expected].as_fd()), Pid::new(child.id()));
        store.remove(expected);
        store.store(main, other.as_fd());
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_earlier_process_is_not_taken_for_one_that_was_about_to_be_started() {
    let mut owner = Owner::default();
    let mut store = owner.open();
    let main = run(1);
    store.store(main, own().as_fd());
    store.expect(Run { incarnation: main.incarnation.next(), ..main });
    drop(store);
    for _ in 0..2 {
        let (_store, found) = owner.reopen();
        assert!(found.is_empty());
    }
}

#[test]
fn what_is_found_stays_stored_over_any_number_of_brokers() {
    let mut owner = Owner::default();
    let mut store = owner.open();
    let runs: BTreeSet<_> = (1..50).map(run).collect();
    for &run in &runs {
        store.store(run, own().as_fd());
        store.store(run, own().as_fd());
    }
    drop(store);
    for _ in 0..10 {
        let (store, found) = owner.reopen();
        assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), runs);
        assert_eq!(contents(&store).messages, runs.len());
        for end in store.ends().unwrap() {
            assert_eq!(fcntl(end, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
        }
    }
}

#[test]
fn those_that_live_long_stay_while_others_come_and_go() {
    let mut owner = Owner::default();
    let mut store = owner.open();
    let lasting: BTreeSet<_> = (0..20).map(run).collect();
    let process = own();
    for &run in &lasting {
        store.store(run, process.as_fd());
    }
    for number in 0..5_000 {
        let passing = run(number);
        store.store(passing, process.as_fd());
        assert!(contents(&store).wanted.contains_key(&(passing, StoredKind::Process)));
        store.remove(passing);
        assert!(contents(&store).messages <= 3 * lasting.len() + UNWANTED_MAX);
    }
    drop(store);
    let (_store, found) = owner.reopen();
    assert!(lasting.iter().all(|run| found.contains_key(run)));
}

#[test]
fn what_a_broker_left_that_was_killed_while_it_read_is_put_right() {
    let mut owner = Owner::default();
    let mut store = owner.open();
    let [first, second] = [run(1), run(2)];
    store.store(first, own().as_fd());
    store.store(second, own().as_fd());
    let queue = &contents(&store).queue;
    // It had set its mark, and written the first one again, but not taken it away.
    queue.mark_end().unwrap();
    queue.push(StoreKey { run: first, held: StoredKind::Process, age: 0 }, own().as_fd()).unwrap();
    drop(store);
    let (store, found) = owner.reopen();
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), BTreeSet::from([first, second]));
    assert_eq!(contents(&store).messages, 2);
}

#[test]
fn without_room_nothing_fails_and_what_is_released_makes_some() {
    let mut owner = Owner::default();
    let mut store = owner.open();
    store.0.as_mut().unwrap().capacity = 66;
    let runs: Vec<_> = (0..100).map(run).collect();
    for &run in &runs {
        store.store(run, own().as_fd());
    }
    assert_eq!(contents(&store).wanted.len(), 66);
    assert!(contents(&store).complained);
    for &run in &runs {
        store.remove(run);
    }
    let late = run(1);
    store.store(late, own().as_fd());
    assert!(contents(&store).wanted.contains_key(&(late, StoredKind::Process)));
}

#[test]
fn there_is_room_for_as_many_as_are_said_to_fit() {
    let queue = StoreQueue::new().unwrap();
    let (process, one) = (own(), StoreKey { run: run(1), held: StoredKind::Process, age: 0 });
    let capacity = queue.capacity().unwrap();
    assert!(capacity > 2 * UNWANTED_MAX);
    for _ in 0..capacity.min(20_000) {
        queue.push(one, process.as_fd()).unwrap();
    }
    queue.mark_end().unwrap();
}

#[test]
fn a_store_of_which_a_part_is_missing_or_wrong_is_begun_anew() {
    let (stream, other) = UnixStream::pair().unwrap();
    let half = StoredQueue { read: Some(stream.try_clone().unwrap().into()), write: None };
    let wrong = StoredQueue::from_ends(stream.into(), other.into());
    for kept in [half, wrong] {
        let mut handed_over = Vec::new();
        let (mut store, found) = FdStore::open_at(kept, |name, end| {
            handed_over.push((name.to_owned(), end.as_raw_fd()));
            Ok(())
        });
        let names: Vec<_> = handed_over.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [READ_NAME, WRITE_NAME]);
        assert!(found.processes.is_empty());
        store.store(run(1), own().as_fd());
        assert_eq!(contents(&store).messages, 1);
    }
}

#[test]
fn a_store_that_nobody_keeps_is_off() {
    let refuse = |_: &str, _: BorrowedFd<'_>| Err(io::Error::from(io::ErrorKind::ConnectionRefused));
    let (mut store, found) = FdStore::open_at(StoredQueue::default(), refuse);
    let one = run(1);
    store.store(one, own().as_fd());
    store.remove(one);
    assert!(store.ends().is_none() && found.processes.is_empty());
}

#[test]
fn what_is_told_on_a_socket_that_no_broker_has_open_waits_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Owner::default();
    let mut store = owner.open();
    let children = [1, 2, 3].map(|number| (run(number).child, folder.path().join(number.to_string())));
    for (child, path) in &children {
        let socket = UnixDatagram::bind(path).unwrap();
        store.store_socket(*child, socket.as_fd());
        store.store_socket(*child, socket.as_fd());
        // It has a process as well.
        store.store(Run { child: *child, incarnation: Incarnation::FIRST }, own().as_fd());
    }
    assert_eq!(contents(&store).messages, 2 * children.len());
    let [(first, first_path), .., (ended, ended_path)] = &children;
    store.remove_socket(*ended);
    drop(store);
    let teller = UnixDatagram::unbound().unwrap();
    for round in 0..3 {
        teller.send_to(b"READY=1", first_path).unwrap();
        let (store, found) = owner.reopen_all();
        assert_eq!(found.processes.len(), children.len());
        let mut word = [0; 16];
        let socket = UnixDatagram::from(found.sockets[first].try_clone().unwrap());
        let length = socket.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1", "round {round}");
        drop((store, found));
    }
    // What is not wanted goes when there is need of room, and with it all who would hear.
    let (mut store, found) = owner.reopen_all();
    drop(found);
    for (child, _) in &children {
        store.remove_socket(*child);
    }
    for number in 0..1_000 {
        let passing = run(number);
        store.store(passing, own().as_fd());
        store.remove(passing);
    }
    let refused = teller.send_to(b"READY=1", ended_path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}
