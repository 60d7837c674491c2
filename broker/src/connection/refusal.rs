//! A client that is not served is told why.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::Error;

use super::Connection;
use super::codec::{self, Incoming, RequestId};
use crate::limits::{REFUSAL_BYTES, REFUSAL_PATIENCE};

impl Connection {
    /// Answers the first request with a refusal, in the client's encoding, and closes.
    pub(super) async fn refuse(&mut self, error: Error) {
        // A client that sends nothing is told all the same, and a crowd of them holds nobody's place.
        let patient = Arc::clone(&self.context.refusals).try_acquire_owned().ok();
        let patience = patient.as_ref().map_or(Duration::ZERO, |_| REFUSAL_PATIENCE);
        let id = tokio::time::timeout(patience, self.first_id()).await.ok().flatten();
        self.unwritten.clear();
        codec::refusal(id, error, &mut self.unwritten);
        // One that does not even take its refusal gets none.
        let _ = tokio::time::timeout(patience, self.flush()).await;
    }

    /// The id of the first request that comes, if it has one that can be answered in JSON.
    async fn first_id(&mut self) -> Option<RequestId> {
        let mut seen = 0;
        while seen < REFUSAL_BYTES {
            match self.codec.next() {
                Some(Incoming::Request { id, .. } | Incoming::Refused { id, .. }) => return Some(id),
                // A binary client is refused in the place of the answer to its offer: it is prepared for a
                // line of JSON there.
                Some(Incoming::Bytes(_) | Incoming::Fatal(_)) => return None,
                None => {}
            }
            match self.codec.read_from(&self.socket, REFUSAL_BYTES) {
                Ok(0) => return None,
                Ok(length) => seen += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.readable().await.ok()?;
                }
                Err(_) => return None,
            }
        }
        None
    }
}
