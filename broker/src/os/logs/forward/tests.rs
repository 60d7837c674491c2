//! What the log thread says, as it comes out at the other end.

use std::os::unix::net::UnixDatagram;

use procbroker_protocol::CreateParams;
use procbroker_protocol::request::LogStream;
use uuid::Uuid;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    _folder: tempfile::TempDir,
    reader: UnixDatagram,
    forwarder: Forwarder,
}

fn child() -> ChildId {
    ChildId::from_uuid(Uuid::from_u128(7))
}

fn stdout() -> StreamId {
    StreamId { child: child(), stream: LogStream::Stdout }
}

impl Scene {
    /// A child that an earlier broker has left, with this pid.
    fn new(pid: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("reader");
        let reader = UnixDatagram::bind(&socket).unwrap();
        reader.set_nonblocking(true).unwrap();
        let destination = Destination { reader: LineReader::Syslog, socket };
        let mut forwarder = Forwarder::start(destination, &Arc::default()).unwrap();
        let params = CreateParams::new(vec!["one".to_owned()]);
        forwarder.know(child(), Author::new(0, Arc::new(params), pid.and_then(Pid::new)));
        Self { _folder: folder, reader, forwarder }
    }

    /// What was sent by now, from the author on.
    fn sent(&self) -> Vec<String> {
        assert!(self.forwarder.passing().settle(PATIENCE));
        let mut message = [0; 16 << 10];
        let received = std::iter::from_fn(|| {
            let length = self.reader.recv(&mut message).ok()?;
            Some(String::from_utf8_lossy(&message[..length]).into_owned())
        });
        received.map(|message| message["<30>Nov  9 06:51:44 ".len()..].to_owned()).collect()
    }
}

#[test]
fn what_a_process_says_before_it_is_known_waits_for_its_pid() {
    let mut scene = Scene::new(None);
    scene.forwarder.starts(child());
    scene.forwarder.pass(stdout(), b"quick\nbeg".to_vec());
    assert!(scene.sent().is_empty());
    scene.forwarder.runs(child(), Pid::new(7));
    assert_eq!(scene.sent(), ["one[7]: quick"]);
    scene.forwarder.pass(stdout(), b"un".to_vec());
    scene.forwarder.starts(child());
    assert_eq!(scene.sent(), ["one[7]: begun"], "nothing of the next run goes on with it");
    scene.forwarder.pass(stdout(), b"again".to_vec());
    scene.forwarder.runs(child(), None);
    scene.forwarder.end(stdout());
    scene.forwarder.forget(child());
    scene.forwarder.pass(stdout(), b"nobody's\n".to_vec());
    assert_eq!(scene.sent(), ["one: again"]);
}

#[test]
fn a_process_that_stays_unknown_is_passed_on_without_its_pid() {
    let mut scene = Scene::new(Some(3));
    scene.forwarder.starts(child());
    let share = [vec![b'\n'; HELD_BYTES_MAX - 4], b"one\n".to_vec()].concat();
    scene.forwarder.pass(stdout(), share);
    assert!(scene.sent().is_empty());
    scene.forwarder.pass(stdout(), b"too much\n".to_vec());
    assert_eq!(scene.sent(), ["one: one", "one: too much"]);
    scene.forwarder.starts(child());
    scene.forwarder.pass(stdout(), b"the last".to_vec());
    scene.forwarder.end(stdout());
    assert_eq!(scene.sent(), ["one: the last"]);
}

#[test]
fn lines_without_an_end_are_passed_on_when_another_program_takes_over() {
    let mut scene = Scene::new(Some(3));
    scene.forwarder.pass(stdout(), b"begun".to_vec());
    assert!(scene.sent().is_empty());
    assert!(scene.forwarder.passing().flush(PATIENCE));
    assert_eq!(scene.sent(), ["one[3]: begun"]);
}
