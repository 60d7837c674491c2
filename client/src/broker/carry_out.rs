//! Carries out one call, over as many connections as that takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use procbroker_protocol::{ChildId, Error as BrokerError, ErrorKind, Request, Response};
use uuid::Uuid;

use super::Broker;
use crate::error::{Error, Invalid};
use crate::link::{Answer, Link, Unanswered};
use crate::retry::{Bound, Call};

impl Broker {
    pub(super) async fn carry_out(&self, mut request: Request) -> Result<Response, Error> {
        prepare(&mut request)?;
        let mut call = Call::new(request);
        loop {
            let link = self.link().await?;
            match self.attempt(&link, &mut call).await? {
                Ok(answer) => return call.conclude(answer),
                Err(unanswered) => excuse(unanswered, &mut call)?,
            }
        }
    }

    /// Makes a call over one connection, after it was asked whom it is for, where that has to be known.
    async fn attempt(&self, link: &Arc<Link>, call: &mut Call) -> Result<Result<Answer, Unanswered>, Error> {
        call.sending();
        if let Some(question) = call.question() {
            let children = match self.ask(link, &question).await {
                Ok(answer) => answer?,
                Err(unanswered) => return Ok(Err(unanswered)),
            };
            match call.bind(children)? {
                Bound::AsItIs => {}
                Bound::ToEach(requests) => return Ok(self.ask_each(link, requests, call.is_for_one()).await),
            }
        }
        Ok(self.ask(link, &call.request).await)
    }

    /// Makes a request to each of several children, and answers as one request to all would have been. Of several, one that is
    /// not found is gone.
    async fn ask_each(
        &self,
        link: &Arc<Link>,
        requests: Vec<(ChildId, Request)>,
        is_for_one: bool,
    ) -> Result<Answer, Unanswered> {
        let mut children = BTreeMap::new();
        for (id, request) in requests {
            match self.ask(link, &request).await? {
                Ok(Response::Children(found)) => {
                    children.extend(found.into_iter().map(|child| (child.id, child)));
                }
                Ok(Response::Child(found)) => drop(children.insert(found.id, found)),
                Err(BrokerError { kind: ErrorKind::NotFound, .. }) if !is_for_one => {
                    drop(children.remove(&id));
                }
                other => return Ok(other),
            }
        }
        Ok(Ok(Response::Children(children.into_values().collect())))
    }

    /// Makes a request over a connection.
    pub(super) async fn ask(&self, link: &Arc<Link>, request: &Request) -> Result<Answer, Unanswered> {
        self.shared.connection.ask(link, request).await
    }
}

/// Makes a request safe to send again where that takes an id, and refuses one that goes on and on.
fn prepare(request: &mut Request) -> Result<(), Invalid> {
    let method = request.method();
    match request {
        Request::Create(params) => {
            params.request_id.get_or_insert_with(Uuid::new_v4);
        }
        Request::Events(_) => return Err(Invalid::Subscription { method, instead: "events" }),
        Request::Logs(params) if params.follow => {
            return Err(Invalid::Subscription { method, instead: "follow" });
        }
        Request::Destroy(_)
        | Request::List(_)
        | Request::Get(_)
        | Request::Wait(_)
        | Request::Signal(_)
        | Request::Restart(_)
        | Request::Renew(_)
        | Request::Logs(_)
        | Request::Status(_)
        | Request::Metrics(_)
        | Request::Shutdown(_)
        | Request::Upgrade(_) => {}
    }
    Ok(())
}

/// Decides whether a call goes on without its answer.
pub(super) fn excuse(unanswered: Unanswered, call: &mut Call) -> Result<(), Error> {
    match unanswered {
        Unanswered::NotSent => call.not_sent(),
        Unanswered::Lost => call.lost(),
        Unanswered::Garbled(detail) => Err(Error::Protocol { detail }),
        Unanswered::Encode(error) => Err(error.into()),
    }
}
