//! A broker with a main command, and the next one of it.

use std::sync::Arc;

use procbroker_core::{
    Config, ConnectionId, Effect, ExitCause, Incarnation, MainCommand, MainExit, Record, Report, Role, Run,
};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, CreateParams, Signal};
use uuid::Uuid;

use super::{BROKER_UID, Sent, World, step, stopped_by, sweep};

/// The main command of the first broker, of the second, and so on.
pub(crate) fn main_run(of_broker: u32) -> Run {
    // Far from the ids of children, which are the numbers of their calls.
    let child = ChildId::from_uuid(Uuid::from_u128(900_000 + u128::from(of_broker)));
    Run { child, incarnation: Incarnation::FIRST }
}

fn main_of(of_broker: u32, params: CreateParams) -> MainCommand {
    MainCommand { id: main_run(of_broker).child, params: Arc::new(params), stop_scope: Scope::Group }
}

/// A graceful stop, and its failsafe.
pub(crate) fn apache() -> CreateParams {
    stopped_by(vec![step(Signal::WINCH, 8), step(Signal::TERM, 4)])
}

/// A broker whose main command runs, with a client.
pub(crate) fn main_running() -> (World, ConnectionId, Run) {
    let mut world = World::of_main(apache());
    let main = main_run(1);
    world.start_main(main);
    let client = world.connect(BROKER_UID);
    (world, client, main)
}

pub(crate) fn winch(run: Run) -> Sent {
    Sent::Signal(run, Signal::WINCH, Scope::Group)
}

pub(crate) fn exits_with(world: &mut World, exit: MainExit) {
    sweep(world);
    assert_eq!(world.exit(), Some(ExitCause::Main(exit)));
}

pub(crate) fn is_shutting_down(orders: &[Effect]) -> bool {
    orders.iter().any(|order| matches!(order, Effect::Report(Report::ShuttingDown { .. })))
}

impl World {
    /// A broker that has just been told to run this main command.
    pub(crate) fn of_main(params: CreateParams) -> Self {
        Self::of_main_with(params, |_| ())
    }

    /// The same, with other settings.
    pub(crate) fn of_main_with(params: CreateParams, change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::with(|config| {
            config.main = Some(main_of(1, params));
            change(config);
        });
        world.recover(Vec::new());
        world
    }

    /// Takes a main command that is about to be recorded to its process; the orders on the way are taken.
    pub(crate) fn start_main(&mut self, run: Run) {
        self.recorded(run);
        assert!(self.spawns().contains(&run), "the main command is not started");
        self.spawned(run);
        self.take();
    }

    /// The next broker runs a main command again.
    pub(crate) fn next_main(&mut self, of_broker: u32, params: CreateParams) {
        self.config.main = Some(main_of(of_broker, params));
    }

    /// The next broker runs none.
    pub(crate) fn no_next_main(&mut self) {
        self.config.main = None;
    }

    /// Whether the start of this main command has been ordered: its intent is to be recorded as one.
    pub(crate) fn wants_main(&mut self, run: Run) -> bool {
        self.take().into_iter().any(|effect| match effect {
            Effect::Record { run: of, record: Record::Intent(intent), .. } => {
                of == run && intent.role == Role::Main
            }
            _ => false,
        })
    }
}
