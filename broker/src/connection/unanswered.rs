//! The requests of a connection that are not answered yet, and what becomes of them where there is no room.

use procbroker_protocol::Request;

use super::codec::RequestId;

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Unanswered {
    /// The id that the client gave to it.
    pub(super) id: RequestId,
    /// What it asks for.
    pub(super) effort: Effort,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// To be told something: where there is no room for the answer, it is refused.
    Question,
    /// Something to be done: it is answered whatever room there is.
    Act,
}

impl Effort {
    /// Returns what a request asks for.
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::List(_)
            | Request::Get(_)
            | Request::Logs(_)
            | Request::Metrics(_)
            | Request::Events(_) => Self::Question,
            Request::Create(_)
            | Request::Destroy(_)
            | Request::Wait(_)
            | Request::Signal(_)
            | Request::Restart(_)
            | Request::Renew(_)
            | Request::Status(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => Self::Act,
        }
    }
}
