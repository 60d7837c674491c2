//! What may be done when a connection is lost before the answer came.
//!
//! A request that may be carried out twice is sent again; one that may not is given up, and the caller
//! told so.

mod bound;

use std::time::{Duration, Instant, SystemTime};

use procbroker_protocol::request::Method;
use procbroker_protocol::{ErrorKind, Request, Response, Target, Timestamp};

use crate::error::Error;
use crate::link::Answer;

pub(crate) use bound::Bound;

/// How many connections in a row one call may see lost within [`STABLE_AFTER`] of sending. A request that
/// brings a broker down must not be sent to it forever.
const LOSSES_MAX: u32 = 5;
/// A connection that has lasted so long after the request was sent was not ended by it.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// What a loss means for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It may be carried out twice: it changes nothing, or it is known by its id.
    Safe,
    /// It may be carried out twice on the same children. A name can have passed on to another one meanwhile, and what was
    /// created since can have the same labels, which is not meant, so that the children have to be found first.
    SafeOnSame,
    /// It must not be carried out twice.
    Never,
}

impl Repeat {
    fn of(request: &Request) -> Self {
        match request {
            Request::Create(params) => {
                if params.request_id.is_some() {
                    Self::Safe
                } else {
                    Self::Never
                }
            }
            Request::Destroy(params) => Self::on(&params.target),
            // Whatever is no child is refused.
            Request::Wait(params) if matches!(params.target, Target::Name(_)) => Self::SafeOnSame,
            Request::Renew(params) => Self::on(&params.target),
            // Whether it was carried out has to be found out, too.
            Request::Restart(_) => Self::SafeOnSame,
            Request::Wait(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_) => Self::Safe,
            Request::Signal(_) | Request::Shutdown(_) | Request::Upgrade(_) => Self::Never,
        }
    }

    fn on(target: &Target) -> Self {
        match target {
            Target::Id(_) => Self::Safe,
            Target::Name(_) | Target::Labels(_) | Target::All => Self::SafeOnSame,
        }
    }
}

/// One call, over as many connections as it takes.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    began: Instant,
    began_at: Timestamp,
    /// The time that a wait was given, for a child or for a place, from its beginning.
    waits_for: Option<Duration>,
    sent: Instant,
    losses: u32,
    /// Whether a connection was lost that may have carried the request to the broker.
    repeated: bool,
}

impl Call {
    pub(crate) fn new(request: Request) -> Self {
        let waits_for = match &request {
            Request::Wait(params) => params.timeout,
            Request::Create(params) => params.limit.as_ref().and_then(|limit| limit.wait),
            Request::Destroy(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Signal(_)
            | Request::Restart(_)
            | Request::Renew(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => None,
        };
        let now = Instant::now();
        let began_at = SystemTime::now().into();
        Self { request, began: now, began_at, waits_for, sent: now, losses: 0, repeated: false }
    }

    pub(crate) fn method(&self) -> Method {
        self.request.method()
    }

    /// Takes note that the request is about to be sent, and cuts a wait's time by what has passed.
    pub(crate) fn sending(&mut self) {
        self.sent = Instant::now();
        let Some(waits_for) = self.waits_for else { return };
        let left = Some(waits_for.saturating_sub(self.sent - self.began));
        if let Request::Wait(params) = &mut self.request {
            params.timeout = left;
        } else if let Request::Create(params) = &mut self.request
            && let Some(limit) = &mut params.limit
        {
            limit.wait = left;
        }
    }

    /// Takes note that the connection had ended before a byte was written: nothing can have happened.
    ///
    /// # Errors
    /// When that goes on and on.
    pub(crate) fn not_sent(&mut self) -> Result<(), Error> {
        if self.sent.elapsed() >= STABLE_AFTER {
            self.losses = 0;
        }
        self.losses += 1;
        if self.losses > LOSSES_MAX { Err(self.lost_for_good()) } else { Ok(()) }
    }

    /// Takes note that the connection was lost with the request underway.
    ///
    /// # Errors
    /// When the request may not be sent again.
    pub(crate) fn lost(&mut self) -> Result<(), Error> {
        if Repeat::of(&self.request) == Repeat::Never {
            return Err(self.lost_for_good());
        }
        self.repeated = true;
        self.not_sent()
    }

    fn lost_for_good(&self) -> Error {
        Error::ConnectionLost { method: self.method() }
    }

    /// What an answer means, given how often the request was sent.
    pub(crate) fn conclude(&self, answer: Answer) -> Result<Response, Error> {
        match answer {
            Ok(response) => Ok(response),
            // The child was there when it was first asked for. A broker that does not know it any more
            // has ended it, and forgotten it since.
            Err(error) if error.kind == ErrorKind::NotFound && self.repeated && self.destroys_by_id() => {
                Ok(Response::Children(Vec::new()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn destroys_by_id(&self) -> bool {
        matches!(&self.request, Request::Destroy(params) if matches!(params.target, Target::Id(_)))
    }
}

/// The error for an answer of another kind than the request's.
pub(crate) fn unexpected(method: Method, response: &Response) -> Error {
    let kind = match response {
        Response::Created(_) => "a created child",
        Response::Children(_) => "children",
        Response::Child(_) => "a child",
        Response::Got(_) => "a child and its specification",
        Response::Metrics(_) => "metrics",
        Response::Logs(_) => "a log",
        Response::Subscribed(_) => "a subscription",
        Response::Status(_) => "a status",
        Response::ShutDown(_) => "a report of a shutdown",
        Response::Upgraded => "an upgrade",
        Response::PartialChildren(_) => "children with some of their members",
    };
    Error::Protocol { detail: format!("it answered {method} with {kind}") }
}
