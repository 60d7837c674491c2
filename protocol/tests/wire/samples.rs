//! One message of every kind, with every field in use somewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::child::{Cleaned, Containment, ExitReason, ExitStatus, Owner, StepTaken};
use procbroker_protocol::create::{
    Account, Check, Cleanup, CpuMax, IfExists, Lifetime, Limit, Probe, Ready, ReadyTimeout, Resources,
    Restart, RestartPolicy, Rlimit, StandardError, StandardInput, StandardOutput, StopStep, Umask,
};
use procbroker_protocol::error::{ProbeFailure, SpawnFailure};
use procbroker_protocol::request::{
    DestroyParams, EventsParams, ListParams, LogStream, LogsParams, ManyParams, NoParams, OneParams, Scope,
    ShutdownParams, SignalParams, Until, WaitParams,
};
use procbroker_protocol::response::{Created, Got, Logs, Metrics, ShutdownReport, Subscribed};
use procbroker_protocol::status::{ChildCounts, Facilities, FailedUpgrade, Limits, ProtocolRange};
use procbroker_protocol::{
    Child, ChildId, ChildState, CreateParams, Error, ErrorKind, Event, EventKind, Exit, Field, Fields,
    Holder, Name, Notification, Outcome, PartialChildren, Request, Response, Signal, Since, Spec, Status,
    Target, Timestamp, Usage,
};
use uuid::Uuid;

pub(super) fn id() -> ChildId {
    ChildId::from_uuid(Uuid::from_u128(0x0193_5b2c_7d00_7abc_8def_0123_4567_89ab))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_795_445_537_123_456 + seconds * 1_000_000)
}

fn full_create() -> CreateParams {
    CreateParams {
        command: strings(&["python3", "render.py", "ä \"\n"]),
        name: Some(name("render-42")),
        if_exists: IfExists::Reuse,
        request_id: Some(Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8)),
        labels: map(&[("pool", "render"), ("tier", "")]),
        cwd: Some("/srv/app".into()),
        env: map(&[("LANG", "C.UTF-8")]),
        env_clear: true,
        umask: Umask::from_bits(0o077),
        user: Some(Account::Name("www-data".into())),
        groups: Some(vec![Account::Name("video".into()), Account::Id(1000)]),
        stdin: StandardInput::Null,
        stdout: StandardOutput::Inherit,
        stderr: StandardError::Log,
        stop: vec![
            StopStep { signal: Signal::HUP, grace: Duration::from_millis(250) },
            StopStep { signal: "RTMIN+3".parse().unwrap(), grace: Duration::from_secs(300) },
        ],
        stop_order: -7,
        ready: Ready::Notify,
        ready_timeout: ReadyTimeout(Duration::from_secs(90)),
        no_wait: true,
        restart: Restart {
            policy: RestartPolicy::OnFailure,
            max: 3,
            window: Duration::from_secs(3600),
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
        },
        lifetime: Lifetime::Ttl(Duration::from_secs(86_400)),
        linger: Duration::from_millis(1500),
        cleanup: Some(Cleanup {
            command: strings(&["rm", "-rf", "/srv/scratch"]),
            timeout: Duration::from_secs(9),
        }),
        limit: Some(Limit { key: "render".into(), max: 4, wait: None }),
        rlimits: [("core".to_owned(), Rlimit::Unlimited), ("nofile".to_owned(), Rlimit::Value(1024))].into(),
        resources: Some(Resources {
            memory_max: Some(1 << 30),
            cpu_weight: Some(100),
            cpu_max: Some("50000 100000".parse().unwrap()),
            pids_max: None,
            memory_high: None,
            io_weight: None,
        }),
        watchdog: None,
    }
}

fn creates() -> Vec<(&'static str, Request)> {
    let plain = CreateParams::new(strings(&["sleep", "60"]));
    let connection = CreateParams {
        if_exists: IfExists::Replace,
        stdout: StandardOutput::Null,
        stderr: StandardError::Inherit,
        lifetime: Lifetime::Connection,
        stop: vec![],
        restart: Restart { policy: RestartPolicy::Always, ..Restart::default() },
        ..plain.clone()
    };
    let pid = CreateParams {
        user: Some(Account::Id(33)),
        stderr: StandardError::Null,
        lifetime: Lifetime::Pid(4711),
        ..plain.clone()
    };
    vec![
        ("create, only a command", Request::Create(Box::new(plain))),
        ("create, every parameter", Request::Create(Box::new(full_create()))),
        ("create, for a connection", Request::Create(Box::new(connection))),
        ("create, for a process", Request::Create(Box::new(pid))),
    ]
}

