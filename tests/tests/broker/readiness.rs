//! Children that say themselves when they are ready, and how they are (`sd_notify(3)`).

mod words;

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::children::{script, willing, with};
use crate::harness::{Fifo, JsonClient, Process, STRANGER, Setup, TestBroker, is_root};

/// What a library in Python does: one datagram to the socket that the environment names.
const TELL: &str = "import os, socket, sys
def tell(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
";

/// A program in Python that tells something of itself, and has the path of a pipe as its first argument.
fn python(pipe: &Fifo, text: &str) -> Value {
    let program = format!("{TELL}{text}\nimport signal\nwhile True: signal.pause()");
    json!({"command": ["python3", "-c", program, pipe.path()], "ready": "notify"})
}

fn wait(client: &mut JsonClient, child: &Value) -> Value {
    client.ok("wait", json!({"target": child["id"]}))["child"].take()
}

/// One that is ready when a line comes through the pipe; says `asked` before.
fn on_a_word(pipe: &Fifo, go: &Fifo) -> Value {
    let go = go.path().display();
    python(
        pipe,
        &format!("open(sys.argv[1], 'w').write('asked\\n'); open('{go}').readline(); tell('READY=1')"),
    )
}

fn state(broker: &TestBroker, name: &str) -> Value {
    broker.json().ok("get", json!({"target": name}))["child"]["state"].take()
}

#[test]
fn systemd_notify_makes_a_child_ready_and_shows_what_it_does() {
    if Command::new("systemd-notify").arg("--version").output().is_err() {
        println!("skipped: there is no systemd-notify");
        return;
    }
    let broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let text = "systemd-notify --ready --status='Serving 3 pages'; exec sleep infinity";
    let child = broker.json().create(with(script(&pipe, text), &json!({"ready": "notify"})));
    assert_eq!((&child["state"], &child["status_text"]), (&json!("running"), &json!("Serving 3 pages")));
}

/// What libsystemd sends (`sd_pid_notify_with_fds(3)`): to the address, with its credentials, and after it a barrier.
const AS_IN_C: &str = "
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
path = os.environ['NOTIFY_SOCKET']
credentials = struct.pack('iII', os.getpid(), os.getuid(), os.getgid())
ancillary = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)]
s.sendmsg([b'READY=1\\nSTATUS=as in C\\n'], ancillary, socket.MSG_NOSIGNAL, path)
here, there = os.pipe2(os.O_CLOEXEC)
barrier = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', there))]
s.sendmsg([b'BARRIER=1'], barrier, socket.MSG_NOSIGNAL, path)
os.close(there)
assert os.read(here, 1) == b''
";

/// What the package sdnotify of Python sends: on a socket that is connected.
const AS_IN_PYTHON: &str = "
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = os.environ['NOTIFY_SOCKET']
s.connect('\\0' + path[1:] if path[0] == '@' else path)
s.sendall(b'STATUS=as in Python')
s.sendall(b'READY=1')
";

/// What go-systemd sends: on a connected socket that never blocks, one datagram for each word.
const AS_IN_GO: &str = "
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.connect(os.environ['NOTIFY_SOCKET'])
assert os.write(s.fileno(), b'STATUS=as in Go\\nMAINPID=%d' % os.getpid()) > 0
assert os.write(s.fileno(), b'READY=1') == 7
s.close()
";

#[test]
fn a_child_is_ready_by_the_datagrams_of_the_usual_libraries() {
    let broker = TestBroker::start();
    for (text, status) in [(AS_IN_C, "as in C"), (AS_IN_PYTHON, "as in Python"), (AS_IN_GO, "as in Go")] {
        let program = format!("import os, signal, socket, struct{text}while True: signal.pause()");
        let params = json!({"command": ["python3", "-c", program], "ready": "notify"});
        let child = broker.json().create(params);
        assert_eq!((&child["state"], &child["status_text"]), (&json!("running"), &json!(status)));
    }
}

#[test]
fn a_create_is_answered_when_the_child_says_so_and_nobody_else() {
    let broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("go"));
    let mut client = broker.json();
    let created = client.send("create", with(on_a_word(&pipe, &go), &json!({"name": "a"})));
    assert_eq!(pipe.line(), "asked");
    let shown = broker.json().ok("get", json!({"target": "a"}))["child"].take();
    assert_eq!(shown["state"], "starting");
    let environment = Process::of(&shown).environment();
    // This very process is its user's, as a rule, and none of its own.
    let forger = UnixDatagram::unbound().unwrap();
    forger.connect(&environment["NOTIFY_SOCKET"]).unwrap();
    let (taken_in, barrier) = std::io::pipe().unwrap();
    let rights = [barrier.as_raw_fd()];
    let text = [IoSlice::new(b"READY=1\nSTATUS=forged")];
    let rights = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(forger.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).unwrap();
    drop(barrier);
    // The broker closes what came along when it has taken in what was told.
    assert_eq!(std::io::Read::read(&mut { taken_in }, &mut [0]).unwrap(), 0);
    assert_eq!(state(&broker, "a"), "starting");
    go.say("go");
    let child = client.answer(created).unwrap()["child"].take();
    assert_eq!((&child["state"], &child["status_text"]), (&json!("running"), &Value::Null));
}

