//! The two encodings of a connection behind one face: which one it is, its first byte decides.

use std::cell::RefCell;
use std::io;

use procbroker_protocol::binary;
use procbroker_protocol::frame::{Framed, Frames, Lines};
use procbroker_protocol::json_lines::{self, JsonId, ReplyTo};
use procbroker_protocol::limits::REQUEST_BYTES_MAX;
use procbroker_protocol::version::{self, Encoding, HandshakeError, PROTOCOL};
use procbroker_protocol::{Error, ErrorKind, Notification, Request, Response};

use crate::limits::READ_CHUNK_BYTES;
use crate::os::host::client_socket::ClientSocket;

/// The id that a client gave to a request.
#[derive(Clone, Debug)]
pub(super) enum RequestId {
    /// In JSON; `None` is written as `null`.
    Json(Option<JsonId>),
    /// In JSON, without one: it wants no answer.
    JsonUnanswered,
    /// In the binary encoding; `None` stands for one that could not be read.
    Binary(Option<u64>),
}

/// What a client has sent.
#[derive(Debug)]
pub(super) enum Incoming {
    Request {
        id: RequestId,
        request: Request,
    },
    /// Something that is none, and what is to be answered.
    Refused {
        id: RequestId,
        error: Error,
    },
    /// An offer of versions, and the answer to it.
    Bytes(Vec<u8>),
    /// Something after which the connection cannot go on, and the last word to it.
    Fatal(Vec<u8>),
}

/// The state of a connection's decoding.
#[derive(Debug)]
pub(super) enum Codec {
    /// The first bytes, which do not tell yet.
    Undecided(Vec<u8>, Ending),
    Json(Lines, Ending),
    /// Frames, after an offer of versions was answered.
    Binary(Frames, Ending),
    /// Nothing is read any more.
    Closed,
}

/// Whether the client has said everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    #[default]
    Open,
    /// It has closed its side; what is left is looked at once.
    Closed,
    /// That is done too.
    Finished,
}

thread_local! {
    /// Where bytes are read to: one buffer for all connections, because what is read is copied to where
    /// its message is put together at once.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_CHUNK_BYTES]);
}

impl Default for Codec {
    fn default() -> Self {
        Self::Undecided(Vec::new(), Ending::Open)
    }
}

impl Codec {
    /// Reads what there is on the socket, at most so much, and at most one chunk; 0 bytes mean that the client's side is
    /// closed.
    pub(super) fn read_from(&mut self, socket: &ClientSocket, most: usize) -> io::Result<usize> {
        CHUNK.with_borrow_mut(|chunk| {
            let room = chunk.get_mut(..most.min(READ_CHUNK_BYTES)).unwrap_or_default();
            let length = socket.try_read(room)?;
            let bytes = room.get(..length).unwrap_or_default();
            match self {
                Self::Undecided(first, _) => first.extend_from_slice(bytes),
                Self::Json(lines, _) => lines.push(bytes),
                Self::Binary(frames, _) => frames.push(bytes),
                Self::Closed => {}
            }
            Ok(length)
        })
    }

    /// Takes note that nothing more will come.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Undecided(first, _) if first.is_empty() => *self = Self::Closed,
            Self::Closed => {}
            Self::Undecided(_, ending) | Self::Json(_, ending) | Self::Binary(_, ending) => {
                *ending = Ending::Closed;
            }
        }
    }

    /// Whether a message has begun and is not complete.
    pub(super) fn is_partial(&self) -> bool {
        match self {
            Self::Undecided(first, _) => !first.is_empty(),
            Self::Json(lines, _) => lines.is_partial(),
            Self::Binary(frames, _) => frames.is_partial(),
            Self::Closed => false,
        }
    }

    /// How many bytes are kept of what the client has not finished, or is not to be taken yet.
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Undecided(first, _) => first.len(),
            Self::Json(lines, _) => lines.kept(),
            Self::Binary(frames, _) => frames.kept(),
            Self::Closed => 0,
        }
    }

    /// Gives up on a message that does not end, with a last word to the client.
    pub(super) fn abandon(&mut self, error: Error, out: &mut Vec<u8>) {
        let result = Err(error);
        match std::mem::replace(self, Self::Closed) {
            Self::Binary(..) => binary::encode_answer(None, &result, out),
            Self::Undecided(..) | Self::Json(..) => json_lines::encode_answer(None, &result, out),
            Self::Closed => {}
        }
    }

    /// The next thing that the client has sent entirely.
    pub(super) fn next(&mut self) -> Option<Incoming> {
        if let Self::Undecided(first, ending) = self {
            let (first, ending) = (std::mem::take(first), *ending);
            match self.decide(first, ending) {
                Ok(answer) => {
                    if answer.is_some() {
                        return answer;
                    }
                }
                Err(error) => {
                    *self = Self::Closed;
                    let mut bytes = Vec::new();
                    json_lines::encode_answer(None, &Err(error.into()), &mut bytes);
                    return Some(Incoming::Fatal(bytes));
                }
            }
        }
        match self {
            Self::Undecided(..) | Self::Closed => None,
            Self::Json(lines, ending) => next_line(lines, ending),
            Self::Binary(frames, ending) => match next_frame(frames, *ending) {
                Some(Incoming::Fatal(bytes)) => {
                    *self = Self::Closed;
                    Some(Incoming::Fatal(bytes))
                }
                other => other,
            },
        }
    }

    /// Chooses the encoding by the first bytes, as far as they tell.
    fn decide(&mut self, first: Vec<u8>, ending: Ending) -> Result<Option<Incoming>, HandshakeError> {
        let Some(byte) = first.first() else { return Ok(None) };
        match Encoding::detect(*byte)? {
            Encoding::Json => {
                let mut lines = Lines::new(REQUEST_BYTES_MAX);
                lines.push(&first);
                *self = Self::Json(lines, ending);
                Ok(None)
            }
            Encoding::Binary => {
                let Some((offered, length)) = version::decode_offer(&first)? else {
                    if ending != Ending::Open {
                        return Err(HandshakeError::BrokenOff { bytes: first.len() });
                    }
                    *self = Self::Undecided(first, ending);
                    return Ok(None);
                };
                let (answer, chosen) = version::answer_offer(PROTOCOL, offered);
                if chosen.is_none() {
                    *self = Self::Closed;
                    return Ok(Some(Incoming::Fatal(answer)));
                }
                let mut frames = Frames::new(REQUEST_BYTES_MAX);
                frames.push(first.get(length..).unwrap_or_default());
                *self = Self::Binary(frames, ending);
                Ok(Some(Incoming::Bytes(answer)))
            }
        }
    }
}

