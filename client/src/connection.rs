//! The one connection of all handles of a broker: made when it is needed, and made anew, with all that it held, when it was
//! lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procbroker_protocol::request::ListParams;
use procbroker_protocol::{Field, PartialChildren, Request, Response};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::dial::{Wire, dial};
use crate::error::Error;
use crate::holds::Holds;
use crate::link::{Answer, Ending, Link, Unanswered};
use crate::route::{Patience, Route};

/// How long one child may take to be held again before the next one has its turn: a broker that has not answered by then
/// holds it already, or is busy.
const HOLD_TIMEOUT: Duration = Duration::from_secs(1);
/// The keeper's pause after it could not take all holds again; it doubles with each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The keeper's longest pause. A child is held for ten seconds at the least after a broker was lost.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Connection {
    route: Route,
    link: Mutex<Option<Arc<Link>>>,
    /// Held by the one who connects or takes holds again, so that the others wait for that.
    making: tokio::sync::Mutex<()>,
    was_connected: AtomicBool,
    last_id: AtomicU64,
    holds: Holds,
}

impl Connection {
    pub(crate) fn new(route: Route) -> Self {
        Self {
            route,
            link: Mutex::new(None),
            making: tokio::sync::Mutex::new(()),
            was_connected: AtomicBool::new(false),
            last_id: AtomicU64::new(0),
            holds: Holds::default(),
        }
    }

    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// Sends a request over a connection, and takes note of what its answer says of holds.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        link: &Arc<Link>,
        request: &Request,
    ) -> Result<Answer, Unanswered> {
        let answer = link.ask(self.next_id(), request).await?;
        if let Ok(response) = &answer {
            self.holds.take_note(link, request, response);
            if let Response::Created(_) = response {
                self.have_keeper();
            }
        }
        Ok(answer)
    }

    fn next_id(&self) -> u64 {
        // Ids count from 1.
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The connection, made anew if it has to be.
    pub(crate) async fn link(self: &Arc<Self>) -> Result<Arc<Link>, Error> {
        if let Some(link) = self.present_link() {
            return Ok(link);
        }
        in_runtime()?;
        let deadline = Instant::now() + self.route.connect_timeout;
        let Ok(_only_one) = timeout_at(deadline, self.making.lock()).await else {
            return Err(Error::Timeout {
                waiting_for: format!("connecting to the broker at {}", self.route.socket.display()),
                after: self.route.connect_timeout,
            });
        };
        if let Some(link) = self.present_link() {
            return Ok(link);
        }
        let link = self.make(self.patience(), deadline).await?;
        self.have_keeper();
        Ok(link)
    }

    fn present_link(&self) -> Option<Arc<Link>> {
        self.slot().as_ref().filter(|link| !link.is_closed()).cloned()
    }

    /// Connects, and takes the holds again before anybody else uses the connection.
    async fn make(&self, patience: Patience, deadline: Instant) -> Result<Arc<Link>, Error> {
        let link = Arc::new(Link::start(self.dial(patience, deadline).await?));
        self.take_again(&link, deadline).await;
        *self.slot() = Some(Arc::clone(&link));
        Ok(link)
    }

    /// A connection apart, for a subscription.
    pub(crate) async fn own_wire(&self) -> Result<Wire, Error> {
        in_runtime()?;
        self.dial(self.patience(), Instant::now() + self.route.connect_timeout).await
    }

    fn patience(&self) -> Patience {
        let again = self.was_connected.load(Ordering::Relaxed);
        if again { Patience::UntilTimeout } else { self.route.patience }
    }

    async fn dial(&self, patience: Patience, deadline: Instant) -> Result<Wire, Error> {
        let wire = dial(&self.route, patience, deadline).await?;
        self.was_connected.store(true, Ordering::Relaxed);
        Ok(wire)
    }

    /// Takes the holds again that other connections have lost, as far as their children live. What cannot be had at the
    /// moment is left to the keeper.
    async fn take_again(&self, link: &Arc<Link>, deadline: Instant) {
        let Some(known) = self.holds.to_look_at(link) else { return };
        let Ok(Some(live)) = timeout_at(deadline, self.live_children(link)).await else { return };
        for (child, request) in self.holds.lost(link, &known, &live) {
            let in_time = deadline.min(Instant::now() + HOLD_TIMEOUT);
            match timeout_at(in_time, link.ask(self.next_id(), &request)).await {
                Ok(Ok(answer)) => self.holds.answered(link, child, &answer),
                Ok(Err(_unanswered)) => return self.holds.lost_again(child),
                Err(_elapsed) => {}
            }
        }
    }

    /// The children of this user that have not ended, with their states.
    async fn live_children(&self, link: &Link) -> Option<PartialChildren> {
        let fields = Some([Field::State].into_iter().collect());
        let list = Request::List(ListParams { fields, ..ListParams::default() });
        match link.ask(self.next_id(), &list).await {
            Ok(Ok(Response::PartialChildren(children))) => Some(children),
            Ok(_) | Err(_) => None,
        }
    }

    fn have_keeper(self: &Arc<Self>) {
        let keep = || Some(Handle::try_current().ok()?.spawn(keep(Arc::clone(self))).abort_handle());
        self.holds.have_keeper(keep);
    }

    /// Connects if there is a broker, and takes again what is to be held. Returns what the keeper waits for next, if all is
    /// held.
    async fn attend_to_holds(&self) -> Option<Ending> {
        let _only_one = self.making.lock().await;
        let deadline = Instant::now() + self.route.connect_timeout;
        let link = if let Some(link) = self.present_link() {
            self.take_again(&link, deadline).await;
            link
        } else {
            // Where there is no broker, callers are not to wait until the keeper has found out.
            self.make(Patience::AtOnce, deadline).await.ok()?
        };
        self.holds.are_over(&link).then(|| link.ending())
    }

    /// Closes it, which lets go of all that it holds.
    pub(crate) fn close(&self) {
        self.holds.clear();
        let link = self.slot().take();
        drop(link);
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper: notices that the connection was lost, whether or not anybody makes a request, and takes the holds again, until
/// there are none. It does not keep the connection open.
async fn keep(connection: Arc<Connection>) {
    let mut pause = PAUSE_MIN;
    while !connection.holds.dismiss_keeper() {
        if let Some(ending) = connection.attend_to_holds().await {
            pause = PAUSE_MIN;
            tokio::select! {
                () = ending.come() => {}
                () = connection.holds.news.notified() => {}
            }
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Timers and sockets panic where there is no runtime; this tells it instead.
pub(crate) fn in_runtime() -> Result<(), Error> {
    Handle::try_current().map(drop).map_err(|_| Error::NoRuntime)
}
