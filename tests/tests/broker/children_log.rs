//! What children write is passed on, line by line, to the journal or to syslog, and is kept all the same: nothing that these
//! do holds up a child.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::close;
use serde_json::{Value, json};

use crate::harness::children::{script, with};
use crate::harness::{Fifo, JsonClient, PATIENCE, Setup, TestBroker};

/// Who listens where the journal or a syslog daemon would.
struct Reader {
    socket: UnixDatagram,
}

/// What it is sent.
struct Datagram {
    payload: Vec<u8>,
    file: Option<File>,
}

/// The fields of an entry; no name comes twice in these tests.
type Entry = BTreeMap<String, Vec<u8>>;

impl Reader {
    fn listen(path: &PathBuf) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket for lines");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    fn datagram(&self) -> Datagram {
        let mut payload = vec![0; 256 << 10];
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut parts = [IoSliceMut::new(&mut payload)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags);
        let received = received.expect("another line");
        let rights = received.cmsgs().expect("whole rights").find_map(|message| match message {
            ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let length = received.bytes;
        let file = rights.map(|descriptors| {
            assert_eq!(descriptors.len(), 1, "one file an entry");
            let path = format!("/proc/self/fd/{}", descriptors[0]);
            let file = File::options().read(true).open(path).expect("the file that was sent");
            close(descriptors[0]).unwrap();
            file
        });
        payload.truncate(length);
        Datagram { payload, file }
    }

    fn text(&self) -> String {
        String::from_utf8(self.datagram().payload).expect("a text")
    }

    /// The next entry, and whether it came as a file.
    fn entry(&self) -> (Entry, bool) {
        let Datagram { payload, file } = self.datagram();
        let Some(mut file) = file else { return (fields(&payload), false) };
        assert_eq!(payload, b"", "a payload beside the file");
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS).unwrap());
        let expected =
            [SealFlag::F_SEAL_SEAL, SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_WRITE];
        assert!(expected.into_iter().all(|seal| seals.contains(seal)), "{seals:?}");
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        (fields(&content), true)
    }

    fn message(&self) -> String {
        String::from_utf8(self.entry().0.remove("MESSAGE").expect("a message")).expect("a text")
    }
}

/// Takes an entry apart as the journal does.
fn fields(mut rest: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("the end of a line");
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let (name, value) = if let Some(sign) = line.iter().position(|byte| *byte == b'=') {
            (&line[..sign], line[sign + 1..].to_vec())
        } else {
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            let value = rest[8..8 + length].to_vec();
            assert_eq!(rest[8 + length], b'\n');
            rest = &rest[8 + length + 1..];
            (line, value)
        };
        let name = String::from_utf8(name.to_vec()).expect("the name of a field");
        assert!(entry.insert(name.clone(), value).is_none(), "{name} comes twice");
    }
    entry
}

fn entry_of(fields: &[(&str, &str)], message: &[u8]) -> Entry {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    fields.chain([("MESSAGE".to_owned(), message.to_vec())]).collect()
}

struct Scene {
    broker: TestBroker,
    reader: Reader,
}

impl Scene {
    fn with(destination: &str) -> Self {
        let (setup, path) = setup(destination);
        let reader = Reader::listen(&path);
        Self { reader, broker: setup.start() }
    }
}

/// A broker that passes lines on to a socket, and the path of that.
fn setup(destination: &str) -> (Setup, PathBuf) {
    let setup = Setup::new();
    let path = setup.folder().join("reader");
    let flags = ["--children-log", destination, "--children-log-socket", path.to_str().unwrap()];
    (setup.flags(flags), path)
}

/// All that is kept of a child that has ended.
fn kept(client: &mut JsonClient, child: &Value, stream: &str) -> String {
    client.ok("wait", json!({"target": child["id"]}));
    let answer = client.ok("logs", json!({"target": child["id"], "stream": stream}));
    answer["text"].as_str().expect("a text").to_owned()
}

fn lost_lines(broker: &TestBroker) -> u64 {
    let metrics = broker.run(&["metrics"]).out;
    let sample = "procbroker_children_log_dropped_lines_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)).expect("a count of lines");
    line.parse().expect("a number")
}