#[test]
fn a_child_of_another_user_is_heard_too() {
    if !is_root() {
        println!("skipped: only root starts children of others");
        return;
    }
    let broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let child = broker.json().create(with(python(&pipe, "tell('READY=1')"), &json!({"user": 65_534})));
    assert_eq!(child["state"], "running");
}

#[test]
fn one_whose_streams_are_kept_apart_is_told_with_the_last_of_both_in_their_order() {
    let broker = TestBroker::start();
    let mut go = broker.fifo("go");
    let mut client = broker.json();
    let text = "echo a warning >&2; read -r word <\"$1\"; echo no such table; exit 3";
    let extras = json!({"name": "a", "ready": "notify", "stderr": "log"});
    let created = client.send("create", with(script(&go, text), &extras));
    let mut watcher = broker.json();
    watcher.ok("events", json!({"since": 1}));
    while watcher.notification()["kind"] != "started" {}
    let logs = watcher.ok("logs", json!({"target": "a", "stream": "stderr", "follow": true}));
    if logs["text"] == "" {
        while watcher.notification()["text"] != "a warning\n" {}
    }
    go.say("on");
    let refused = client.answer(created).unwrap_err();
    assert_eq!(refused.data["log_tail"], "a warning\nno such table\n");
}

#[test]
fn one_that_ends_before_it_is_ready_is_told_with_what_it_wrote_last() {
    let broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let text = "echo reading the table; echo no such table >&2; exit 3";
    let params = with(script(&pipe, text), &json!({"ready": "notify", "name": "a"}));
    let refused = broker.json().refused("create", params);
    assert_eq!(refused.kind, "start_failed");
    let children = broker.json().ok("list", json!({"all": true}));
    let id = children["children"][0]["id"].as_str().unwrap();
    assert!(
        refused.message.starts_with(&format!("the child a ({id}) ended before it was ready")),
        "{refused:?}"
    );
    assert_eq!(refused.data["log_tail"], "reading the table\nno such table\n");
    let exit = &refused.data["exit"];
    assert_eq!((&exit["code"], &exit["reason"]), (&json!(3), &json!("start_failed")));
    // Its name is free.
    broker.json().create(with(willing(), &json!({"name": "a"})));
}

#[test]
fn a_child_that_was_starting_goes_on_after_a_crash_and_after_an_upgrade() {
    let mut broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("go"));
    let request = json!({"name": "a", "request_id": "0190163d-8694-739b-aea5-966c26f8ad91"});
    let params = with(on_a_word(&pipe, &go), &request);
    broker.json().send("create", params.clone());
    assert_eq!(pipe.line(), "asked");
    broker.recorded();
    broker.crash_and_start_again();
    assert_eq!(state(&broker, "a"), "starting");
    assert_eq!(broker.run(&["upgrade", "--json"]).status, 0);
    assert_eq!(state(&broker, "a"), "starting");
    let mut client = broker.json();
    let again = client.send("create", params);
    go.say("go");
    let child = client.answer(again).unwrap()["child"].take();
    assert_eq!(child["state"], "running");
}

#[test]
fn a_child_that_hangs_is_ended_by_its_watchdog() {
    let broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let text = "
import time
assert int(os.environ['WATCHDOG_USEC']) == 300000
assert os.environ['WATCHDOG_PID'] == str(os.getpid())
tell('READY=1')
for _ in range(5):
    time.sleep(0.1)
    tell('WATCHDOG=1')
open(sys.argv[1], 'w').write('hung\\n')";
    let mut client = broker.json();
    let child = client.create(with(python(&pipe, text), &json!({"watchdog": 0.3})));
    let ended = wait(&mut client, &child);
    let exit = &ended["exit"];
    assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGABRT"), &json!("watchdog")));
    let mut pipe = pipe;
    assert_eq!(pipe.line(), "hung", "it was ended although it said that it was well");
}

#[test]
fn what_was_said_while_the_broker_did_not_run_is_in_time() {
    let broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("go"));
    // It says that it is well in its time, and that this time is over after that.
    let text = format!(
        "import time
tell('READY=1')
open('{}').readline()
tell('WATCHDOG=1')
time.sleep(3.2)
open(sys.argv[1], 'w').write('late\\n')",
        go.path().display()
    );
    let mut client = broker.json();
    let watched = client.create(with(python(&pipe, &text), &json!({"watchdog": 3})));
    let leased = client.create(with(willing(), &json!({"lifetime": {"ttl": 3}})));
    broker.signal(Signal::SIGSTOP);
    let stopped = Id::Pid(Pid::from_raw(broker.pid().try_into().unwrap()));
    waitid(stopped, WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT).unwrap();
    go.say("go");
    client.send("renew", json!({"target": leased["id"]}));
    assert_eq!(pipe.line(), "late");
    broker.signal(Signal::SIGCONT);
    let renewed = client.message().expect("an answer");
    assert_eq!(renewed["result"]["children"][0]["id"], leased["id"], "{renewed}");
    for child in [&watched, &leased] {
        assert_eq!(client.ok("get", json!({"target": child["id"]}))["child"]["state"], "running");
    }
}

