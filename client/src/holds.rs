//! Which children a connection holds, and which of them a lost one has left to be held again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use procbroker_protocol::child::Child;
use procbroker_protocol::create::{IfExists, Lifetime, Limit};
use procbroker_protocol::{
    ChildId, ChildState, CreateParams, ErrorKind, Name, PartialChildren, Request, Response,
};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::link::{Answer, Link};

/// How many connections may be lost, one after the other, while the same child is to be held again. What brings a broker
/// down must not be sent to it forever.
const LOSSES_MAX: u32 = 5;
/// So many holds may be of children that have ended, at the least, before the broker is asked which of them live.
const SWEEP_MIN: usize = 64;

/// The children whose lives are bound to this program's connection.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    kept: Mutex<Kept>,
    /// Tells the keeper that there is something to take again, to look at, or nothing at all any more.
    pub(crate) news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    by_child: BTreeMap<ChildId, Hold>,
    /// How many there were when the broker was last asked which of them live.
    swept: usize,
    keeper: Option<AbortHandle>,
}

/// How a child came to be held.
#[derive(Debug)]
struct Hold {
    /// The request that was answered with it.
    request: Uuid,
    name: Option<Name>,
    /// The connection that holds it; another one than the present one has lost it.
    over: Weak<Link>,
    losses: u32,
}

impl Hold {
    fn is_over(&self, link: &Arc<Link>) -> bool {
        std::ptr::eq(self.over.as_ptr(), Arc::as_ptr(link))
    }
}

impl Holds {
    /// Takes note of an answer: of a child that is held from now on, and of those that have ended.
    pub(crate) fn take_note(&self, link: &Arc<Link>, request: &Request, response: &Response) {
        match response {
            Response::Created(created) => {
                if let (Request::Create(params), true) = (request, is_held(&created.child)) {
                    self.add(link, params, created.child.id);
                } else {
                    self.forget_ended([&created.child]);
                }
            }
            Response::Children(children) => self.forget_ended(children),
            Response::Child(child) => self.forget_ended([child]),
            Response::Got(got) => self.forget_ended([&got.child]),
            Response::PartialChildren(_)
            | Response::Metrics(_)
            | Response::Logs(_)
            | Response::Subscribed(_)
            | Response::Status(_)
            | Response::ShutDown(_)
            | Response::Upgraded => {}
        }
    }

    fn add(&self, link: &Arc<Link>, params: &CreateParams, child: ChildId) {
        let Some(request) = params.request_id else { return };
        let hold = Hold { request, name: params.name.clone(), over: Arc::downgrade(link), losses: 0 };
        let mut kept = self.lock();
        kept.by_child.insert(child, hold);
        let is_to_be_swept = kept.is_to_be_swept();
        drop(kept);
        // Another connection may have been made before the answer of this one was taken note of.
        if is_to_be_swept || link.is_closed() {
            self.news.notify_one();
        }
    }

