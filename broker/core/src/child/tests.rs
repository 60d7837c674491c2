//! The table of [`super`], asked cell by cell, with a column for each stage of a phase that has several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::create::{Cleanup, Ready, RestartPolicy};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::status::Facilities;
use procbroker_protocol::{
    ChildId, Containment, CreateParams, ExitReason, ExitStatus, Outcome, Owner, Timestamp,
};
use uuid::Uuid;

use super::{Child, Next, Phase};
use crate::attempt::{Attempt, Claim, KeptPlace};
use crate::authorize::RunAs;
use crate::config::Config;
use crate::effect::Effect;
use crate::event_log::{EventHistory, EventLog};
use crate::ids::{Pid, Ticket};
use crate::input::{Members, RecordFailure};
use crate::launch::Launch;
use crate::limits::Bounds;
use crate::metrics::MetricsRecorder;
use crate::notice::Notice;
use crate::orders::{Lent, Orders, Permits};
use crate::record::{Intent, RecordedLease, Role};
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
        number: 1,
        containment: Containment::Subreaper,
        outcome: Outcome::Created,
        role: Role::Child,
        lease: RecordedLease::None,
    }
}

/// Makes a create that has been checked, with what a test says of it.
pub(crate) fn attempt(number: u128, change: impl FnOnce(&mut CreateParams)) -> Attempt {
    let Intent { id, params, run_as, launch, outcome, .. } = intent(number, change);
    let claim = Claim::Own(params.if_exists);
    let (anchor, place_by, arrived) = (None, None, Ticket(u64::try_from(number).expect("a small number")));
    let kept = KeptPlace::None;
    Attempt { params, run_as, launch, anchor, id, outcome, claim, arrived, place_by, kept }
}

/// One child, and all that its transitions touch.
pub(super) struct Life {
    child: Child,
    now: u64,
    timers: Timers,
    spawn_queue: SpawnQueue,
    event_log: EventLog,
    metrics: MetricsRecorder,
    config: Config,
    effects: Vec<Effect>,
}

impl Life {
    /// Takes a child with a cleanup so far on a way.
    fn after((way, steps): Column) -> Self {
        let cleanup = Cleanup { command: vec!["release".to_owned()], timeout: Duration::from_secs(1) };
        let mut life = Self {
            child: Child::new(&intent(1, |params| {
                params.cleanup = Some(cleanup);
                params.ready = if way == NOTIFYING { Ready::Notify } else { Ready::Spawn };
                params.restart.policy =
                    if way == RESTARTED { RestartPolicy::Always } else { RestartPolicy::Never };
            })),
            now: 0,
            timers: Timers::default(),
            spawn_queue: SpawnQueue::new(1, 0),
            event_log: EventLog::new(EventHistory::beginning(Uuid::nil()), 10),
            metrics: MetricsRecorder::default(),
            config: config(),
            effects: Vec::new(),
        };
        for step in &way[..steps] {
            let _ = life.take(step);
        }
        life.effects.clear();
        life
    }

    /// Takes a child that is ready as soon as it runs so far.
    pub(super) fn new(way: &'static [&'static str]) -> Self {
        Self::after((way, way.len()))
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Returns what was ordered since the orders were forgotten last.
    pub(super) fn effects(&self) -> &[Effect] {
        &self.effects
    }

    pub(super) fn forget_effects(&mut self) {
        self.effects.clear();
    }

    fn phase(&self) -> &'static str {
        match self.child.phase {
            Phase::Recording { .. } => "Recording",
            Phase::Queued => "Queued",
            Phase::Spawning(_) => "Spawning",
            Phase::Starting { .. } => "Starting",
            Phase::Running { .. } => "Running",
            Phase::Stopping(_) => "Stopping",
            Phase::Restarting(_) => "Restarting",
            Phase::Cleaning(_) => "Cleaning",
            Phase::Ended => "Ended",
        }
    }

    /// Has the child make a transition, a moment after the last one.
    pub(super) fn with<R>(&mut self, transition: impl FnOnce(&mut Child, &mut Orders<'_>) -> R) -> R {
        self.now += 1;
        let Self { child, now, timers, spawn_queue, event_log, metrics, config, effects } = self;
        let now = Now { instant: Instant::from_nanos(*now), wall: Timestamp::from_micros(*now) };
        let lent = Lent { timers, spawn_queue, event_log, metrics, config };
        let permits = Permits { may_start: true, may_clean_up: true };
        transition(child, &mut Orders::new(Turn::new(now, effects), permits, lent))
    }

    /// Gives the child an input, as the broker does.
    fn take(&mut self, input: &str) -> Next {
        self.with(|child, orders| take(child, input, orders))
    }
}

