//! The binary encoding: frames of bincode 2 (`config::standard()`), for the Rust client.
//!
//! A client sends `(u64, Request)`, where the number is the request's id; the broker sends
//! [`ServerMessage`]. The id 0 belongs to no request: an answer with it is to a message whose id could
//! not be read. Every length that a message claims is held against the bytes that are there before anything
//! is allocated for it, so that decoding takes memory only in proportion to its input; and bytes
//! after the end of a message are refused.

mod bounded;
mod capped;

use bincode::error::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use crate::error::{Error, ErrorKind};
use crate::event::Notification;
use crate::frame::{FrameTooLong, begin_frame, finish_frame};
use crate::limits::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::request::{Method, Request};
use crate::response::Response;

pub(crate) use capped::Capped;

const CONFIG: bincode::config::Configuration = bincode::config::standard();

/// The id of an answer to a message whose own id could not be read.
pub const NO_ID: u64 = 0;

/// What the broker sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// To a request.
    Answer {
        /// The request's id, or [`NO_ID`].
        id: u64,
        /// What came of it.
        result: Result<Response, Error>,
    },
    /// To a subscriber.
    Notification(Notification),
}

/// [`ServerMessage`], borrowed: it encodes the same without a copy of its content.
#[derive(Serialize)]
enum Outgoing<'a> {
    Answer { id: u64, result: &'a Result<Response, Error> },
    Notification(&'a Notification),
}

/// A message to the broker that is no request, and the answer that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The id of the request, where it could be read.
    pub id: Option<u64>,
    /// What is wrong with it.
    pub error: Error,
}

