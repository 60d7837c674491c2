//! Whether the parameters of a request make sense, before anything is decided about it.

mod readiness;
mod resources;
mod restarts;

use std::time::Duration;

use procbroker_protocol::create::{IfExists, Lifetime, StopStep};
use procbroker_protocol::request::LogsParams;
use procbroker_protocol::{CreateParams, Error, ErrorKind, Request, Target};

use crate::limits::{Bounds, GROUPS_MAX, LABEL_BYTES_MAX, LABELS_MAX, LIMIT_KEY_BYTES_MAX, STOP_STEPS_MAX};

/// The resource limits that setrlimit(2) knows, by their names on the wire.
const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Checks what the types of the protocol leave open.
pub(crate) fn request(request: &Request, bounds: &Bounds) -> Result<(), Error> {
    match request {
        Request::Create(params) => create(params, bounds),
        Request::Destroy(params) => params.stop.as_deref().map_or(Ok(()), stop),
        Request::Get(params) => single("get", &params.target),
        Request::Wait(params) => single("wait", &params.target),
        Request::Logs(params) => logs(params),
        Request::List(_)
        | Request::Signal(_)
        | Request::Restart(_)
        | Request::Renew(_)
        | Request::Events(_)
        | Request::Status(_)
        | Request::Metrics(_)
        | Request::Shutdown(_)
        | Request::Upgrade(_) => Ok(()),
    }
}

fn create(params: &CreateParams, bounds: &Bounds) -> Result<(), Error> {
    lifetime(params)?;
    readiness::check(params)?;
    restarts::check(&params.restart)?;
    params.resources.as_ref().map_or(Ok(()), resources::check)?;
    command("command", &params.command)?;
    environment(params)?;
    command_size(params, bounds)?;
    if params.groups.as_ref().is_some_and(|groups| groups.len() > GROUPS_MAX) {
        return Err(invalid("groups", &format!("at most {GROUPS_MAX} are taken")));
    }
    labels(params)?;
    stop(&params.stop)?;
    if let Some(cleanup) = &params.cleanup {
        command("cleanup.command", &cleanup.command)?;
    }
    if params.name.is_none() && params.if_exists != IfExists::Fail {
        return Err(invalid("if_exists", "reuse and replace need a name to look for; give one"));
    }
    if let Some(cwd) = &params.cwd {
        text("cwd", cwd)?;
        if !cwd.starts_with('/') {
            return Err(invalid(
                "cwd",
                &format!("{cwd:?} is not an absolute path; give one that starts with /"),
            ));
        }
    }
    if let Some(limit) = &params.limit
        && (limit.key.is_empty() || limit.key.len() > LIMIT_KEY_BYTES_MAX)
    {
        return Err(invalid("limit.key", &format!("it has 1 to {LIMIT_KEY_BYTES_MAX} bytes")));
    }
    if let Some(name) = params.rlimits.keys().find(|name| !RLIMITS.contains(&name.as_str())) {
        return Err(invalid("rlimits", &format!("{name:?} is none of {}", RLIMITS.join(", "))));
    }
    Ok(())
}

/// Checks what the child's life hangs on.
fn lifetime(params: &CreateParams) -> Result<(), Error> {
    if params.linger != Duration::ZERO && params.lifetime != Lifetime::Connection {
        return Err(invalid(
            "linger",
            "it is the time after the last connection that holds the child; it needs the lifetime connection",
        ));
    }
    if params.lifetime == Lifetime::Ttl(Duration::ZERO) {
        return Err(invalid("lifetime", "a child with a ttl of 0 would end at once; give it more"));
    }
    if params.lifetime == Lifetime::Pid(0) {
        return Err(invalid("lifetime", "there is no process 0; give the pid of one"));
    }
    Ok(())
}

fn command(field: &str, command: &[String]) -> Result<(), Error> {
    let Some(program) = command.first() else {
        return Err(invalid(field, "it is empty; give a program and its arguments"));
    };
    if program.is_empty() {
        return Err(invalid(field, "its first element, the program, is empty"));
    }
    command.iter().try_for_each(|argument| text(field, argument))
}

fn environment(params: &CreateParams) -> Result<(), Error> {
    for (key, value) in &params.env {
        if key.is_empty() || key.contains('=') {
            return Err(invalid("env", &format!("{key:?} cannot be the name of a variable")));
        }
        text("env", key)?;
        text("env", value)?;
    }
    Ok(())
}

/// Bounds what one child's command line and environment cost the broker.
fn command_size(params: &CreateParams, bounds: &Bounds) -> Result<(), Error> {
    let cleanup = params.cleanup.iter().flat_map(|cleanup| &cleanup.command);
    let probe = readiness::words(&params.ready);
    let arguments: usize =
        params.command.iter().chain(cleanup).chain(probe).map(|argument| argument.len() + 1).sum();
    let variables: usize = params.env.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
    let bytes = arguments + variables;
    if bytes <= usize::try_from(bounds.max_command_bytes).unwrap_or(usize::MAX) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::LimitExceeded,
        format!(
            "the commands and env have {bytes} bytes together; at most {} are taken (--max-command-bytes)",
            bounds.max_command_bytes
        ),
    ))
}

fn labels(params: &CreateParams) -> Result<(), Error> {
    let bytes: usize = params.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if params.labels.len() > LABELS_MAX || bytes > LABEL_BYTES_MAX {
        return Err(invalid(
            "labels",
            &format!("at most {LABELS_MAX} labels of {LABEL_BYTES_MAX} bytes together are taken"),
        ));
    }
    if params.labels.contains_key("") {
        return Err(invalid("labels", "a label's key is empty"));
    }
    Ok(())
}

fn stop(steps: &[StopStep]) -> Result<(), Error> {
    if steps.len() <= STOP_STEPS_MAX {
        return Ok(());
    }
    Err(invalid("stop", &format!("it has {} steps; at most {STOP_STEPS_MAX} are taken", steps.len())))
}

fn logs(params: &LogsParams) -> Result<(), Error> {
    single("logs", &params.target)?;
    if params.position.is_some() && (params.tail.is_some() || params.since.is_some()) {
        let problem = "it says by itself where the output goes on; leave out tail and since";
        return Err(invalid("position", problem));
    }
    Ok(())
}

fn single(method: &str, target: &Target) -> Result<(), Error> {
    if target.is_single() {
        return Ok(());
    }
    Err(invalid("target", &format!("{method} takes one child: an id or a name")))
}

/// A text that goes to a system call ends at its first NUL.
fn text(field: &str, text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(invalid(
            field,
            &format!("{text:?} contains a NUL character, which no program can be given"),
        ));
    }
    Ok(())
}

fn invalid(field: &str, reason: &str) -> Error {
    Error::new(ErrorKind::InvalidParams, format!("invalid parameter {field}: {reason}"))
}
