//! What the driver sends to a connection.

use procbroker_protocol::{Error, Response};
use tokio::sync::mpsc;

use super::feed::FeedReader;
use crate::follower::Paced;
use crate::limits::{CHILDREN_ENCODED_INLINE, TEXT_BYTES_ENCODED_INLINE};

/// One message from the driver to a connection.
#[derive(Debug)]
pub enum Outgoing {
    /// The client may talk; always the first message, unless it is [`Outgoing::Refused`].
    Admitted,
    /// The client is not served.
    Refused(Error),
    /// The answer to a request.
    Answer {
        /// Which one, by the connection's own number.
        number: u64,
        /// What came of it.
        result: Result<Response, Error>,
    },
    /// Where the events come from that the client has subscribed to.
    Feed(FeedReader),
    /// Where what children wrote comes from, at the client's own pace.
    Paced(mpsc::Receiver<Paced>),
}

/// The driver's end of a connection.
pub type Outbox = mpsc::Sender<Outgoing>;

/// Whether an answer takes long to encode.
pub(super) fn is_large(result: &Result<Response, Error>) -> bool {
    match result {
        Ok(Response::Children(children)) => children.len() > CHILDREN_ENCODED_INLINE,
        Ok(Response::PartialChildren(children)) => children.len() > CHILDREN_ENCODED_INLINE,
        Ok(Response::ShutDown(report)) => report.children.len() > CHILDREN_ENCODED_INLINE,
        Ok(Response::Logs(logs)) => logs.text.len() > TEXT_BYTES_ENCODED_INLINE,
        Ok(
            Response::Created(_)
            | Response::Child(_)
            | Response::Got(_)
            | Response::Metrics(_)
            | Response::Subscribed(_)
            | Response::Status(_)
            | Response::Upgraded,
        )
        | Err(_) => false,
    }
}
