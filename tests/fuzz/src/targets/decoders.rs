//! Whole messages of both encodings: what is understood says the same when it is written and read again.

use procbroker_protocol::binary::{self, ServerMessage};
use procbroker_protocol::json_lines::{self, JsonId};

/// A line of a client that speaks JSON.
pub(super) fn json_requests(bytes: &[u8]) {
    match json_lines::decode_request(bytes) {
        Ok(read) => {
            let mut written = Vec::new();
            json_lines::encode_request(read.id.as_ref(), &read.request, &mut written);
            let line = written.strip_suffix(b"\n").unwrap_or(&written);
            let again = json_lines::decode_request(line);
            assert_eq!(again.map(|again| (again.id, again.request)), Ok((read.id, read.request)));
        }
        Err(refusal) => {
            let id = match &refusal.reply {
                json_lines::ReplyTo::Id(id) => Some(id),
                json_lines::ReplyTo::Null | json_lines::ReplyTo::Nobody => None,
            };
            let mut answer = Vec::new();
            json_lines::encode_answer(id, &Err(refusal.error), &mut answer);
            assert!(answer.ends_with(b"\n"), "an answer is a line");
        }
    }
    // What a client makes of the only line that a broker sends before it closes.
    let _ = json_lines::decode_error_line(bytes);
}

/// A frame of a client that speaks the binary protocol.
pub(super) fn binary_requests(bytes: &[u8]) {
    let Ok((id, request)) = binary::decode_request(bytes) else { return };
    let mut written = Vec::new();
    if binary::encode_request(id, &request, &mut written).is_ok() {
        let again = binary::decode_request(body(&written));
        assert_eq!(again.ok().as_ref(), Some(&(id, request.clone())));
    }
    // The record is JSON, and so is the way on to other clients: what one encoding takes, the other has to take.
    let mut line = Vec::new();
    json_lines::encode_request(Some(&JsonId::from_number(1)), &request, &mut line);
    let again = json_lines::decode_request(line.strip_suffix(b"\n").unwrap_or(&line));
    if let Err(refusal) = again {
        panic!("{request:?} is refused in JSON: {}", refusal.error.message);
    }
}

/// A frame of a broker, as a client reads it.
pub(super) fn binary_answers(bytes: &[u8]) {
    let Ok(message) = binary::decode_server_message(bytes) else { return };
    let mut written = Vec::new();
    match &message {
        ServerMessage::Answer { id, result } => binary::encode_answer(Some(*id), result, &mut written),
        ServerMessage::Notification(notification) => binary::encode_notification(notification, &mut written),
    }
    let again = binary::decode_server_message(body(&written));
    assert_eq!(again.ok(), Some(message));
}

/// What is in a frame, after its length.
fn body(frame: &[u8]) -> &[u8] {
    frame.get(4..).unwrap_or_default()
}
