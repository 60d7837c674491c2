//! The bare system calls: a loop of the fastest spawn, and of kill and reap.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use procbroker::os::spawn::{
    BaseEnvironment, Bounding, Credentials, ErrorOutput, LaunchName, Launcher, Output, Restraint, SpawnError,
    SpawnPlan, SpawnSpec, Spawned, StdinSource,
};
use procbroker_protocol::ChildId;
use uuid::Uuid;

use crate::failure::{Attempt, Failure};
use crate::interrupt;
use crate::scene::Scene;
use crate::together::together;

/// Processes of the benchmark's own. Whatever is left is killed and reaped with it.
#[derive(Debug, Default)]
pub(crate) struct Flock(Vec<Pid>);

impl Flock {
    pub(crate) fn push(&mut self, pid: Pid) {
        self.0.push(pid);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends a signal to each, and then reaps each.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<Duration, Failure> {
        let begin = Instant::now();
        for pid in &self.0 {
            kill(*pid, signal).attempting("signal a child")?;
        }
        for pid in &self.0 {
            waitpid(*pid, None).attempting("reap a child")?;
        }
        let took = begin.elapsed();
        self.0.clear();
        Ok(took)
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        for pid in self.0.drain(..) {
            // One that was reaped already is no child any more, and its number is not free for another one
            // as long as this flock was the only one to reap.
            if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_none()) {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
            }
        }
    }
}

/// A child with as little around it as there can be, or with its output in a file.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) command: Vec<String>,
    pub(crate) log: Option<PathBuf>,
}

fn prepare(plan: &Plan) -> Result<SpawnPlan, SpawnError> {
    let spec = SpawnSpec {
        name: LaunchName::of(ChildId::from_uuid(Uuid::nil())),
        command: plan.command.iter().map(Into::into).collect(),
        env: Vec::new(),
        inherited: BaseEnvironment::default(),
        own_pid: None,
        cwd: "/".into(),
        umask: Mode::from_bits_truncate(0o022),
        credentials: Credentials::Unchanged,
        restraint: Restraint::default(),
        rlimits: Vec::new(),
        stdin: StdinSource::Null,
        stdout: plan.log.clone().map_or(Output::Null, Output::Append),
        stderr: ErrorOutput::Stdout,
        cgroup: None,
        bounding: Bounding::Free,
    };
    SpawnPlan::prepare(spec)
}

/// Starts one process after the other, with nothing around it but the wait for its program.
#[derive(Debug)]
pub(crate) struct Spawner(Launcher<()>);

pub(crate) fn spawner(scene: &Scene) -> Result<Spawner, Failure> {
    Launcher::new(scene.facilities).map(Spawner).attempting("make a spawner")
}

fn launch(launcher: &mut Launcher<()>, plan: &Plan) -> Result<Spawned, SpawnError> {
    let mut outcomes = Vec::new();
    if let Err(outcome) = launcher.launch(prepare(plan)?, ()) {
        return outcome.result;
    }
    loop {
        // Interrupted or not, it is looked at then.
        let _ready = poll(&mut [PollFd::new(launcher.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        launcher.take_outcomes(&mut outcomes);
        if let Some(outcome) = outcomes.pop() {
            return outcome.result;
        }
    }
}

pub(crate) fn spawn(Spawner(launcher): &mut Spawner, plan: &Plan) -> Result<Pid, Failure> {
    interrupt::check()?;
    let started = launch(launcher, plan);
    started
        .map(|process| process.pid)
        .map_err(|error| Failure::unexpected("spawn a bare child", error.to_string()))
}

/// Starts so many children from so many threads, and says how long that took.
pub(crate) fn spawn_many(
    scene: &Scene,
    plan: &Plan,
    threads: usize,
    children: usize,
) -> Result<(Flock, Duration), Failure> {
    let mut workers = Vec::new();
    for _ in 0..threads {
        workers.push((spawner(scene)?, Flock::default()));
    }
    let each = children.div_ceil(threads);
    let took = together(&mut workers, |(spawner, flock)| {
        for _ in 0..each {
            flock.push(spawn(spawner, plan)?);
        }
        Ok(())
    })?;
    let mut all = Flock::default();
    for (_, flock) in &mut workers {
        all.0.append(&mut flock.0);
    }
    Ok((all, took))
}