/// A request could not be encoded.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum EncodeError {
    /// It has more bytes than the broker reads.
    #[error("the request is too long for the broker")]
    TooLong(#[from] FrameTooLong),
    /// It has a part that bincode does not write.
    #[error("the request has no binary form")]
    Form(#[source] bincode::error::EncodeError),
}

/// A message from the broker could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("the broker's message could not be decoded: {reason}")]
pub struct DecodeServerMessageError {
    reason: String,
}

/// Appends a request as one frame.
///
/// # Errors
/// When it has more than [`REQUEST_BYTES_MAX`] bytes; nothing is appended then.
pub fn encode_request(id: u64, request: &Request, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    append_frame(&(id, request), out, REQUEST_BYTES_MAX)
}

/// Reads a request from the content of a frame.
///
/// # Errors
/// A [`Refusal`] that is to be answered: of the kind `invalid_request` when not even an id can be read,
/// `method_not_found` for a request of a later version, else `invalid_params`.
pub fn decode_request(frame: &[u8]) -> Result<(u64, Request), Refusal> {
    let refuse = |id, kind, message: String| Err(Refusal { id, error: Error::new(kind, message) });
    let (id, body) = match bincode::serde::decode_from_slice::<u64, _>(frame, CONFIG) {
        Ok((NO_ID, _)) => {
            let message = "the request's id is 0, which stands for no request; count from 1";
            return refuse(None, ErrorKind::InvalidRequest, message.to_owned());
        }
        Ok((id, length)) => (id, frame.get(length..).unwrap_or_default()),
        Err(error) => {
            let message = format!("the request's id could not be read: {}", describe(&error));
            return refuse(None, ErrorKind::InvalidRequest, message);
        }
    };
    if let Ok((number, _)) = bincode::serde::decode_from_slice::<u32, _>(body, CONFIG)
        && usize::try_from(number).map_or(true, |number| number >= Method::ALL.len())
    {
        let message = format!(
            "there is no method with the number {number}; this broker has 0 to {}",
            Method::ALL.len() - 1
        );
        return refuse(Some(id), ErrorKind::MethodNotFound, message);
    }
    match decode_whole(body) {
        Ok(request) => Ok((id, request)),
        Err(reason) => {
            refuse(Some(id), ErrorKind::InvalidParams, format!("the request could not be decoded: {reason}"))
        }
    }
}

/// The refusal of a frame that is over the cap, of which only the beginning was read.
#[must_use]
pub fn refuse_oversize(length: usize, head: &[u8]) -> Refusal {
    let id = bincode::serde::decode_from_slice::<u64, _>(head, CONFIG).ok().map(|(id, _)| id);
    Refusal { id: id.filter(|id| *id != NO_ID), error: too_long(length) }
}

/// The error for a message to the broker with this many bytes.
pub(crate) fn too_long(length: usize) -> Error {
    let message = format!(
        "the message has at least {length} bytes; the broker takes fewer ({REQUEST_BYTES_MAX} unless it is set otherwise)"
    );
    Error::new(ErrorKind::LimitExceeded, message)
}

/// Appends an answer as one frame. One of more than [`ANSWER_BYTES_MAX`] bytes is replaced by an error that
/// says so.
pub fn encode_answer(id: Option<u64>, result: &Result<Response, Error>, out: &mut Vec<u8>) {
    encode_answer_within(ANSWER_BYTES_MAX, id, result, out);
}

fn encode_answer_within(cap: usize, id: Option<u64>, result: &Result<Response, Error>, out: &mut Vec<u8>) {
    let id = id.unwrap_or(NO_ID);
    let Err(failure) = append_frame(&Outgoing::Answer { id, result }, out, cap) else { return };
    let error = match failure {
        EncodeError::TooLong(_) => answer_too_long(cap),
        EncodeError::Form(source) => {
            Error::new(ErrorKind::Internal, format!("the answer has no binary form: {source}"))
        }
    };
    // A number and a short text: this always fits.
    let _ = append_frame(&Outgoing::Answer { id, result: &Err(error) }, out, ANSWER_BYTES_MAX);
}

/// The error in the place of an answer over the cap.
pub(crate) fn answer_too_long(cap: usize) -> Error {
    let message = format!(
        "the answer has more than {cap} bytes; what was to be done is done all the same; to be told of less, narrow a list by labels, a log by tail"
    );
    Error::new(ErrorKind::LimitExceeded, message)
}

/// Appends a notification as one frame. One of more than [`ANSWER_BYTES_MAX`] bytes is replaced by word that
/// one was missed.
pub fn encode_notification(notification: &Notification, out: &mut Vec<u8>) {
    encode_notification_within(ANSWER_BYTES_MAX, notification, out);
}

fn encode_notification_within(cap: usize, notification: &Notification, out: &mut Vec<u8>) {
    if append_frame(&Outgoing::Notification(notification), out, cap).is_err() {
        // Two numbers: this always fits.
        let _ = append_frame(&Outgoing::Notification(&missed(notification)), out, ANSWER_BYTES_MAX);
    }
}

/// What a subscriber gets in the place of a notification over the cap.
pub(crate) fn missed(notification: &Notification) -> Notification {
    let (Notification::Event { subscription, .. }
    | Notification::Lagged { subscription, .. }
    | Notification::Log { subscription, .. }) = notification;
    Notification::Lagged { subscription: *subscription, missed: 1 }
}

/// Reads a message of the broker from the content of a frame.
///
/// # Errors
/// When it is none, or has bytes after its end.
pub fn decode_server_message(frame: &[u8]) -> Result<ServerMessage, DecodeServerMessageError> {
    decode_whole(frame).map_err(|reason| DecodeServerMessageError { reason })
}

fn append_frame<T: Serialize>(message: &T, out: &mut Vec<u8>, cap: usize) -> Result<(), EncodeError> {
    let start = begin_frame(out);
    let mut writer = Capped::new(out, cap);
    let encoded = bincode::serde::encode_into_writer(message, &mut writer, CONFIG);
    let over = writer.is_over();
    match encoded {
        Ok(()) => Ok(finish_frame(out, start, cap)?),
        Err(_) if over => {
            out.truncate(start);
            Err(EncodeError::TooLong(FrameTooLong { length: cap.saturating_add(1), cap }))
        }
        Err(source) => {
            out.truncate(start);
            Err(EncodeError::Form(source))
        }
    }
}

/// Reads a value that takes up all of the bytes.
fn decode_whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bounded::decode(bytes, CONFIG) {
        Ok((value, length)) if length == bytes.len() => Ok(value),
        Ok((_, length)) => Err(format!("{} bytes follow its end", bytes.len().saturating_sub(length))),
        Err(error) => Err(describe(&error)),
    }
}

