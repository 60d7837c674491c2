//! A client that speaks frames, and takes apart what it gets itself.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use procbroker_protocol::binary::{ServerMessage, decode_server_message, encode_request};
use procbroker_protocol::version::{PROTOCOL, encode_offer};
use procbroker_protocol::{Error, Request, Response};

/// A connection in the binary encoding.
#[derive(Debug)]
pub(crate) struct FrameClient {
    socket: UnixStream,
    next_id: u64,
}

impl FrameClient {
    /// Talks over this socket, after an offer of the versions that there are.
    pub(crate) fn over(mut socket: UnixStream) -> Self {
        socket.write_all(&encode_offer(PROTOCOL)).unwrap();
        let mut reply = [0; 6];
        socket.read_exact(&mut reply).expect("a reply to the offer");
        assert_eq!(&reply[..4], b"PBRK");
        assert_eq!(u16::from_le_bytes([reply[4], reply[5]]), PROTOCOL.highest);
        Self { socket, next_id: 1 }
    }

    /// Sends a request, and does not wait for its answer.
    pub(crate) fn send(&mut self, request: &Request) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut bytes = Vec::new();
        encode_request(id, request, &mut bytes).expect("a request that fits");
        self.write(&bytes);
        id
    }

    /// Sends these bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("a broker that reads");
    }

    /// The next answer and its id; none when the broker has closed its side.
    pub(crate) fn answer(&mut self) -> Option<(u64, Result<Response, Error>)> {
        let mut length = [0; 4];
        if self.socket.read(&mut length[..1]).expect("an answer") == 0 {
            return None;
        }
        self.socket.read_exact(&mut length[1..]).expect("the length of a frame");
        let mut frame = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.socket.read_exact(&mut frame).expect("a whole frame");
        match decode_server_message(&frame).expect("a message of the broker") {
            ServerMessage::Answer { id, result } => Some((id, result)),
            ServerMessage::Notification(notification) => panic!("not asked for: {notification:?}"),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, request: &Request) -> Result<Response, Error> {
        let id = self.send(request);
        let (answered, result) = self.answer().expect("an answer");
        assert_eq!(answered, id);
        result
    }

    /// Says that nothing more will be asked.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }
}
