//! Every message against the file that pins its bytes.
//!
//! A change of these files is a change of the protocol. `PROCBROKER_BLESS=1` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use procbroker_protocol::binary::{self, ServerMessage};
use procbroker_protocol::json_lines::{self, JsonId};
use procbroker_protocol::version::{self, ProtocolRange};
use procbroker_protocol::{Error, Method, Notification, Response};

use crate::samples;

/// One named message and its bytes.
type Entry = (String, Vec<u8>);

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for row in bytes.chunks(32) {
        for byte in row {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Compares the messages with the golden file, and returns the messages as the file has them.
fn check(file: &str, entries: &[Entry]) -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let binary = path.extension().is_some_and(|extension| extension == "hex");
    let mut actual = String::new();
    for (name, bytes) in entries {
        let body = if binary { hex(bytes) } else { String::from_utf8(bytes.clone()).unwrap() };
        assert!(binary || body.ends_with('\n') && body.lines().count() == 1, "{name} is not one line");
        write!(actual, "# {name}\n{body}\n").unwrap();
    }
    if std::env::var_os("PROCBROKER_BLESS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (ours, theirs) in actual.split("\n\n").zip(golden.split("\n\n")) {
        assert_eq!(ours, theirs, "{file} differs");
    }
    assert_eq!(actual.len(), golden.len(), "{file} has other messages");
    golden
        .split("\n\n")
        .filter_map(|block| block.trim_start().strip_prefix("# ")?.split_once('\n'))
        .map(|(name, body)| (name.to_owned(), if binary { unhex(body) } else { body.as_bytes().to_vec() }))
        .collect()
}

fn results() -> Vec<(String, Result<Response, Error>)> {
    let responses = samples::responses().into_iter().map(|(name, response)| (name.to_owned(), Ok(response)));
    let errors = samples::errors().into_iter().map(|error| (error.kind.to_string(), Err(error)));
    let later =
        samples::later_responses().into_iter().map(|(name, response)| (name.to_owned(), Ok(response)));
    let later_errors = samples::later_errors().into_iter().map(|(name, error)| (name, Err(error)));
    responses.chain(errors).chain(later).chain(later_errors).collect()
}

fn encoded<T>(values: &[(String, T)], encode: impl Fn(u64, &T, &mut Vec<u8>)) -> Vec<Entry> {
    let entry = |(number, (name, value)): (u64, &(String, T))| {
        let mut out = Vec::new();
        encode(number, value, &mut out);
        (name.clone(), out)
    };
    (1..).zip(values).map(entry).collect()
}

#[test]
fn the_samples_leave_no_variant_out() {
    let methods: BTreeSet<Method> = samples::requests().iter().map(|(_, request)| request.method()).collect();
    assert_eq!(methods, Method::ALL.into());
    // The numbers of variants on the wire are the second byte of an answer (after its own and the id's).
    let variants = |results: Vec<Result<Response, Error>>| -> Vec<u8> {
        let numbers: BTreeSet<u8> = results
            .iter()
            .map(|result| {
                let mut out = Vec::new();
                binary::encode_answer(Some(1), result, &mut out);
                out[4 + 3]
            })
            .collect();
        numbers.into_iter().collect()
    };
    let responses = samples::responses().into_iter().chain(samples::later_responses());
    assert_eq!(variants(responses.map(|(_, response)| Ok(response)).collect()), (0..11).collect::<Vec<u8>>());
    assert_eq!(variants(samples::errors().into_iter().map(Err).collect()), (0..15).collect::<Vec<u8>>());
}

#[test]
fn handshakes_are_as_written_down() {
    let range = |lowest, highest| ProtocolRange { lowest, highest };
    let answer = |theirs| version::answer_offer(version::PROTOCOL, theirs).0;
    let entries = [
        ("offer", version::encode_offer(version::PROTOCOL).to_vec()),
        ("offer of versions 2 to 772", version::encode_offer(range(2, 772)).to_vec()),
        ("answer, version 1", answer(range(1, 5))),
        ("answer, none in common", answer(range(2, 5))),
    ];
    let entries: Vec<Entry> = entries.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    assert_eq!(check("handshake.hex", &entries), entries);
}

#[test]
fn binary_requests_are_as_written_down() {
    let requests: Vec<_> =
        samples::requests().into_iter().map(|(name, request)| (name.to_owned(), request)).collect();
    let entries = encoded(&requests, |id, request, out| binary::encode_request(id, request, out).unwrap());
    for (id, ((_, frame), (name, request))) in (1..).zip(check("requests.hex", &entries).iter().zip(requests))
    {
        assert_eq!(binary::decode_request(&frame[4..]), Ok((id, request)), "{name}");
    }
}

#[test]
fn binary_answers_are_as_written_down() {
    let results = results();
    let entries = encoded(&results, |id, result, out| binary::encode_answer(Some(id), result, out));
    for (id, ((_, frame), (name, result))) in (1..).zip(check("answers.hex", &entries).iter().zip(results)) {
        let message = ServerMessage::Answer { id, result };
        assert_eq!(binary::decode_server_message(&frame[4..]), Ok(message), "{name}");
    }
}

#[test]
fn binary_notifications_are_as_written_down() {
    let notifications = samples::notifications();
    let encode =
        |_, notification: &Notification, out: &mut Vec<u8>| binary::encode_notification(notification, out);
    let entries = encoded(&notifications, encode);
    for ((_, frame), (name, notification)) in check("notifications.hex", &entries).iter().zip(notifications) {
        let message = ServerMessage::Notification(notification);
        assert_eq!(binary::decode_server_message(&frame[4..]), Ok(message), "{name}");
    }
}

#[test]
fn json_requests_are_as_written_down() {
    let requests: Vec<_> =
        samples::requests().into_iter().map(|(name, request)| (name.to_owned(), request)).collect();
    let encode = |id, request: &_, out: &mut Vec<u8>| {
        json_lines::encode_request(Some(&JsonId::from_number(id)), request, out);
    };
    let entries = encoded(&requests, encode);
    for (id, ((_, line), (name, request))) in
        (1..).zip(check("requests.jsonl", &entries).iter().zip(requests))
    {
        let read = json_lines::decode_request(line).unwrap();
        assert_eq!((read.id, read.request), (Some(JsonId::from_number(id)), request), "{name}");
    }
}

#[test]
fn json_answers_are_as_written_down() {
    let results = results();
    let encode = |id, result: &_, out: &mut Vec<u8>| {
        json_lines::encode_answer(Some(&JsonId::from_number(id)), result, out);
    };
    let entries = encoded(&results, encode);
    for ((_, line), (name, result)) in check("answers.jsonl", &entries).iter().zip(results) {
        match result {
            Ok(_) => assert!(json_lines::decode_error_line(line).is_err(), "{name}"),
            Err(error) => assert_eq!(json_lines::decode_error_line(line), Ok(error), "{name}"),
        }
    }
}

#[test]
fn json_notifications_are_as_written_down() {
    let encode = |_, notification: &Notification, out: &mut Vec<u8>| {
        json_lines::encode_notification(notification, out);
    };
    let entries = encoded(&samples::notifications(), encode);
    for (name, line) in check("notifications.jsonl", &entries) {
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert!(value["params"]["subscription"].is_u64() && value.get("id").is_none(), "{name}");
    }
}
