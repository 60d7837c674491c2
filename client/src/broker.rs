//! The handle of a broker: calls, over a connection that is made when it is needed.

mod carry_out;
mod upgrade;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::child::Child as ChildInfo;
use procbroker_protocol::request::{
    DestroyParams, EventsParams, ListParams, LogsParams, NoParams, OneParams, ShutdownParams,
};
use procbroker_protocol::response::{Got, ShutdownReport};
use procbroker_protocol::{Field, PartialChildren, Request, Response, Status, duration};
use tokio::time::timeout;

use crate::child::Child;
use crate::command::Command;
use crate::connection::{Connection, in_runtime};
use crate::convert::{Select, ToTarget};
use crate::dial::Wire;
use crate::error::{Error, Invalid};
use crate::link::Link;
use crate::retry::unexpected;
use crate::route::{CONNECT_TIMEOUT, CONNECT_TIMEOUT_MAX, Patience, Route, default_socket};
use crate::subscription::{Events, LogFollow};

pub use upgrade::Upgrade;

/// A broker, reached through one connection that all clones share.
///
/// Calls run side by side and are answered as they are ready: a wait of an hour holds up nothing. The
/// connection is made again when it is lost, as it is when the broker is restarted or upgraded, and calls
/// in progress go on where that is safe (see [`Error::ConnectionLost`] for where it is not). It closes
/// when the last clone, and the last [`Child`] and [`Command`] made from it, is dropped.
///
/// It holds the children with the lifetime [`connection`](crate::Lifetime::Connection) that it has created or reused. When it
/// is lost, it is made again without any call, by a task in the background that exists only while there is something to
/// hold; and the children are held again, each that lives: none is started anew. The broker leaves ten seconds for
/// that. There is no way to let go of one child alone: what is to end earlier than the rest is created by a `Broker` of its
/// own, or destroyed.
///
/// Dropping the future of a call gives up the wait for its answer; what was asked for may still happen.
#[derive(Clone, Debug)]
pub struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Arc<Connection>,
    call_timeout: Option<Duration>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Who keeps the holds has the connection, too.
        self.connection.close();
    }
}

/// How to reach a broker.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    socket: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    call_timeout: Option<Duration>,
    patient: bool,
}

impl Builder {
    /// The broker's socket; [`default_socket`] unless set.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// How long connecting may take, the handshake included; 5 seconds unless set. A lost connection is
    /// tried again and again for so long, with pauses that double.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout.min(CONNECT_TIMEOUT_MAX));
        self
    }

    /// How long a call may take in all, connecting included; as long as it takes unless set. A wait may
    /// take so much longer than its own timeout, and forever if it has none.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = Some(timeout);
        self
    }

    /// Waits for the broker to be started, for as long as connecting may take, instead of failing at once.
    pub fn wait_for_broker(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// See [`Broker::connect`].
    pub async fn connect(self) -> Result<Broker, Error> {
        let broker = self.lazy();
        broker.link().await?;
        Ok(broker)
    }

    /// A broker that is connected to with the first call.
    #[must_use]
    pub fn lazy(self) -> Broker {
        let route = Route {
            socket: self.socket.unwrap_or_else(default_socket),
            connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            patience: if self.patient { Patience::UntilTimeout } else { Patience::AtOnce },
        };
        let shared = Shared { connection: Arc::new(Connection::new(route)), call_timeout: self.call_timeout };
        Broker { shared: Arc::new(shared) }
    }
}

impl Broker {
    /// How to reach a broker, step by step.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Connects to the broker at the [`default_socket`].
    ///
    /// # Errors
    /// [`Error::SocketPathTooLong`] and [`Error::NoSocket`] when nobody can listen there, [`Error::NotThere`] when nobody does,
    /// [`Error::NoAccess`] and [`Error::Refused`]
    /// when this user may not, [`Error::Version`] and [`Error::Handshake`] when the two cannot speak,
    /// [`Error::Timeout`] when there is no answer in time.
    pub async fn connect() -> Result<Self, Error> {
        Self::builder().connect().await
    }

