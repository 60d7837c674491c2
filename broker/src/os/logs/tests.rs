//! The log thread with real pipes and files, and processes that write to them.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use procbroker_protocol::request::LogStream;
use uuid::Uuid;

use super::*;

const USER: u32 = 7;

struct Scene {
    folder: tempfile::TempDir,
    logs: LogHandle,
}

fn id(number: u128) -> StreamId {
    StreamId { child: ChildId::from_uuid(Uuid::from_u128(number)), stream: LogStream::Stdout }
}

fn params() -> Arc<CreateParams> {
    Arc::new(CreateParams::new(vec!["one".to_owned()]))
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = Self::start(&folder, Vec::new());
        Self { folder, logs }
    }

    fn start(folder: &tempfile::TempDir, children: Vec<Remembered>) -> LogHandle {
        let pipes = Pipes::open(folder.path().join("output")).unwrap();
        let bounds = LogBounds { per_child: 16 << 20, in_all: 1 << 30 };
        let folder = folder.path().join("logs");
        let settings = LogSettings { folder, pipes, bounds, forward: None, children, inherited: Vec::new() };
        LogHandle::start(settings).unwrap()
    }

    /// What a child gets as its output.
    fn pipe(&self, id: StreamId) -> File {
        self.logs.open(id, USER, &params()).unwrap();
        File::options().read(true).write(true).open(self.logs.pipes.path(id.child, id.stream)).unwrap()
    }

    async fn text(&self, id: StreamId) -> String {
        let kept = self.logs.kept(id).await.unwrap();
        String::from_utf8(kept.read(0, usize::MAX >> 1).unwrap().bytes).unwrap()
    }

    fn has_pipe(&self, id: StreamId) -> bool {
        self.logs.pipes.path(id.child, id.stream).exists()
    }
}

#[tokio::test]
async fn what_has_been_written_is_kept_when_it_is_asked_for() {
    let scene = Scene::new();
    let mut pipe = scene.pipe(id(1));
    for number in 0..1_000 {
        write!(pipe, "{number},").unwrap();
        assert!(scene.text(id(1)).await.ends_with(&format!("{number},")));
    }
    assert_eq!(scene.text(id(2)).await, "");
}

#[tokio::test]
async fn everything_of_a_child_that_has_ended_is_kept_and_its_pipe_goes() {
    let scene = Scene::new();
    for number in 0..20 {
        let pipe = scene.pipe(id(number));
        let mut child = Command::new("seq").arg("20000").stdout(Stdio::from(pipe)).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        scene.logs.end(id(number).child);
        scene.logs.wake();
    }
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect::<Vec<_>>().concat();
    for number in 0..20 {
        assert!(scene.text(id(number)).await == expected, "{number}");
    }
    scene.logs.settle(Duration::from_secs(60));
    assert!((0..20).all(|number| !scene.has_pipe(id(number))));
    scene.logs.forget(id(3).child);
    assert_eq!(scene.text(id(3)).await, "");
}

#[tokio::test]
async fn who_waits_for_more_is_told_of_more_or_that_nothing_comes() {
    let scene = Scene::new();
    let mut pipe = scene.pipe(id(1));
    let nothing = scene.logs.kept(id(1)).await.unwrap();
    let mut more = Box::pin(scene.logs.more_than(&nothing));
    let none_yet = tokio::time::timeout(Duration::from_millis(20), &mut more).await;
    assert!(none_yet.is_err(), "{none_yet:?}");
    pipe.write_all(b"one").unwrap();
    let kept = more.await.unwrap();
    assert_eq!(kept.end(), 3);
    let mut more = Box::pin(scene.logs.more_than(&kept));
    let none_yet = tokio::time::timeout(Duration::from_millis(20), &mut more).await;
    assert!(none_yet.is_err(), "{none_yet:?}");
    scene.logs.end(id(1).child);
    scene.logs.wake();
    assert_eq!(more.await.unwrap().end(), 3);
    scene.logs.settle(Duration::from_secs(60));
    assert_eq!(scene.logs.more_than(&kept).await.unwrap().end(), 3);
    // One that has no pipe, and never gets one.
    let silent = scene.logs.kept(id(2)).await.unwrap();
    let more = tokio::spawn({
        let logs = scene.logs.clone();
        async move { logs.more_than(&silent).await.unwrap().end() }
    });
    tokio::task::yield_now().await;
    scene.logs.forget(id(2).child);
    scene.logs.wake();
    assert_eq!(more.await.unwrap(), 0);
}

