//! A running broker, which is stopped and looked after when the test is over.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::setup::Launched;
use super::{
    Ended, Fifo, FrameClient, JsonClient, PATIENCE, Process, Record, ServiceOwner, Setup, await_end,
    kill_tagged, tagged_processes,
};

/// A broker of one test.
///
/// When it is dropped it is stopped by SIGTERM, and the test fails unless it exits with 0 and leaves no process
/// and no socket behind. After a failure everything is killed, and the log shown.
#[derive(Debug)]
pub(crate) struct TestBroker {
    setup: Setup,
    process: Child,
    owner: ServiceOwner,
    stdout: ChildStdout,
    reaped: bool,
}

impl TestBroker {
    pub(super) fn new(setup: Setup, owner: ServiceOwner, launched: Launched) -> Self {
        let Launched { process, stdout, is_ready: _ } = launched;
        Self { setup, process, owner, stdout, reaped: false }
    }

    /// One with no flags but its places.
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.pid().into())
    }

    pub(crate) fn socket(&self) -> &Path {
        self.setup.socket()
    }

    /// The folder of this test.
    pub(crate) fn folder(&self) -> &Path {
        self.setup.folder()
    }

    /// A path in the folder of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// What a child writes its standard output to.
    pub(crate) fn pipe_of(&self, child: &Value) -> PathBuf {
        let id = child["id"].as_str().expect("an id");
        PathBuf::from(format!("{}.d/output/{id}.out", self.socket().display()))
    }

    /// How much of a child's output takes room on the disk, in bytes, as the broker sees it.
    pub(crate) fn kept_of(&self, child: &Value) -> u64 {
        let state = self.state_dir();
        let state = state.strip_prefix("/").expect("an absolute path");
        let logs = PathBuf::from(format!("/proc/{}/root", self.pid())).join(state).join("logs");
        let id = child["id"].as_str().expect("an id");
        let files = std::fs::read_dir(logs).expect("the folder of output").flatten();
        let own = files.filter(|file| file.file_name().to_string_lossy().starts_with(id));
        own.map(|file| file.metadata().expect("a file").blocks() * 512).sum()
    }

    /// A named pipe in the folder of this test.
    pub(crate) fn fifo(&self, name: &str) -> Fifo {
        Fifo::make(self.path(name))
    }

    /// A new connection that speaks JSON.
    pub(crate) fn json(&self) -> JsonClient {
        JsonClient::over(self.raw())
    }

    /// A new connection that speaks frames.
    pub(crate) fn frames(&self) -> FrameClient {
        FrameClient::over(self.raw())
    }

    /// A new connection that has said nothing.
    pub(crate) fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("a connection to the broker");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The status, which shows too that the broker is well.
    pub(crate) fn status(&self) -> Value {
        self.json().ok("status", json!({}))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).expect("a running broker");
    }

    /// Waits until the broker says this to its service's owner, such as `STOPPING=1`.
    /// Sends a signal to a broker that was told to stop before, when it counts again: that takes a second by itself, and
    /// nothing tells of it.
    pub(crate) fn signal_that_counts_again(&self, signal: Signal) {
        std::thread::sleep(std::time::Duration::from_secs(1));
        self.signal(signal);
    }

    pub(crate) fn says(&self, word: &str) {
        assert!(self.owner.hears(word, self.stdout.as_fd()), "the broker ended without {word}");
    }

    /// Its standard output: what children with `inherit` write to.
    pub(crate) fn stdout(&mut self) -> &mut ChildStdout {
        &mut self.stdout
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until it has ended, by itself or because of what was done to it.
    pub(crate) fn ended(&mut self) -> Ended {
        let status = await_end(&mut self.process).expect("the broker ends");
        self.reaped = true;
        Ended { status, log: self.log() }
    }

    /// Waits until all that clients were told so far is in the state file, and not in the log of intents alone. What is
    /// recorded later is never there before: so it is when a child has come there that has a cleanup, and is forgotten
    /// again because it could not be started.
    pub(crate) fn recorded(&self) {
        let command = json!(["/no/such/program"]);
        let refused =
            self.json().refused("create", json!({"command": command, "cleanup": {"command": command}}));
        assert_eq!(refused.kind, "spawn_failed", "{}", refused.message);
        Record::of(self)
            // What a request was answered with has no progress.
            .await_none(
                "SELECT 1 FROM child LEFT JOIN progress USING (seq) WHERE progress.seq IS NULL \
                 AND intent NOT LIKE '{\"answered\":%'",
            );
    }

    /// SIGKILL, which the broker cannot see coming. Its children go on, and it has to be started again.
    pub(crate) fn crash(&mut self) {
        self.signal(Signal::SIGKILL);
        let ended = self.ended();
        assert_eq!(ended.signal(), Some(9), "the broker was gone before: {}", ended.log);
    }

    /// Starts the next broker, on the same socket and the same state.
    pub(crate) fn start_again(&mut self) {
        assert!(self.reaped, "the broker is still there");
        let Launched { process, stdout, is_ready } = self.setup.launch(&self.owner);
        (self.process, self.stdout, self.reaped) = (process, stdout, false);
        assert!(is_ready, "the broker did not start again");
    }

    /// SIGKILL, and the next broker.
    pub(crate) fn crash_and_start_again(&mut self) {
        self.crash();
        self.start_again();
    }

    /// SIGKILL, which something keeps it from dying of, and the next broker, which sees to that it does.
    pub(crate) fn die_while_the_next_starts(&mut self) {
        self.signal(Signal::SIGKILL);
        let Launched { process, stdout, is_ready } = self.setup.launch(&self.owner);
        let mut before = std::mem::replace(&mut self.process, process);
        self.stdout = stdout;
        let ended = await_end(&mut before).expect("the broker before ends");
        assert_eq!(ended.signal(), Some(9));
        assert!(is_ready, "the broker did not start again");
    }

    /// The next broker gets these flags too.
    pub(crate) fn add_flags(&mut self, flags: &[&str]) {
        self.setup.add_flags(flags);
    }

    /// How the next broker is started.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// SIGTERM, the end, and the proof that nothing is left.
    pub(crate) fn stop(&mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.ended_in_order()
    }

    /// The end of a broker that was told to stop, and the proof that nothing is left.
    pub(crate) fn ended_in_order(&mut self) -> Ended {
        let ended = self.ended();
        assert_eq!(tagged_processes(self.folder()), [], "processes left behind");
        assert_eq!(ended.code(), Some(0), "the exit status of the broker: {:?}", ended.status);
        assert!(!self.socket().exists(), "the socket is left behind");
        ended
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if thread::panicking() {
            return self.abandon();
        }
        // Whatever this finds is a failure of the test.
        let looked_after = catch_unwind(AssertUnwindSafe(|| {
            if self.reaped {
                assert_eq!(tagged_processes(self.folder()), [], "processes left behind");
            } else {
                self.stop();
            }
        }));
        if let Err(failure) = looked_after {
            self.abandon();
            resume_unwind(failure);
        }
    }
}

impl TestBroker {
    /// Ends everything by force, and shows what the broker had to say.
    fn abandon(&mut self) {
        if !self.reaped {
            let _ = self.process.kill();
        }
        kill_tagged(self.folder());
        let _ = self.process.wait();
        eprintln!("the broker's log:\n{}", self.log());
    }
}
