//! The JSON objects of the wire, exactly: the parameters of requests, the results and errors of answers,
//! and what notifications carry.
//!
//! Each wraps a reference and serializes it; `serde_json::to_string(&ResultObject(&response))` is what stands
//! under `result` in the broker's line.

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::child::Exit;
use crate::error::{Error, ErrorKind, Holder, ProbeFailure, SpawnFailure};
use crate::event::Notification;
use crate::request::Request;
use crate::response::{Created, Got, Logs, Outcome, Response};

/// What stands under `params` of a request.
#[derive(Clone, Copy, Debug)]
pub struct ParamsObject<'a>(pub &'a Request);

/// What stands under `result` of an answer.
#[derive(Clone, Copy, Debug)]
pub struct ResultObject<'a>(pub &'a Response);

/// What stands under `error` of an answer.
#[derive(Clone, Copy, Debug)]
pub struct ErrorObject<'a>(pub &'a Error);

/// What stands under `params` of a notification.
#[derive(Clone, Copy, Debug)]
pub struct NotificationObject<'a>(pub &'a Notification);

impl Serialize for ParamsObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Request::Create(params) => params.serialize(serializer),
            Request::Destroy(params) => params.serialize(serializer),
            Request::List(params) => params.serialize(serializer),
            Request::Get(params) => params.serialize(serializer),
            Request::Wait(params) => params.serialize(serializer),
            Request::Signal(params) => params.serialize(serializer),
            Request::Restart(params) | Request::Renew(params) => params.serialize(serializer),
            Request::Logs(params) => params.serialize(serializer),
            Request::Events(params) => params.serialize(serializer),
            Request::Status(params) | Request::Upgrade(params) | Request::Metrics(params) => {
                params.serialize(serializer)
            }
            Request::Shutdown(params) => params.serialize(serializer),
        }
    }
}

impl Serialize for ResultObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Response::Created(created) => serialize_created(created, serializer),
            Response::Children(children) => one_member(serializer, "children", children),
            Response::Child(child) => one_member(serializer, "child", child),
            Response::Logs(logs) => serialize_logs(logs, serializer),
            Response::Subscribed(subscribed) => subscribed.serialize(serializer),
            Response::Status(status) => status.serialize(serializer),
            Response::ShutDown(report) => report.serialize(serializer),
            Response::PartialChildren(children) => children.serialize(serializer),
            Response::Got(got) => serialize_got(got, serializer),
            Response::Metrics(metrics) => metrics.serialize(serializer),
            Response::Upgraded => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

fn one_member<S: Serializer>(
    serializer: S,
    name: &'static str,
    value: &impl Serialize,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_struct("Result", 1)?;
    object.serialize_field(name, value)?;
    object.end()
}

fn serialize_created<S: Serializer>(created: &Created, serializer: S) -> Result<S::Ok, S::Error> {
    let (outcome, same_spec) = match created.outcome {
        Outcome::Created => ("created", None),
        Outcome::Existing { same_spec } => ("existing", Some(same_spec)),
        Outcome::Replaced => ("replaced", None),
    };
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("outcome", outcome)?;
    if let Some(same_spec) = same_spec {
        object.serialize_entry("same_spec", &same_spec)?;
    }
    object.serialize_entry("child", &created.child)?;
    object.end()
}

fn serialize_got<S: Serializer>(got: &Got, serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("child", &got.child)?;
    if let Some(spec) = &got.spec {
        object.serialize_entry("spec", spec)?;
    }
    object.end()
}

fn serialize_logs<S: Serializer>(logs: &Logs, serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("text", &logs.text)?;
    object.serialize_entry("truncated", &logs.truncated)?;
    object.serialize_entry("dropped", &logs.dropped)?;
    object.serialize_entry("position", &logs.position)?;
    object.serialize_entry("id", &logs.id)?;
    if let Some(subscription) = logs.subscription {
        object.serialize_entry("subscription", &subscription)?;
    }
    object.end()
}

impl Serialize for ErrorObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Error", 3)?;
        object.serialize_field("code", &self.0.kind.code())?;
        object.serialize_field("message", &self.0.message)?;
        object.serialize_field("data", &ErrorData(&self.0.kind))?;
        object.end()
    }
}

/// What stands under `data` of an error.
struct ErrorData<'a>(&'a ErrorKind);

impl Serialize for ErrorData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("kind", self.0.as_str())?;
        match self.0 {
            ErrorKind::SpawnFailed(failure) => spawn_failure(failure, &mut object)?,
            ErrorKind::StartFailed { exit, log_tail } => {
                let exit: &Exit = exit;
                object.serialize_entry("exit", exit)?;
                object.serialize_entry("log_tail", log_tail)?;
            }
            ErrorKind::Timeout(Some(failure)) => {
                object.serialize_entry("probe", &ProbeObject(failure))?;
            }
            ErrorKind::NameTaken(Some(Holder { id, state })) => {
                object.serialize_entry("id", id)?;
                object.serialize_entry("state", state)?;
            }
            ErrorKind::ParseError
            | ErrorKind::InvalidRequest
            | ErrorKind::MethodNotFound
            | ErrorKind::InvalidParams
            | ErrorKind::NameTaken(None)
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::LimitExceeded
            | ErrorKind::ShuttingDown
            | ErrorKind::Timeout(None)
            | ErrorKind::Overloaded
            | ErrorKind::Unsupported
            | ErrorKind::Internal => {}
        }
        object.end()
    }
}

fn spawn_failure<M: SerializeMap>(failure: &SpawnFailure, object: &mut M) -> Result<(), M::Error> {
    let SpawnFailure { errno, errno_name, step } = failure;
    object.serialize_entry("errno", errno)?;
    object.serialize_entry("errno_name", errno_name)?;
    object.serialize_entry("step", step)
}

/// What stands under `probe` in the data of a timeout.
struct ProbeObject<'a>(&'a ProbeFailure);

impl Serialize for ProbeObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        match self.0 {
            ProbeFailure::NotStarted(failure) => spawn_failure(failure, &mut object)?,
            ProbeFailure::Ended(status) => object.serialize_entry("exit", status)?,
            ProbeFailure::TimedOut => object.serialize_entry("timed_out", &true)?,
        }
        object.end()
    }
}

impl Serialize for NotificationObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        match self.0 {
            Notification::Event { subscription, event } => {
                object.serialize_entry("subscription", subscription)?;
                object.serialize_entry("seq", &event.seq)?;
                object.serialize_entry("at", &event.at)?;
                object.serialize_entry("kind", &event.kind)?;
                object.serialize_entry("child", &event.child)?;
            }
            Notification::Lagged { subscription, missed } => {
                object.serialize_entry("subscription", subscription)?;
                object.serialize_entry("kind", "lagged")?;
                object.serialize_entry("missed", missed)?;
            }
            Notification::Log { subscription, stream, text, ended, position } => {
                object.serialize_entry("subscription", subscription)?;
                object.serialize_entry("stream", stream)?;
                object.serialize_entry("text", text)?;
                object.serialize_entry("position", position)?;
                if *ended {
                    object.serialize_entry("ended", ended)?;
                }
            }
        }
        object.end()
    }
}
