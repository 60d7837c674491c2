//! The log of intents: what is in it, and not in the state file, when the broker is killed.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::children::{telling_cleanup, willing, with};
use crate::harness::{Process, Record, Setup, TestBroker};

/// A broker that was killed while its state file could not be written to: what clients were told since is in the log alone.
/// One child runs, one has ended, and one was destroyed and is forgotten.
struct Scene {
    broker: TestBroker,
    running: Value,
    ended: Value,
}

impl Scene {
    fn new() -> Self {
        let mut broker = Setup::new().flags(["--ended-max=1"]).start();
        let mut client = broker.json();
        let quiet = with(willing(), &json!({"stdout": "null"}));
        // The state file has something already.
        broker.recorded();
        let hold = Record::of(&broker).hold();
        let forgotten = client.create(with(quiet.clone(), &json!({"name": "forgotten"})));
        client.ok("destroy", json!({"target": forgotten["id"]}));
        let ended = client.create(with(quiet.clone(), &json!({"name": "ended"})));
        let ended = client.ok("destroy", json!({"target": ended["id"]}))["children"][0].take();
        let running = client.create(with(quiet, &json!({"name": "running"})));
        broker.crash();
        drop(hold);
        assert_eq!(Record::of(&broker).sql("SELECT seq FROM child"), Vec::<Vec<Value>>::new());
        Self { broker, running, ended }
    }

    fn log(&self) -> std::path::PathBuf {
        self.broker.socket().with_extension("sock.d").join("intents")
    }
}

#[test]
fn what_clients_were_told_is_known_though_the_state_file_never_saw_it() {
    let Scene { mut broker, running, ended } = Scene::new();
    for _ in 0..2 {
        broker.start_again();
        let listed = broker.json().ok("list", json!({"all": true}))["children"].take();
        assert_eq!(listed, json!([ended, running]));
        broker.crash();
    }
    broker.start_again();
    assert_eq!(
        broker.json().refused("create", with(willing(), &json!({"name": "running"}))).kind,
        "name_taken"
    );
    broker.stop();
}

#[test]
fn a_damaged_log_is_named_with_the_way_out_and_no_silent_fresh_start() {
    let mut scene = Scene::new();
    let log = scene.log();
    let whole = fs::read(&log).unwrap();
    let damage = |start: usize, bytes: &[u8]| {
        let file = fs::File::options().write(true).open(&log).unwrap();
        file.write_all_at(bytes, u64::try_from(start).unwrap()).unwrap();
    };
    // The last entry, of which somebody was told, and one before it that is not in the state file either.
    let entries: Vec<_> =
        (0..16_384).step_by(8).filter(|at| whole[*at..].starts_with(b"\xffPB\xfe")).collect();
    let [.., before, _, last] = entries[..] else { panic!("{entries:?}") };
    for (start, bytes) in
        [(0, [0; 64]), (512, [0; 64]), (1_024, [0; 64]), (before, [0; 64]), (last, [b'x'; 64])]
    {
        damage(start, &bytes);
        let began = scene.broker.log().len();
        let refused = scene.broker.setup().refuses();
        assert_eq!(refused.code(), Some(1));
        let said = &refused.log[began..];
        for words in ["cannot start", "intents is damaged", "move the log away"] {
            assert!(said.contains(words), "no {words} in {said}");
        }
        damage(0, &whole[..16_384 + 64]);
    }
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(4_096).unwrap();
    assert_eq!(scene.broker.setup().refuses().code(), Some(1));
    fs::write(&log, &whole).unwrap();
    scene.broker.start_again();
    let listed = scene.broker.json().ok("list", json!({}))["children"].take();
    assert_eq!(listed, json!([scene.running]));
    scene.broker.stop();
}

#[test]
fn a_state_folder_that_was_emptied_beside_its_log_is_asked_for_and_no_silent_fresh_start() {
    let mut broker = TestBroker::start();
    let running = broker.json().create(with(willing(), &json!({"stdout": "null"})));
    broker.crash();
    let (state, saved) = (broker.state_dir(), broker.path("saved"));
    for names in [&["state.db-wal", "state.db-shm"][..], &["state.db", "state.db-wal", "state.db-shm"]] {
        fs::create_dir(&saved).unwrap();
        for name in names {
            fs::rename(state.join(name), saved.join(name)).unwrap();
        }
        super::refuses(&broker, &["intents", "put the state folder back", "end the children", "remove"]);
        for name in names {
            fs::rename(saved.join(name), state.join(name)).unwrap();
        }
        fs::remove_dir(&saved).unwrap();
    }
    // The whole folder.
    fs::rename(&state, &saved).unwrap();
    super::refuses(&broker, &["intents", "put the state folder back"]);
    // A process that is not in the log of intents is of its child all the same.
    let log = broker.socket().with_extension("sock.d").join("intents");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, [&whole[..4_096], &vec![0; whole.len() - 4_096]].concat()).unwrap();
    super::refuses(&broker, &["intents", "put the state folder back"]);
    fs::write(&log, &whole).unwrap();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&saved, &state).unwrap();
    broker.start_again();
    assert_eq!(broker.json().ok("list", json!({}))["children"], json!([running]));
    broker.stop();
}

#[test]
fn a_state_folder_that_is_gone_with_all_processes_hinders_no_start_and_cleanups_run_that_are_known() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let named = with(telling_cleanup(&pipe), &json!({"name": "named"}));
    let child = broker.json().create(with(willing(), &named));
    broker.crash();
    kill(Pid::from_raw(i32::try_from(child["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
    while Process(child["pid"].as_i64().unwrap()).is_alive() {
        std::thread::yield_now();
    }
    fs::remove_dir_all(broker.state_dir()).unwrap();
    let began = broker.log().len();
    broker.start_again();
    let said = broker.log()[began..].to_owned();
    for words in ["WARN", "state.db", "intents", "no process was found", "cleanups do not run"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    let said = pipe.line();
    assert!(said.starts_with("cleaned exited - "), "{said}");
    let ended = broker.json().ok("wait", json!({"target": child["id"]}))["child"].take();
    // How it has ended is known for as long as nobody has reaped it.
    let is_told = ended["exit"]["unknown"] == true || ended["exit"]["signal"] == "SIGKILL";
    assert!(ended["name"] == "named" && is_told, "{ended}");
    broker.crash_and_start_again();
    assert_eq!(broker.json().got(&child["id"])["state"], "ended");
    broker.stop();
    assert_eq!(pipe.rest(), [""; 0]);
}

#[test]
fn an_upgrade_goes_on_whatever_has_become_of_the_log_meanwhile() {
    let mut broker = TestBroker::start();
    let quiet = with(willing(), &json!({"stdout": "null"}));
    let log = broker.socket().with_extension("sock.d").join("intents");
    let mut children = Vec::new();
    for damage in ["truncate -s 0", "rm", "truncate -s 700", "cp /etc/passwd"] {
        children.push(broker.json().create(quiet.clone()));
        let damaged = Command::new("sh").args(["-c", &format!("{damage} \"$1\""), "sh"]).arg(&log).status();
        assert!(damaged.unwrap().success());
        let said = broker.run(&["upgrade"]);
        assert_eq!(said.status, 0, "{damage}: {said:?}");
        broker.says("READY=1");
    }
    assert_eq!(broker.log().matches("made anew").count(), 4, "{}", broker.log());
    children.push(broker.json().create(quiet));
    broker.crash_and_start_again();
    assert_eq!(broker.json().ok("list", json!({}))["children"], json!(children));
    broker.stop();
}
