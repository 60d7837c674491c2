//! The record of the children itself: files that cannot be used, and disks that cannot be written to.

mod disk;
mod intents;
mod planted;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use nix::unistd::geteuid;
use serde_json::json;

use crate::harness::children::{willing, with};
use crate::harness::{Record, STRANGER, Setup, TestBroker, is_root};

/// A broker that has stopped in order, with a child that has ended on record.
fn stopped() -> TestBroker {
    let mut broker = TestBroker::start();
    broker.json().create(willing());
    broker.stop();
    broker
}

/// The next broker does not start, says why in one line that names the file and has these words in it, and changes
/// nothing.
fn refuses(broker: &TestBroker, words: &[&str]) {
    let path = broker.state_dir().join("state.db");
    let before = fs::read(&path).ok();
    let began = broker.log().len();
    let ended = broker.setup().refuses();
    assert_eq!(ended.code(), Some(1), "{:?}", ended.status);
    let said = &ended.log[began..];
    assert_eq!(said.lines().count(), 1, "{said}");
    let file = path.display().to_string();
    for word in [&file, "cannot start"].into_iter().chain(words.iter().copied()) {
        assert!(said.contains(word), "no {word} in {said}");
    }
    assert!(fs::read(&path).ok() == before, "the file was changed");
    assert!(!broker.socket().exists());
}

#[test]
fn a_damaged_record_is_named_and_left_as_it_is() {
    let broker = stopped();
    let path = broker.state_dir().join("state.db");
    let good = fs::read(&path).unwrap();
    let mut torn = good.clone();
    torn.iter_mut().skip(1000).step_by(7).for_each(|byte| *byte ^= 0x55);
    for damaged in [torn.as_slice(), &good[..good.len() / 2], b"these are not the records\n", b""] {
        fs::write(&path, damaged).unwrap();
        refuses(&broker, &["damaged", "move it", "cleanups do not run"]);
    }
    // With the good copy that the message asks for it starts.
    fs::write(&path, good).unwrap();
    let mut broker = broker;
    broker.start_again();
    assert_eq!(broker.json().ok("list", json!({"all": true}))["children"].as_array().unwrap().len(), 1);
}

#[test]
fn a_record_without_its_content_is_named_and_left_as_it_is() {
    let broker = stopped();
    let record = Record::of(&broker);
    record.sql("UPDATE child SET intent = '{}'");
    record.sign();
    refuses(&broker, &["makes no sense", "move the file away"]);
}

#[test]
fn a_row_that_was_changed_behind_the_brokers_back_is_named_and_its_command_not_run() {
    let mut broker = TestBroker::start();
    let (good, bad) = (broker.path("good"), broker.path("evil"));
    let cleanup = json!({"name": "one", "cleanup": {"command": ["touch", good]}});
    let child = broker.json().create(with(willing(), &cleanup));
    broker.recorded();
    broker.crash();
    let record = Record::of(&broker);
    let changed = |from: &Path, to: &Path| {
        let (from, to) = (from.display(), to.display());
        record.sql(&format!("UPDATE child SET intent = replace(intent, '{from}', '{to}') RETURNING seq"))
    };
    let seq = changed(&good, &bad)[0][0].clone();
    let row = format!("row {seq} of its table child");
    refuses(
        &broker,
        &[&row, "not what was written", "put back a good copy", "DELETE FROM child", "cleanups do not run"],
    );
    changed(&bad, &good);
    broker.start_again();
    let destroyed = broker.json().ok("destroy", json!({"target": "one"}))["children"][0].take();
    assert_eq!((&destroyed["id"], &destroyed["cleanup"]["ok"]), (&child["id"], &json!(true)));
    assert!(good.exists() && !bad.exists());
    broker.stop();
}

#[test]
fn an_upgrade_beside_a_row_that_was_changed_is_refused_and_changes_nothing() {
    let broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "one"})));
    broker.recorded();
    let record = Record::of(&broker);
    record.sql("UPDATE child SET intent = replace(intent, 'one', 'two')");
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("of its table child is not what was written there"), "{}", said.err);
    record.sql("UPDATE child SET intent = replace(intent, 'two', 'one')");
    assert_eq!(broker.run(&["upgrade"]).status, 0);
    assert_eq!(broker.json().ok("get", json!({"target": "one"}))["child"]["state"], "running");
}

#[test]
fn a_record_of_a_later_version_is_named_and_left_as_it_is() {
    let broker = stopped();
    Record::of(&broker).sql("PRAGMA user_version = 99");
    refuses(&broker, &["version 99", "use the version of the broker that wrote it"]);
}

#[test]
fn a_database_of_another_program_is_named_and_left_as_it_is() {
    let broker = stopped();
    Record::of(&broker).sql("PRAGMA application_id = 7");
    refuses(&broker, &["another program", "--state-dir"]);
}

#[test]
fn a_record_that_is_missing_beside_its_log_is_asked_for() {
    let broker = stopped();
    fs::rename(broker.state_dir().join("state.db"), broker.path("elsewhere")).unwrap();
    fs::write(broker.state_dir().join("state.db-wal"), "what was not copied").unwrap();
    refuses(&broker, &["missing", "put it back"]);
}

#[test]
fn a_record_that_the_user_may_not_use_is_named() {
    if !is_root() {
        return;
    }
    let mut broker = Setup::new().user(STRANGER).start();
    broker.stop();
    let path = broker.state_dir().join("state.db");
    chown(&path, Some(0), Some(0)).unwrap();
    for mode in [0o600, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refuses(&broker, &["broker"]);
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_to_is_named() {
    if geteuid().is_root() {
        // Nothing is closed to root but a file system that is read-only for all.
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
        let setup = Setup::new().in_own_mounts(script);
        return names_the_folder(&setup);
    }
    let setup = Setup::new();
    let state = setup.state_dir();
    let _ = setup.command();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o500)).unwrap();
    // The harness gives itself the folder back.
    let locked = setup.flags(["--state-dir".as_ref(), state.join("below").as_os_str()]);
    names_the_folder(&locked);
}

fn names_the_folder(setup: &Setup) {
    let ended = setup.refuses();
    assert_eq!(ended.code(), Some(1), "{:?} {}", ended.status, ended.log);
    assert_eq!(ended.log.lines().count(), 1, "{}", ended.log);
    assert!(ended.log.contains(setup.state_dir().to_str().unwrap()), "{}", ended.log);
}

#[test]
fn the_runtime_folder_is_kept_over_a_crash_and_gone_after_an_orderly_exit() {
    let mut broker = TestBroker::start();
    let folder = broker.socket().with_extension("sock.d");
    let inode = || fs::symlink_metadata(&folder).map(|found| (found.ino(), found.mode() & 0o777));
    let first = inode().expect("a folder beside the socket");
    assert_eq!(first.1, 0o700);
    broker.json().create(willing());
    broker.crash();
    assert_eq!(inode().unwrap(), first);
    broker.start_again();
    assert_eq!(inode().unwrap(), first);
    broker.stop();
    assert!(!folder.exists());
}

#[test]
fn a_runtime_folder_that_another_user_made_is_refused_with_the_way_out() {
    if !is_root() {
        return;
    }
    let broker = stopped();
    let folder = broker.socket().with_extension("sock.d");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&folder, Some(STRANGER), None).unwrap();
    let ended = broker.setup().refuses();
    assert_eq!(ended.code(), Some(1));
    for words in ["sock.d is not to be trusted: it belongs to another user", "--runtime-dir"] {
        assert!(ended.log.contains(words), "no {words} in {}", ended.log);
    }
    assert!(!broker.socket().exists());
}
