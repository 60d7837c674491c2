//! What clients ask for: few names, labels and keys, so that they get in each other's way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use procbroker_core::{
    Accounts, AccountsFailure, Caller, CallerUnknown, Confinement, HardLimit, Login, UserAccount,
};
use procbroker_protocol::create::{
    Account, Check, Cleanup, IfExists, Lifetime, Limit, Probe, Ready, ReadyTimeout, Resources, Restart,
    RestartPolicy, StandardError, StandardOutput, StopStep,
};
use procbroker_protocol::duration::DURATION_MAX;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::{
    DestroyParams, EventsParams, ListParams, LogStream, LogsParams, ManyParams, NoParams, OneParams, Scope,
    ShutdownParams, SignalParams, Until, WaitParams,
};
use procbroker_protocol::{ChildId, CreateParams, Name, Request, Signal, Target};
use uuid::Uuid;

use crate::sim::anchors::NUMBERS;
use crate::sim::dice::Dice;
use crate::sim::setting::{ALLOWED_GROUP, BROKER_USER, HEAVY, Setting, USERS};

/// What a request is rolled from.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// Chance.
    pub dice: &'a mut Dice,
    /// The circumstances of the run.
    pub setting: &'a Setting,
    /// All children that anybody has heard of.
    pub children: &'a [ChildId],
    /// The creates that this client has sent before.
    pub sent: &'a [CreateParams],
    /// Whether it does not know what became of them.
    pub unsure: bool,
}

/// Rolls a request.
pub fn roll(from: &mut Circumstances<'_>) -> Request {
    match from.dice.below(100) {
        0..44 => Request::Create(Box::new(create(from))),
        46..62 => destroy(from),
        62..74 => Request::Wait(WaitParams {
            target: target(from),
            until: from.dice.choose([Until::Ready, Until::Ended]),
            timeout: from.dice.chance(50).then(|| length(from.dice)),
        }),
        74..82 => Request::Signal(SignalParams {
            target: target(from),
            signal: from.dice.choose([Signal::HUP, Signal::TERM, Signal::INT, Signal::KILL]),
            scope: from.dice.choose([Scope::Main, Scope::Group, Scope::All]),
        }),
        82..85 => Request::Restart(ManyParams { target: target(from) }),
        85..89 => {
            Request::List(ListParams { labels: labels(from.dice), all: from.dice.chance(60), fields: None })
        }
        89..93 => Request::Get(OneParams { target: target(from) }),
        93 => Request::Logs(LogsParams {
            target: target(from),
            stream: LogStream::Stdout,
            tail: None,
            follow: from.dice.chance(50),
            since: None,
            timestamps: false,
            position: None,
        }),
        94..96 => Request::Status(NoParams {}),
        96 => Request::Events(EventsParams {
            since: from.dice.chance(50).then_some(0),
            labels: labels(from.dice),
        }),
        97 => Request::Shutdown(ShutdownParams {
            timeout: from.dice.chance(50).then(|| Duration::from_secs(from.dice.choose([1, 5, 40]))),
        }),
        98 => Request::Upgrade(NoParams {}),
        _ => Request::Renew(ManyParams { target: target(from) }),
    }
}

/// Rolls a create, which may be one that this client has sent before, or pass for one.
fn create(from: &mut Circumstances<'_>) -> CreateParams {
    let before = from.dice.element(from.sent).cloned();
    if from.unsure
        && from.dice.chance(50)
        && let Some(params) = before
    {
        return params;
    }
    match (from.dice.below(100), before) {
        (0..15, Some(params)) => params,
        (15..19, Some(params)) => CreateParams { request_id: params.request_id, ..new(from) },
        _ => new(from),
    }
}