    /// Connects to the broker at this socket.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub async fn at(socket: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::builder().socket(socket).connect().await
    }

    /// The broker's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.shared.connection.route().socket
    }

    /// Makes any request; the other methods are made of this.
    ///
    /// A create without a request's id is given one, so that it is safe to send again.
    ///
    /// # Errors
    /// See [`Error`]. Requests that go on and on are refused: [`events`](Self::events) and
    /// [`follow`](Self::follow) take them.
    pub async fn call(&self, request: Request) -> Result<Response, Error> {
        let Some(after) = self.time_for(&request) else { return self.carry_out(request).await };
        in_runtime()?;
        let waiting_for = request.method();
        let in_time = timeout(after, self.carry_out(request)).await;
        in_time.unwrap_or_else(|_| Err(Error::Timeout { waiting_for: waiting_for.to_string(), after }))
    }

    /// How long a call may take.
    fn time_for(&self, request: &Request) -> Option<Duration> {
        let limit = self.shared.call_timeout?;
        if let Request::Wait(params) = request {
            params.timeout.map(|own| limit.saturating_add(own))
        } else {
            Some(limit)
        }
    }

    /// The connection, made anew if it has to be.
    async fn link(&self) -> Result<Arc<Link>, Error> {
        self.shared.connection.link().await
    }

    /// A connection apart, for a subscription.
    pub(crate) async fn own_wire(&self) -> Result<Wire, Error> {
        self.shared.connection.own_wire().await
    }

    /// A child to be started, in the manner of [`std::process::Command`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(self.clone(), program.as_ref())
    }

    /// The caller's children, oldest first; of everybody for root and the broker's user.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, which: &Select) -> Result<Vec<Child>, Error> {
        let request = Request::List(ListParams::from(which));
        let method = request.method();
        match self.call(request).await? {
            Response::Children(children) => {
                Ok(children.into_iter().map(|info| Child::new(self.clone(), info, None)).collect())
            }
            other => Err(unexpected(method, &other)),
        }
    }

    /// Some members of the caller's children, oldest first: for many children, less is sent than by [`list`](Self::list).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_fields(&self, which: &Select, fields: &[Field]) -> Result<PartialChildren, Error> {
        let fields = Some(fields.iter().copied().collect());
        let request = Request::List(ListParams { fields, ..ListParams::from(which) });
        let method = request.method();
        match self.call(request).await? {
            Response::PartialChildren(children) => Ok(children),
            other => Err(unexpected(method, &other)),
        }
    }

    /// One child by its id or name: the live one of that name, else the one that held it last.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is none that this user may see.
    pub async fn get(&self, target: impl ToTarget) -> Result<Child, Error> {
        let request = Request::Get(OneParams { target: target.to_target()? });
        let got = self.got(request).await?;
        Ok(Child::new(self.clone(), got.child, got.spec))
    }

    /// Makes a request that is answered with one child.
    pub(crate) async fn one(&self, request: Request) -> Result<Arc<ChildInfo>, Error> {
        let method = request.method();
        match self.call(request).await? {
            Response::Child(info) => Ok(info),
            other => Err(unexpected(method, &other)),
        }
    }

    /// Makes a request that is answered with one child and its specification.
    pub(crate) async fn got(&self, request: Request) -> Result<Got, Error> {
        let method = request.method();
        match self.call(request).await? {
            Response::Got(got) => Ok(got),
            other => Err(unexpected(method, &other)),
        }
    }

    /// Makes a request that is answered with children.
    pub(crate) async fn many(&self, request: Request) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let method = request.method();
        match self.call(request).await? {
            Response::Children(children) => Ok(children),
            other => Err(unexpected(method, &other)),
        }
    }

    /// Stops children, and answers when they and all their descendants are gone and cleaned up. One that
    /// has ended already is no error.
    ///
    /// It is safe to repeat, and is when the connection is lost: the child that held a name when this was
    /// called is destroyed, never one that took the name since, and those that had the labels then, never one that was
    /// created since. No child in the answer means then that it was gone already.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child.
    pub async fn destroy(&self, target: impl ToTarget) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.many(Request::Destroy(DestroyParams { target, stop: None, no_wait: false })).await
    }

    /// The broker itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self) -> Result<Status, Error> {
        let request = Request::Status(NoParams {});
        let method = request.method();
        match self.call(request).await? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(method, &other)),
        }
    }

    /// What the broker has counted, in the text format of Prometheus.
    ///
    /// # Errors
    /// See [`Error`]; it is for root and the broker's own user.
    pub async fn metrics(&self) -> Result<String, Error> {
        let request = Request::Metrics(NoParams {});
        let method = request.method();
        match self.call(request).await? {
            Response::Metrics(metrics) => Ok(metrics.text),
            other => Err(unexpected(method, &other)),
        }
    }

    /// Stops every child and the broker, and reports what happened to each. With a timeout, that is how
    /// long the whole may take, instead of the broker's own setting.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`] when the connection ended before the report came: the broker
    /// may have gone down as asked.
    pub async fn shutdown(&self, timeout: Option<Duration>) -> Result<ShutdownReport, Error> {
        let timeout = timeout.map(duration::in_range).transpose().map_err(Invalid::from)?;
        let request = Request::Shutdown(ShutdownParams { timeout });
        let method = request.method();
        match self.call(request).await? {
            Response::ShutDown(report) => Ok(report),
            other => Err(unexpected(method, &other)),
        }
    }

    /// Subscribes to what happens, over a connection of its own.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn events(&self, params: EventsParams) -> Result<Events, Error> {
        Events::open(self.clone(), params).await
    }

    /// Shows what a child wrote, and goes on with what it writes, over a connection of its own.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child.
    pub async fn follow(&self, params: LogsParams) -> Result<LogFollow, Error> {
        LogFollow::open(self, params).await
    }
}
