//! State that somebody else has made, or can change: it is refused, whatever is in it, and nothing of it is acted on.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use serde_json::json;

use super::stopped;
use crate::harness::children::{willing, with};
use crate::harness::{STRANGER, Setup, TestBroker, is_root};

/// The next broker does not start, and says in one line what it does not trust, and the way out.
fn refuses(broker: &TestBroker, words: &[&str]) {
    let began = broker.log().len();
    let ended = broker.setup().refuses();
    assert_eq!(ended.code(), Some(1));
    let said = &ended.log[began..];
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in ["cannot start", "not to be trusted"].into_iter().chain(words.iter().copied()) {
        assert!(said.contains(word), "no {word} in {said}");
    }
}

/// A record on which a cleanup has to be run that leaves a file.
fn with_a_cleanup_to_run(mark: &Path) -> TestBroker {
    let mut broker = TestBroker::start();
    let cleanup = json!({"cleanup": {"command": ["touch", mark]}, "name": "victim"});
    let child = broker.json().create(with(willing(), &cleanup));
    broker.crash();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child["pid"].as_i64().unwrap()).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    broker
}

#[test]
fn a_record_that_another_user_left_in_an_open_folder_is_not_acted_on() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mark = scratch.path().join("cleaned");
    let mut broker = with_a_cleanup_to_run(&mark);
    let state = broker.state_dir();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let path = state.join(name);
        chown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        refuses(&broker, &[name, "belongs to another user", "--state-dir"]);
        let mode = fs::metadata(&state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777, "nothing is changed");
        chown(&path, Some(0), Some(0)).unwrap();
    }
    assert!(!mark.exists());
    // The broker's own is acted on.
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    broker.start_again();
    let ended = broker.json().ok("wait", json!({"target": "victim"}))["child"].take();
    assert_eq!(ended["cleanup"]["ok"], true);
    assert!(mark.exists());
    broker.stop();
}