pub(super) fn encode(id: &RequestId, result: &Result<Response, Error>, out: &mut Vec<u8>) {
    match id {
        RequestId::Json(id) => json_lines::encode_answer(id.as_ref(), result, out),
        RequestId::JsonUnanswered => {}
        RequestId::Binary(id) => binary::encode_answer(*id, result, out),
    }
}

/// Appends a notification. Nobody subscribes before the encoding is decided.
pub(super) fn encode_notification(codec: &Codec, notification: &Notification, out: &mut Vec<u8>) {
    match codec {
        Codec::Binary(..) => binary::encode_notification(notification, out),
        Codec::Undecided(..) | Codec::Json(..) | Codec::Closed => {
            json_lines::encode_notification(notification, out);
        }
    }
}

/// Appends a refusal of the whole connection: to the request that was read, else as a line of JSON.
pub(super) fn refusal(id: Option<RequestId>, error: Error, out: &mut Vec<u8>) {
    let id = match id {
        Some(RequestId::Json(id)) => id,
        Some(RequestId::JsonUnanswered | RequestId::Binary(_)) | None => None,
    };
    json_lines::encode_answer(id.as_ref(), &Err(error), out);
}

fn next_line(lines: &mut Lines, ending: &mut Ending) -> Option<Incoming> {
    loop {
        let framed = match lines.next_message() {
            Some(framed) => framed,
            None if *ending == Ending::Closed => {
                *ending = Ending::Finished;
                // What has no line's end is a message too: a JSON object says itself where it ends.
                lines.finish()?
            }
            None => return None,
        };
        let refusal = match framed {
            Framed::Message(line) => match json_lines::decode_request(line) {
                Ok(message) => {
                    let id = message.id.map_or(RequestId::JsonUnanswered, |id| RequestId::Json(Some(id)));
                    return Some(Incoming::Request { id, request: message.request });
                }
                Err(refusal) => refusal,
            },
            Framed::Oversize { length, head } => json_lines::refuse_oversize(length, head),
        };
        match refusal.reply {
            ReplyTo::Id(id) => {
                return Some(Incoming::Refused { id: RequestId::Json(Some(id)), error: refusal.error });
            }
            ReplyTo::Null => {
                return Some(Incoming::Refused { id: RequestId::Json(None), error: refusal.error });
            }
            ReplyTo::Nobody => {}
        }
    }
}

fn next_frame(frames: &mut Frames, ending: Ending) -> Option<Incoming> {
    let truncated = ending == Ending::Closed && frames.is_partial();
    let refusal = match frames.next_message() {
        Some(Framed::Message(frame)) => match binary::decode_request(frame) {
            Ok((id, request)) => {
                return Some(Incoming::Request { id: RequestId::Binary(Some(id)), request });
            }
            Err(refusal) => refusal,
        },
        Some(Framed::Oversize { length, head }) => binary::refuse_oversize(length, head),
        None if truncated => {
            let error = Error::new(
                ErrorKind::InvalidRequest,
                "the connection was closed in the middle of a frame; nothing of it was carried out",
            );
            let mut bytes = Vec::new();
            binary::encode_answer(None, &Err(error), &mut bytes);
            return Some(Incoming::Fatal(bytes));
        }
        None => return None,
    };
    Some(Incoming::Refused { id: RequestId::Binary(refusal.id), error: refusal.error })
}
