//! Parameters that make no sense are refused by kind, with the field named, and nothing is started.

use std::time::Duration;

use procbroker_core::Bounds;
use procbroker_protocol::create::{
    Account, Check, Cleanup, CpuMax, IfExists, Lifetime, Limit, Probe, Ready, Resources, Restart, Rlimit,
    StandardOutput, StopStep,
};
use procbroker_protocol::request::{LogStream, LogsParams, Until};
use procbroker_protocol::{CreateParams, ErrorKind, Request, Signal, Target};

use crate::world::*;

type Change = fn(&mut CreateParams);

fn text(text: &str) -> String {
    text.to_owned()
}

fn steps(count: usize) -> Vec<StopStep> {
    vec![step(Signal::TERM, 1); count]
}

/// What the create that is changed in this way is refused with.
fn refusal(change: Change) -> Option<(ErrorKind, String)> {
    let (mut world, client) = World::with_client();
    let mut params = unnamed();
    change(&mut params);
    let call = world.create(client, params);
    if !world.is_answered(call) {
        return None;
    }
    assert_eq!(world.take(), []);
    world.answer(call).err().map(|error| (error.kind, error.message))
}

#[test]
fn parameters_that_make_no_sense_are_refused_with_their_field() {
    let cases: [(&str, Change); 28] = [
        ("lifetime", |params| params.lifetime = Lifetime::Pid(0)),
        ("command", |params| params.command = vec![]),
        ("command", |params| params.command = vec![text("")]),
        ("command", |params| params.command = vec![text("a\0b")]),
        ("command", |params| params.command.push(text("\0"))),
        ("env", |params| params.env = [(text(""), text("v"))].into()),
        ("env", |params| params.env = [(text("A=B"), text("v"))].into()),
        ("env", |params| params.env = [(text("A\0"), text("v"))].into()),
        ("env", |params| params.env = [(text("A"), text("v\0"))].into()),
        ("groups", |params| params.groups = Some(vec![Account::Id(7); 257])),
        ("labels", |params| params.labels = [(text(""), text("v"))].into()),
        ("labels", |params| params.labels = (0..65).map(|n| (n.to_string(), text(""))).collect()),
        ("labels", |params| params.labels = [(text("a"), "v".repeat(16 << 10))].into()),
        ("stop", |params| params.stop = steps(33)),
        ("cleanup.command", |params| {
            params.cleanup = Some(Cleanup { command: vec![], timeout: secs(1) });
        }),
        ("cleanup.command", |params| {
            params.cleanup = Some(Cleanup { command: vec![text("a"), text("\0")], timeout: secs(1) });
        }),
        ("if_exists", |params| params.if_exists = IfExists::Reuse),
        ("if_exists", |params| params.if_exists = IfExists::Replace),
        ("cwd", |params| params.cwd = Some(text(""))),
        ("cwd", |params| params.cwd = Some(text("tmp"))),
        ("cwd", |params| params.cwd = Some(text("./tmp"))),
        ("cwd", |params| params.cwd = Some(text("/tmp\0"))),
        ("limit.key", |params| params.limit = Some(Limit { key: text(""), max: 1, wait: None })),
        ("limit.key", |params| params.limit = Some(Limit { key: "k".repeat(257), max: 1, wait: None })),
        ("rlimits", |params| params.rlimits = [(text("files"), Rlimit::Unlimited)].into()),
        ("rlimits", |params| params.rlimits = [(text("NOFILE"), Rlimit::Value(1))].into()),
        ("rlimits", |params| params.rlimits = [(text(""), Rlimit::Value(1))].into()),
        ("rlimits", |params| {
            params.rlimits = [(text("nofile"), Rlimit::Value(1)), (text("x"), Rlimit::Value(1))].into();
        }),
    ];
    for (index, (field, change)) in cases.into_iter().enumerate() {
        let (kind, message) = refusal(change).unwrap_or_else(|| panic!("case {index} ({field}) was taken"));
        assert_eq!(kind, ErrorKind::InvalidParams, "case {index}");
        assert!(message.contains(&format!("parameter {field}: ")), "case {index}: {message}");
    }
}
#[test]
fn what_cannot_show_readiness_or_bound_resources_is_refused_with_its_field() {
    let cases: [(&str, Change); 17] = [
        ("ready.log", |params| {
            params.ready = Check::Log(text("up")).into();
            params.stdout = StandardOutput::Null;
        }),
        ("watchdog", |params| params.watchdog = Some(secs(1))),
        ("watchdog", |params| {
            params.ready = Ready::Notify;
            params.watchdog = Some(Duration::from_millis(9));
        }),
        ("ready.interval", |params| {
            let check = Check::Log(text("up"));
            params.ready = Ready::Probe(Probe { check, interval: Duration::from_millis(9) });
        }),
        ("ready.unix", |params| params.ready = Check::Unix(text("run/web.sock")).into()),
        ("ready.unix", |params| params.ready = Check::Unix(text("/run/web\0sock")).into()),
        ("ready.unix", |params| params.ready = Check::Unix(format!("/{}", "x".repeat(107))).into()),
        ("ready.log", |params| params.ready = Check::Log(text("")).into()),
        ("ready.log", |params| params.ready = Check::Log(text("a\nb")).into()),
        ("ready.command", |params| params.ready = Check::Command(vec![]).into()),
        ("resources.memory_max", |params| {
            params.resources = Some(Resources { memory_max: Some(0), ..Resources::default() });
        }),
        ("resources.memory_high", |params| {
            params.resources = Some(Resources { memory_high: Some(0), ..Resources::default() });
        }),
        ("resources.pids_max", |params| {
            params.resources = Some(Resources { pids_max: Some(0), ..Resources::default() });
        }),
        ("resources.cpu_weight", |params| {
            params.resources = Some(Resources { cpu_weight: Some(0), ..Resources::default() });
        }),
        ("resources.io_weight", |params| {
            params.resources = Some(Resources { io_weight: Some(10_001), ..Resources::default() });
        }),
        ("resources.cpu_max", |params| {
            let cpu_max = Some(CpuMax { quota: Some(999), period: 100_000 });
            params.resources = Some(Resources { cpu_max, ..Resources::default() });
        }),
        ("resources.cpu_max", |params| {
            let cpu_max = Some(CpuMax { quota: None, period: 1_000_001 });
            params.resources = Some(Resources { cpu_max, ..Resources::default() });
        }),
    ];
    for (index, (field, change)) in cases.into_iter().enumerate() {
        let (kind, message) = refusal(change).unwrap_or_else(|| panic!("case {index} ({field}) was taken"));
        assert_eq!(kind, ErrorKind::InvalidParams, "case {index}");
        assert!(message.contains(&format!("parameter {field}: ")), "case {index}: {message}");
    }
}

