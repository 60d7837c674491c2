//! The same without async, for programs that have no tokio runtime.
//!
//! ```no_run
//! use procbroker_client::blocking::Broker;
//!
//! # fn example() -> Result<(), procbroker_client::Error> {
//! let broker = Broker::connect()?;
//! let child = broker.command("sleep").arg("60").name("nap").spawn()?;
//! println!("{:?}", child.destroy()?.exit);
//! # Ok(())
//! # }
//! ```
//!
//! No thread is started: a call runs the connection in the thread that makes it, and calls of several
//! threads go on side by side over the one connection. Within a tokio runtime it works too, but holds up
//! the thread that calls, as any blocking call does, and hands the work to a thread of its own, which
//! costs some microseconds; [`tokio::task::spawn_blocking`] is the place for it there. A broker must not
//! be used on both sides of a fork.
//!
//! For want of a thread, nothing notices between two calls that the connection was lost. Children with the lifetime
//! [`connection`](crate::Lifetime::Connection) are held again while a call is underway, and else before the next one is sent;
//! a program that makes none within the ten seconds that the broker leaves it after a crash or an upgrade loses them. A
//! longer [`linger`](crate::Command::linger), a thread that waits for one of them, or the asynchronous client is the way out.

mod child;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use procbroker_protocol::child::Child as ChildInfo;
use procbroker_protocol::request::{EventsParams, LogsParams};
use procbroker_protocol::response::{Logs, ShutdownReport};
use procbroker_protocol::{Field, PartialChildren, Request, Response, Status};
use tokio::runtime::{Handle, Runtime};

use crate::broker::Upgrade;
use crate::convert::{Select, ToTarget};
use crate::error::Error;
use crate::subscription::{Happening, LogChunk};

pub use child::{Child, Created};

/// A child to be started; see [`crate::Command`] for what can be set.
pub type Command = crate::command::Command<Broker>;