/// Gives a child an input.
fn take(child: &mut Child, input: &str, orders: &mut Orders<'_>) -> Next {
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
        "notified" => child.notified(&Notice::Ready, orders),
        "probed" => child.probed(true, orders),
        "exited" => child.exited(done, Members::Nothing, orders),
        "daemonized" => child.exited(done, Members::Group, orders),
        "ran out of memory" => {
            child.ran_out_of_memory();
            Next::Nothing
        }
        "members left" => child.members_left(Members::Nothing, orders),
        "due" => child.due(orders),
        "restart" => {
            let _wish = child.restart(orders);
            Next::Nothing
        }
        "stop" => child.stop(ExitReason::Destroyed, None, orders),
        "kill now" => child.kill_now(orders),
        "leave cleanup" => child.leave_cleanup(orders),
        "bound cleanup" => {
            child.bound_cleanup(Instant::from_nanos(u64::MAX), orders);
            Next::Nothing
        }
        other => panic!("there is no input {other}"),
    }
}

/// Settings of a broker that runs as root.
pub(crate) fn config() -> Config {
    Config {
        version: String::new(),
        pid: 1,
        instance: Uuid::nil(),
        started_at: Timestamp::from_micros(0),
        failed_upgrade: None,
        broker_uid: 0,
        allow_users: Vec::new(),
        allow_groups: Vec::new(),
        subordinates: Vec::new(),
        bounds: Bounds::default(),
        shutdown_timeout: Duration::from_secs(30),
        exit_when_idle: None,
        main: None,
        log_folder: "/logs".to_owned(),
        containment: Containment::Subreaper,
        lacking: BTreeMap::new(),
        facilities: Facilities::default(),
    }
}

/// How a child came to where it is: its inputs, and how many of them.
type Column = (&'static [&'static str], usize);

/// The whole way of a child that is destroyed.
const DESTROYED: &[&str] =
    &["recorded", "start", "spawned", "stop", "exited", "recorded", "start", "spawned", "exited", "recorded"];

/// The way of a child that says when it is ready.
const NOTIFYING: &[&str] = &["recorded", "start", "spawned"];

/// The way of a child that ends by itself and is restarted.
const RESTARTED: &[&str] = &["recorded", "start", "spawned", "exited", "recorded", "due", "start"];

/// The columns of the table. A child that is restarted has four of its own: that is being recorded, it pauses, waits for
/// its turn, and is being started. One that is being cleaned has four: its cleanup is being recorded, waits for its turn,
/// is being started, and runs.
const COLUMNS: [Column; 15] = [
    (DESTROYED, 0),
    (DESTROYED, 1),
    (DESTROYED, 2),
    (NOTIFYING, 3),
    (DESTROYED, 3),
    (DESTROYED, 4),
    (RESTARTED, 4),
    (RESTARTED, 5),
    (RESTARTED, 6),
    (RESTARTED, 7),
    (DESTROYED, 5),
    (DESTROYED, 6),
    (DESTROYED, 7),
    (DESTROYED, 8),
    (DESTROYED, 10),
];

/// What each input makes of each phase: a dash where it comes too early or too late and changes nothing, else the phase
/// after it, and in brackets what the broker has to see to.
const TABLE: &str = "
                  | Recording      | Queued         | Spawning         | Starting          | Running           | Stopping          | Restarting        | Restarting        | Restarting        | Restarting                  | Cleaning     | Cleaning     | Cleaning | Cleaning | Ended
