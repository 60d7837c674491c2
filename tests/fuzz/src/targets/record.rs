//! What is on record of children: a broker that takes over whatever can be read of it goes on to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procbroker_core::{
    Bounds, Broker, Config, Effect, Finding, HandedOver, Input, Instant, Intent, Kinship, Members, Now, Pid,
    ProcessState, Progress, Receipt, Recovered, ShutdownCause,
};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::status::Facilities;
use procbroker_protocol::{ChildId, Containment, ExitStatus, Signal, Timestamp};
use uuid::Uuid;

/// How many inputs a run may take: a broker that asks for more without an end in sight has a loop in it.
const INPUTS_MAX: usize = 2_000;

/// Each line is the intent of a child, or the progress of the one before; the first byte chooses what is found of them.
pub(super) fn record(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let mut found: Vec<Recovered> = Vec::new();
    for line in text.split(|byte| *byte == b'\n').take(8) {
        if let Ok(intent) = serde_json::from_slice::<Intent>(line) {
            // The state file has a child once.
            if found.iter().all(|other| other.intent.id != intent.id) {
                found.push(Recovered {
                    intent,
                    progress: None,
                    finding: finding(*choice),
                    probe: Members::Nothing,
                    out_of_memory: false,
                    handed_over: HandedOver::default(),
                });
            }
        } else if let Ok(progress) = serde_json::from_slice::<Progress>(line)
            && let Some(child) = found.last_mut()
        {
            child.progress = Some(progress);
        }
    }
    if !found.is_empty() {
        take_over(found);
    }
}

fn finding(choice: u8) -> Finding {
    let pid = Pid::new(4_711);
    let state = if choice.is_multiple_of(4) { ProcessState::Zombie } else { ProcessState::Running };
    match (choice % 6, pid) {
        (0, Some(pid)) => Finding::Process { pid, kinship: Kinship::Own, state },
        (1, Some(pid)) => Finding::Process { pid, kinship: Kinship::Foreign, state },
        (2, _) => Finding::Gone { status: ExitStatus::Code(1), members: Members::Group },
        (3, _) => Finding::Gone { status: ExitStatus::Unknown, members: Members::Nothing },
        (4, _) => Finding::NeverStarted,
        _ => Finding::Rebooted,
    }
}

/// Lets a broker take them over, shuts it down, and answers each of its orders in the simplest way.
fn take_over(found: Vec<Recovered>) {
    let mut now = Now { instant: Instant::from_nanos(1 << 40), wall: Timestamp::from_micros(1 << 50) };
    let mut effects = Vec::new();
    let is_alive = |child: &Recovered| matches!(child.finding, Finding::Process { .. });
    let mut alive: BTreeSet<ChildId> =
        found.iter().filter(|child| is_alive(child)).map(|child| child.intent.id).collect();
    let mut broker = Broker::recover(config(), now, found, Vec::new(), None, &mut effects);
    broker.handle(
        now,
        Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries: false } },
        &mut effects,
    );
    for _ in 0..INPUTS_MAX {
        let mut inputs = Vec::new();
        for effect in std::mem::take(&mut effects) {
            if let Effect::Exit(_) = effect {
                return;
            }
            inputs.extend(answer(&effect, &mut alive));
        }
        if inputs.is_empty() {
            let Some(deadline) = broker.next_deadline() else { panic!("the shutdown waits for nothing") };
            now.instant = now.instant.max(deadline);
            inputs.push(Input::Due);
        }
        for input in inputs {
            broker.handle(now, input, &mut effects);
        }
    }
    panic!("the shutdown does not come to its end");
}

/// A world in which programs cannot be started and whatever lives dies of SIGKILL alone.
fn answer(effect: &Effect, alive: &mut BTreeSet<ChildId>) -> Option<Input> {
    match *effect {
        Effect::Spawn { run, .. } => {
            let failure = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
            Some(Input::SpawnFailed { run, failure })
        }
        Effect::Record { run, receipt: Receipt::Wanted, .. } => Some(Input::Recorded { run, result: Ok(()) }),
        Effect::Kill { run } if alive.remove(&run.child) => {
            let status = ExitStatus::Signal(Signal::KILL);
            Some(Input::Exited { run, status, members: Members::Nothing })
        }
        Effect::Kill { run } => Some(Input::MembersLeft { run, members: Members::Nothing }),
        Effect::Sweep => Some(Input::Swept { left: 0 }),
        _ => None,
    }
}

fn config() -> Config {
    Config {
        version: "0".to_owned(),
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
        log_folder: String::new(),
        containment: Containment::Cgroup,
        lacking: BTreeMap::new(),
        facilities: Facilities::default(),
    }
}
