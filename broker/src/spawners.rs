//! The threads that start processes: each is suspended while its child gets to its exec, so that the
//! event loop never is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use procbroker_core::Run;

use crate::limits::{SPAWN_PATIENCE, SPAWNERS_IDLE_MAX, SPAWNERS_MAX};
use crate::os::logs::Logs;
use crate::os::process::signal_mask::HeldBack;
use crate::os::spawn::{Facilities, KillSwitch, SpawnFailure, SpawnPlan, SpawnSpec, Spawned, Spawner};

/// One process to start.
#[derive(Debug)]
pub struct Job {
    /// Whose.
    pub run: Run,
    /// How.
    pub spec: SpawnSpec,
    /// What becomes of it when its output cannot be kept.
    pub output: KeptOutput,
}

/// How much the output of a process matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOutput {
    /// It is not started without.
    Needed,
    /// It is started all the same.
    Wanted,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Whose process.
    pub run: Run,
    /// The process, or why there is none.
    pub result: Result<Spawned, SpawnFailure>,
}

/// Where outcomes go. It may block: the thread has nothing better to do.
pub type Deliver = Arc<dyn Fn(Outcome) + Send + Sync>;

/// The spawning threads.
///
/// There are twice as many as there are processors, and one more whenever all of them have been busy for long: a
/// program on a file system that does not answer then holds up nobody else.
pub struct Spawners {
    facilities: Facilities,
    jobs: Sender<Job>,
    source: Receiver<Job>,
    busy: Arc<AtomicUsize>,
    deliver: Deliver,
    logs: Logs,
    switches: Vec<KillSwitch>,
}

impl Spawners {
    /// Starts the threads.
    ///
    /// # Errors
    /// When not even one can be started.
    pub fn start(facilities: Facilities, logs: Logs, deliver: Deliver) -> io::Result<Self> {
        let (jobs, source) = crossbeam_channel::bounded(SPAWNERS_MAX);
        let mut spawners =
            Self { facilities, jobs, source, busy: Arc::default(), deliver, logs, switches: Vec::new() };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        // Each sleeps while its child gets to its exec, so that it takes two to keep a processor busy.
        for _ in 0..processors.saturating_mul(2).clamp(2, SPAWNERS_IDLE_MAX) {
            spawners.add()?;
        }
        Ok(spawners)
    }

    /// Queues a job.
    ///
    /// # Errors
    /// Gives it back when more wait than the core has in flight at a time.
    pub fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        self.jobs.try_send(job).map_err(|error| Box::new(error.into_inner()))
    }

    /// To be called from time to time while spawns are in flight: ends those that take far too long, and
    /// adds a thread when jobs wait behind slow ones.
    pub fn tend(&mut self) {
        for switch in &self.switches {
            if switch.kill_overdue(SPAWN_PATIENCE) {
                tracing::warn!(
                    "a child did not get to execute its program within {SPAWN_PATIENCE:?} and was killed"
                );
            }
        }
        let all_busy = self.busy.load(Ordering::Relaxed) >= self.switches.len();
        if all_busy && !self.source.is_empty() && self.switches.len() < SPAWNERS_MAX {
            match self.add() {
                Ok(()) => tracing::debug!(threads = self.switches.len(), "added a spawning thread"),
                Err(error) => tracing::warn!(%error, "cannot add a spawning thread"),
            }
        }
    }

    fn add(&mut self) -> io::Result<()> {
        let mut spawner = Spawner::new(self.facilities)?;
        let switch = spawner.kill_switch();
        let (source, busy, deliver, logs) =
            (self.source.clone(), Arc::clone(&self.busy), Arc::clone(&self.deliver), self.logs.clone());
        let work = move || {
            while let Ok(Job { run, spec, output }) = source.recv() {
                busy.fetch_add(1, Ordering::Relaxed);
                let result = spawn(&mut spawner, spec, output, run);
                if result.is_err() && output == KeptOutput::Needed {
                    // Its pipe would say, after a crash of the broker, that it may have run.
                    logs.never_ran(run.child);
                }
                busy.fetch_sub(1, Ordering::Relaxed);
                deliver(Outcome { run, result });
            }
        };
        // One that is added later would take signals, as the main thread does by then.
        let _held_back = HeldBack::begin()?;
        // A spawn needs little stack of its own: the child has one that is mapped for it.
        thread::Builder::new().name("spawner".to_owned()).stack_size(SPAWNER_STACK_BYTES).spawn(work)?;
        self.switches.push(switch);
        Ok(())
    }
}

fn spawn(
    spawner: &mut Spawner,
    spec: SpawnSpec,
    output: KeptOutput,
    run: Run,
) -> Result<Spawned, SpawnFailure> {
    let mut plan = SpawnPlan::prepare(spec)?;
    match (spawner.spawn(&plan), output) {
        (Err(failure), KeptOutput::Wanted) if failure.is_of_output() => {
            tracing::warn!(child = %run.child, "the output of a cleanup cannot be kept: {failure}");
            plan.keep_no_output();
            spawner.spawn(&plan)
        }
        (result, KeptOutput::Wanted | KeptOutput::Needed) => result,
    }
}

/// The stack of a spawning thread.
const SPAWNER_STACK_BYTES: usize = 256 << 10;

/// How often [`Spawners::tend`] is called while spawns are in flight.
pub const TEND_EVERY: Duration = Duration::from_millis(100);

impl std::fmt::Debug for Spawners {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Spawners").field("threads", &self.switches.len()).finish_non_exhaustive()
    }
}