#[test]
fn links_and_second_names_in_the_state_folder_are_refused() {
    let broker = stopped();
    let state = broker.state_dir();
    let elsewhere = broker.path("elsewhere");
    let record = state.join("state.db");
    fs::hard_link(&record, &elsewhere).unwrap();
    refuses(&broker, &["state.db", "hard link"]);
    fs::remove_file(&record).unwrap();
    symlink(&elsewhere, &record).unwrap();
    refuses(&broker, &["state.db", "is a link"]);
    fs::remove_file(&record).unwrap();
    fs::rename(&elsewhere, &record).unwrap();
    fs::set_permissions(&record, Permissions::from_mode(0o660)).unwrap();
    refuses(&broker, &["state.db", "can be written to by others"]);
    fs::set_permissions(&record, Permissions::from_mode(0o600)).unwrap();

    let precious = broker.path("precious");
    fs::write(&precious, "precious").unwrap();
    for name in ["lock", "runtime", "state.db-wal", "state.db.new"] {
        symlink(&precious, state.join(name)).unwrap();
        refuses(&broker, &[name, "is a link"]);
        fs::remove_file(state.join(name)).unwrap();
        fs::hard_link(&precious, state.join(name)).unwrap();
        refuses(&broker, &[name, "hard link"]);
        fs::remove_file(state.join(name)).unwrap();
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    let logs = state.join("logs");
    fs::rename(&logs, broker.path("logs")).unwrap();
    symlink(broker.path("logs"), &logs).unwrap();
    refuses(&broker, &["logs", "is a link"]);
}

#[test]
fn an_output_that_is_not_the_brokers_own_is_refused() {
    let broker = stopped();
    let precious = broker.path("precious");
    fs::write(&precious, "precious").unwrap();
    for name in ["00000000-0000-7000-8000-000000000007.out", "anything"] {
        let planted = broker.state_dir().join("logs").join(name);
        symlink(&precious, &planted).unwrap();
        refuses(&broker, &[name, "is a link", "--state-dir"]);
        fs::remove_file(&planted).unwrap();
        fs::hard_link(&precious, &planted).unwrap();
        refuses(&broker, &[name, "hard link", "--state-dir"]);
        fs::remove_file(&planted).unwrap();
        fs::write(&planted, "").unwrap();
        fs::set_permissions(&planted, Permissions::from_mode(0o602)).unwrap();
        refuses(&broker, &[name, "can be written to by others", "--state-dir"]);
        if is_root() {
            fs::set_permissions(&planted, Permissions::from_mode(0o600)).unwrap();
            chown(&planted, Some(STRANGER), None).unwrap();
            refuses(&broker, &[name, "belongs to another user", "--state-dir"]);
        }
        fs::remove_file(&planted).unwrap();
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn a_state_folder_that_others_could_write_to_is_refused_and_left_as_it_is() {
    let mut broker = stopped();
    let state = broker.state_dir();
    fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    refuses(&broker, &[state.to_str().unwrap(), "0777", "--state-dir"]);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o777);
    fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
    broker.start_again();
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    broker.stop();
}

#[test]
fn an_upgrade_beside_an_output_that_was_planted_is_refused_and_changes_nothing() {
    let broker = TestBroker::start();
    let child = broker.json().create(json!({"command": ["echo", "one"], "name": "one"}));
    broker.json().ok("wait", json!({"target": "one"}));
    // The end of a child is told before its output is in its file; only `logs` waits for that.
    assert_eq!(broker.json().ok("logs", json!({"target": "one"}))["text"], "one\n");
    let instance = broker.status()["instance"].take();
    let output = broker.state_dir().join("logs").join(format!("{}.out", child["id"].as_str().unwrap()));
    fs::hard_link(&output, broker.path("second")).unwrap();
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("hard link") && said.err.contains(output.to_str().unwrap()), "{}", said.err);
    assert_eq!(broker.status()["instance"], instance);
    fs::remove_file(broker.path("second")).unwrap();
    assert_eq!(broker.run(&["upgrade"]).status, 0);
    assert_eq!(broker.json().ok("logs", json!({"target": "one"}))["text"], "one\n");
}

#[test]
fn a_lock_beside_the_socket_that_is_another_file_is_refused_and_kept() {
    let broker = stopped();
    let precious = broker.path("precious");
    fs::write(&precious, "precious").unwrap();
    let lock = broker.socket().with_extension("sock.lock");
    fs::hard_link(&precious, &lock).unwrap();
    refuses(&broker, &["sock.lock", "hard link"]);
    fs::remove_file(&lock).unwrap();
    if is_root() {
        fs::write(&lock, "").unwrap();
        chown(&lock, Some(STRANGER), None).unwrap();
        refuses(&broker, &["sock.lock", "belongs to another user"]);
        fs::remove_file(&lock).unwrap();
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn the_log_of_intents_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let mut broker = Setup::new().start();
    broker.json().create(with(willing(), &json!({"stdout": "null"})));
    broker.crash();
    let log = broker.socket().with_extension("sock.d").join("intents");
    chown(&log, Some(STRANGER), None).unwrap();
    refuses(&broker, &["intents", "belongs to another user"]);
    chown(&log, Some(0), None).unwrap();
    broker.start_again();
    assert_eq!(broker.json().ok("list", json!({}))["children"].as_array().unwrap().len(), 1);
    broker.stop();
}

#[test]
fn a_damaged_head_of_the_write_ahead_log_is_named_and_no_silent_fresh_start() {
    let mut broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "one"})));
    broker.recorded();
    broker.crash();
    let log = broker.state_dir().join("state.db-wal");
    let whole = fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[..512].fill(0);
    fs::write(&log, damaged).unwrap();
    super::refuses(&broker, &["damaged", "state.db-wal", "move it"]);
    fs::write(&log, &whole).unwrap();
    broker.start_again();
    assert_eq!(broker.json().ok("get", json!({"target": "one"}))["child"]["state"], "running");
    broker.stop();
}

#[test]
fn a_damaged_frame_of_the_write_ahead_log_is_named_and_neither_the_log_of_intents_nor_another_state_file() {
    let mut broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "one"})));
    broker.recorded();
    broker.crash();
    let log = broker.state_dir().join("state.db-wal");
    let whole = fs::read(&log).unwrap();
    // With the first frame, all is gone that the file has.
    for place in [9, 500] {
        let mut damaged = whole.clone();
        damaged[32 + place] ^= 0x55;
        fs::write(&log, damaged).unwrap();
        super::refuses(&broker, &["damaged", "frame 1 of", "state.db-wal", "put back a good copy"]);
    }
    fs::write(&log, whole).unwrap();
    broker.start_again();
    assert_eq!(broker.json().ok("get", json!({"target": "one"}))["child"]["state"], "running");
    broker.stop();
}