pub(super) fn requests() -> Vec<(&'static str, Request)> {
    let named = || Target::Name(name("render-42"));
    let labels = || Target::Labels(map(&[("pool", "render")]));
    let stop = Some(vec![StopStep { signal: Signal::INT, grace: Duration::ZERO }]);
    let mut requests = creates();
    requests.extend([
        (
            "destroy, by id",
            Request::Destroy(DestroyParams { target: Target::Id(id()), stop: None, no_wait: false }),
        ),
        (
            "destroy, all with other steps",
            Request::Destroy(DestroyParams { target: Target::All, stop, no_wait: true }),
        ),
        ("list", Request::List(ListParams::default())),
        (
            "list, ended ones of a label",
            Request::List(ListParams { labels: map(&[("pool", "render")]), all: true, fields: None }),
        ),
        ("get", Request::Get(OneParams { target: named() })),
        ("wait", Request::Wait(WaitParams { target: named(), until: Until::Ended, timeout: None })),
        (
            "wait, until ready",
            Request::Wait(WaitParams {
                target: named(),
                until: Until::Ready,
                timeout: Some(Duration::from_millis(2500)),
            }),
        ),
        (
            "signal",
            Request::Signal(SignalParams { target: named(), signal: Signal::HUP, scope: Scope::Main }),
        ),
        (
            "signal, group",
            Request::Signal(SignalParams { target: labels(), signal: Signal::KILL, scope: Scope::Group }),
        ),
        (
            "signal, all",
            Request::Signal(SignalParams { target: labels(), signal: Signal::TERM, scope: Scope::All }),
        ),
        ("restart", Request::Restart(ManyParams { target: labels() })),
        ("renew", Request::Renew(ManyParams { target: Target::All })),
        (
            "logs",
            Request::Logs(LogsParams {
                target: named(),
                stream: LogStream::Stdout,
                tail: None,
                follow: false,
                since: None,
                timestamps: false,
                position: None,
            }),
        ),
        (
            "logs, follow",
            Request::Logs(LogsParams {
                target: named(),
                stream: LogStream::Stderr,
                tail: Some(100),
                follow: true,
                since: None,
                timestamps: false,
                position: None,
            }),
        ),
        ("events", Request::Events(EventsParams::default())),
        (
            "events, since",
            Request::Events(EventsParams { since: Some(1 << 40), labels: map(&[("pool", "render")]) }),
        ),
        ("status", Request::Status(NoParams {})),
        ("shutdown", Request::Shutdown(ShutdownParams::default())),
        ("shutdown, in time", Request::Shutdown(ShutdownParams { timeout: Some(Duration::from_secs(5)) })),
        ("upgrade", Request::Upgrade(NoParams {})),
        ("list, some members", list_of(&[Field::Name, Field::Pid, Field::State])),
        ("list, ids alone", list_of(&[])),
        ("list, every member", list_of(Field::ALL)),
        ("logs, since a time", logs_since(Since::Time(at(0)))),
        ("logs, since an age", logs_since(Since::Age(Duration::from_secs(300)))),
        ("metrics", Request::Metrics(NoParams {})),
    ]);
    requests.extend(later_creates());
    requests
}

fn new_child() -> Child {
    Child {
        id: id(),
        name: None,
        labels: BTreeMap::new(),
        command: strings(&["sleep", "60"]),
        pid: None,
        owner: Owner { uid: 0, gid: 0 },
        state: ChildState::Starting,
        created_at: at(0),
        started_at: None,
        restarts: 0,
        lifetime: Lifetime::Broker,
        stop_order: 0,
        exit: None,
        cleanup: None,
        containment: Containment::Subreaper,
        status_text: None,
        usage: None,
        shortened: Fields::default(),
    }
}

fn running_child() -> Child {
    Child {
        name: Some(name("render-42")),
        labels: map(&[("pool", "render")]),
        pid: Some(4711),
        owner: Owner { uid: 33, gid: 33 },
        state: ChildState::Running,
        started_at: Some(at(1)),
        restarts: 2,
        lifetime: Lifetime::Ttl(Duration::from_millis(1500)),
        stop_order: -1,
        containment: Containment::Cgroup,
        ..new_child()
    }
}

