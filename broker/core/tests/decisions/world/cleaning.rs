//! Short forms for the tests of cleanups: a child whose cleanup is at any of its stages.

use procbroker_core::{ConnectionId, Effect, Members, Progress, Purpose, Run};
use procbroker_protocol::create::{Cleanup, Limit};
use procbroker_protocol::{Child, Cleaned, CreateParams, Exit, ExitStatus, Signal};

use super::{World, named, secs, unnamed};

pub(crate) const CLEAN: ExitStatus = ExitStatus::Code(0);
pub(crate) const CRASHED: ExitStatus = ExitStatus::Signal(Signal::INT);
pub(crate) const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// With a cleanup that may take so long.
pub(crate) fn cleaned_in(seconds: u64, params: CreateParams) -> CreateParams {
    let command = vec!["release".to_owned(), "it".to_owned()];
    CreateParams { cleanup: Some(Cleanup { command, timeout: secs(seconds) }), ..params }
}

/// With a cleanup that may take 30 seconds.
pub(crate) fn cleaned(params: CreateParams) -> CreateParams {
    cleaned_in(30, params)
}

/// The attempt at a cleanup that follows a child's main process, or another attempt.
pub(crate) fn next(run: Run) -> Run {
    Run { incarnation: run.incarnation.next(), ..run }
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what a child shows, if there is any")]
pub(crate) fn outcome(ok: bool, exit: Option<ExitStatus>, attempts: u32) -> Option<Cleaned> {
    Some(Cleaned { ok, exit, attempts })
}

/// Takes the orders so far, and tells which cleanups are to be started, for which ends.
pub(crate) fn cleanups(world: &mut World) -> Vec<(Run, Exit)> {
    let cleanup = |effect| match effect {
        Effect::Spawn { run, purpose: Purpose::Cleanup { exit }, .. } => Some((run, exit)),
        _ => None,
    };
    world.take().into_iter().filter_map(cleanup).collect()
}

/// How far the attempt at a cleanup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Recording,
    Queued,
    Spawning,
    Running,
    Killing,
    Closing,
}

impl At {
    pub(crate) const ALL: [Self; 6] =
        [Self::Recording, Self::Queued, Self::Spawning, Self::Running, Self::Killing, Self::Closing];
}

/// A world with a child whose cleanup is under way. The child is called `a`, and has the only place under the
/// limit `k`.
pub(crate) struct Halfway {
    pub(crate) world: World,
    pub(crate) client: ConnectionId,
    /// The main process of the child.
    pub(crate) run: Run,
    /// The attempt at its cleanup.
    pub(crate) attempt: Run,
    /// Other children that are being started.
    pub(crate) in_flight: Vec<Run>,
}

pub(crate) fn limited() -> CreateParams {
    CreateParams { limit: Some(Limit { key: "k".to_owned(), max: 1, wait: None }), ..cleaned(named("a")) }
}

impl Halfway {
    /// A child whose main process has ended by itself, and whose cleanup is at this stage.
    pub(crate) fn at(stage: At) -> Self {
        let (world, client) = World::with_client();
        let mut halfway = Self::before(world, client, limited());
        halfway.go(stage);
        halfway.world.take();
        halfway
    }

    /// A child that runs.
    pub(crate) fn before(mut world: World, client: ConnectionId, params: CreateParams) -> Self {
        let run = world.start(client, params);
        Self { world, client, run, attempt: next(run), in_flight: Vec::new() }
    }

    /// Ends the child, and takes its cleanup to this stage.
    pub(crate) fn go(&mut self, stage: At) {
        let Self { world, client, run, attempt, in_flight } = self;
        if stage == At::Queued {
            // So many of one user are started at a time.
            for _ in 0..16 {
                let call = world.create(*client, unnamed());
                in_flight.push(world.run(call));
                world.recorded(world.run(call));
            }
        }
        world.exited(*run, ExitStatus::Code(3), Members::Nothing);
        if stage == At::Recording {
            return;
        }
        world.recorded(*attempt);
        if matches!(stage, At::Queued | At::Spawning) {
            return;
        }
        world.spawned(*attempt);
        match stage {
            At::Recording | At::Queued | At::Spawning | At::Running => {}
            At::Killing => {
                world.advance(secs(30));
                assert!(world.take().contains(&Effect::Kill { run: *attempt }));
            }
            At::Closing => world.exited(*attempt, CLEAN, Members::Nothing),
        }
    }

    /// Takes the cleanup from this stage to its outcome, which is that it succeeds if it has not been killed.
    pub(crate) fn finish(&mut self, stage: At) {
        let Self { world, attempt, in_flight, .. } = self;
        match stage {
            At::Recording => world.recorded(*attempt),
            At::Queued => world.spawned(in_flight[0]),
            At::Spawning | At::Running | At::Killing | At::Closing => {}
        }
        match stage {
            At::Recording | At::Queued | At::Spawning => world.spawned(*attempt),
            At::Running | At::Killing | At::Closing => {}
        }
        match stage {
            At::Recording | At::Queued | At::Spawning | At::Running => {
                world.exited(*attempt, CLEAN, Members::Nothing);
            }
            At::Killing => world.exited(*attempt, KILLED, Members::Nothing),
            At::Closing => {}
        }
        world.recorded(*attempt);
    }
}

impl World {
    /// Takes a cleanup that is about to begin to its process.
    pub(crate) fn begin_cleanup(&mut self, attempt: Run) {
        self.recorded(attempt);
        self.spawned(attempt);
    }

    /// The process of a cleanup ends in this way and leaves nothing, and that is on record.
    pub(crate) fn end_cleanup(&mut self, attempt: Run, status: ExitStatus) {
        self.exited(attempt, status, Members::Nothing);
        self.recorded(attempt);
    }

    /// A child as the record says that it ended.
    pub(crate) fn outcome_on_record(&self, run: Run) -> Option<Cleaned> {
        match self.progress(run) {
            Some(Progress::Ended { cleanup, .. }) => cleanup,
            other => panic!("{run:?} is on record as {other:?}"),
        }
    }

    /// How many attempts at a cleanup are on record, which is not over.
    pub(crate) fn attempts_on_record(&self, run: Run) -> u32 {
        match self.progress(run) {
            Some(Progress::Cleaning { attempts, .. }) => attempts,
            other => panic!("{run:?} is on record as {other:?}"),
        }
    }

    /// A child that has ended, as a client sees it.
    pub(crate) fn ended(&mut self, client: ConnectionId, run: Run) -> std::sync::Arc<Child> {
        let child = self.shown(client, run);
        assert_eq!((child.state, child.pid), (procbroker_protocol::ChildState::Ended, None));
        child
    }
}