recorded          | Queued         | -              | -                | -                 | -                 | -                 | Restarting        | -                 | -                 | -                           | Cleaning     | -            | -        | -        | -
not recorded      | (NeverStarted) | -              | -                | -                 | -                 | -                 | Restarting        | -                 | -                 | -                           | Cleaning     | -            | -        | -        | -
start             | -              | Spawning       | -                | -                 | -                 | -                 | -                 | -                 | Restarting        | -                           | -            | Cleaning     | -        | -        | -
spawned           | -              | -              | Running(Changed) | -                 | -                 | -                 | -                 | -                 | -                 | Running(Changed)            | -            | -            | Cleaning | -        | -
spawn failed      | -              | -              | (NeverStarted)   | -                 | -                 | -                 | -                 | -                 | -                 | Restarting(NotStartedAgain) | -            | -            | Cleaning | -        | -
notified          | -              | -              | -                | Running(Changed)  | -                 | -                 | -                 | -                 | -                 | -                           | -            | -            | -        | -        | -
probed            | -              | -              | -                | Running(Changed)  | -                 | -                 | -                 | -                 | -                 | -                           | -            | -            | -        | -        | -
exited            | -              | -              | (NeverStarted)   | Cleaning(Changed) | Cleaning(Changed) | Cleaning(Changed) | -                 | -                 | -                 | Restarting(NotStartedAgain) | -            | -            | -        | Cleaning | -
daemonized        | -              | -              | (NeverStarted)   | Stopping          | Stopping          | Stopping          | -                 | -                 | -                 | Restarting(NotStartedAgain) | -            | -            | -        | Cleaning | -
ran out of memory | -              | -              | -                | Starting          | Running           | Stopping          | -                 | -                 | -                 | -                           | -            | -            | -        | -        | -
members left      | -              | -              | -                | -                 | -                 | -                 | -                 | -                 | -                 | -                           | -            | -            | -        | -        | -
due               | (NotReady)     | (NotReady)     | -                | -                 | -                 | Stopping          | -                 | Restarting        | -                 | -                           | (LeftBehind) | (LeftBehind) | Cleaning | Cleaning | -
stop              | Recording      | (NeverStarted) | Spawning         | Stopping          | Stopping          | -                 | Cleaning(Changed) | Cleaning(Changed) | Cleaning(Changed) | Restarting                  | -            | -            | -        | -        | -
restart           | -              | -              | -                | Stopping          | Stopping          | -                 | Restarting        | Restarting        | -                 | -                           | -            | -            | -        | -        | -
kill now          | Recording      | (NeverStarted) | Spawning         | Stopping          | Stopping          | Stopping          | Cleaning(Changed) | Cleaning(Changed) | Cleaning(Changed) | Restarting                  | -            | -            | -        | -        | -
leave cleanup     | -              | -              | -                | -                 | -                 | -                 | -                 | -                 | -                 | -                           | (LeftBehind) | (LeftBehind) | Cleaning | Cleaning | -
bound cleanup     | Recording      | Queued         | Spawning         | Starting          | Running           | Stopping          | Restarting        | Restarting        | Restarting        | Restarting                  | Cleaning     | Cleaning     | Cleaning | Cleaning | -
";

#[test]
fn every_phase_answers_every_input_as_the_table_says() {
    let rows = TABLE.trim_start_matches('\n').lines();
    let found: String = rows.map(row).collect();
    let squeezed = |table: &str| table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&found), squeezed(TABLE), "the table that was found:\n{found}");
}

/// The cells of a line of a table, the first of which says which row it is.
fn cells(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

#[test]
fn the_table_that_people_read_leaves_out_nothing_that_happens() {
    let mut lines = TABLE.trim_start_matches('\n').lines().map(cells);
    let phases = lines.next().expect("a head");
    let rows: BTreeMap<&str, Vec<&str>> = lines.map(|cells| (cells[0], cells)).collect();
    let read = include_str!("../child.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut read = read.map(|line| cells(line.trim_end_matches('|')));
    let columns = read.next().expect("a head");
    let mut count = 0;
    for line in read.skip(1) {
        let name = line[0].trim_matches('`').replace('_', " ");
        let row = rows.get(name.as_str()).unwrap_or_else(|| panic!("nobody asks what {name} does"));
        for (column, says) in columns.iter().zip(&line).skip(1) {
            let found = phases.iter().zip(row).filter(|(phase, _)| phase == &column);
            let happens = found.clone().any(|(_, cell)| *cell != "-");
            assert!(
                !happens || *says != "-",
                "{name} in {column} does {found:?}, and the table says nothing"
            );
        }
        count += 1;
    }
    assert_eq!(count, 15);
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
    let before = format!("{:?}", life.child);
    let next = match life.take(input) {
        Next::Nothing => "",
        Next::Changed => "(Changed)",
        Next::NotReady => "(NotReady)",
        Next::NeverStarted { .. } => "(NeverStarted)",
        Next::NotStartedAgain { .. } => "(NotStartedAgain)",
        Next::LeftBehind => "(LeftBehind)",
        Next::Over => "(Over)",
    };
    let is_changed = format!("{:?}", life.child) != before;
    match (is_changed, next) {
        (false, "") => {
            assert_eq!(life.effects, [], "{input} in {phase} orders something and leaves no trace");
            "-".to_owned()
        }
        (false, next) => next.to_owned(),
        (true, next) => format!("{}{}", life.phase(), next).replace("Cleaning(LeftBehind)", "(LeftBehind)"),
    }
}