/// A child that says and uses something.
fn busy_child() -> Child {
    let usage = Usage {
        cpu: Some(Duration::from_micros(1_500_250)),
        memory: Some(1 << 24),
        memory_peak: Some(1 << 25),
        processes: Some(3),
    };
    Child { status_text: Some("7 requests, \"ä\"".into()), usage: Some(Box::new(usage)), ..running_child() }
}

/// A child whose command is too long to be shown whole.
fn long_child() -> Child {
    Child { shortened: [Field::Command].into_iter().collect(), ..running_child() }
}

fn spec() -> Spec {
    let log = "/var/lib/procbroker/logs/01935b2c-7d00-7abc-8def-0123456789ab.out".into();
    Spec { params: full_create(), group: Some(33), log: Some(log) }
}

/// Children with what came later, where it can only partly be told.
fn later_children() -> Vec<Arc<Child>> {
    let killed = Exit { oom: true, ..exit(ExitStatus::Signal(Signal::KILL), ExitReason::Exited) };
    let given_up = Exit { gave_up: true, ..exit(ExitStatus::Code(1), ExitReason::Watchdog) };
    let usage = Usage { cpu: Some(Duration::ZERO), ..Usage::default() };
    vec![
        ended(killed, None),
        ended(given_up, None),
        Arc::new(Child { usage: Some(Box::new(usage)), ..running_child() }),
        Arc::new(long_child()),
    ]
}

fn exit(status: ExitStatus, reason: ExitReason) -> Exit {
    Exit::new(status, reason, at(60))
}

fn ended(exit: Exit, cleanup: Option<Cleaned>) -> Arc<Child> {
    Arc::new(Child { state: ChildState::Ended, exit: Some(exit), cleanup, ..new_child() })
}

/// A child in every state, and with every reason and form of an end.
fn children() -> Vec<Arc<Child>> {
    let steps =
        vec![StepTaken { signal: Signal::TERM, at: at(50) }, StepTaken { signal: Signal::KILL, at: at(60) }];
    let killed =
        Exit { forced: true, steps, ..exit(ExitStatus::Signal(Signal::KILL), ExitReason::Destroyed) };
    let cleaned = |ok, exit| Some(Cleaned { ok, exit, attempts: 1 });
    let mut children: Vec<Arc<Child>> = [ChildState::Stopping, ChildState::Cleaning, ChildState::Backoff]
        .into_iter()
        .map(|state| Arc::new(Child { state, ..running_child() }))
        .collect();
    children.extend([
        ended(exit(ExitStatus::Code(0), ExitReason::Exited), cleaned(true, Some(ExitStatus::Code(0)))),
        ended(killed, cleaned(false, Some(ExitStatus::Signal(Signal::KILL)))),
        ended(exit(ExitStatus::Unknown, ExitReason::BrokerLost), cleaned(false, Some(ExitStatus::Unknown))),
        ended(exit(ExitStatus::Code(-1), ExitReason::Shutdown), cleaned(false, None)),
        ended(exit(ExitStatus::Code(255), ExitReason::Replaced), None),
        ended(exit(ExitStatus::Code(1), ExitReason::Expired), None),
        ended(exit(ExitStatus::Code(2), ExitReason::OwnerGone), None),
        ended(exit(ExitStatus::Code(3), ExitReason::StartFailed), None),
    ]);
    children
}

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        protocol: ProtocolRange { lowest: 1, highest: 1 },
        pid: 1,
        instance: Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8),
        events_instance: Uuid::from_u128(0x1b4e_28ba_2fa1_11d2_883f_0016_d3cc_a427),
        started_at: at(0),
        shutting_down: false,
        failed_upgrade: Some(FailedUpgrade { at: at(1), message: "it said no".into() }),
        children: ChildCounts { starting: 1, running: 2, stopping: 3, cleaning: 4, ended: 5, backoff: 6 },
        connections: 7,
        facilities: Facilities {
            spawn: "clone3".into(),
            containment: "cgroup".into(),
            cgroup: "/system.slice/procbroker.service".into(),
            controllers: "cpu io memory pids".into(),
            subreaper: true,
            pidfd: true,
            pidfd_group_signal: true,
            pidfd_exit_info: false,
            proc_children: true,
            activation: "systemd".into(),
            state_dir: "/var/lib/procbroker".into(),
        },
        limits: Limits {
            max_children: 10_000,
            max_children_per_user: 1000,
            max_connections: 4096,
            max_connections_per_user: 512,
            max_pipelined: 128,
            max_command_bytes: 131_072,
            max_subscriptions: 16,
            max_kept_bytes: 1 << 28,
            max_kept_bytes_per_user: 1 << 26,
            max_message_bytes: 1_048_576,
            partial_message_timeout: Duration::from_secs(10),
            ended_kept: 1024,
            ended_kept_for: Duration::from_secs(3600),
            shutdown_timeout: Duration::from_millis(29_500),
        },
    }
}