/// What bincode found, in words.
fn describe(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends too early".to_owned(),
        DecodeError::Utf8 { inner } => format!("it has a text that is not UTF-8 ({inner})"),
        DecodeError::OtherString(text) => text.clone(),
        DecodeError::Other(text) => (*text).to_owned(),
        // The type is open and has no other texts for people.
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{ListParams, NoParams};

    fn refused(frame: &[u8]) -> (Option<u64>, ErrorKind, String) {
        let refusal = decode_request(frame).unwrap_err();
        (refusal.id, refusal.error.kind, refusal.error.message)
    }

    #[test]
    fn a_request_is_its_id_and_its_content() {
        let mut out = vec![0xff];
        encode_request(7, &Request::Status(NoParams {}), &mut out).unwrap();
        assert_eq!(out, [0xff, 2, 0, 0, 0, 7, 10]);
        assert_eq!(decode_request(&out[5..]), Ok((7, Request::Status(NoParams {}))));
    }

    #[test]
    fn a_request_without_a_readable_id_is_invalid() {
        for frame in [&b""[..], &[0, 10], &[253, 1, 2], &[255, 1]] {
            let (id, kind, message) = refused(frame);
            assert_eq!((id, kind), (None, ErrorKind::InvalidRequest), "{message}");
        }
    }

    #[test]
    fn a_request_with_an_id_and_nothing_sound_after_it_keeps_the_id() {
        assert_eq!(
            refused(&[7]),
            (Some(7), ErrorKind::InvalidParams, "the request could not be decoded: it ends too early".into())
        );
        assert_eq!(
            refused(&[7, 10, 0, 0]),
            (
                Some(7),
                ErrorKind::InvalidParams,
                "the request could not be decoded: 2 bytes follow its end".into()
            )
        );
        let (id, kind, message) = refused(&[7, 14]);
        assert_eq!((id, kind), (Some(7), ErrorKind::MethodNotFound));
        assert!(message.contains("0 to 13"), "{message}");
        let (_, kind, message) = refused(&[7, 3, 1, 1, b' ']);
        assert_eq!(kind, ErrorKind::InvalidParams);
        assert!(message.contains("the name \" \""), "{message}");
    }

    #[test]
    fn a_target_of_no_labels_is_refused_as_it_is_in_json() {
        assert!(refused(&[7, 3, 2, 0]).2.contains("labels are empty"));
    }

    #[test]
    fn a_request_over_the_cap_is_not_appended() {
        let labels = [("k".to_owned(), "v".repeat(REQUEST_BYTES_MAX))].into();
        let mut out = vec![1, 2, 3];
        let error =
            encode_request(1, &Request::List(ListParams { labels, all: false, fields: None }), &mut out)
                .unwrap_err();
        assert!(matches!(error, EncodeError::TooLong(_)));
        assert_eq!(out, [1, 2, 3]);
        assert!(out.capacity() < 1024, "{}", out.capacity());
    }

    #[test]
    fn an_oversize_request_is_answered_by_its_id() {
        let refusal = refuse_oversize(1 << 30, &[253, 1, 0, 0, 0, 0, 0, 0, 1, 99]);
        assert_eq!(refusal.id, Some(1 | 1 << 56));
        assert_eq!(refusal.error.kind, ErrorKind::LimitExceeded);
        assert_eq!(refuse_oversize(1 << 30, &[]).id, None);
        assert_eq!(refuse_oversize(1 << 30, &[0]).id, None);
    }

    #[test]
    fn an_answer_over_the_cap_becomes_an_error_that_says_what_to_do() {
        let logs = crate::response::Logs {
            text: "x".repeat(1000),
            truncated: false,
            subscription: None,
            dropped: 0,
            position: 0,
            id: crate::ChildId::from_uuid(uuid::Uuid::nil()),
        };
        let mut out = Vec::new();
        encode_answer_within(999, Some(5), &Ok(Response::Logs(logs)), &mut out);
        let Ok(ServerMessage::Answer { id: 5, result: Err(error) }) = decode_server_message(&out[4..]) else {
            panic!("{out:?}")
        };
        assert_eq!(error.kind, ErrorKind::LimitExceeded);
        assert!(error.message.contains("by labels"));
    }

    #[test]
    fn a_notification_over_the_cap_becomes_a_missed_one() {
        let stream = crate::request::LogStream::Stdout;
        let log =
            Notification::Log { subscription: 3, stream, text: "x".repeat(1000), ended: false, position: 0 };
        let mut out = Vec::new();
        encode_notification_within(999, &log, &mut out);
        let lagged = Notification::Lagged { subscription: 3, missed: 1 };
        assert_eq!(decode_server_message(&out[4..]), Ok(ServerMessage::Notification(lagged)));
    }
}
