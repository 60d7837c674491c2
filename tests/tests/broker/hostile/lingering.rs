//! Sockets that linger when they are closed for the last time, and are sent along to the broker.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::json;

use super::OUTSIDER;
use crate::harness::children::willing;
use crate::harness::{STRANGER, Setup, TestBroker, is_root};

/// A process that sends them over connections, and has their other ends.
struct Lingerer(Child);

impl Lingerer {
    /// Returns when they are sent, with how that was taken.
    fn send(socket: &Path, user: Option<u32>) -> (Self, String) {
        let mut command = Command::new("setpriv");
        if let Some(user) = user.map(|user| user.to_string()) {
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        }
        let mut process = command
            .args(["env", "PATH=/usr/bin:/bin", "python3", "-c", include_str!("lingers.py")])
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and python3");
        let mut told = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut told).unwrap();
        (Self(process), told.trim().to_owned())
    }
}

impl Drop for Lingerer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody else's whole use of the broker.
fn is_served(broker: &TestBroker) {
    let mut client = broker.json();
    let child = client.create(willing());
    assert_eq!(client.ok("list", json!({}))["children"], json!([child]));
    client.ok("destroy", json!({"target": child["id"]}));
}

/// The broker's own end, while nobody reads what sockets wait for.
fn ends(broker: &mut TestBroker) {
    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.ended().code(), Some(0));
}

#[test]
fn a_socket_that_lingers_is_sent_to_the_broker_by_nobody() {
    let mut broker =
        Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    // One whom it serves, and one whom it refuses.
    let users = if is_root() { vec![Some(STRANGER), Some(OUTSIDER)] } else { vec![None] };
    let mut lingerers = Vec::new();
    for user in users {
        // Nothing is read before nobody else has what was sent.
        broker.signal(Signal::SIGSTOP);
        let (lingerer, told) = Lingerer::send(broker.socket(), user);
        broker.signal(Signal::SIGCONT);
        lingerers.push(lingerer);
        // Before Linux 6.16 nobody is told.
        assert!(["refused refused", "taken taken"].contains(&told.as_str()), "{told}");
        is_served(&broker);
    }
    ends(&mut broker);
}

#[test]
fn a_socket_that_lingers_and_was_sent_before_the_broker_was_there_holds_up_nobody() {
    const PASS: &str = "
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='a')
os.execv(sys.argv[2], sys.argv[2:])
";
    let setup = Setup::new();
    let socket = setup.folder().join("run/broker.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let (lingerer, told) = Lingerer::send(&socket, None);
    assert_eq!(told, "taken taken");
    let number = listener.as_raw_fd().to_string();
    let mut broker = setup.through(["python3", "-c", PASS, &number]).start();
    assert_eq!(broker.status()["facilities"]["activation"], "systemd");
    is_served(&broker);
    ends(&mut broker);
    drop(lingerer);
    // The broker leaves it to whoever made it.
    fs::remove_file(&socket).unwrap();
}

/// Ends with a socket that lingers among what the broker has not read of it yet: it reads no more than so many words of a child
/// in a second.
const ENDS: &str = "import os, socket, struct, sys
words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
words.connect(os.environ['NOTIFY_SOCKET'])
full = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
full.setblocking(False)
try:
    while True:
        full.send(b'x' * 65536)
except BlockingIOError:
    pass
full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
for word in [b'READY=1'] + [b'STATUS=busy'] * 202:
    words.send(word)
socket.send_fds(words, [b'STATUS=done'], [full.fileno()])
os.kill(os.getpid(), 9)
";

#[test]
fn a_child_that_ends_with_a_socket_that_lingers_unread_holds_up_nobody() {
    let mut broker = TestBroker::start();
    let reader = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = reader.local_addr().unwrap().port().to_string();
    let mut client = broker.json();
    for _ in 0..2 {
        let params = json!({"command": ["python3", "-c", ENDS, port], "ready": "notify"});
        let child = client.create(params);
        let ended = client.ok("wait", json!({"target": child["id"]}));
        assert_eq!(ended["child"]["exit"]["signal"], "SIGKILL");
        is_served(&broker);
    }
    broker.stop();
}
