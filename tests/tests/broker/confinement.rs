//! Promise 5, at the launch: a child gets nothing of the broker's own process, and sheds nothing that confined its creator.
//! All of it needs root, to be several users.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;

use crate::harness::children::{cleanup, willing, with};
use crate::harness::{JsonClient, Process, STRANGER, Setup, TestBroker, is_root};

/// A program that connects, and leaves its connection to a process that it has forked.
const GOES: &str = "import os, socket, sys, threading
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1].removeprefix('UNIX-CONNECT:'))
reads, writes = os.pipe()
if os.fork():
    os._exit(0)
os.close(writes)
os.read(reads, 1)
def there():
    while data := os.read(0, 65536):
        peer.sendall(data)
    os._exit(0)
threading.Thread(target=there, daemon=True).start()
while data := peer.recv(65536):
    os.write(1, data)
";

fn open_broker() -> TestBroker {
    Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start()
}

/// Sheds its rights, and then says what socat(1) says.
fn confined(socket: &Path, limits: &[&str]) -> JsonClient {
    let flags = ["--no-new-privs", "--bounding-set", "-all,+chown"];
    let words = [&["prlimit"], limits, &["socat", "-t", "0", "-"]].concat();
    JsonClient::as_user_through(socket, STRANGER, &[STRANGER], &flags, &words)
}

#[test]
fn what_confines_a_caller_confines_its_child_and_what_cleans_up_after_it() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let mut pipe = broker.fifo("pipe");
    let mut client = confined(broker.socket(), &["--nproc=50:60", "--nofile=40:70"]);
    let hard = "s/^Max (processes|open files) +[0-9]+ +([0-9]+) .*/\\2/p";
    let tell = format!("exec >\"$1\"; grep NoNewPrivs /proc/self/status; sed -nE '{hard}' /proc/self/limits");
    let tell = cleanup(&pipe, &tell);
    let child = client.create(with(willing(), &tell));
    let process = Process::of(&child);
    assert_eq!(process.status("NoNewPrivs"), ["1"]);
    assert_eq!(process.status("CapBnd"), ["0000000000000001"]);
    assert_eq!(process.limit("Max processes").1, "60");
    assert_eq!(process.limit("Max open files").1, "70");
    client.ok("destroy", json!({"target": child["id"]}));
    assert_eq!(pipe.lines(3), ["NoNewPrivs:\t1", "60", "70"]);
    // More than it has itself is refused, and less is not.
    let refused = client.refused("create", with(willing(), &json!({"rlimits": {"nofile": 71}})));
    assert_eq!((&refused.data["step"], &refused.data["errno_name"]), (&json!("rlimits"), &json!("EPERM")));
    let child = client.create(with(willing(), &json!({"rlimits": {"nofile": 69}})));
    assert_eq!(Process::of(&child).limit("Max open files").1, "69");
}

#[test]
fn root_that_is_confined_creates_what_is_confined() {
    if !is_root() {
        return;
    }
    let broker = TestBroker::start();
    let flags = ["--bounding-set", "-all,+chown,+setuid,+setgid", "--inh-caps", "-all"];
    let words = ["socat", "-t", "0", "-"];
    let mut client = JsonClient::as_user_through(broker.socket(), 0, &[0], &flags, &words);
    for params in [json!({}), json!({"user": STRANGER})] {
        let process = Process::of(&client.create(with(willing(), &params)));
        assert_eq!(process.status("CapBnd"), ["00000000000000c1"], "{params}");
        assert_eq!(process.status("NoNewPrivs"), ["0"]);
    }
    let process = Process::of(&client.create(willing()));
    assert_eq!(process.status("CapEff"), ["00000000000000c1"]);
}

#[test]
fn root_whom_no_program_gives_anything_creates_what_has_no_more() {
    if !is_root() {
        return;
    }
    let broker = TestBroker::start();
    // It keeps its bounding set, and has shed all else (PR_SET_NO_NEW_PRIVS, capset(2)).
    let shed = "import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
os.execvp('socat', sys.argv[1:])";
    let words = ["env", "PATH=/usr/bin:/bin", "python3", "-c", shed, "socat", "-t", "0", "-"];
    let mut client = JsonClient::as_user_through(broker.socket(), 0, &[0], &[], &words);
    let process = Process::of(&client.create(willing()));
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(process.status(set), ["0000000000000000"], "{set}");
    }
}