    fn forget_ended<'a>(&self, children: impl IntoIterator<Item = &'a Arc<Child>>) {
        let mut kept = self.lock();
        if kept.by_child.is_empty() {
            return;
        }
        for child in children {
            if child.state == ChildState::Ended {
                kept.by_child.remove(&child.id);
            }
        }
        self.tell_if_none(&kept);
    }

    fn tell_if_none(&self, kept: &Kept) {
        if kept.by_child.is_empty() {
            self.news.notify_one();
        }
    }

    /// The children that were held when this was asked, if there is anything to ask the broker about them.
    pub(crate) fn to_look_at(&self, link: &Arc<Link>) -> Option<BTreeSet<ChildId>> {
        let kept = self.lock();
        let is_any_lost = kept.by_child.values().any(|hold| !hold.is_over(link));
        (is_any_lost || kept.is_to_be_swept()).then(|| kept.by_child.keys().copied().collect())
    }

    /// Forgets those of the known children that do not live, and returns those that can be held again, each with the create
    /// that does so.
    pub(crate) fn lost(
        &self,
        link: &Arc<Link>,
        known: &BTreeSet<ChildId>,
        live: &PartialChildren,
    ) -> Vec<(ChildId, Request)> {
        let live: BTreeMap<_, _> = live.iter().map(|child| (child.id(), child.state().copied())).collect();
        let mut kept = self.lock();
        kept.by_child.retain(|child, _| live.contains_key(child) || !known.contains(child));
        kept.swept = kept.by_child.len();
        self.tell_if_none(&kept);
        let lost = kept.by_child.iter().filter(|(child, hold)| {
            // One that is being stopped may be on its way to another run. If it is not, the request might be answered with
            // what takes its place, and would hold that.
            let is_going = matches!(
                live.get(child),
                Some(Some(ChildState::Stopping | ChildState::Cleaning | ChildState::Ended))
            );
            !hold.is_over(link) && live.contains_key(child) && !is_going
        });
        lost.map(|(child, hold)| (*child, hold.create())).collect()
    }

    /// Takes note of what the create was answered with that was to hold a child again.
    pub(crate) fn answered(&self, link: &Arc<Link>, child: ChildId, answer: &Answer) {
        let mut kept = self.lock();
        let is_held_again = match answer {
            Ok(Response::Created(created)) => created.child.id == child && is_held(&created.child),
            // Later, perhaps.
            Err(error) if error.kind == ErrorKind::Overloaded => return,
            Ok(_) | Err(_) => false,
        };
        if !is_held_again {
            kept.by_child.remove(&child);
        } else if let Some(hold) = kept.by_child.get_mut(&child) {
            (hold.over, hold.losses) = (Arc::downgrade(link), 0);
        }
        self.tell_if_none(&kept);
    }

    /// Takes note that a connection was lost while a child was to be held again.
    pub(crate) fn lost_again(&self, child: ChildId) {
        let mut kept = self.lock();
        if let Some(hold) = kept.by_child.get_mut(&child) {
            hold.losses += 1;
            if hold.losses > LOSSES_MAX {
                kept.by_child.remove(&child);
            }
        }
        self.tell_if_none(&kept);
    }

    /// Whether this connection holds all that is to be held.
    pub(crate) fn are_over(&self, link: &Arc<Link>) -> bool {
        self.lock().by_child.values().all(|hold| hold.is_over(link))
    }

    /// Has a task keep the holds, if there are any and none keeps them.
    pub(crate) fn have_keeper(&self, start: impl FnOnce() -> Option<AbortHandle>) {
        let mut kept = self.lock();
        // It has also ended when its runtime has.
        let is_kept = kept.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished());
        if !kept.by_child.is_empty() && !is_kept {
            kept.keeper = start();
        }
    }

    /// Whether the keeper may end, for want of holds; the next hold has another one then.
    pub(crate) fn dismiss_keeper(&self) -> bool {
        let mut kept = self.lock();
        let is_idle = kept.by_child.is_empty();
        if is_idle {
            kept.keeper = None;
        }
        is_idle
    }

    /// Lets go of all, and ends the keeper.
    pub(crate) fn clear(&self) {
        let Kept { keeper, .. } = std::mem::take(&mut *self.lock());
        if let Some(keeper) = keeper {
            keeper.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether so many have come since the last look that most of them may be of children that nobody looked at again.
    fn is_to_be_swept(&self) -> bool {
        self.by_child.len() >= SWEEP_MIN.max(self.swept.saturating_mul(2))
    }
}

impl Hold {
    /// A create that holds the child again, and can start nothing.
    ///
    /// The broker knows the request, and answers it with the child whatever else it says. Where it does not know it any
    /// more, because it has answered too many since, it finds the child by its name. If the child has ended meanwhile and is
    /// forgotten, a limit of no place at all refuses what would be a new one.
    fn create(&self) -> Request {
        let limit = Limit { key: format!("held-again-{}", self.request), max: 0, wait: None };
        // Only a name can be reused.
        let if_exists = if self.name.is_some() { IfExists::Reuse } else { IfExists::Fail };
        Request::Create(Box::new(CreateParams {
            name: self.name.clone(),
            if_exists,
            request_id: Some(self.request),
            limit: Some(limit),
            no_wait: true,
            lifetime: Lifetime::Connection,
            ..CreateParams::new(vec!["false".to_owned()])
        }))
    }
}

/// Whether the connection holds a child that a create was answered with, whatever that create has asked for: a child that is
/// reused keeps its own lifetime.
fn is_held(child: &Child) -> bool {
    child.lifetime == Lifetime::Connection && child.state != ChildState::Ended
}