#[tokio::test]
async fn a_flood_holds_up_no_other_user() {
    let scene = Scene::new();
    let floods: Vec<_> = (10..14).map(|number| scene.pipe(id(number))).collect();
    let mut children: Vec<_> = floods
        .into_iter()
        .map(|pipe| Command::new("yes").stdout(Stdio::from(pipe)).spawn().unwrap())
        .collect();
    scene.logs.open(id(1), USER + 1, &params()).unwrap();
    let mut pipe =
        File::options().write(true).open(scene.logs.pipes.path(id(1).child, id(1).stream)).unwrap();
    for number in 0..100 {
        write!(pipe, "{number},").unwrap();
        let kept = scene.text(id(1)).await;
        assert!(kept.ends_with(&format!("{number},")), "{kept}");
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn the_next_broker_goes_on_with_the_pipes_of_living_children() {
    let Scene { folder, logs } = Scene::new();
    let scene = Scene { folder, logs };
    let mut pipe = scene.pipe(id(1));
    pipe.write_all(b"before\n").unwrap();
    assert_eq!(scene.text(id(1)).await, "before\n");
    drop(scene.pipe(id(2)));
    let Scene { folder, logs } = scene;
    // As if it had been killed: it touches nothing any more.
    let _killed = logs.pause(Duration::from_secs(60)).unwrap();
    pipe.write_all(b"meanwhile\n").unwrap();
    let child = id(1).child;
    let params = params();
    let left = Remembered { child, user: USER, has_ended: false, params, pid: None };
    let logs = Scene::start(&folder, vec![left]);
    let scene = Scene { folder, logs };
    let text = scene.text(id(1)).await;
    assert!(text == "before\nmeanwhile\n", "{text}");
    assert!(!scene.has_pipe(id(2)), "the pipe of a child that nobody knows stays");
    pipe.write_all(b"after\n").unwrap();
    assert_eq!(scene.text(id(1)).await, "before\nmeanwhile\nafter\n");
    assert!(fs::metadata(scene.folder.path().join("logs")).unwrap().is_dir());
}

#[tokio::test]
async fn a_paused_thread_touches_no_pipe_and_goes_on_when_it_may() {
    let scene = Scene::new();
    let mut pipe = scene.pipe(id(1));
    let paused = scene.logs.pause(Duration::from_secs(60)).unwrap();
    assert_eq!(paused.pipes().count(), 1);
    pipe.write_all(b"one").unwrap();
    let mut asked = Box::pin(scene.logs.kept(id(1)));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut asked).await.is_err());
    drop(paused);
    assert_eq!(asked.await.unwrap().end(), 3);
}

#[tokio::test]
async fn a_child_that_never_ran_leaves_no_pipe() {
    let scene = Scene::new();
    drop(scene.pipe(id(1)));
    scene.logs.never_ran(id(1).child);
    assert!(!scene.has_pipe(id(1)));
    // Another attempt gets a new one.
    let mut pipe = scene.pipe(id(1));
    pipe.write_all(b"one").unwrap();
    assert_eq!(scene.text(id(1)).await, "one");
}

/// A process that holds a pipe within the kernel: it moves bytes there from a socket that nobody writes to.
struct Holder(std::process::Child);

impl Holder {
    fn of(path: &std::path::Path) -> Self {
        const HOLDS: &str = "
import os, socket, sys, threading
pipe = os.open(sys.argv[1], os.O_RDWR)
silent, writer = socket.socketpair()
thread = threading.Thread(target=os.splice, args=(silent.fileno(), pipe, 1 << 16), daemon=True)
thread.start()
def holds():
    words = open(f'/proc/self/task/{thread.native_id}/syscall').read().split()
    return words[1:2] + words[3:4] == [hex(silent.fileno()), hex(pipe)]
while not holds(): os.sched_yield()
print('holds', flush=True)
thread.join()
";
        let mut command = Command::new("python3");
        let mut process =
            command.args(["-c", HOLDS]).arg(path).stdout(Stdio::piped()).spawn().expect("python3");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "holds\n");
        Self(process)
    }

    fn await_kill(mut self) {
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(self.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn whoever_holds_a_pipe_is_ended_once_the_thread_waits_for_them() {
    let scene = Scene::new();
    let user = nix::unistd::geteuid().as_raw();
    for number in [1, 2] {
        scene.logs.open(id(number), user, &params()).unwrap();
    }
    let path = scene.logs.pipes.path(id(1).child, LogStream::Stdout);
    for asks in [true, false] {
        let holder = Holder::of(&path);
        if asks {
            assert_eq!(scene.text(id(1)).await, "");
        } else {
            scene.logs.touch(id(1).child);
        }
        holder.await_kill();
        assert_eq!(scene.text(id(2)).await, "");
    }
    let holder = Holder::of(&path);
    scene.logs.end(id(1).child);
    scene.logs.settle(Duration::from_secs(60));
    holder.await_kill();
    assert!(!scene.has_pipe(id(1)));
}

#[test]
fn whoever_holds_a_pipe_that_was_left_is_ended_and_the_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("output");
    let pipes = Pipes::open(place.clone()).unwrap();
    drop([1, 2, 3].map(|number| pipes.make(id(number)).unwrap()));
    let mut writer = Command::new("sleep");
    let pipe = File::options().read(true).write(true).open(pipes.path(id(3).child, LogStream::Stdout));
    let mut writer = Holder(writer.arg("infinity").stdout(pipe.unwrap()).spawn().unwrap());
    let holders = [1, 2].map(|number| Holder::of(&pipes.path(id(number).child, LogStream::Stdout)));
    let own = Pid::new(std::process::id()).unwrap();
    release_all(&place, own).unwrap();
    holders.into_iter().for_each(Holder::await_kill);
    assert!(writer.0.try_wait().unwrap().is_none());
    release_all(&folder.path().join("missing"), own).unwrap();
    let error = release_all(std::path::Path::new("/proc/self"), own).unwrap_err();
    assert!(error.to_string().contains("/proc/self"), "{error}");
}
