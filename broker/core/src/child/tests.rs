//! The table of [`super`], asked cell by cell.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::create::{Cleanup, Ready};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::status::Facilities;
use procbroker_protocol::{
    ChildId, Containment, CreateParams, ExitReason, ExitStatus, Outcome, Owner, Timestamp,
};
use uuid::Uuid;

use super::{Child, Next, Phase};
use crate::authorize::RunAs;
use crate::config::Config;
use crate::connections::Connections;
use crate::effect::Effect;
use crate::event_log::EventLog;
use crate::ids::Pid;
use crate::input::{Members, RecordFailure};
use crate::launch::Launch;
use crate::limits::Bounds;
use crate::metrics::Metrics;
use crate::notice::Notice;
use crate::orders::Orders;
use crate::record::{Intent, Role};
use crate::spawn_queue::SpawnQueue;
use crate::time::{Instant, Now};
use crate::timers::Timers;
use crate::turn::Turn;

/// Makes an intent with what a test says of it.
pub(crate) fn intent(number: u128, change: impl FnOnce(&mut CreateParams)) -> Intent {
    let mut params = CreateParams::new(vec!["program".to_owned()]);
    change(&mut params);
    Intent {
        id: ChildId::from_uuid(Uuid::from_u128(number)),
        params: Arc::new(params),
        run_as: RunAs::Broker,
        launch: Launch::default(),
        owner: Owner { uid: 7, gid: 7 },
        created_at: Timestamp::from_micros(0),
        containment: Containment::Subreaper,
        outcome: Outcome::Created,
        role: Role::Child,
    }
}

/// One child, and all that its transitions touch.
struct Life {
    child: Child,
    now: u64,
    timers: Timers,
    spawn_queue: SpawnQueue,
    event_log: EventLog,
    metrics: Metrics,
    config: Config,
    effects: Vec<Effect>,
}

impl Life {
    /// Takes a child with a cleanup so far on its way.
    fn after((ready, steps): Column) -> Self {
        let cleanup = Cleanup { command: vec!["release".to_owned()], timeout: Duration::from_secs(1) };
        let mut life = Self {
            child: Child::new(&intent(1, |params| {
                params.cleanup = Some(cleanup);
                params.ready = ready;
            })),
            now: 0,
            timers: Timers::default(),
            spawn_queue: SpawnQueue::default(),
            event_log: EventLog::default(),
            metrics: Metrics::default(),
            config: config(),
            effects: Vec::new(),
        };
        for step in &WAY[..steps] {
            let _ = life.take(step);
        }
        life.effects.clear();
        life
    }

    fn phase(&self) -> &'static str {
        match self.child.phase {
            Phase::Recording { .. } => "Recording",
            Phase::Queued => "Queued",
            Phase::Spawning { .. } => "Spawning",
            Phase::Starting { .. } => "Starting",
            Phase::Running { .. } => "Running",
            Phase::Stopping(_) => "Stopping",
            Phase::Cleaning(_) => "Cleaning",
            Phase::Ended => "Ended",
        }
    }

    /// Gives the child an input, as the broker does.
    fn take(&mut self, input: &str) -> Next {
        self.now += 1;
        let Self { child, now, timers, spawn_queue, event_log, metrics, config, effects } = self;
        let now = Now { instant: Instant::from_nanos(*now), wall: Timestamp::from_micros(*now) };
        let turn = Turn::new(now, effects);
        let connections = Connections::default();
        let orders = &mut Orders {
            now,
            may_clean_up: true,
            turn,
            timers,
            spawn_queue,
            event_log,
            metrics,
            connections: &connections,
            config,
        };
        let (pid, done) = (Pid::new(9).expect("a pid"), ExitStatus::Code(0));
        match input {
            "recorded" => child.recorded(Ok(()), orders),
            "not recorded" => {
                child.recorded(Err(RecordFailure { message: "the disk is full".to_owned() }), orders)
            }
            "start" => {
                child.start(orders);
                Next::Nothing
            }
            "spawned" => child.spawned(pid, orders),
            "spawn failed" => {
                let (errno_name, step) = ("ENOENT".to_owned(), "exec".to_owned());
                child.spawn_failed(&SpawnFailure { errno: 2, errno_name, step }, orders)
            }
            "notified" => child.notified(&[Notice::Ready], orders),
            "exited" => child.exited(done, Members::Nothing, orders),
            "daemonized" => child.exited(done, Members::Group, orders),
            "members left" => child.members_left(Members::Nothing, orders),
            "due" => child.due(orders),
            "stop" => child.stop(ExitReason::Destroyed, None, orders),
            "kill now" => child.kill_now(orders),
            "leave cleanup" => child.leave_cleanup(orders),
            other => panic!("there is no input {other}"),
        }
    }
}