#[test]
fn parameters_that_contradict_each_other_are_refused_with_both_values() {
    let cases: [(&str, Change); 7] = [
        (
            "restart.backoff: the first pause is 5s, and the longest (restart.backoff_max) 1s; give one that is no shorter",
            |params| params.restart = Restart { backoff: secs(5), backoff_max: secs(1), ..Restart::always() },
        ),
        (
            "restart.backoff: the first pause is 1m, and the longest (restart.backoff_max) 30s; give one that is no shorter",
            |params| params.restart = Restart { backoff: secs(60), ..Restart::on_failure() },
        ),
        (
            "restart.max: it is 3, and the policy (restart.policy) never restarts nothing; give on-failure or always",
            |params| params.restart = Restart { max: 3, ..Restart::never() },
        ),
        (
            "restart.window: it is 10s, and the policy (restart.policy) never restarts nothing; give on-failure or always",
            |params| params.restart = Restart { window: secs(10), ..Restart::never() },
        ),
        (
            "restart.backoff: it is 1s, and the policy (restart.policy) never restarts nothing; give on-failure or always",
            |params| params.restart = Restart { backoff: secs(1), ..Restart::never() },
        ),
        (
            "restart.backoff_max: it is 1s, and the policy (restart.policy) never restarts nothing; give on-failure or always",
            |params| params.restart = Restart { backoff_max: secs(1), ..Restart::never() },
        ),
        (
            "resources.memory_high: it is 9 bytes, which memory_max, 8 bytes, lets nothing reach; give less",
            |params| {
                let (memory_high, memory_max) = (Some(9), Some(8));
                params.resources = Some(Resources { memory_high, memory_max, ..Resources::default() });
            },
        ),
    ];
    for (expected, change) in cases {
        let (kind, message) = refusal(change).unwrap_or_else(|| panic!("{expected}: it was taken"));
        assert_eq!((kind, message), (ErrorKind::InvalidParams, format!("invalid parameter {expected}")));
    }
}

#[test]
fn parameters_at_their_bounds_are_taken() {
    let cases: [Change; 11] = [
        |params| params.labels = (0..64).map(|n| (n.to_string(), text(""))).collect(),
        |params| params.labels = [(text("a"), "v".repeat((16 << 10) - 1))].into(),
        |params| params.stop = steps(32),
        |params| params.stop = steps(0),
        |params| params.cwd = Some(text("/")),
        |params| params.limit = Some(Limit { key: "k".repeat(256), max: 1, wait: None }),
        |params| params.env = [(text("A"), text("a=b"))].into(),
        |params| params.rlimits = [(text("nofile"), Rlimit::Value(0))].into(),
        |params| params.command = vec![text("a"), text("")],
        |params| params.restart = Restart { backoff: secs(1), backoff_max: secs(1), ..Restart::always() },
        |params| params.restart = Restart { max: 0, window: Duration::ZERO, ..Restart::on_failure() },
    ];
    for (index, change) in cases.into_iter().enumerate() {
        assert_eq!(refusal(change), None, "case {index}");
    }
}

#[test]
fn a_command_line_and_environment_that_are_too_large_exceed_a_limit() {
    let bounds = Bounds { max_command_bytes: 20, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let client = world.connect(BROKER_UID);
    // Each argument and each variable costs its NUL, and a variable its equals sign.
    let params = |argument: &str, value: &str| CreateParams {
        command: vec![text("0123"), text(argument)],
        env: [(text("KEY"), text(value))].into(),
        ..unnamed()
    };
    let call = world.create(client, params("01234", "0123"));
    assert!(!world.is_answered(call));
    for params in [params("012345", "0123"), params("01234", "01234")] {
        let call = world.create(client, params);
        assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
        assert!(world.answer(call).unwrap_err().message.contains("--max-command-bytes"));
    }
}

#[test]
fn methods_on_one_child_refuse_a_target_of_many() {
    let (mut world, client) = World::with_client();
    let logs = |target| {
        Request::Logs(LogsParams {
            target,
            stream: LogStream::default(),
            tail: None,
            follow: false,
            since: None,
            timestamps: false,
            position: None,
        })
    };
    for target in [Target::All, labels("a", "b")] {
        for request in [get(target.clone()), wait(target.clone(), Until::Ready, None), logs(target.clone())] {
            let error = world.ask(client, request).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidParams);
            assert!(error.message.contains("parameter target: "), "{}", error.message);
        }
    }
}

#[test]
fn a_destroy_with_too_many_steps_is_refused_and_stops_nothing() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let error = world.ask(client, destroy_by(id(run), steps(33))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParams);
    assert!(error.message.contains("parameter stop: "), "{}", error.message);
    assert_eq!(world.sent(), []);
}
