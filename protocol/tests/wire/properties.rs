//! What holds for any message, any bytes and any pieces in which they come.

use procbroker_protocol::binary::{self, ServerMessage};
use procbroker_protocol::frame::{FRAME_HEAD_BYTES_MAX, Framed, Frames, LINE_HEAD_BYTES_MAX, Lines};
use procbroker_protocol::json_lines::{self, JsonId};
use procbroker_protocol::version::{self, PROTOCOL};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{samples, strategies};

/// What a framer made of a stream: messages, oversize ones with their beginning, and how it ended.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Message(Vec<u8>),
    Oversize(usize, Vec<u8>),
    Truncated,
}

impl From<Framed<'_>> for Found {
    fn from(framed: Framed<'_>) -> Self {
        match framed {
            Framed::Message(bytes) => Self::Message(bytes.to_vec()),
            Framed::Oversize { length, head } => Self::Oversize(length, head.to_vec()),
        }
    }
}

fn frames(cap: usize, chunks: &[&[u8]]) -> Vec<Found> {
    let mut frames = Frames::new(cap);
    let mut found = Vec::new();
    for chunk in chunks {
        frames.push(chunk);
        while let Some(framed) = frames.next_message() {
            found.push(framed.into());
        }
    }
    if frames.finish().is_err() {
        found.push(Found::Truncated);
    }
    found
}

fn lines(cap: usize, chunks: &[&[u8]]) -> Vec<Found> {
    let mut lines = Lines::new(cap);
    let mut found = Vec::new();
    for chunk in chunks {
        lines.push(chunk);
        while let Some(framed) = lines.next_message() {
            found.push(framed.into());
        }
    }
    found.extend(lines.finish().map(Found::from));
    found
}

/// Cuts bytes at some places.
fn cut<'a>(bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut rest = bytes;
    let mut chunks = Vec::new();
    let mut start = 0;
    for place in places {
        let (chunk, later) = rest.split_at(place - start);
        chunks.push(chunk);
        (rest, start) = (later, place);
    }
    chunks.push(rest);
    chunks
}

/// The same, said plainly: what a stream of frames means.
fn frames_expected(cap: usize, messages: &[Vec<u8>]) -> Vec<Found> {
    let found = |message: &Vec<u8>| {
        if message.len() > cap {
            Found::Oversize(message.len(), message[..message.len().min(FRAME_HEAD_BYTES_MAX)].to_vec())
        } else {
            Found::Message(message.clone())
        }
    };
    messages.iter().map(found).collect()
}

/// The same, said plainly: what a stream of lines means.
fn lines_expected(cap: usize, stream: &[u8]) -> Vec<Found> {
    let found = |line: &[u8]| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > cap {
            Some(Found::Oversize(cap + 1, line[..cap.min(LINE_HEAD_BYTES_MAX)].to_vec()))
        } else {
            (!line.trim_ascii().is_empty()).then(|| Found::Message(line.to_vec()))
        }
    };
    stream.split(|byte| *byte == b'\n').filter_map(found).collect()
}

/// Bytes that are nearly a message: a sound one with some bytes changed, cut or put in.
fn damaged(sound: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6);
    (proptest::sample::select(sound), changes).prop_map(|(mut bytes, changes)| {
        for (place, byte, how) in changes {
            let place = place.index(bytes.len() + 1);
            match (how, bytes.get_mut(place)) {
                (0, Some(old)) => *old = byte,
                (1, Some(_)) => bytes.truncate(place),
                _ => bytes.insert(place, byte),
            }
        }
        bytes
    })
}

fn sound_requests(json: bool) -> Vec<Vec<u8>> {
    let encode = |(_, request)| {
        let mut out = Vec::new();
        if json {
            json_lines::encode_request(Some(&JsonId::from_number(7)), &request, &mut out);
            out
        } else {
            binary::encode_request(7, &request, &mut out).unwrap();
            out.split_off(4)
        }
    };
    samples::requests().into_iter().map(encode).collect()
}