fn config() -> Config {
    Config {
        version: String::new(),
        pid: 1,
        instance: Uuid::nil(),
        started_at: Timestamp::from_micros(0),
        broker_uid: 0,
        allow_users: Vec::new(),
        allow_groups: Vec::new(),
        bounds: Bounds::default(),
        shutdown_timeout: Duration::from_secs(30),
        exit_when_idle: None,
        main: None,
        log_folder: "/logs".to_owned(),
        containment: Containment::Subreaper,
        facilities: Facilities::default(),
    }
}

/// The whole way of a child that is destroyed.
const WAY: [&str; 10] =
    ["recorded", "start", "spawned", "stop", "exited", "recorded", "start", "spawned", "exited", "recorded"];

/// When a child is ready, and how far it is on its way.
type Column = (Ready, usize);

/// The columns of the table. A child that is being cleaned has four: its cleanup is being recorded, waits for its turn, is
/// being started, and runs.
const COLUMNS: [Column; 11] = [
    (Ready::Spawn, 0),
    (Ready::Spawn, 1),
    (Ready::Spawn, 2),
    (Ready::Notify, 3),
    (Ready::Spawn, 3),
    (Ready::Spawn, 4),
    (Ready::Spawn, 5),
    (Ready::Spawn, 6),
    (Ready::Spawn, 7),
    (Ready::Spawn, 8),
    (Ready::Spawn, 10),
];

/// What each input makes of each phase: a dash where it comes too early or too late and changes nothing, else the phase
/// after it, and in brackets what the broker has to see to.
const TABLE: &str = "
              | Recording      | Queued         | Spawning         | Starting | Running           | Stopping          | Cleaning     | Cleaning     | Cleaning | Cleaning | Ended
recorded      | Queued         | -              | -                | - | -                 | -                 | Cleaning     | -            | -        | -        | -
not recorded  | (NeverStarted) | -              | -                | - | -                 | -                 | Cleaning     | -            | -        | -        | -
start         | -              | Spawning       | -                | - | -                 | -                 | -            | Cleaning     | -        | -        | -
spawned       | -              | -              | Running(Changed) | - | -                 | -                 | -            | -            | Cleaning | -        | -
spawn failed  | -              | -              | (NeverStarted)   | - | -                 | -                 | -            | -            | Cleaning | -        | -
notified | - | - | - | Running(Changed) | - | - | - | - | - | - | -
exited        | -              | -              | -                | Cleaning(Changed) | Cleaning(Changed) | Cleaning(Changed) | -            | -            | -        | Cleaning | -
daemonized    | -              | -              | -                | Stopping | Stopping          | Stopping          | -            | -            | -        | Cleaning | -
members left  | -              | -              | -                | - | -                 | -                 | -            | -            | -        | -        | -
due           | (NotReady)     | (NotReady)     | (NotReady)       | (NotReady) | -                 | Stopping          | (LeftBehind) | (LeftBehind) | -        | Cleaning | -
stop          | Recording      | (NeverStarted) | Spawning         | Stopping | Stopping          | -                 | -            | -            | -        | -        | -
kill now      | Recording      | (NeverStarted) | Spawning         | Stopping | Stopping          | Stopping          | -            | -            | -        | -        | -
leave cleanup | -              | -              | -                | - | -                 | -                 | (LeftBehind) | (LeftBehind) | Cleaning | Cleaning | -
";

#[test]
fn every_phase_answers_every_input_as_the_table_says() {
    let rows = TABLE.trim_start_matches('\n').lines();
    let found: String = rows.map(row).collect();
    let squeezed = |table: &str| table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&found), squeezed(TABLE), "the table that was found:\n{found}");
}

fn row(expected: &str) -> String {
    let input = expected.split('|').next().unwrap_or_default().trim();
    let cells = COLUMNS.map(|column| match input {
        "" => Life::after(column).phase().to_owned(),
        input => cell(column, input),
    });
    format!("{input} | {}\n", cells.join(" | "))
}

/// Says what an input makes of a child that is so far on its way.
fn cell(column: Column, input: &str) -> String {
    let mut life = Life::after(column);
    let phase = life.phase();
    let before = format!("{:?}", life.child.phase);
    let next = match life.take(input) {
        Next::Nothing => "",
        Next::Changed => "(Changed)",
        Next::NotReady => "(NotReady)",
        Next::NeverStarted { .. } => "(NeverStarted)",
        Next::LeftBehind => "(LeftBehind)",
        Next::Over => "(Over)",
    };
    let is_changed = format!("{:?}", life.child.phase) != before;
    match (is_changed, next) {
        (false, "") => {
            assert_eq!(life.effects, [], "{input} in {phase} orders something and leaves no trace");
            "-".to_owned()
        }
        (false, next) => next.to_owned(),
        (true, next) => format!("{}{}", life.phase(), next).replace("Cleaning(LeftBehind)", "(LeftBehind)"),
    }
}
