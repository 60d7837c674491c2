//! How a broker is started for a test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::{Ended, ServiceOwner, TestBroker, await_end, procbroker, procbroker_in};

/// A broker that is about to be started, in a new folder of its own.
#[derive(Debug)]
pub(crate) struct Setup {
    folder: TempDir,
    flags: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// A command in front, which executes the broker in its place: so the pid is the broker's.
    through: Vec<OsString>,
    user: Option<u32>,
    socket: PathBuf,
    places: Places,
}

/// A broker that was started just now.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Child,
    pub(super) stdout: ChildStdout,
    /// Whether it says that it is ready; it has ended else.
    pub(super) is_ready: bool,
}

/// Who says where the socket and the state are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Places {
    /// The test, by flags.
    Flags,
    /// The broker itself, by its environment.
    Environment,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("procbroker-test-").tempdir().expect("a scratch folder");
        // Everybody may pass, for tests with several users; nobody else may write.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self {
            socket: folder.path().join("run/broker.sock"),
            folder,
            flags: Vec::new(),
            environment: Vec::new(),
            through: Vec::new(),
            user: None,
            places: Places::Flags,
        }
    }

    /// The folder of this test, whose path is in the environment of every child.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn flags<I: AsRef<OsStr>>(mut self, flags: impl IntoIterator<Item = I>) -> Self {
        self.flags.extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// A command in front of the broker's, such as prlimit(1), that executes it.
    pub(crate) fn through<I: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = I>) -> Self {
        self.through.extend(command.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Starts it with mounts of its own, by a shell script that executes its arguments but the first, which is the state
    /// folder. Only root can.
    pub(crate) fn in_own_mounts(self, script: &str) -> Self {
        let state_dir = self.state_dir();
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
        self.through(words).through([state_dir])
    }

    /// Starts it as this user, in the group of the same number and no other.
    pub(crate) fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        let id = user.to_string();
        self.through(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
    }

    /// Lets the broker choose its places by its environment; this is where the socket is expected.
    pub(crate) fn choosing_places(mut self, socket: PathBuf) -> Self {
        self.socket = socket;
        self.places = Places::Environment;
        self
    }

    /// Starts the broker, and waits until it says that it is ready.
    pub(crate) fn start(self) -> TestBroker {
        let owner = ServiceOwner::listen(self.folder.path().join("notify"));
        let launched = self.launch(&owner);
        let is_ready = launched.is_ready;
        let broker = TestBroker::new(self, owner, launched);
        assert!(is_ready, "the broker did not start");
        broker
    }

    /// Starts it, and waits until it says that it is ready, or ends.
    pub(super) fn launch(&self, owner: &ServiceOwner) -> Launched {
        let mut process = self.command().env("NOTIFY_SOCKET", owner.path()).spawn().expect("the program");
        // Nobody else has the other end, so that it closes when the broker is gone.
        let stdout = process.stdout.take().expect("a pipe");
        let is_ready = owner.hears("READY=1", stdout.as_fd());
        Launched { process, stdout, is_ready }
    }

    /// More flags, for the next start.
    pub(super) fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(OsString::from));
    }

    /// Where the socket is expected.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a broker that is to refuse to start.
    pub(crate) fn refuses(&self) -> Ended {
        let mut process = self.command().spawn().expect("the program");
        let status = await_end(&mut process).unwrap_or_else(|| {
            let _ = process.kill();
            let _ = process.wait();
            panic!("the broker did not refuse to start")
        });
        Ended { status, log: fs::read_to_string(self.folder.path().join("log")).unwrap() }
    }

    /// The program with its flags and its environment.
    pub(crate) fn command(&self) -> Command {
        self.own_folders();
        let mut words = self.through.clone();
        words.push(match self.user {
            Some(_) => procbroker_in(self.folder.path()).into(),
            None => procbroker().into(),
        });
        words.push("serve".into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if self.places == Places::Flags {
            command.arg("--socket").arg(&self.socket).arg("--state-dir").arg(self.state_dir());
        }
        command.args(&self.flags);
        for key in ["NOTIFY_SOCKET", "LISTEN_FDS", "PROCBROKER_SOCKET", "PROCBROKER_LOG", "XDG_RUNTIME_DIR"] {
            command.env_remove(key);
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        // Several brokers may follow each other, and write to the same one.
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command
    }

    /// Where the state will be.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Folders that the broker's user can write to, for its socket and its state. What a test has made of the state
    /// folder since stays.
    fn own_folders(&self) {
        let has_state = self.state_dir().exists();
        for folder in ["run", "state", "home"] {
            let folder = self.folder.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            if let Some(user) = self.user {
                std::os::unix::fs::chown(&folder, Some(user), Some(user)).unwrap();
            }
        }
        if !has_state {
            fs::set_permissions(self.state_dir(), Permissions::from_mode(0o700)).unwrap();
        }
    }
}