fn sound_answers(json: bool) -> Vec<Vec<u8>> {
    let responses = samples::responses().into_iter().map(|(_, response)| Ok(response));
    let encode = |result| {
        let mut out = Vec::new();
        if json {
            json_lines::encode_answer(None, &result, &mut out);
            out
        } else {
            binary::encode_answer(Some(7), &result, &mut out);
            out.split_off(4)
        }
    };
    responses.chain(samples::errors().into_iter().map(Err)).map(encode).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_survives_the_binary_encoding(id in 1..=u64::MAX, request in strategies::request()) {
        let mut out = Vec::new();
        binary::encode_request(id, &request, &mut out).unwrap();
        prop_assert_eq!(binary::decode_request(&out[4..]), Ok((id, request)));
    }

    #[test]
    fn a_request_survives_json(id in any::<u64>(), request in strategies::request()) {
        let id = JsonId::from_number(id);
        let mut out = Vec::new();
        json_lines::encode_request(Some(&id), &request, &mut out);
        let read = json_lines::decode_request(&out).unwrap();
        prop_assert_eq!((read.id, read.request), (Some(id), request));
    }

    #[test]
    fn a_message_of_the_broker_survives_the_binary_encoding(message in strategies::server_message()) {
        let mut out = Vec::new();
        match &message {
            ServerMessage::Answer { id, result } => binary::encode_answer(Some(*id), result, &mut out),
            ServerMessage::Notification(notification) => binary::encode_notification(notification, &mut out),
        }
        prop_assert_eq!(binary::decode_server_message(&out[4..]), Ok(message));
    }

    #[test]
    fn a_message_of_the_broker_is_one_line_of_json(message in strategies::server_message()) {
        let mut out = Vec::new();
        match &message {
            ServerMessage::Answer { result, .. } => json_lines::encode_answer(None, result, &mut out),
            ServerMessage::Notification(notification) => json_lines::encode_notification(notification, &mut out),
        }
        prop_assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&value["jsonrpc"], "2.0");
    }

    #[test]
    fn an_error_survives_json(error in strategies::error()) {
        let mut out = Vec::new();
        json_lines::encode_answer(None, &Err(error.clone()), &mut out);
        prop_assert_eq!(json_lines::decode_error_line(&out), Ok(error));
    }

    #[test]
    fn frames_are_the_same_in_any_pieces(
        cap in 0..60_usize,
        messages in vec(vec(any::<u8>(), 0..100), 0..8),
        missing in 0..3_usize,
        places in vec(any::<Index>(), 0..20),
    ) {
        let mut stream: Vec<u8> = Vec::new();
        for message in &messages {
            stream.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            stream.extend(message);
        }
        let mut expected = frames_expected(cap, &messages);
        if missing == 0 || messages.is_empty() {
            prop_assert_eq!(frames(cap, &cut(&stream, &places)), expected);
        } else {
            let whole = frames(cap, &[&stream[..stream.len() - missing]]);
            expected.pop();
            prop_assert_eq!(&whole[..expected.len()], &expected);
            prop_assert_eq!(whole.last(), Some(&Found::Truncated));
            prop_assert_eq!(frames(cap, &cut(&stream[..stream.len() - missing], &places)), whole);
        }
    }

    #[test]
    fn lines_are_the_same_in_any_pieces(
        cap in 0..60_usize,
        stream in vec(proptest::sample::select(&b"{}ab \r\n"[..]), 0..300),
        places in vec(any::<Index>(), 0..20),
    ) {
        prop_assert_eq!(lines(cap, &cut(&stream, &places)), lines_expected(cap, &stream));
    }

    #[test]
    fn long_lines_are_the_same_in_any_pieces(
        cap in 0..60_usize,
        parts in vec((0..150_usize, proptest::sample::select(vec!["\n", "\r\n", "\r", " "])), 0..8),
        places in vec(any::<Index>(), 0..20),
    ) {
        let stream: String = parts.into_iter().map(|(length, end)| "x".repeat(length) + end).collect();
        prop_assert_eq!(lines(cap, &cut(stream.as_bytes(), &places)), lines_expected(cap, stream.as_bytes()));
    }

    #[test]
    fn no_bytes_upset_a_decoder(bytes in vec(any::<u8>(), 0..200), cap in 0..100_usize) {
        let _ = binary::decode_request(&bytes);
        let _ = binary::decode_server_message(&bytes);
        let _ = binary::refuse_oversize(bytes.len(), &bytes);
        let _ = json_lines::decode_request(&bytes);
        let _ = json_lines::decode_error_line(&bytes);
        let _ = version::decode_offer(&bytes);
        let _ = version::decode_reply(&bytes, PROTOCOL);
        frames(cap, &[&bytes]);
        lines(cap, &[&bytes]);
    }

    #[test]
    fn a_damaged_request_is_refused_or_another_sound_one(bytes in damaged(sound_requests(false))) {
        if let Ok((id, request)) = binary::decode_request(&bytes) {
            let mut out = Vec::new();
            binary::encode_request(id, &request, &mut out).unwrap();
            prop_assert_eq!(binary::decode_request(&out[4..]), Ok((id, request)));
        }
    }

    #[test]
    fn a_damaged_line_is_refused_or_another_sound_one(bytes in damaged(sound_requests(true))) {
        if let Ok(read) = json_lines::decode_request(&bytes) {
            let mut out = Vec::new();
            json_lines::encode_request(read.id.as_ref(), &read.request, &mut out);
            prop_assert!(json_lines::decode_request(&out).is_ok());
        }
    }

    #[test]
    fn a_damaged_answer_upsets_no_client(bytes in damaged(sound_answers(false)), line in damaged(sound_answers(true))) {
        let _ = binary::decode_server_message(&bytes);
        let _ = json_lines::decode_error_line(&line);
        let _ = version::decode_reply(&line, PROTOCOL);
    }
}
