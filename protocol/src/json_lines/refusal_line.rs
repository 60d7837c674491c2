//! Reads a line with an error: the broker's refusal of a connection, whatever its encoding.

use serde::Deserialize;
use thiserror::Error as ThisError;

use crate::child::{ChildId, ChildState, Exit, ExitStatus};
use crate::error::{Error, ErrorKind, Holder, ProbeFailure, SpawnFailure};

/// A line is no JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("the line is no JSON-RPC error: {reason}")]
pub struct ErrorLineError {
    reason: String,
}

#[derive(Deserialize)]
struct Line {
    error: Object,
}

#[derive(Deserialize)]
struct Object {
    code: i32,
    message: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    kind: Option<String>,
    errno: Option<i32>,
    errno_name: Option<String>,
    step: Option<String>,
    exit: Option<Box<Exit>>,
    log_tail: Option<String>,
    id: Option<ChildId>,
    state: Option<ChildState>,
    probe: Option<ProbeData>,
}

#[derive(Deserialize)]
struct ProbeData {
    errno: Option<i32>,
    errno_name: Option<String>,
    step: Option<String>,
    exit: Option<ExitStatus>,
}

impl ProbeData {
    fn failure(self) -> ProbeFailure {
        let started = self.exit.map_or(ProbeFailure::TimedOut, ProbeFailure::Ended);
        let failure = spawn_failure(self.errno, self.errno_name, self.step);
        failure.map_or(started, ProbeFailure::NotStarted)
    }
}

fn spawn_failure(
    errno: Option<i32>,
    errno_name: Option<String>,
    step: Option<String>,
) -> Option<SpawnFailure> {
    Some(SpawnFailure { errno: errno?, errno_name: errno_name?, step: step? })
}

/// Reads the error from a line `{"jsonrpc": "2.0", "id": .., "error": {..}}`. A kind that this library does not
/// know reads as `internal`, with the name of the kind before the message.
///
/// # Errors
/// When the line is no such object.
pub fn decode_error_line(line: &[u8]) -> Result<Error, ErrorLineError> {
    let Line { error } =
        serde_json::from_slice(line).map_err(|error| ErrorLineError { reason: error.to_string() })?;
    let Object { code, message, data } = error;
    let name = data.kind.clone();
    Ok(kind(code, data).map_or_else(
        || {
            let name = name.unwrap_or_else(|| format!("error {code}"));
            Error::new(ErrorKind::Internal, format!("{name}: {message}"))
        },
        |kind| Error::new(kind, message.as_str()),
    ))
}

/// The kind of that name with the facts that belong to it, or by its code where no name is given.
fn kind(code: i32, data: Data) -> Option<ErrorKind> {
    let plain = [
        ErrorKind::ParseError,
        ErrorKind::InvalidRequest,
        ErrorKind::MethodNotFound,
        ErrorKind::InvalidParams,
        ErrorKind::NameTaken(None),
        ErrorKind::NotFound,
        ErrorKind::PermissionDenied,
        ErrorKind::LimitExceeded,
        ErrorKind::ShuttingDown,
        ErrorKind::Overloaded,
        ErrorKind::Unsupported,
        ErrorKind::Internal,
    ];
    match data.kind.as_deref() {
        Some("spawn_failed") => {
            spawn_failure(data.errno, data.errno_name, data.step).map(ErrorKind::SpawnFailed)
        }
        Some("timeout") => Some(ErrorKind::Timeout(data.probe.map(|probe| Box::new(probe.failure())))),
        Some("start_failed") => Some(ErrorKind::StartFailed { exit: data.exit?, log_tail: data.log_tail? }),
        Some("name_taken") => {
            let holder = data.id.zip(data.state).map(|(id, state)| Holder { id, state });
            Some(ErrorKind::NameTaken(holder))
        }
        Some(name) => plain.into_iter().find(|kind| kind.as_str() == name),
        None => plain.into_iter().chain([ErrorKind::Timeout(None)]).find(|kind| kind.code() == code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Error, ErrorLineError> {
        decode_error_line(line.as_bytes())
    }

    #[test]
    fn a_kind_is_found_by_its_name_else_by_its_code() {
        let named =
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":99,"message":"m","data":{"kind":"overloaded"}}}"#;
        assert_eq!(read(named), Ok(Error::new(ErrorKind::Overloaded, "m")));
        assert_eq!(
            read(r#"{"error":{"code":3,"message":"m"}}"#),
            Ok(Error::new(ErrorKind::PermissionDenied, "m"))
        );
    }

    #[test]
    fn a_kind_of_a_later_version_keeps_its_name() {
        let line = r#"{"error":{"code":99,"message":"m","data":{"kind":"new_kind","more":1}}}"#;
        assert_eq!(read(line), Ok(Error::new(ErrorKind::Internal, "new_kind: m")));
        assert_eq!(
            read(r#"{"error":{"code":99,"message":"m"}}"#),
            Ok(Error::new(ErrorKind::Internal, "error 99: m"))
        );
    }

    #[test]
    fn another_line_is_told_apart() {
        for line in [
            "",
            "{}",
            "{\"result\":{}}",
            "{\"error\":{}}",
            "[]",
            "{\"error\":{\"code\":\"x\",\"message\":1}}",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