pub(super) fn responses() -> Vec<(&'static str, Response)> {
    let child = Arc::new(running_child());
    let created = |outcome| Response::Created(Created { outcome, child: Arc::clone(&child) });
    let text = "one\ntwo ä\n".to_owned();
    vec![
        ("created", created(Outcome::Created)),
        ("existing, of the same specification", created(Outcome::Existing { same_spec: true })),
        ("existing, of another specification", created(Outcome::Existing { same_spec: false })),
        ("replaced", created(Outcome::Replaced)),
        ("children", Response::Children(children())),
        ("no children", Response::Children(vec![])),
        ("child", Response::Child(Arc::new(new_child()))),
        (
            "logs",
            Response::Logs(Logs {
                text: text.clone(),
                truncated: true,
                subscription: None,
                dropped: 0,
                position: 1 << 33,
                id: id(),
            }),
        ),
        (
            "logs, followed",
            Response::Logs(Logs {
                text,
                truncated: false,
                subscription: Some(3),
                dropped: 0,
                position: 1 << 33,
                id: id(),
            }),
        ),
        ("subscribed", Response::Subscribed(Subscribed { subscription: 3, next: 1 << 40 })),
        ("status", Response::Status(Box::new(status()))),
        (
            "shut down",
            Response::ShutDown(ShutdownReport {
                children: children().split_off(4),
                forced: 1,
                took: Duration::from_millis(1250),
            }),
        ),
        ("upgraded", Response::Upgraded),
    ]
}

/// Answers that came later: they follow the errors, so that the others keep their numbers.
pub(super) fn later_responses() -> Vec<(&'static str, Response)> {
    let some = |fields: &[Field]| {
        Response::PartialChildren(PartialChildren::new(fields.iter().copied().collect(), children()))
    };
    let logs = Logs {
        text: "one\n".to_owned(),
        truncated: true,
        subscription: None,
        dropped: 4096,
        position: 1 << 33,
        id: id(),
    };
    vec![
        ("children, some members", some(&[Field::Name, Field::Pid, Field::State])),
        ("children, ids alone", some(&[])),
        ("children, every member", some(Field::ALL)),
        ("logs, some of them not kept", Response::Logs(logs)),
        ("got, of somebody else", Response::Got(Got { child: Arc::new(new_child()), spec: None })),
        (
            "got, all of it",
            Response::Got(Got { child: Arc::new(busy_child()), spec: Some(Box::new(spec())) }),
        ),
        ("children, later reasons and members", Response::Children(later_children())),
        ("metrics", Response::Metrics(Metrics { text: "# TYPE up gauge\nup 1\n".into() })),
    ]
}

/// Creates with what came later.
fn later_creates() -> Vec<(&'static str, Request)> {
    let create = |params| Request::Create(Box::new(params));
    let plain = || CreateParams::new(strings(&["serve"]));
    let seconds = Duration::from_secs;
    let probe = |name, check| (name, create(CreateParams { ready: Ready::from(check), ..plain() }));
    let watched = CreateParams {
        ready: Ready::Notify,
        watchdog: Some(seconds(20)),
        limit: Some(Limit { key: "render".into(), max: 4, wait: Some(Duration::from_millis(1500)) }),
        ..plain()
    };
    let slowly =
        Probe { check: Check::Command(strings(&["curl", "-f", "http://[::1]/"])), interval: seconds(5) };
    let resources = Resources {
        memory_max: None,
        cpu_weight: None,
        cpu_max: Some(CpuMax::MAX),
        pids_max: Some(64),
        memory_high: Some(1 << 29),
        io_weight: Some(50),
    };
    vec![
        ("create, watched and waiting for a place", create(watched)),
        probe("create, ready at an address", Check::tcp("127.0.0.1:8080").unwrap()),
        probe("create, ready at an address of version 6", Check::tcp("[fe80::1]:80").unwrap()),
        probe("create, ready at a socket", Check::Unix("/run/web.sock".into())),
        probe("create, ready by its log", Check::Log("listening on ä".into())),
        ("create, ready by a command", create(CreateParams { ready: Ready::Probe(slowly), ..plain() })),
        ("create, with other resources", create(CreateParams { resources: Some(resources), ..plain() })),
    ]
}

