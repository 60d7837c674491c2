//! Any message, for property tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::binary::ServerMessage;
use procbroker_protocol::child::{Cleaned, Containment, ExitReason, ExitStatus, Owner, StepTaken};
use procbroker_protocol::create::{
    Account, Check, Cleanup, CpuMax, IfExists, Lifetime, Limit, Probe, Ready, ReadyTimeout, Resources,
    Restart, RestartPolicy, Rlimit, StandardError, StandardOutput, StopStep, Umask,
};
use procbroker_protocol::request::{
    DestroyParams, EventsParams, ListParams, LogStream, LogsParams, ManyParams, NoParams, OneParams, Scope,
    ShutdownParams, SignalParams, Until, WaitParams,
};
use procbroker_protocol::response::{Created, Got, Logs, Metrics, ShutdownReport, Subscribed};
use procbroker_protocol::{
    Child, ChildId, ChildState, CreateParams, Error, ErrorKind, Event, EventKind, Exit, Field, Fields,
    Holder, Name, Notification, Outcome, PartialChildren, Request, Response, Signal, Since, Spec, Target,
    Timestamp, Usage,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use crate::samples;

/// Any text: the proptest expressions for strings would need its regex feature.
fn text() -> impl Strategy<Value = String> + Clone {
    vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn id() -> impl Strategy<Value = ChildId> {
    uuid().prop_map(ChildId::from_uuid)
}

fn name() -> impl Strategy<Value = Name> {
    let first = select(&b"abzAZ09"[..]);
    let rest = vec(select(&b"abzAZ09._:@-"[..]), 0..20);
    (first, rest).prop_map(|(first, rest)| {
        let text: String = std::iter::once(first).chain(rest).map(char::from).collect();
        text.parse().unwrap()
    })
}

/// Whole milliseconds up to some days: a JSON number of seconds holds them exactly.
fn duration() -> impl Strategy<Value = Duration> {
    (0..1_000_000_000_u64).prop_map(Duration::from_millis)
}

fn moment() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_micros)
}

fn signal() -> impl Strategy<Value = Signal> {
    prop_oneof![1..=31_i64, 34..=64_i64].prop_map(|number| Signal::from_number(number).unwrap())
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        id().prop_map(Target::Id),
        name().prop_map(Target::Name),
        btree_map(text(), text(), 1..4).prop_map(Target::Labels),
        Just(Target::All),
    ]
}

fn account() -> impl Strategy<Value = Account> {
    let name =
        text().prop_filter("a number is an id", |text| matches!(Account::from_text(text), Account::Name(_)));
    prop_oneof![name.prop_map(Account::Name), (0..u32::MAX).prop_map(Account::Id)]
}

fn stop() -> impl Strategy<Value = Vec<StopStep>> {
    vec((signal(), duration()).prop_map(|(signal, grace)| StopStep { signal, grace }), 0..4)
}

fn restart() -> impl Strategy<Value = Restart> {
    let policy = select(vec![RestartPolicy::Never, RestartPolicy::OnFailure, RestartPolicy::Always]);
    (policy, any::<u32>(), duration(), duration(), duration()).prop_map(
        |(policy, max, window, backoff, backoff_max)| Restart { policy, max, window, backoff, backoff_max },
    )
}

fn lifetime() -> impl Strategy<Value = Lifetime> {
    prop_oneof![
        Just(Lifetime::Broker),
        Just(Lifetime::Connection),
        any::<u32>().prop_map(Lifetime::Pid),
        duration().prop_map(Lifetime::Ttl),
    ]
}

fn ready() -> impl Strategy<Value = Ready> {
    let check = prop_oneof![
        (any::<std::net::SocketAddrV4>())
            .prop_filter("a port is not 0", |address| address.port() != 0)
            .prop_map(|address| Check::Tcp(address.into())),
        (any::<std::net::Ipv6Addr>(), 1..=u16::MAX).prop_map(|address| Check::Tcp(address.into())),
        text().prop_map(Check::Unix),
        text().prop_map(Check::Log),
        vec(text(), 0..3).prop_map(Check::Command),
    ];
    prop_oneof![
        Just(Ready::Spawn),
        Just(Ready::Notify),
        (check, duration()).prop_map(|(check, interval)| Ready::Probe(Probe { check, interval })),
    ]
}

