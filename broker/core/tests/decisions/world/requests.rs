//! Short forms of the requests and facts that the tests hand in.

use std::time::Duration;

use procbroker_core::{Members, Peer, RecordFailure, Run};
use procbroker_protocol::create::{IfExists, Limit, Restart, RestartPolicy, StopStep};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::{
    DestroyParams, ListParams, ManyParams, NoParams, OneParams, Scope, ShutdownParams, SignalParams, Until,
    WaitParams,
};
use procbroker_protocol::{CreateParams, Request, Signal, Target};
use uuid::Uuid;

/// Every report of what a leader has left behind.
pub(crate) const SOMETHING: [Members; 2] = [Members::Outside, Members::Group];

pub(crate) fn peer(uid: u32) -> Peer {
    Peer { uid, gid: uid, groups: vec![uid], pid: Some(uid + 1) }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn unnamed() -> CreateParams {
    CreateParams::new(vec!["sleep".to_owned(), "infinity".to_owned()])
}

pub(crate) fn named(name: &str) -> CreateParams {
    CreateParams { name: Some(name.parse().unwrap()), ..unnamed() }
}

pub(crate) fn reuse(name: &str) -> CreateParams {
    CreateParams { if_exists: IfExists::Reuse, ..named(name) }
}

pub(crate) fn replace(name: &str) -> CreateParams {
    CreateParams { if_exists: IfExists::Replace, ..named(name) }
}

pub(crate) fn labelled(key: &str, value: &str) -> CreateParams {
    CreateParams { labels: [(key.to_owned(), value.to_owned())].into(), ..unnamed() }
}

pub(crate) fn under_limit(key: &str, max: u32) -> CreateParams {
    CreateParams { limit: Some(Limit { key: key.to_owned(), max, wait: None }), ..unnamed() }
}

pub(crate) fn requested(params: CreateParams, request: u128) -> CreateParams {
    CreateParams { request_id: Some(Uuid::from_u128(request)), ..params }
}

pub(crate) fn step(signal: Signal, seconds: u64) -> StopStep {
    StopStep { signal, grace: secs(seconds) }
}

pub(crate) fn stopped_by(stop: Vec<StopStep>) -> CreateParams {
    CreateParams { stop, ..unnamed() }
}

pub(crate) fn of_order(stop_order: i32, stop: Vec<StopStep>) -> CreateParams {
    CreateParams { stop_order, ..stopped_by(stop) }
}

pub(crate) fn id(run: Run) -> Target {
    Target::Id(run.child)
}

pub(crate) fn name(name: &str) -> Target {
    Target::Name(name.parse().unwrap())
}

pub(crate) fn labels(key: &str, value: &str) -> Target {
    Target::Labels([(key.to_owned(), value.to_owned())].into())
}

pub(crate) fn restarted(policy: RestartPolicy, params: CreateParams) -> CreateParams {
    CreateParams { restart: Restart { policy, ..Restart::default() }, ..params }
}

pub(crate) fn restart(target: Target) -> Request {
    Request::Restart(ManyParams { target })
}

pub(crate) fn get(target: Target) -> Request {
    Request::Get(OneParams { target })
}

pub(crate) fn list(all: bool) -> Request {
    Request::List(ListParams { all, ..ListParams::default() })
}

pub(crate) fn destroy(target: Target) -> Request {
    Request::Destroy(DestroyParams { target, stop: None, no_wait: false })
}

pub(crate) fn destroy_by(target: Target, stop: Vec<StopStep>) -> Request {
    Request::Destroy(DestroyParams { target, stop: Some(stop), no_wait: false })
}

pub(crate) fn wait(target: Target, until: Until, timeout: Option<Duration>) -> Request {
    Request::Wait(WaitParams { target, until, timeout })
}

pub(crate) fn signal(target: Target, signal: Signal) -> Request {
    Request::Signal(SignalParams { target, signal, scope: Scope::Main })
}

pub(crate) fn status() -> Request {
    Request::Status(NoParams {})
}

pub(crate) fn shutdown(timeout: Option<Duration>) -> Request {
    Request::Shutdown(ShutdownParams { timeout })
}

pub(crate) fn no_such_file() -> SpawnFailure {
    SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() }
}

pub(crate) fn disk_full() -> RecordFailure {
    RecordFailure { message: "write of the state file: no space left".to_owned() }
}
