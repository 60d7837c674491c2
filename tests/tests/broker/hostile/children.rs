//! What a child, or what it asks for, does to the broker.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, STRANGER, Setup, TestBroker, is_root};

/// Leaves to the broker a socket that lingers when it is closed for the last time: the process that has sent it along is gone
/// by then, because the broker reads no more than so many words of a child in a second. It has let go of it when nothing is left
/// of what was sent.
const LINGERS: &str = "import fcntl, os, signal, socket, struct, sys, termios
words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
words.connect(os.environ['NOTIFY_SOCKET'])
words.send(b'READY=1')
for _ in range(200):
    words.send(b'STATUS=busy')
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen()
helper = os.fork()
if not helper:
    full = socket.create_connection(listener.getsockname())
    full.setblocking(False)
    try:
        while True:
            full.send(b'x' * 65536)
    except BlockingIOError:
        pass
    full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
    socket.send_fds(words, [b'STATUS=done'], [full.fileno()])
    os._exit(0)
reader, _ = listener.accept()
os.waitpid(helper, 0)
while struct.unpack('i', fcntl.ioctl(words, termios.TIOCOUTQ, bytes(4)))[0]:
    pass
open(sys.argv[1], 'w').write('taken\\n')
while True:
    signal.pause()
";

/// Says as much as is read of a child in a second, each word when the one before has been read, and one more when it is told to.
const TALKS: &str = "import fcntl, os, signal, socket, struct, sys, termios
words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
words.connect(os.environ['NOTIFY_SOCKET'])
def say(word):
    words.send(word)
    while struct.unpack('i', fcntl.ioctl(words, termios.TIOCOUTQ, bytes(4)))[0]:
        pass
for word in [b'READY=1'] + [b'STATUS=busy'] * 199:
    say(word)
open(sys.argv[1], 'w').write('said\\n')
open(sys.argv[2]).readline()
say(b'STATUS=done')
open(sys.argv[1], 'w').write('heard\\n')
while True:
    signal.pause()
";

/// Sends along as many descriptors as can be, again and again.
const SPAMS: &str = "import os, socket
words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
words.connect(os.environ['NOTIFY_SOCKET'])
many = [os.open('/dev/null', os.O_RDONLY) for _ in range(250)]
while True:
    socket.send_fds(words, [b'READY=1'], many)
";

#[test]
fn a_descriptor_that_takes_its_time_to_be_closed_holds_up_nobody() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    client.create(json!({"command": ["python3", "-c", LINGERS, pipe.path()], "ready": "notify"}));
    assert_eq!(pipe.line(), "taken");
    let child = client.create(willing());
    client.ok("destroy", json!({"target": child["id"]}));
}

#[test]
fn a_child_that_tells_too_much_is_heard_to_the_end_in_its_time() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let mut gate = broker.fifo("gate");
    client.create(json!({"command": ["python3", "-c", TALKS, pipe.path(), gate.path()], "ready": "notify"}));
    assert_eq!(pipe.line(), "said");
    // It is answered when nobody is in the middle of reading any more.
    client.ok("status", json!({}));
    gate.say("go on");
    assert_eq!(pipe.line(), "heard");
}

#[test]
fn descriptors_that_come_along_without_end_are_none_of_the_brokers() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for _ in 0..4 {
        client.create(json!({"command": ["python3", "-c", SPAMS], "ready": "notify"}));
    }
    for _ in 0..20 {
        let child = client.create(willing());
        client.ok("destroy", json!({"target": child["id"]}));
    }
    // The table of descriptors never gets smaller again.
    let most: usize = broker.process().status("FDSize")[0].parse().unwrap();
    assert!(most <= 256, "{most} descriptors at a time");
}

#[test]
fn a_probe_reaches_no_socket_that_is_closed_to_who_asked_for_it() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    let folder = broker.path("closed");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let create = with(willing(), &json!({"ready": {"unix": path}, "ready_timeout": 0.5}));
    let refused = client.refused("create", create.clone());
    assert_eq!(refused.kind, "timeout", "{refused:?}");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    // Nor by the folder that a process of root is in, which its user may not look at.
    let insider = broker.json().create(with(willing(), &json!({"cwd": folder})));
    let way = format!("/proc/{}/cwd/socket", insider["pid"]);
    let around = with(create.clone(), &json!({"ready": {"unix": way}}));
    assert_eq!(client.refused("create", around).kind, "timeout");
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    // The broker's own user reaches it.
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    broker.json().create(create);
    listener.accept().unwrap();
}