fn resources() -> impl Strategy<Value = Resources> {
    let memory = (option::of(any::<u64>()), option::of(any::<u64>()));
    let weights = (option::of(any::<u32>()), option::of(any::<u32>()));
    let cpu_max =
        (option::of(any::<u64>()), any::<u64>()).prop_map(|(quota, period)| CpuMax { quota, period });
    (memory, weights, option::of(cpu_max), option::of(any::<u32>())).prop_map(
        |((memory_max, memory_high), (cpu_weight, io_weight), cpu_max, pids_max)| Resources {
            memory_max,
            cpu_weight,
            cpu_max,
            pids_max,
            memory_high,
            io_weight,
        },
    )
}

fn create() -> impl Strategy<Value = CreateParams> {
    let exists = select(vec![IfExists::Fail, IfExists::Reuse, IfExists::Replace]);
    let outputs = select(vec![StandardOutput::Log, StandardOutput::Null, StandardOutput::Inherit]);
    let errors =
        select(vec![StandardError::Stdout, StandardError::Log, StandardError::Null, StandardError::Inherit]);
    let what =
        (vec(text(), 0..5), option::of(name()), exists, option::of(uuid()), labels(), option::of(text()));
    let around =
        (labels(), any::<bool>(), any::<u16>(), option::of(account()), option::of(vec(account(), 0..3)));
    let output = (outputs, errors, stop(), any::<i32>(), ready(), duration());
    let life = (any::<bool>(), restart(), lifetime(), duration());
    let cleanup = option::of((vec(text(), 0..3), duration()));
    let rlimit = prop_oneof![Just(Rlimit::Unlimited), any::<u64>().prop_map(Rlimit::Value)];
    let rest = (
        cleanup,
        option::of((text(), any::<u32>(), option::of(duration()))),
        btree_map(text(), rlimit, 0..3),
        option::of(resources()),
        option::of(duration()),
    );
    (what, around, output, life, rest).prop_map(|(what, around, output, life, rest)| {
        let (command, name, if_exists, request_id, labels, cwd) = what;
        let (env, env_clear, umask, user, groups) = around;
        let (stdout, stderr, stop, stop_order, ready, ready_timeout) = output;
        let (no_wait, restart, lifetime, linger) = life;
        let (cleanup, limit, rlimits, resources, watchdog) = rest;
        let umask = Umask::from_bits(umask);
        let ready_timeout = ReadyTimeout(ready_timeout);
        let cleanup = cleanup.map(|(command, timeout)| Cleanup { command, timeout });
        let limit = limit.map(|(key, max, wait)| Limit { key, max, wait });
        let plain = CreateParams::new(command);
        let named = CreateParams { name, if_exists, request_id, labels, cwd, env, env_clear, umask, ..plain };
        let stopped =
            CreateParams { user, groups, stdout, stderr, stop, stop_order, ready, ready_timeout, ..named };
        let bound = CreateParams { cleanup, limit, rlimits, resources, watchdog, ..stopped };
        CreateParams { no_wait, restart, lifetime, linger, ..bound }
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    vec(select(Field::ALL), 0..8).prop_map(|fields| fields.into_iter().collect())
}

fn since() -> impl Strategy<Value = Since> {
    prop_oneof![moment().prop_map(Since::Time), duration().prop_map(Since::Age)]
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let until = select(vec![Until::Ready, Until::Ended]);
    let scope = select(vec![Scope::Main, Scope::Group, Scope::All]);
    let wait = (target(), until, option::of(duration()));
    let logs = (
        target(),
        stream(),
        option::of(any::<u32>()),
        any::<bool>(),
        option::of(since()),
        any::<bool>(),
        option::of(any::<u64>()),
    );
    prop_oneof![
        4 => create().prop_map(|params| Request::Create(Box::new(params))),
        1 => (target(), option::of(stop()), any::<bool>())
            .prop_map(|(target, stop, no_wait)| Request::Destroy(DestroyParams { target, stop, no_wait })),
        1 => (labels(), any::<bool>(), option::of(fields()))
            .prop_map(|(labels, all, fields)| Request::List(ListParams { labels, all, fields })),
        1 => target().prop_map(|target| Request::Get(OneParams { target })),
        1 => wait.prop_map(|(target, until, timeout)| Request::Wait(WaitParams { target, until, timeout })),
        1 => (target(), signal(), scope)
            .prop_map(|(target, signal, scope)| Request::Signal(SignalParams { target, signal, scope })),
        1 => target().prop_map(|target| Request::Restart(ManyParams { target })),
        1 => target().prop_map(|target| Request::Renew(ManyParams { target })),
        1 => logs.prop_map(|(target, stream, tail, follow, since, timestamps, position)| {
            Request::Logs(LogsParams { target, stream, tail, follow, since, timestamps, position })
        }),
        1 => (option::of(any::<u64>()), labels())
            .prop_map(|(since, labels)| Request::Events(EventsParams { since, labels })),
        1 => option::of(duration()).prop_map(|timeout| Request::Shutdown(ShutdownParams { timeout })),
        1 => Just(Request::Status(NoParams {})),
        1 => Just(Request::Upgrade(NoParams {})),
        1 => Just(Request::Metrics(NoParams {})),
    ]
}

fn stream() -> impl Strategy<Value = LogStream> {
    select(vec![LogStream::Stdout, LogStream::Stderr])
}

fn exit_status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        any::<i32>().prop_map(ExitStatus::Code),
        signal().prop_map(ExitStatus::Signal),
        Just(ExitStatus::Unknown),
    ]
}