fn list_of(fields: &[Field]) -> Request {
    Request::List(ListParams { fields: Some(fields.iter().copied().collect()), ..ListParams::default() })
}

fn logs_since(since: Since) -> Request {
    let target = Target::Name("render-42".parse().unwrap());
    let stream = LogStream::Stdout;
    Request::Logs(LogsParams {
        target,
        stream,
        tail: None,
        follow: false,
        since: Some(since),
        timestamps: true,
        position: None,
    })
}

/// Errors with facts that came later.
pub(super) fn later_errors() -> Vec<(String, Error)> {
    let holder = Holder { id: id(), state: ChildState::Stopping };
    let kind = ErrorKind::NameTaken(Some(holder));
    vec![(
        "name_taken, by a child of one's own".into(),
        Error::new(kind, "what was attempted, and what to do"),
    )]
}

/// One error of every kind.
pub(super) fn errors() -> Vec<Error> {
    let spawn = SpawnFailure { errno: 2, errno_name: "ENOENT".into(), step: "exec".into() };
    let failed = exit(ExitStatus::Code(3), ExitReason::StartFailed);
    let kinds = vec![
        ErrorKind::ParseError,
        ErrorKind::InvalidRequest,
        ErrorKind::MethodNotFound,
        ErrorKind::InvalidParams,
        ErrorKind::NameTaken(None),
        ErrorKind::NotFound,
        ErrorKind::PermissionDenied,
        ErrorKind::LimitExceeded,
        ErrorKind::SpawnFailed(spawn.clone()),
        ErrorKind::StartFailed { exit: Box::new(failed), log_tail: "no such \"file\"\n".into() },
        ErrorKind::ShuttingDown,
        ErrorKind::Timeout(None),
        ErrorKind::Overloaded,
        ErrorKind::Unsupported,
        ErrorKind::Internal,
    ];
    let probes = [
        ProbeFailure::NotStarted(spawn),
        ProbeFailure::Ended(ExitStatus::Code(1)),
        ProbeFailure::Ended(ExitStatus::Unknown),
        ProbeFailure::TimedOut,
    ];
    let late = probes.into_iter().map(|failure| ErrorKind::Timeout(Some(Box::new(failure))));
    let all = kinds.into_iter().chain(late);
    all.map(|kind| Error::new(kind, "what was attempted, and what to do")).collect()
}

pub(super) fn notifications() -> Vec<(String, Notification)> {
    let kinds = [
        EventKind::Created,
        EventKind::Started,
        EventKind::Ready,
        EventKind::Stopping,
        EventKind::Exited,
        EventKind::Restarting,
        EventKind::Cleaning,
        EventKind::Ended,
        EventKind::ShuttingDown,
    ];
    let child = Arc::new(new_child());
    let mut notifications: Vec<(String, Notification)> = (1..)
        .zip(kinds)
        .map(|(seq, kind)| {
            let child = (kind != EventKind::ShuttingDown).then(|| Arc::clone(&child));
            let event = Arc::new(Event { seq, at: at(seq), kind, child });
            (format!("event {}", kind.as_str()), Notification::Event { subscription: 3, event })
        })
        .collect();
    let log = |stream, text: &str, ended| Notification::Log {
        subscription: 4,
        stream,
        text: text.into(),
        ended,
        position: 1 << 33,
    };
    notifications.extend([
        ("lagged".into(), Notification::Lagged { subscription: 3, missed: 300 }),
        ("log".into(), log(LogStream::Stdout, "one\ntwo", false)),
        ("log, its end".into(), log(LogStream::Stderr, "", true)),
    ]);
    notifications
}
