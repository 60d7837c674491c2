//! The real broker: started, looked at from outside, and stopped.

use std::fs::{self, OpenOptions};
use std::mem;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::connection::Connection;
use crate::failure::{Attempt, Failure};
use crate::interrupt;
use crate::orphans;
use crate::scene::Scene;

/// How long a broker may take to start, or to stop when a row has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a broker that starts; the figure of its start is as coarse as this.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// More than a row ever has: the broker's own default is the size of the largest crowd.
const CHILDREN_MAX: &str = "20000";
/// More than a row has that says nothing of it: descriptors that are not for connections are for children.
const CONNECTIONS_MAX: &str = "64";

/// A broker with a socket and a state folder of its own. It is stopped with this, and its children with it.
#[derive(Debug)]
pub(crate) struct Broker {
    process: Child,
    folder: PathBuf,
    socket: PathBuf,
    /// From its spawn to its answer to `status`.
    pub(crate) start: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Alive,
    /// Alive, and the children that it took over from one that was killed are reaped here.
    Successor(JoinHandle<()>),
    Dead,
}

impl Broker {
    pub(crate) fn start(scene: &Scene) -> Result<Self, Failure> {
        Self::start_with(scene, &[])
    }

    /// One with more arguments of its own.
    pub(crate) fn start_with(scene: &Scene, more: &[&str]) -> Result<Self, Failure> {
        let folder = scene.subfolder()?;
        let socket = folder.join("socket");
        let begin = Instant::now();
        let process = launch(scene, (&folder, &socket), more)?;
        let mut broker = Self { process, folder, socket, start: Duration::ZERO, phase: Phase::Alive };
        broker.until_ready(begin)?;
        broker.start = begin.elapsed();
        Ok(broker)
    }

    /// Kills it with SIGKILL, and starts it again in the same place.
    pub(crate) fn kill_and_start_again(&mut self, scene: &Scene) -> Result<(), Failure> {
        let attempt = "kill the broker";
        self.process.kill().attempting(attempt)?;
        self.process.wait().attempting(attempt)?;
        self.phase = Phase::Dead;
        let reaping = orphans::reap_in_background();
        let begin = Instant::now();
        self.process = launch(scene, (&self.folder, &self.socket), &[])?;
        self.phase = Phase::Successor(reaping);
        self.until_ready(begin)?;
        self.start = begin.elapsed();
        Ok(())
    }

    /// Runs the command line client with this verb.
    pub(crate) fn run(&self, scene: &Scene, verb: &str) -> Result<(), Failure> {
        let attempt = || format!("run {} {verb}", scene.binary().display());
        let output = Command::new(scene.binary())
            .args([verb, "--socket"])
            .arg(&self.socket)
            .stdin(Stdio::null())
            .output()
            .attempting(attempt())?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::unexpected(attempt(), String::from_utf8_lossy(&output.stderr)))
    }

    fn until_ready(&mut self, begin: Instant) -> Result<(), Failure> {
        loop {
            interrupt::check()?;
            let refused = match self.connect().and_then(|mut connection| connection.status()) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let ended = self.process.try_wait().attempting("look at the broker")?;
            if let Some(status) = ended {
                self.phase = Phase::Dead;
                return Err(Failure::unexpected("start the broker", format!("{status}: {}", self.log())));
            }
            if begin.elapsed() > PATIENCE {
                return Err(refused);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    pub(crate) fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(&self.socket)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The end of what it wrote to standard error.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
    }

    /// Sends SIGTERM and waits until it has exited. That it left a child behind is a failure.
    pub(crate) fn stop(mut self) -> Result<Duration, Failure> {
        let attempt = "stop the broker";
        let begin = Instant::now();
        self.signal(Signal::SIGTERM).attempting(attempt)?;
        let status = self.process.wait().attempting(attempt)?;
        let took = begin.elapsed();
        match self.end_orphans() {
            0 if status.success() => Ok(took),
            0 => Err(Failure::unexpected(attempt, format!("it ended with {status}: {}", self.log()))),
            left => Err(Failure::unexpected(attempt, format!("it left {left} children behind"))),
        }
    }

    /// Ends the children that a broker that is dead has left, and says how many those were.
    fn end_orphans(&mut self) -> usize {
        let left = orphans::end_all();
        if let Phase::Successor(reaping) = mem::replace(&mut self.phase, Phase::Dead) {
            // It waits for nobody any more.
            let _ = reaping.join();
        }
        left
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal)
    }

    fn wait_in_patience(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        match self.phase {
            Phase::Dead => {}
            Phase::Alive | Phase::Successor(_) => {
                let _ = self.signal(Signal::SIGTERM);
                if !self.wait_in_patience() {
                    let _ = self.process.kill();
                    let _ = self.process.wait();
                }
            }
        }
        self.end_orphans();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts the program.
fn launch(scene: &Scene, (folder, socket): (&Path, &Path), more: &[&str]) -> Result<Child, Failure> {
    let attempt = || format!("start the broker {}", scene.binary().display());
    let log = OpenOptions::new().create(true).append(true).open(folder.join("log")).attempting(attempt())?;
    let mut command = Command::new(scene.binary());
    command.arg("serve").arg("--socket").arg(socket).arg("--state-dir").arg(folder.join("state"));
    command.args(["--max-children", CHILDREN_MAX, "--max-children-per-user", CHILDREN_MAX]);
    if !more.contains(&"--max-connections") {
        command.args(["--max-connections", CONNECTIONS_MAX]);
    }
    command.args(["--shutdown-timeout", "60s"]);
    command.args(&scene.serve).args(more);
    command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("PROCBROKER_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().attempting(attempt())
}