/// The event loop that all handles of a broker share; whoever calls drives it.
struct EventLoop {
    /// Present until it is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

impl EventLoop {
    fn new() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: Some(runtime.map_err(Error::Runtime)?) })
    }

    fn run<T: Send>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let Some(runtime) = &self.runtime else { return Err(Error::NoRuntime) };
        if Handle::try_current().is_err() {
            return runtime.block_on(call);
        }
        // A thread that runs one event loop may not run another within it.
        thread::scope(|scope| {
            let outcome = scope.spawn(|| runtime.block_on(call)).join();
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Dropped as it is, it would panic within another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A broker, as [`crate::Broker`] without async. Clones share its connection and may be used from any thread.
#[derive(Clone, Debug)]
pub struct Broker {
    inner: crate::Broker,
    event_loop: Arc<EventLoop>,
}

impl Broker {
    /// Connects to the broker at the [`default_socket`](crate::default_socket).
    ///
    /// # Errors
    /// See [`crate::Broker::connect`].
    pub fn connect() -> Result<Self, Error> {
        Self::with(crate::Broker::builder())
    }

    /// Connects to the broker at this socket.
    ///
    /// # Errors
    /// See [`crate::Broker::connect`].
    pub fn at(socket: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::with(crate::Broker::builder().socket(socket))
    }

    /// Connects as the builder says.
    ///
    /// # Errors
    /// See [`crate::Broker::connect`].
    pub fn with(builder: crate::Builder) -> Result<Self, Error> {
        let event_loop = Arc::new(EventLoop::new()?);
        let inner = event_loop.run(builder.connect())?;
        Ok(Self { inner, event_loop })
    }

    fn child(&self, inner: crate::Child) -> Child {
        Child { inner, event_loop: Arc::clone(&self.event_loop) }
    }

    pub(crate) fn inner(&self) -> &crate::Broker {
        &self.inner
    }

    pub(crate) fn run<T: Send>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.event_loop.run(call)
    }

    /// The broker's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.inner.socket()
    }

    /// Makes any request; see [`crate::Broker::call`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn call(&self, request: Request) -> Result<Response, Error> {
        self.event_loop.run(self.inner.call(request))
    }

    /// A child to be started, in the manner of [`std::process::Command`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(self.clone(), program.as_ref())
    }

    /// Some members of the caller's children, oldest first.
    ///
    /// # Errors
    /// See [`crate::Broker::list_fields`].
    pub fn list_fields(&self, which: &Select, fields: &[Field]) -> Result<PartialChildren, Error> {
        self.event_loop.run(self.inner.list_fields(which, fields))
    }

    /// The caller's children, oldest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list(&self, which: &Select) -> Result<Vec<Child>, Error> {
        let children = self.event_loop.run(self.inner.list(which))?;
        Ok(children.into_iter().map(|child| self.child(child)).collect())
    }

    /// One child by its id or name.
    ///
    /// # Errors
    /// See [`crate::Broker::get`].
    pub fn get(&self, target: impl ToTarget) -> Result<Child, Error> {
        let target = target.to_target()?;
        Ok(self.child(self.event_loop.run(self.inner.get(target))?))
    }

    /// Stops children, and answers when they are gone and cleaned up; see [`crate::Broker::destroy`].
    ///
    /// # Errors
    /// See [`crate::Broker::destroy`].
    pub fn destroy(&self, target: impl ToTarget) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.event_loop.run(self.inner.destroy(target))
    }

    /// The broker itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&self) -> Result<Status, Error> {
        self.event_loop.run(self.inner.status())
    }

    /// What the broker has counted; see [`crate::Broker::metrics`].
    ///
    /// # Errors
    /// See [`crate::Broker::metrics`].
    pub fn metrics(&self) -> Result<String, Error> {
        self.event_loop.run(self.inner.metrics())
    }

    /// Stops every child and the broker; see [`crate::Broker::shutdown`].
    ///
    /// # Errors
    /// See [`crate::Broker::shutdown`].
    pub fn shutdown(&self, timeout: Option<Duration>) -> Result<ShutdownReport, Error> {
        self.event_loop.run(self.inner.shutdown(timeout))
    }

    /// Puts another program into the place of the broker's; see [`crate::Broker::upgrade`].
    ///
    /// # Errors
    /// See [`crate::Broker::upgrade`].
    pub fn upgrade(&self) -> Result<Upgrade, Error> {
        self.event_loop.run(self.inner.upgrade())
    }

    /// Subscribes to what happens; see [`crate::Broker::events`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn events(&self, params: EventsParams) -> Result<Events, Error> {
        let inner = self.event_loop.run(self.inner.events(params))?;
        Ok(Events { inner, event_loop: Arc::clone(&self.event_loop) })
    }

    /// Shows what a child wrote, and goes on with what it writes; see [`crate::Broker::follow`].
    ///
    /// # Errors
    /// See [`crate::Broker::follow`].
    pub fn follow(&self, params: LogsParams) -> Result<LogFollow, Error> {
        let inner = self.event_loop.run(self.inner.follow(params))?;
        Ok(LogFollow { inner, event_loop: Arc::clone(&self.event_loop) })
    }
}

impl Command {
    /// Has the broker start it, and answers when it runs and is ready; see [`crate::Command::spawn`].
    ///
    /// # Errors
    /// See [`crate::Command::spawn`].
    pub fn spawn(&self) -> Result<Created, Error> {
        let request = Request::Create(Box::new(self.params()?));
        let response = self.broker.call(request)?;
        let created = crate::Created::from_response(&self.broker.inner, response)?;
        Ok(Created { outcome: created.outcome, child: self.broker.child(created.child) })
    }
}

/// A subscription to events. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    inner: crate::Events,
    event_loop: Arc<EventLoop>,
}

impl Events {
    /// The next thing that happens; see [`crate::Events::next`].
    ///
    /// # Errors
    /// See [`crate::Events::next`].
    #[expect(clippy::should_implement_trait, reason = "it does not end, and an error does not end it either")]
    pub fn next(&mut self) -> Result<Happening, Error> {
        self.event_loop.run(self.inner.next())
    }
}

/// What a child wrote, and goes on to write. Dropping it ends the subscription.
#[derive(Debug)]
pub struct LogFollow {
    inner: crate::LogFollow,
    event_loop: Arc<EventLoop>,
}

impl LogFollow {
    /// What the child had written when this began.
    #[must_use]
    pub fn first(&self) -> &Logs {
        self.inner.first()
    }

    /// Where the stream goes on behind all that was returned so far; see [`crate::LogFollow::position`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.inner.position()
    }

    /// What it writes next; none when it has ended and all is shown.
    ///
    /// # Errors
    /// See [`crate::LogFollow::next`].
    #[expect(clippy::should_implement_trait, reason = "each call can fail")]
    pub fn next(&mut self) -> Result<Option<LogChunk>, Error> {
        self.event_loop.run(self.inner.next())
    }
}