fn new(from: &mut Circumstances<'_>) -> CreateParams {
    let dice = &mut *from.dice;
    let mut params = CreateParams::new(vec![dice.choose(["serve", "render"]).to_owned()]);
    if dice.chance(if from.setting.contended { 35 } else { 75 }) {
        params.name = name(dice.below(from.setting.names));
    }
    if params.name.is_some() {
        params.if_exists = dice.choose([IfExists::Fail, IfExists::Reuse, IfExists::Reuse, IfExists::Replace]);
    }
    if dice.chance(50) {
        params.request_id = Some(Uuid::from_u128(dice.bits()));
    }
    params.labels = labels(dice);
    params.stop = stop(dice);
    params.stop_order = dice.choose([0, 0, 0, -1, 1, 2]);
    params.ready_timeout = ReadyTimeout(dice.choose([
        Duration::from_nanos(1),
        Duration::from_millis(3),
        Duration::from_secs(1),
        Duration::from_secs(30),
        Duration::from_secs(30),
        Duration::from_secs(30),
    ]));
    params.no_wait = dice.chance(20);
    params.limit = limit(dice, from.setting.contended);
    if dice.chance(from.setting.cleanups) {
        let timeout = dice.choose([0, 1, 40, 1_000, 30_000, 30_000]);
        params.cleanup =
            Some(Cleanup { command: vec!["tidy".to_owned()], timeout: Duration::from_millis(timeout) });
    }
    live(&mut params, dice);
    if dice.chance(from.setting.restarting) {
        params.restart = restart(dice);
    }
    if from.setting.scarce && params.name.is_none() && params.limit.is_none() && dice.chance(60) {
        // It never waits for another one, so that nothing but its own bytes can be too many.
        params.cwd = Some(format!("/{}", "x".repeat(HEAVY)));
    }
    if dice.chance(from.setting.readying) {
        get_ready(&mut params, dice);
    }
    if from.setting.insistent {
        insist(&mut params, dice);
    }
    spoil(&mut params, dice);
    params
}

/// Bounds how many there are, for it to wait for a place or to be refused one.
fn limit(dice: &mut Dice, contended: bool) -> Option<Limit> {
    let length = |millis| Duration::from_millis(millis);
    if contended && dice.chance(85) {
        let wait = dice.chance(90).then(|| length(dice.choose([5, 300, 5_000, 5_000, 60_000, 3_600_000])));
        return Some(Limit {
            key: dice.choose(["a", "a", "b"]).to_owned(),
            max: dice.choose([1, 1, 2]),
            wait,
        });
    }
    dice.chance(20).then(|| Limit {
        key: dice.choose(["a", "b"]).to_owned(),
        max: dice.choose([0, 1, 2, 3]),
        wait: dice.chance(50).then(|| length(dice.choose([0, 5, 300, 5_000, 60_000]))),
    })
}

/// Binds its life to connections, to a time or to a process, now and then.
fn live(params: &mut CreateParams, dice: &mut Dice) {
    match dice.below(10) {
        0..2 => {
            params.lifetime = Lifetime::Connection;
            params.linger = Duration::from_micros(dice.choose([0, 0, 5_003, 900_003, 30_000_003]));
        }
        2..4 => {
            // Never exactly as long as the time to get ready: which of both is first would be the broker's choice.
            let length = dice.choose([3_001, 200_003, 4_000_003, 60_000_003]);
            params.lifetime = Lifetime::Ttl(Duration::from_micros(length));
        }
        4..6 => params.lifetime = Lifetime::Pid(dice.choose(NUMBERS)),
        _ => {}
    }
}

/// Has it say that it is ready, and well, or has it asked.
fn get_ready(params: &mut CreateParams, dice: &mut Dice) {
    if dice.chance(50) {
        let interval = Duration::from_millis(dice.choose([10, 100, 100, 400, 3_000]));
        let command = || Check::Command(vec!["up".to_owned()]);
        let check = if dice.chance(60) { command() } else { Check::Log("up".to_owned()) };
        params.ready = Ready::Probe(Probe { check, interval });
        return;
    }
    params.ready = Ready::Notify;
    if dice.chance(45) {
        params.watchdog = Some(Duration::from_millis(dice.choose([10, 300, 3_000, 20_000])));
    }
}

/// Rolls a policy: some give up at once, and some go on for ever.
fn restart(dice: &mut Dice) -> Restart {
    let length = |millis| Duration::from_millis(millis);
    let policy = dice.choose([RestartPolicy::OnFailure, RestartPolicy::Always, RestartPolicy::Always]);
    let max = dice.choose([0, 1, 2, 5, 5, 50]);
    let window = length(dice.choose([1, 300, 2_000, 10_000, 60_000]));
    let backoff = length(dice.choose([0, 20, 100, 100, 1_000]));
    let backoff_max = length(dice.choose([0, 200, 1_000, 30_000])).max(backoff);
    Restart { policy, max, window, backoff, backoff_max }
}

/// Asks for the same as ever, which is not ready in time one time and is another.
fn insist(params: &mut CreateParams, dice: &mut Dice) {
    params.request_id = Some(Uuid::from_u128(1));
    params.ready_timeout = ReadyTimeout(Duration::from_millis(dice.choose([1, 3, 6, 30_000])));
    if dice.chance(70) {
        (params.name, params.if_exists) = (None, IfExists::Fail);
    }
}

