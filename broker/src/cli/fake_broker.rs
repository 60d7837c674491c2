//! A broker for the tests of verbs: it answers one request with what it was told to.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use procbroker_protocol::binary::{decode_request, encode_answer, encode_notification};
use procbroker_protocol::frame::{Framed, Frames};
use procbroker_protocol::limits::REQUEST_BYTES_MAX;
use procbroker_protocol::version::{OFFER_BYTES, PROTOCOL, answer_offer, decode_offer};
use procbroker_protocol::{Error, Notification, Request, Response};

/// Answers one request, sends notifications, and gives back what was asked and the open connection.
pub(super) fn serve(
    listener: &UnixListener,
    answer: &Result<Response, Error>,
    then: &[Notification],
) -> (Request, UnixStream) {
    let mut stream = listener.accept().unwrap().0;
    let mut offer = [0; OFFER_BYTES];
    stream.read_exact(&mut offer).unwrap();
    let (theirs, _) = decode_offer(&offer).unwrap().unwrap();
    stream.write_all(&answer_offer(PROTOCOL, theirs).0).unwrap();
    let mut frames = Frames::new(REQUEST_BYTES_MAX);
    let mut chunk = [0; 1024];
    loop {
        let length = stream.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "the client left before it asked");
        frames.push(&chunk[..length]);
        if let Some(Framed::Message(frame)) = frames.next_message() {
            let (id, request) = decode_request(frame).unwrap();
            let mut out = Vec::new();
            encode_answer(Some(id), answer, &mut out);
            for notification in then {
                encode_notification(notification, &mut out);
            }
            stream.write_all(&out).unwrap();
            return (request, stream);
        }
    }
}
