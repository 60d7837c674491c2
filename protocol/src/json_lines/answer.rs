//! What is written as lines: answers and notifications of the broker, and requests.

use std::io::Write;

use serde::Serialize;

use super::JsonId;
use super::objects::{ErrorObject, NotificationObject, ParamsObject, ResultObject};
use crate::binary::{Capped, answer_too_long, missed};
use crate::error::{Error, ErrorKind};
use crate::event::Notification;
use crate::limits::ANSWER_BYTES_MAX;
use crate::request::Request;
use crate::response::Response;

/// Appends the answer to a request, or with no id one to `null`, as one line with its end. One of more
/// than [`ANSWER_BYTES_MAX`] bytes is replaced by an error that says so.
pub fn encode_answer(id: Option<&JsonId>, result: &Result<Response, Error>, out: &mut Vec<u8>) {
    encode_answer_within(ANSWER_BYTES_MAX, id, result, out);
}

fn encode_answer_within(
    cap: usize,
    id: Option<&JsonId>,
    result: &Result<Response, Error>,
    out: &mut Vec<u8>,
) {
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},", id.map_or("null", JsonId::as_json));
    let written = match result {
        Ok(response) => append_line(&[&head, "\"result\":"], &ResultObject(response), cap, out),
        Err(error) => append_line(&[&head, "\"error\":"], &ErrorObject(error), cap, out),
    };
    let Err(failure) = written else { return };
    let error = match failure {
        Failure::TooLong => answer_too_long(cap),
        Failure::Form(source) => {
            Error::new(ErrorKind::Internal, format!("the answer has no JSON form: {source}"))
        }
    };
    // A bounded id and a short text: this always fits.
    let _ = append_line(&[&head, "\"error\":"], &ErrorObject(&error), ANSWER_BYTES_MAX, out);
}

/// Appends a notification as one line with its end. One of more than [`ANSWER_BYTES_MAX`] bytes is replaced by word
/// that one was missed.
pub fn encode_notification(notification: &Notification, out: &mut Vec<u8>) {
    encode_notification_within(ANSWER_BYTES_MAX, notification, out);
}

fn encode_notification_within(cap: usize, notification: &Notification, out: &mut Vec<u8>) {
    let append = |notification: &Notification, cap: usize, out: &mut Vec<u8>| {
        let method = match notification {
            Notification::Event { .. } | Notification::Lagged { .. } => "event",
            Notification::Log { .. } => "log",
        };
        let head = ["{\"jsonrpc\":\"2.0\",\"method\":\"", method, "\",\"params\":"];
        append_line(&head, &NotificationObject(notification), cap, out)
    };
    if append(notification, cap, out).is_err() {
        // Two numbers: this always fits.
        let _ = append(&missed(notification), ANSWER_BYTES_MAX, out);
    }
}

/// Appends a request as one line with its end, as a client writes it; without an id it is not answered.
pub fn encode_request(id: Option<&JsonId>, request: &Request, out: &mut Vec<u8>) {
    let id = id.map_or(String::new(), |id| format!("\"id\":{id},"));
    let head = ["{\"jsonrpc\":\"2.0\",", &id, "\"method\":\"", request.method().as_str(), "\",\"params\":"];
    // The parameters have a JSON form, and the length of the line is the broker's to judge.
    let _ = append_line(&head, &ParamsObject(request), usize::MAX, out);
}

enum Failure {
    TooLong,
    Form(serde_json::Error),
}

/// Appends one line: an object whose beginning is given, and whose last member has this value.
fn append_line<T: Serialize>(head: &[&str], value: &T, cap: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let start = out.len();
    let mut writer = Capped::new(out, cap);
    let written = head
        .iter()
        .try_for_each(|part| writer.write_all(part.as_bytes()))
        .map_err(serde_json::Error::io)
        .and_then(|()| serde_json::to_writer(&mut writer, value))
        .and_then(|()| writer.write_all(b"}").map_err(serde_json::Error::io));
    let over = writer.is_over();
    match written {
        Ok(()) => {
            out.push(b'\n');
            Ok(())
        }
        Err(source) => {
            out.truncate(start);
            Err(if over { Failure::TooLong } else { Failure::Form(source) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::LogStream;
    use crate::response::Logs;

    fn logs(text: String) -> Response {
        let id = crate::ChildId::from_uuid(uuid::Uuid::nil());
        Response::Logs(Logs { text, truncated: false, subscription: None, dropped: 0, position: 0, id })
    }

    #[test]
    fn a_line_never_has_an_end_within_it() {
        let mut out = Vec::new();
        encode_answer(None, &Ok(logs("a\nb\r\n\0\u{2028}".to_owned())), &mut out);
        assert_eq!(memchr::memchr(b'\n', &out), Some(out.len() - 1));
    }

    #[test]
    fn an_answer_over_the_cap_becomes_an_error_that_says_what_to_do() {
        let mut out = b"before\n".to_vec();
        encode_answer_within(1000, Some(&JsonId::from_number(5)), &Ok(logs("x".repeat(1000))), &mut out);
        let text = String::from_utf8(out).unwrap();
        let line = text.strip_prefix("before\n").unwrap();
        assert!(line.starts_with("{\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":4,"), "{line}");
        assert!(line.contains("narrow a list by labels"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_notification_over_the_cap_becomes_a_missed_one() {
        let mut out = Vec::new();
        let log = Notification::Log {
            subscription: 3,
            stream: LogStream::Stderr,
            text: "x".repeat(999),
            ended: true,
            position: 0,
        };
        encode_notification_within(999, &log, &mut out);
        let line = String::from_utf8(out).unwrap();
        let expected =
            r#"{"jsonrpc":"2.0","method":"event","params":{"subscription":3,"kind":"lagged","missed":1}}"#;
        assert_eq!(line.trim_end(), expected);
    }
}
