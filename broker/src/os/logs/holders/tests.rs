//! Processes that hold a pipe, and some that only have to do with one.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use procbroker_protocol::ChildId;
use procbroker_protocol::request::LogStream;
use uuid::Uuid;

use super::*;
use crate::captured_log::captured;
use crate::os::logs::stream::StreamId;

/// Moves bytes from its input, or from a socket that nobody writes to, to its output.
const MOVES: &str = "
import os, socket, sys, threading
silent, writer = socket.socketpair()
def move(): os.splice(silent.fileno(), 1, 1 << 16)
thread = threading.Thread(target=move, daemon=True)
if sys.argv[1] != 'has': thread.start()
def is_there():
    words = open(f'/proc/self/task/{thread.native_id}/syscall').read().split()
    return words[1:2] + words[3:4] == [hex(silent.fileno()), '0x1']
while thread.is_alive() and not is_there(): os.sched_yield()
if sys.argv[1] == 'hides': os.close(1)
os.write(2, b'there\\n')
threading.Event().wait()
";

/// A pipe like a child's. Nothing of the test has it open: whoever closes it waits for its holder.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        for number in [1, 2] {
            mkfifo(&scene.path(number), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        }
        scene
    }

    fn path(&self, number: u128) -> std::path::PathBuf {
        let child = ChildId::from_uuid(Uuid::from_u128(number));
        self.folder.path().join(StreamId { child, stream: LogStream::Stdout }.to_string())
    }

    fn held(&self, number: u128) -> HeldPipe {
        let found = fs::metadata(self.path(number)).unwrap();
        let place = PipePlace { device: found.dev(), inode: found.ino() };
        HeldPipe { place, user: found.uid(), name: "the output".to_owned() }
    }
}

/// A process with a pipe as its output.
struct Process(Child);

impl Process {
    fn start(conduct: &str, scene: &Scene, number: u128) -> Self {
        let pipe = File::options().read(true).write(true).open(scene.path(number)).unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", MOVES, conduct]).stdin(Stdio::null()).stdout(pipe).stderr(Stdio::piped());
        let mut process = Self(command.spawn().unwrap());
        // Before it is held: the descriptor of this process.
        drop(command);
        let mut line = String::new();
        BufReader::new(process.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        process
    }

    fn pid(&self) -> Pid {
        Pid::new(self.0.id()).unwrap()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_call_is_read_with_its_descriptors() {
    let read = |text: &str| WaitingCall::read(text).map(|call| call.ends().collect::<Vec<_>>());
    let text = |number: i64, first: &str| {
        format!("{number} {first} 0x0 0x5 0x0 0x64 0x0 0x7fff93e52348 0x7f7e66727103\n")
    };
    assert_eq!(read(&text(libc::SYS_splice, "0x4")), Some(vec![4, 5]));
    assert_eq!(read(&text(libc::SYS_tee, "0x4")), Some(vec![4, 0]));
    assert_eq!(read(&text(libc::SYS_sendfile, "0x4")), Some(vec![4, 0]));
    assert_eq!(read(&text(libc::SYS_vmsplice, "0x4")), Some(vec![4]));
    // The upper half means nothing to the kernel.
    assert_eq!(read(&text(libc::SYS_vmsplice, "0xdead00000004")), Some(vec![4]));
    assert_eq!(read(&text(libc::SYS_read, "0x4")), Some(vec![]));
    for text in ["running\n", "-1 0x7fff93e52348 0x7f7e66727103\n", "", "275 0x4 0x0", "275 4 0 5 0 64 0 0 0"]
    {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn only_the_name_of_a_pipe_of_a_child_is_one() {
    let name = StreamId { child: ChildId::from_uuid(Uuid::nil()), stream: LogStream::Stderr }.to_string();
    for (target, is_pipe) in [
        (format!("/run/output/{name}"), true),
        (format!("/run/output/{name} (deleted)"), true),
        (format!("(unreachable)/output/{name}"), true),
        (format!("/run/output/{name}x"), false),
        ("pipe:[1234]".to_owned(), false),
        ("/".to_owned(), false),
    ] {
        assert_eq!(is_named_as_a_pipe(Path::new(&target)), is_pipe, "{target}");
    }
}

#[test]
fn what_a_process_does_is_told_by_its_calls_and_by_what_it_has_open() {
    let scene = Scene::new();
    let (holds, hides) = (Process::start("holds", &scene, 1), Process::start("hides", &scene, 2));
    let conduct_of =
        |process: &Process, number, looks| conduct(process.pid(), scene.held(number).place, looks);
    assert_eq!(conduct_of(&holds, 1, true), Conduct::Holds);
    assert_eq!(conduct_of(&holds, 2, true), Conduct::MovesOther);
    assert_eq!(conduct_of(&hides, 2, true), Conduct::MovesOther);
    drop((holds, hides));
    let has = Process::start("has", &scene, 1);
    assert_eq!(conduct_of(&has, 1, true), Conduct::HasItOpen);
    assert_eq!(conduct_of(&has, 1, false), Conduct::Nothing);
    assert_eq!(conduct_of(&has, 2, true), Conduct::Nothing);
}

#[test]
fn who_is_sure_to_hold_a_pipe_is_ended_and_nobody_else() {
    let scene = Scene::new();
    // It has its output open before that is held.
    let mut has = Process::start("has", &scene, 1);
    let mut holds = Process::start("holds", &scene, 1);
    let mut other = Process::start("holds", &scene, 2);
    let pidfd = pidfd::open(holds.pid()).unwrap();
    let mut released = None;
    let log = captured(|| {
        released =
            Some(release(&scene.held(1), Reach::TheSuspicious, &[], || !pidfd::has_ended(pidfd.as_fd())));
    });
    assert_eq!(released, Some(Release::Free));
    assert!(holds.has_ended() && !has.has_ended() && !other.has_ended());
    assert!(log.contains(&format!("pids={}", holds.pid())) && log.contains("the output"), "{log}");
}

#[test]
fn who_has_a_pipe_open_is_ended_where_nobody_is_seen_to_hold_it() {
    let scene = Scene::new();
    let (mut has, mut other) = (Process::start("has", &scene, 1), Process::start("has", &scene, 2));
    let pidfd = pidfd::open(has.pid()).unwrap();
    let own = Pid::new(std::process::id()).unwrap();
    assert_eq!(release(&scene.held(1), Reach::TheSure, &[own], || true), Release::StillHeld);
    assert!(!has.has_ended());
    assert_eq!(
        release(&scene.held(1), Reach::TheSuspicious, &[own], || !pidfd::has_ended(pidfd.as_fd())),
        Release::Free
    );
    assert!(has.has_ended() && !other.has_ended());
}

#[test]
fn who_is_spared_is_not_ended_and_a_pipe_that_stays_held_is_told() {
    let scene = Scene::new();
    let mut holds = Process::start("holds", &scene, 1);
    assert_eq!(release(&scene.held(1), Reach::TheSuspicious, &[holds.pid()], || true), Release::StillHeld);
    assert!(!holds.has_ended());
    assert_eq!(release(&scene.held(1), Reach::TheSuspicious, &[], || false), Release::Free);
    assert!(!holds.has_ended(), "nobody holds it");
}