#[test]
fn what_is_confined_to_another_user_namespace_creates_nothing_that_can_do_more_outside() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let words = ["unshare", "--user", "--map-root-user", "socat", "-t", "0", "-"];
    for user in [0, STRANGER] {
        let flags = ["--bounding-set", "-all"];
        let flags = if user == 0 { &[][..] } else { &flags };
        let mut client = JsonClient::as_user_through(broker.socket(), user, &[user], flags, &words);
        let process = Process::of(&client.create(willing()));
        for set in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(process.status(set), ["0000000000000000"], "{set} of {user}");
        }
        assert_eq!(process.status("NoNewPrivs"), ["1"]);
    }
}

#[test]
fn who_is_not_confined_gets_children_that_are_not() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let own = broker.process();
    for mut client in [broker.json(), JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER])] {
        let process = Process::of(&client.create(willing()));
        for line in ["NoNewPrivs", "CapBnd"] {
            assert_eq!(process.status(line), own.status(line));
        }
        assert_eq!(process.limit("Max processes").1, own.limit("Max processes").1);
        let (soft, _hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(process.limit("Max open files").0, soft.to_string());
    }
}

#[test]
fn a_process_that_has_gone_creates_nothing_by_the_connection_that_it_left() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    // The one of the system, since others may be in a closed folder.
    let words = ["env", "PATH=/usr/bin:/bin", "python3", "-c", GOES];
    let mut client = JsonClient::as_user_through(broker.socket(), STRANGER, &[STRANGER], &[], &words);
    client.ok("status", json!({}));
    let refused = client.refused("create", willing());
    assert_eq!(refused.kind, "permission_denied", "{refused:?}");
    assert!(refused.message.contains("is gone"), "{refused:?}");
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
    client.half_close();
    assert!(client.message().is_none());
}

#[test]
fn a_user_who_has_no_number_in_the_brokers_namespace_is_refused() {
    if !is_root() {
        return;
    }
    // Nobody but root has a number there, and all others look like 65534.
    let broker = Setup::new()
        .flags(["--socket-mode", "666", "--allow-user", "65534"])
        .through(["unshare", "--user", "--map-root-user"])
        .start();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    client.send("status", json!({}));
    let answer = client.message().expect("a word before the end");
    assert_eq!(answer["error"]["data"]["kind"], "permission_denied", "{answer}");
    assert!(
        answer["error"]["message"].as_str().is_some_and(|text| text.contains("user namespace")),
        "{answer}"
    );
    assert!(client.message().is_none());
    broker.status();
}

#[test]
fn a_child_of_another_user_finds_that_user_in_its_environment() {
    if !is_root() {
        return;
    }
    let broker = Setup::new()
        .flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()])
        .env("HOME", "/root")
        .env("USER", "root")
        .start();
    let names = ["HOME", "USER", "LOGNAME", "SHELL"];
    let told = |client: &mut JsonClient, params| {
        let environment = Process::of(&client.create(with(willing(), &params))).environment();
        names.map(|name| environment.get(name).cloned().unwrap_or_default())
    };
    let mut stranger = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    let number = STRANGER.to_string();
    // A uid without an account.
    for _ in 0..2 {
        assert_eq!(told(&mut stranger, json!({})), ["/", &number, &number, "/bin/sh"]);
    }
    let own = json!({"env": {"HOME": "/srv", "SHELL": "/bin/zsh"}});
    assert_eq!(told(&mut stranger, own), ["/srv", &number, &number, "/bin/zsh"]);
    let mut root = broker.json();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("an account");
    let [home, shell] = [&nobody.dir, &nobody.shell].map(|path| path.to_str().unwrap().to_owned());
    let expected = [home, "nobody".to_owned(), "nobody".to_owned(), shell];
    assert_eq!(told(&mut root, json!({"user": "nobody"})), expected);
    // Root's own child has the broker's environment.
    assert_eq!(told(&mut root, json!({}))[..2], ["/root", "root"]);
}