fn exit() -> impl Strategy<Value = Exit> {
    let reason =
        select(vec![ExitReason::Exited, ExitReason::Destroyed, ExitReason::Watchdog, ExitReason::BrokerLost]);
    let steps = vec((signal(), moment()).prop_map(|(signal, at)| StepTaken { signal, at }), 0..3);
    (exit_status(), reason, any::<[bool; 3]>(), steps, moment()).prop_map(
        |(status, reason, [forced, gave_up, oom], steps, at)| Exit {
            status,
            reason,
            forced,
            steps,
            at,
            gave_up,
            oom,
        },
    )
}

fn usage() -> impl Strategy<Value = Usage> {
    let memory = (option::of(any::<u64>()), option::of(any::<u64>()));
    (option::of(duration()), memory, option::of(any::<u32>()))
        .prop_map(|(cpu, (memory, memory_peak), processes)| Usage { cpu, memory, memory_peak, processes })
}

fn spec() -> impl Strategy<Value = Spec> {
    (create(), option::of(any::<u32>()), option::of(text())).prop_map(|(params, group, log)| Spec {
        params,
        group,
        log,
    })
}

fn child() -> impl Strategy<Value = Arc<Child>> {
    let state =
        select(vec![ChildState::Starting, ChildState::Running, ChildState::Ended, ChildState::Backoff]);
    let containment = select(vec![Containment::Cgroup, Containment::Subreaper]);
    let cleaned = (any::<bool>(), option::of(exit_status()), any::<u32>());
    let who = (
        id(),
        option::of(name()),
        labels(),
        vec(text(), 0..4),
        option::of(any::<u32>()),
        any::<(u32, u32)>(),
    );
    let when = (state, moment(), option::of(moment()), any::<u32>(), lifetime(), any::<i32>());
    let shortened = vec(select(Field::ALL), 0..3).prop_map(|fields| fields.into_iter().collect());
    let says = (containment, option::of(text()), option::of(usage()), shortened);
    (who, when, option::of(exit()), option::of(cleaned), says).prop_map(
        |(who, when, exit, cleanup, (containment, status_text, usage, shortened))| {
            let (id, name, labels, command, pid, (uid, gid)) = who;
            let (state, created_at, started_at, restarts, lifetime, stop_order) = when;
            let owner = Owner { uid, gid };
            let cleanup = cleanup.map(|(ok, exit, attempts)| Cleaned { ok, exit, attempts });
            Arc::new(Child {
                id,
                name,
                labels,
                command,
                pid,
                owner,
                state,
                created_at,
                started_at,
                restarts,
                lifetime,
                stop_order,
                exit,
                cleanup,
                containment,
                status_text,
                usage: usage.map(Box::new),
                shortened,
            })
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    let outcome = prop_oneof![
        Just(Outcome::Created),
        any::<bool>().prop_map(|same_spec| Outcome::Existing { same_spec }),
        Just(Outcome::Replaced),
    ];
    let report = (vec(child(), 0..4), any::<u32>(), duration());
    prop_oneof![
        (outcome, child()).prop_map(|(outcome, child)| Response::Created(Created { outcome, child })),
        vec(child(), 0..6).prop_map(Response::Children),
        (fields(), vec(child(), 0..6)).prop_map(|(fields, children)| {
            Response::PartialChildren(PartialChildren::new(fields, children))
        }),
        child().prop_map(Response::Child),
        (child(), option::of(spec()))
            .prop_map(|(child, spec)| Response::Got(Got { child, spec: spec.map(Box::new) })),
        text().prop_map(|text| Response::Metrics(Metrics { text })),
        (text(), any::<bool>(), option::of(any::<u64>()), any::<[u64; 2]>(), id()).prop_map(
            |(text, truncated, subscription, [dropped, position], id)| {
                Response::Logs(Logs { text, truncated, subscription, dropped, position, id })
            }
        ),
        any::<(u64, u64)>()
            .prop_map(|(subscription, next)| Response::Subscribed(Subscribed { subscription, next })),
        report.prop_map(|(children, forced, took)| Response::ShutDown(ShutdownReport {
            children,
            forced,
            took
        })),
        select(samples::responses()).prop_map(|(_, response)| response),
    ]
}

pub(super) fn error() -> impl Strategy<Value = Error> {
    let start_failed = (exit(), text())
        .prop_map(|(exit, log_tail)| ErrorKind::StartFailed { exit: Box::new(exit), log_tail });
    let holder = (id(), select(vec![ChildState::Running, ChildState::Stopping]))
        .prop_map(|(id, state)| ErrorKind::NameTaken(Some(Holder { id, state })));
    let kind = prop_oneof![select(samples::errors()).prop_map(|error| error.kind), start_failed, holder];
    (kind, text()).prop_map(|(kind, message)| Error { kind, message })
}

fn notification() -> impl Strategy<Value = Notification> {
    let kind = select(vec![EventKind::Created, EventKind::Ended, EventKind::ShuttingDown]);
    let event = (any::<u64>(), moment(), kind, option::of(child()))
        .prop_map(|(seq, at, kind, child)| Arc::new(Event { seq, at, kind, child }));
    prop_oneof![
        (any::<u64>(), event).prop_map(|(subscription, event)| Notification::Event { subscription, event }),
        any::<(u64, u64)>().prop_map(|(subscription, missed)| Notification::Lagged { subscription, missed }),
        (any::<u64>(), stream(), text(), any::<bool>(), any::<u64>()).prop_map(
            |(subscription, stream, text, ended, position)| {
                Notification::Log { subscription, stream, text, ended, position }
            }
        ),
    ]
}

pub(super) fn server_message() -> impl Strategy<Value = ServerMessage> {
    let result = prop_oneof![response().prop_map(Ok), error().prop_map(Err)];
    prop_oneof![
        (any::<u64>(), result).prop_map(|(id, result)| ServerMessage::Answer { id, result }),
        notification().prop_map(ServerMessage::Notification),
    ]
}
