//! A blocking client of the binary encoding: what a caller needs at least.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use procbroker_protocol::binary::{ServerMessage, decode_server_message, encode_request};
use procbroker_protocol::child::Child;
use procbroker_protocol::frame::{Framed, Frames};
use procbroker_protocol::limits::ANSWER_BYTES_MAX;
use procbroker_protocol::request::{DestroyParams, ListParams, NoParams};
use procbroker_protocol::version::{OFFER_BYTES, PROTOCOL, Reply, decode_reply, encode_offer};
use procbroker_protocol::{ChildId, CreateParams, Request, Response, Target};
use std::sync::Arc;

use crate::failure::{Attempt, Failure};
use crate::interrupt;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A connection with one request at a time.
pub(crate) struct Connection {
    stream: UnixStream,
    frames: Frames,
    chunk: Vec<u8>,
    out: Vec<u8>,
    id: u64,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> Result<Self, Failure> {
        Self::over(Self::knock(socket)?)
    }

    /// Connects, and says nothing yet.
    pub(crate) fn knock(socket: &Path) -> Result<UnixStream, Failure> {
        let attempt = || format!("connect to the broker at {}", socket.display());
        UnixStream::connect(socket).attempting(attempt())
    }

    /// Shakes hands.
    pub(crate) fn over(mut stream: UnixStream) -> Result<Self, Failure> {
        let attempt = "shake hands with the broker";
        let offer: [u8; OFFER_BYTES] = encode_offer(PROTOCOL);
        stream.write_all(&offer).attempting(attempt)?;
        let mut answer = Vec::new();
        loop {
            let mut chunk = [0; 64];
            let length = stream.read(&mut chunk).attempting(attempt)?;
            answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
            match decode_reply(&answer, PROTOCOL) {
                Ok(Some((Reply::Chosen(_), _))) => break,
                Ok(None) if length > 0 => {}
                other => return Err(Failure::unexpected(attempt, format!("it answered {other:?}"))),
            }
        }
        let frames = Frames::new(ANSWER_BYTES_MAX);
        Ok(Self { stream, frames, chunk: vec![0; CHUNK_BYTES], out: Vec::new(), id: 0 })
    }

    /// Sends one request and waits for its answer.
    pub(crate) fn call(&mut self, request: &Request) -> Result<Response, Failure> {
        let attempt = || format!("call {}", request.method());
        interrupt::check()?;
        self.id += 1;
        self.out.clear();
        encode_request(self.id, request, &mut self.out)
            .map_err(|error| Failure::unexpected(attempt(), error.to_string()))?;
        self.stream.write_all(&self.out).attempting(attempt())?;
        let message = self.receive(&attempt)?;
        match message {
            ServerMessage::Answer { id, result } if id == self.id => {
                result.map_err(|source| Failure::Refused { attempt: attempt(), source })
            }
            other => Err(Failure::unexpected(attempt(), format!("it answered {other:?}"))),
        }
    }

    fn receive(&mut self, attempt: &impl Fn() -> String) -> Result<ServerMessage, Failure> {
        loop {
            match self.frames.next_message() {
                Some(Framed::Message(frame)) => {
                    return decode_server_message(frame)
                        .map_err(|error| Failure::unexpected(attempt(), error.to_string()));
                }
                Some(Framed::Oversize { length, .. }) => {
                    return Err(Failure::unexpected(attempt(), format!("an answer of {length} bytes")));
                }
                None => {}
            }
            let length = self.stream.read(&mut self.chunk).attempting(attempt())?;
            if length == 0 {
                return Err(Failure::unexpected(attempt(), "the broker closed the connection"));
            }
            self.frames.push(self.chunk.get(..length).unwrap_or_default());
        }
    }

    pub(crate) fn status(&mut self) -> Result<(), Failure> {
        match self.call(&Request::Status(NoParams {}))? {
            Response::Status(_) => Ok(()),
            other => Err(wrong("status", &other)),
        }
    }

    pub(crate) fn create(&mut self, params: CreateParams) -> Result<ChildId, Failure> {
        match self.call(&Request::Create(Box::new(params)))? {
            Response::Created(created) => Ok(created.child.id),
            other => Err(wrong("create", &other)),
        }
    }

    /// Destroys children, and says how many there were.
    pub(crate) fn destroy(&mut self, target: Target) -> Result<usize, Failure> {
        match self.call(&Request::Destroy(DestroyParams { target, stop: None, no_wait: false }))? {
            Response::Children(children) => Ok(children.len()),
            other => Err(wrong("destroy", &other)),
        }
    }

    pub(crate) fn list(&mut self) -> Result<Vec<Arc<Child>>, Failure> {
        match self.call(&Request::List(ListParams::default()))? {
            Response::Children(children) => Ok(children),
            other => Err(wrong("list", &other)),
        }
    }
}

fn wrong(method: &str, answer: &Response) -> Failure {
    Failure::unexpected(format!("call {method}"), format!("the broker answered {answer:?}"))
}