#[test]
fn each_line_is_an_entry_of_the_journal_that_says_who_has_written_it() {
    let Scene { broker, reader } = Scene::with("journal");
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let text = "echo $$ >\"$1\"; echo one; echo '<2>two' >&2; echo three >&2; echo; printf 'a\\377b\\n'; printf last";
    let more =
        json!({"name": "web-1", "stderr": "log", "labels": {"pool": "render", "app.kind/x": "two\nlines"}});
    let child = client.create(with(script(&hello, text), &more));
    let pid = hello.line();
    let id = child["id"].as_str().expect("an id");
    let mut entries: Vec<_> = (0..5).map(|_| reader.entry()).collect();
    // Two streams are in no order.
    entries.sort_by(|(one, _), (other, _)| one["MESSAGE"].cmp(&other["MESSAGE"]));
    for ((entry, is_file), (message, stream, priority)) in entries.iter().zip([
        (&b"a\xffb"[..], "stdout", "6"),
        (b"last", "stdout", "6"),
        (b"one", "stdout", "6"),
        (b"three", "stderr", "4"),
        (b"two", "stderr", "2"),
    ]) {
        let fields = [
            ("SYSLOG_IDENTIFIER", "web-1"),
            ("SYSLOG_FACILITY", "3"),
            ("PROCBROKER_CHILD_ID", id),
            ("PROCBROKER_CHILD_NAME", "web-1"),
            ("PROCBROKER_STREAM", stream),
            ("PROCBROKER_LABEL_POOL", "render"),
            ("PROCBROKER_LABEL_APP_KIND_X", "two\nlines"),
            ("OBJECT_PID", &pid),
            ("PRIORITY", priority),
        ];
        assert_eq!((entry, *is_file), (&entry_of(&fields, message), false));
    }
    assert_eq!(kept(&mut client, &child, "stdout"), "one\n\na\u{fffd}b\nlast");
    assert_eq!(kept(&mut client, &child, "stderr"), "<2>two\nthree\n");
    // Where there is one stream, standard error is no warning, and a child without a name is called by its program.
    client.create(json!({"command": ["/bin/sh", "-c", "echo both >&2"]}));
    let (entry, _) = reader.entry();
    let told =
        ["SYSLOG_IDENTIFIER", "PROCBROKER_STREAM", "PRIORITY", "MESSAGE"].map(|name| entry[name].as_slice());
    assert_eq!(told, [&b"sh"[..], b"stdout", b"6", b"both"]);
    assert!(!entry.contains_key("PROCBROKER_CHILD_NAME"), "{entry:?}");
    assert_eq!(lost_lines(&broker), 0);
}

/// A digit with zeroes in front of it.
fn padded(digit: u8, width: usize) -> String {
    format!("{}{digit}", "0".repeat(width - 1))
}

#[test]
fn a_long_line_comes_as_a_sealed_file_and_one_that_is_too_long_in_parts() {
    let Scene { broker, reader } = Scene::with("journal");
    let mut client = broker.json();
    let long = "printf '%040000d\\n' 1; printf '%0100000d\\n' 2; echo end";
    let child = client.create(json!({"command": ["sh", "-c", long]}));
    let (entry, is_file) = reader.entry();
    assert!(is_file && entry["MESSAGE"] == padded(1, 40_000).into_bytes());
    let parts: Vec<_> = (0..3).map(|_| reader.message()).collect();
    assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [49_152, 49_152, 1_696]);
    assert!(parts.concat() == padded(2, 100_000));
    assert_eq!(reader.message(), "end");
    let expected = format!("{}\n{}\nend\n", padded(1, 40_000), padded(2, 100_000));
    assert!(kept(&mut client, &child, "stdout") == expected);
}

#[test]
fn a_line_that_is_written_in_parts_is_one_entry() {
    let Scene { broker, reader } = Scene::with("journal");
    let mut orders = broker.fifo("orders");
    let mut client = broker.json();
    let child = client.create(script(&orders, "printf hel; read -r go <\"$1\"; echo lo"));
    while client.ok("logs", json!({"target": child["id"]}))["text"] != "hel" {}
    orders.say("go");
    assert_eq!(reader.message(), "hello");
}

/// Writes a line for each that it reads, with its pid in front.
fn echoing(orders: &Fifo) -> Value {
    script(orders, "echo ready $$; while read -r line; do printf '%s %s' $$ \"$line\"; done <\"$1\"")
}

