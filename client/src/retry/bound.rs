//! Whom a request is for that is sent again: those who were there when its call began.

use std::collections::BTreeMap;

use procbroker_protocol::request::{DestroyParams, ListParams, ManyParams, Method, Until, WaitParams};
use procbroker_protocol::{ChildId, ChildState, Field, PartialChild, Request, Response, Target};

use super::{Call, Repeat, unexpected};
use crate::error::Error;

/// What is asked of those who can have been meant.
const ASKED: [Field; 5] = [Field::Name, Field::State, Field::CreatedAt, Field::StartedAt, Field::Exit];

/// Whom a call that is sent again is for.
#[derive(Debug)]
pub(crate) enum Bound {
    /// Whom its request says, as it is now.
    AsItIs,
    /// These, each by a request of its own, in this order.
    ToEach(Vec<(ChildId, Request)>),
}

impl Call {
    /// The question to ask first when the request is to be sent again: all who can have been meant, the ended among them.
    pub(crate) fn question(&self) -> Option<Request> {
        if !self.repeated || Repeat::of(&self.request) != Repeat::SafeOnSame {
            return None;
        }
        let labels = match self.target()? {
            Target::Labels(labels) => labels.clone(),
            Target::Id(_) | Target::Name(_) | Target::All => BTreeMap::new(),
        };
        let fields = Some(ASKED.into_iter().collect());
        Some(Request::List(ListParams { labels, all: true, fields }))
    }

    /// Whether it is for one child, by its name or id.
    pub(crate) fn is_for_one(&self) -> bool {
        self.target().is_some_and(Target::is_single)
    }

    /// Whom a request is for that may be carried out twice on the same.
    fn target(&self) -> Option<&Target> {
        match &self.request {
            Request::Destroy(params) => Some(&params.target),
            Request::Wait(params) => Some(&params.target),
            Request::Renew(params) | Request::Restart(params) => Some(&params.target),
            Request::Create(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Signal(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => None,
        }
    }

    /// Binds the request to those of the children that answered [`question`](Self::question) who were there when the call
    /// began. When nobody held the name, that stays: the broker will find none either, or one that was created after the
    /// call.
    ///
    /// # Errors
    /// When something else was answered.
    pub(crate) fn bind(&mut self, answer: Response) -> Result<Bound, Error> {
        let children = match answer {
            Response::PartialChildren(children) => children,
            other => return Err(unexpected(Method::List, &other)),
        };
        let there = children.iter().filter(|child| self.was_there(child));
        if !self.is_for_one() {
            let meant: Vec<_> = there.filter(|child| self.is_to_be_told_of(child)).collect();
            return Ok(Bound::ToEach(self.to_each(&meant)));
        }
        let holders = there.filter(|child| self.names(child));
        let holder = holders.max_by_key(|child| (child.created_at().copied(), child.id()));
        self.repeated = holder.is_some();
        let Some(holder) = holder else { return Ok(Bound::AsItIs) };
        if let Request::Restart(_) = self.request {
            return Ok(Bound::ToEach(self.to_each(&[holder])));
        }
        self.aim_at(holder.id());
        Ok(Bound::AsItIs)
    }

    /// Whether a child was there when the call began. Both clocks are this machine's.
    fn was_there(&self, child: &PartialChild<'_>) -> bool {
        child.created_at().is_some_and(|at| *at <= self.began_at)
    }

    /// Whether a child is what the request names.
    fn names(&self, child: &PartialChild<'_>) -> bool {
        match self.target() {
            Some(Target::Id(id)) => child.id() == *id,
            Some(Target::Name(name)) => matches!(child.name(), Some(Some(held)) if held == name),
            Some(Target::Labels(_) | Target::All) | None => false,
        }
    }

    /// Whether one of many is still meant. Who destroys is told of those who have ended of it, too; nothing else can be done
    /// to them any more.
    fn is_to_be_told_of(&self, child: &PartialChild<'_>) -> bool {
        child.state() != Some(&ChildState::Ended)
            || matches!(self.request, Request::Destroy(_))
                && matches!(child.exit(), Some(Some(exit)) if exit.at >= self.began_at)
    }

    fn aim_at(&mut self, child: ChildId) {
        if let Request::Destroy(DestroyParams { target, .. })
        | Request::Wait(WaitParams { target, .. })
        | Request::Renew(ManyParams { target }) = &mut self.request
        {
            *target = Target::Id(child);
        }
    }

    /// The requests to these children. Every stop is begun before the first is waited for, so that they take no longer than
    /// the longest of them.
    fn to_each(&self, children: &[PartialChild<'_>]) -> Vec<(ChildId, Request)> {
        let mut requests = Vec::new();
        if let Request::Destroy(params) = &self.request
            && !params.no_wait
        {
            requests.extend(children.iter().map(|child| {
                let target = Target::Id(child.id());
                (child.id(), Request::Destroy(DestroyParams { target, no_wait: true, ..params.clone() }))
            }));
        }
        requests.extend(children.iter().filter_map(|child| Some((child.id(), self.to_one(child)?))));
        requests
    }

    /// The request to one of several, if there is one that is for several.
    fn to_one(&self, child: &PartialChild<'_>) -> Option<Request> {
        let target = Target::Id(child.id());
        match &self.request {
            Request::Destroy(params) => Some(Request::Destroy(DestroyParams { target, ..params.clone() })),
            Request::Renew(_) => Some(Request::Renew(ManyParams { target })),
            Request::Restart(_) if self.is_as_it_was(child) => Some(Request::Restart(ManyParams { target })),
            // What has been started since, or is on its way to that, is not restarted once more.
            Request::Restart(_) => {
                Some(Request::Wait(WaitParams { target, until: Until::Ready, timeout: None }))
            }
            Request::Wait(_)
            | Request::Create(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Signal(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => None,
        }
    }

    /// Whether a restart of it has not begun: the broker that was lost has left it as it was, and so has the next one.
    fn is_as_it_was(&self, child: &PartialChild<'_>) -> bool {
        let has_settled = matches!(child.state(), Some(ChildState::Running | ChildState::Ended));
        has_settled && !matches!(child.started_at(), Some(Some(at)) if *at > self.began_at)
    }
}