#[test]
fn a_child_that_hangs_again_and_again_is_restarted_by_its_policy_until_that_gives_up() {
    let broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let extras = json!({"watchdog": 0.1, "restart": {"policy": "on-failure", "max": 2, "backoff": 0.01}});
    let mut client = broker.json();
    let child = client.create(with(python(&pipe, "tell('READY=1')"), &extras));
    let ended = wait(&mut client, &child);
    let exit = &ended["exit"];
    assert_eq!((&ended["restarts"], &exit["gave_up"]), (&json!(2), &json!(true)));
    assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGABRT"), &json!("watchdog")));
}

#[test]
fn the_watchdog_is_for_the_child_itself_and_none_of_its_own() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let script = "test \"$WATCHDOG_PID\" = $$ && sh -c 'test \"$WATCHDOG_PID\" != $$'";
    let watched =
        json!({"command": ["sh", "-c", script], "ready": "notify", "watchdog": 60, "no_wait": true});
    // Whatever its creator says.
    let forged = with(watched.clone(), &json!({"env": {"WATCHDOG_PID": "1"}}));
    for params in [watched, forged] {
        let child = client.create(params);
        assert_eq!(wait(&mut client, &child)["exit"]["code"], 0);
    }
    let child = client.create(json!({"command": ["sh", "-c", "test -z \"${WATCHDOG_PID+set}\""]}));
    assert_eq!(wait(&mut client, &child)["exit"]["code"], 0);
}

/// A web server at this port, which takes a while to start.
const SERVER: &str = "import http.server, socketserver, sys, time
time.sleep(0.3)
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
socketserver.TCPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Quiet).serve_forever()";

#[test]
fn of_many_requests_for_a_web_server_each_can_connect_to_the_one_there_is() {
    let broker = TestBroker::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let params = json!({
        "command": ["python3", "-c", SERVER, free.port().to_string()],
        "name": "web",
        "if_exists": "reuse",
        "ready": {"tcp": free.to_string()},
    });
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                broker.json().create(params.clone());
                std::net::TcpStream::connect(free).expect("the server is ready");
            });
        }
    });
    assert_eq!(broker.json().ok("list", json!({"all": true}))["children"].as_array().unwrap().len(), 1);
}

#[test]
fn a_child_is_ready_when_it_has_written_so_or_listens() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let text = "echo 'not up'; read go <\"$1\"; echo 'now it is ready to serve'; exec sleep infinity";
    let mut client = broker.json();
    let params = with(script(&pipe, text), &json!({"ready": {"log": "is ready"}, "name": "a"}));
    let created = client.send("create", params);
    pipe.say("go");
    assert_eq!(client.answer(created).unwrap()["child"]["state"], "running");
    let path = broker.path("listener");
    let listener = "import signal, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
while True: signal.pause()";
    let child = broker.json().create(json!({
        "command": ["python3", "-c", listener, path],
        "ready": {"unix": path},
    }));
    assert_eq!(child["state"], "running");
}

/// A file system that nobody serves, in this folder: whoever goes there waits until he is killed.
const SILENT: &str = "exec 9<>/dev/fuse && mount -i -t fuse \
    -o fd=9,rootmode=040000,user_id=0,group_id=0,allow_other silent \"$1\" && shift && exec \"$@\"";

#[test]
fn paths_that_hang_hold_up_neither_other_probes_nor_an_upgrade_nor_the_exit() {
    if !is_root() || !std::path::Path::new("/dev/fuse").exists() {
        return;
    }
    let setup = Setup::new();
    let silent = setup.state_dir().with_file_name("silent");
    std::fs::create_dir(&silent).unwrap();
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SILENT, "sh"];
    let mut broker = setup.through(words).through([silent.as_path()]).start();
    let mut client = broker.json();
    // More than there are threads, and places of a user.
    for number in 0..8_u32 {
        let name = format!("hanging-{number}");
        let user = STRANGER + number % 2;
        client.create(json!({
            "command": ["sleep", "infinity"], "name": name, "user": user.to_string(), "groups": [user.to_string()],
            "ready": {"unix": silent.join("socket")}, "ready_timeout": 600, "no_wait": true,
        }));
    }
    let path = broker.path("listener");
    let listener = "import signal, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
while True: signal.pause()";
    let child = json!({"command": ["python3", "-c", listener, path], "ready": {"unix": path}});
    assert_eq!(client.create(child)["state"], "running");
    let upgraded = broker.run(&["upgrade"]);
    assert_eq!(upgraded.status, 0, "{}", upgraded.err);
    let hanging = broker.json().ok("get", json!({"target": "hanging-0"}))["child"].take();
    assert_eq!(hanging["state"], "starting");
    broker.stop();
}