#[test]
fn lines_go_on_after_a_crash_an_upgrade_and_a_restart() {
    let Scene { mut broker, reader } = Scene::with("journal");
    let mut orders = broker.fifo("orders");
    let child = broker.json().create(with(echoing(&orders), &json!({"name": "one", "labels": {"a": "b"}})));
    let told = |entry: &Entry| {
        assert_eq!(entry["PROCBROKER_LABEL_A"], b"b");
        let (pid, message) = (&entry["OBJECT_PID"], &entry["MESSAGE"]);
        (String::from_utf8(pid.clone()).unwrap(), String::from_utf8(message.clone()).unwrap())
    };
    let pid = child["pid"].to_string();
    assert_eq!(told(&reader.entry().0), (pid.clone(), format!("ready {pid}")));
    broker.crash();
    // It waits in the pipe.
    orders.say("crashed");
    broker.start_again();
    let kept = |text: &str| {
        let mut client = broker.json();
        while !client.ok("logs", json!({"target": "one"}))["text"].as_str().unwrap().ends_with(text) {}
    };
    kept("crashed");
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    // The program that was begun with knows nothing of how the line began.
    assert_eq!(told(&reader.entry().0), (pid.clone(), format!("{pid} crashed")));
    orders.say("upgraded");
    kept("upgraded");
    let restarted = broker.json().ok("restart", json!({"target": "one"}));
    assert_eq!(told(&reader.entry().0), (pid.clone(), format!("{pid} upgraded")));
    let next = restarted["children"][0]["pid"].to_string();
    assert_eq!(told(&reader.entry().0), (next.clone(), format!("ready {next}")));
    assert_ne!(pid, next);
}

#[test]
fn a_journal_that_nobody_reads_holds_up_no_child_and_what_is_lost_is_counted() {
    const LINES: usize = 400_000;
    let Scene { mut broker, reader } = Scene::with("journal");
    let mut client = broker.json();
    let mut done = broker.fifo("done");
    let flood = format!("seq -w {LINES}; echo done >\"$1\"");
    let child = client.create(script(&done, &flood));
    assert_eq!(done.line(), "done");
    let expected: String = (1..=LINES).map(|number| format!("{number:06}\n")).collect::<Vec<_>>().concat();
    assert!(kept(&mut client, &child, "stdout") == expected);
    assert!(lost_lines(&broker) > 0);
    // What it reads in the end, it is sent again.
    client.create(json!({"command": ["sh", "-c", "while echo again; do :; done"], "name": "again"}));
    let mut before = 0;
    while reader.message() != "again" {
        before += 1;
    }
    assert!(before < LINES);
    client.ok("destroy", json!({"target": "again"}));
    drop(reader);
    let ended = broker.stop();
    let told = ended.lines_with("lines of children are lost to the journal, and kept all the same");
    assert_eq!(told.len(), 1, "{}", ended.log);
}

#[test]
fn a_reader_that_is_not_there_is_told_of_and_sent_to_as_soon_as_it_is() {
    let (setup, path) = setup("journal");
    let mut broker = setup.start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["echo", "early"]}));
    assert_eq!(kept(&mut client, &child, "stdout"), "early\n");
    while lost_lines(&broker) == 0 {}
    let reader = Reader::listen(&path);
    client.create(json!({"command": ["echo", "late"]}));
    assert_eq!(reader.message(), "late");
    assert_eq!(lost_lines(&broker), 1);
    let ended = broker.stop();
    let told = ended.lines_with("lost to the journal");
    assert!(told.len() == 1 && told[0].contains(path.to_str().unwrap()), "{}", ended.log);
}

#[test]
fn syslog_is_sent_each_line_with_its_child_in_front() {
    let Scene { broker, reader } = Scene::with("syslog");
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let text = "echo $$ >\"$1\"; echo one; echo two >&2; printf '%010000d' 3";
    let child = client.create(with(script(&hello, text), &json!({"name": "web:1", "stderr": "log"})));
    let pid = hello.line();
    let mut messages: Vec<_> = (0..4).map(|_| reader.text()).collect();
    messages.sort_by_key(|message| message.starts_with("<28>"));
    let told = |message: &str, priority: &str| {
        let rest = message.strip_prefix(priority).expect("a priority");
        let (time, rest) = rest.split_at("Nov  9 06:51:44 ".len());
        assert!(time.ends_with(' ') && time.matches(':').count() == 2, "{message}");
        rest.strip_prefix(&format!("web_1[{pid}]: ")).expect("a child").to_owned()
    };
    assert_eq!(told(&messages[0], "<30>"), "one");
    let long = [&messages[1], &messages[2]].map(|message| told(message, "<30>"));
    assert_eq!((long[0].len(), long.concat()), (7 << 10, padded(3, 10_000)));
    assert_eq!(told(&messages[3], "<28>"), "two");
    assert_eq!(kept(&mut client, &child, "stderr"), "two\n");
}