/// Names accounts, or asks for what cannot be had, now and then.
fn spoil(params: &mut CreateParams, dice: &mut Dice) {
    match dice.below(40) {
        0 => params.command.clear(),
        1 => params.command.push("x".repeat(80)),
        2 => params.resources = Some(Resources { memory_max: Some(1 << 20), ..Resources::default() }),
        3 => params.if_exists = IfExists::Replace,
        4..8 => {
            params.user = Some(Account::Id(dice.choose([0, BROKER_USER, USERS[0], USERS[1], 4_242])));
        }
        8 | 9 => {
            let groups: &[u32] =
                dice.choose([&[ALLOWED_GROUP][..], &[0], &[88], &[USERS[0]], &[88, USERS[0]]]);
            params.groups = Some(groups.iter().copied().map(Account::Id).collect());
        }
        10 => (params.stdout, params.stderr) = (StandardOutput::Inherit, StandardError::Log),
        11 => params.stderr = StandardError::Inherit,
        12 => {
            let backoff = Restart::default().backoff_max + Duration::from_millis(1);
            params.restart = Restart { backoff, ..Restart::always() };
        }
        _ => {}
    }
}

/// What is found of the process that makes a request: confined now and then, or gone.
///
/// # Errors
/// When it is gone.
pub fn caller(request: &Request, number: u128) -> Result<Caller, CallerUnknown> {
    let Request::Create(_) = request else { return Ok(Caller::default()) };
    let confinement = match number % 32 {
        5 => return Err(CallerUnknown::Gone),
        6..9 => Some(Arc::new(Confinement {
            no_new_privs: number.is_multiple_of(2),
            capabilities: Some(0),
            hard_limits: vec![HardLimit { resource: 6, value: 50 }],
        })),
        _ => None,
    };
    Ok(Caller { login: None, confinement })
}

/// What the system knows of the accounts that a request names.
///
/// # Errors
/// When it does not know one of them.
pub fn accounts(request: &Request) -> Result<Accounts, AccountsFailure> {
    let Request::Create(params) = request else { return Ok(Accounts::default()) };
    let user = match &params.user {
        Some(Account::Id(4_242)) => {
            let failure = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "user".to_owned() };
            return Err(AccountsFailure { account: Account::Id(4_242), failure });
        }
        Some(Account::Id(uid)) => Some(UserAccount {
            uid: *uid,
            gid: *uid,
            groups: vec![*uid],
            login: Arc::new(Login::of_number(*uid)),
        }),
        Some(Account::Name(_)) | None => None,
    };
    let group = |account: &Account| match account {
        Account::Id(gid) => Some(*gid),
        Account::Name(_) => None,
    };
    let groups = params.groups.as_ref().map(|groups| groups.iter().filter_map(group).collect());
    Ok(Accounts { user, groups })
}

/// The name with this number.
#[must_use]
pub fn name(number: u64) -> Option<Name> {
    format!("n{number}").parse().ok()
}

fn destroy(from: &mut Circumstances<'_>) -> Request {
    Request::Destroy(DestroyParams {
        target: target(from),
        stop: if from.dice.chance(35) { Some(stop(from.dice)) } else { None },
        no_wait: from.dice.chance(30),
    })
}

fn target(from: &mut Circumstances<'_>) -> Target {
    let dice = &mut *from.dice;
    let child = dice.element(from.children).copied();
    match (dice.below(10), child) {
        (0..5, _) | (5..8, None) => match name(dice.below(from.setting.names)) {
            Some(name) => Target::Name(name),
            None => Target::All,
        },
        (5..8, Some(id)) => Target::Id(id),
        (8, _) => Target::Labels(BTreeMap::from([("pool".to_owned(), "a".to_owned())])),
        _ => Target::All,
    }
}

fn labels(dice: &mut Dice) -> BTreeMap<String, String> {
    match dice.below(4) {
        0 => BTreeMap::from([("pool".to_owned(), "a".to_owned())]),
        1 => BTreeMap::from([("pool".to_owned(), "b".to_owned())]),
        _ => BTreeMap::new(),
    }
}

/// A length of time, from none to the longest that a message can have.
fn length(dice: &mut Dice) -> Duration {
    Duration::from_millis(match dice.below(12) {
        0 => 0,
        1..4 => dice.below(50),
        4..8 => dice.below(2_000),
        8..11 => dice.below(20_000),
        _ => dice.choose([3_600_000, u64::MAX]),
    })
    .min(DURATION_MAX)
}

fn stop(dice: &mut Dice) -> Vec<StopStep> {
    let count = dice.choose([0, 1, 1, 2, 3]);
    (0..count)
        .map(|_| StopStep {
            signal: dice.choose([Signal::TERM, Signal::TERM, Signal::HUP, Signal::INT]),
            grace: length(dice),
        })
        .collect()
}
