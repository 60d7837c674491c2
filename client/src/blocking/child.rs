//! A child, for a program without a tokio runtime.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::child::Child as ChildInfo;
use procbroker_protocol::request::Scope;
use procbroker_protocol::response::Logs;
use procbroker_protocol::{ChildId, Name, Outcome, Spec, Target};

use super::EventLoop;
use crate::convert::{ToSignal, ToTarget};
use crate::error::{Error, Invalid};

/// What a create came to; it derefs to the [`Child`].
#[derive(Clone, Debug)]
pub struct Created {
    /// Whether a child was started, found, or put in another's place.
    pub outcome: Outcome,
    /// The child.
    pub child: Child,
}

impl Deref for Created {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

/// A child of the broker, as [`crate::Child`] without async.
#[derive(Clone, Debug)]
pub struct Child {
    pub(super) inner: crate::Child,
    pub(super) event_loop: Arc<EventLoop>,
}

impl ToTarget for Child {
    fn to_target(&self) -> Result<Target, Invalid> {
        self.inner.to_target()
    }
}

impl Child {
    /// Its id, the same through restarts of it and of the broker.
    #[must_use]
    pub fn id(&self) -> ChildId {
        self.inner.id()
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.inner.name()
    }

    /// Its process as of the snapshot; none when it had ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.inner.pid()
    }

    /// All that was known of it when the snapshot was taken.
    #[must_use]
    pub fn info(&self) -> &Arc<ChildInfo> {
        self.inner.info()
    }

    /// What it was created with, and what that has become; see [`crate::Child::spec`].
    #[must_use]
    pub fn spec(&self) -> Option<&Spec> {
        self.inner.spec()
    }

    /// Takes a new snapshot.
    ///
    /// # Errors
    /// See [`crate::Child::refresh`].
    pub fn refresh(&mut self) -> Result<&Arc<ChildInfo>, Error> {
        self.event_loop.run(self.inner.refresh())
    }

    /// Waits until it has ended and is cleaned up.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait(&self) -> Result<Arc<ChildInfo>, Error> {
        self.event_loop.run(self.inner.wait())
    }

    /// Waits until it is ready, or has ended before it was.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait_ready(&self) -> Result<Arc<ChildInfo>, Error> {
        self.event_loop.run(self.inner.wait_ready())
    }

    /// Waits until it has ended and is cleaned up, but not longer than this; none when it has not by then.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Arc<ChildInfo>>, Error> {
        self.event_loop.run(self.inner.wait_timeout(timeout))
    }

    /// Stops it, and answers when it and all its descendants are gone and it is cleaned up.
    ///
    /// # Errors
    /// See [`crate::Child::destroy`].
    pub fn destroy(&self) -> Result<Arc<ChildInfo>, Error> {
        self.event_loop.run(self.inner.destroy())
    }

    /// Sends a signal to its main process.
    ///
    /// # Errors
    /// See [`crate::Child::signal`].
    pub fn signal(&self, signal: impl ToSignal + Send) -> Result<(), Error> {
        self.signal_to(signal, Scope::Main)
    }

    /// Sends a signal to its main process, its process group or everything that descends from it.
    ///
    /// # Errors
    /// See [`crate::Child::signal`].
    pub fn signal_to(&self, signal: impl ToSignal + Send, scope: Scope) -> Result<(), Error> {
        self.event_loop.run(self.inner.signal_to(signal, scope))
    }

    /// Stops it and starts it again, with the same id and name.
    ///
    /// # Errors
    /// See [`crate::Child::restart`].
    pub fn restart(&mut self) -> Result<&Arc<ChildInfo>, Error> {
        self.event_loop.run(self.inner.restart())
    }

    /// Gives it its whole time to live again.
    ///
    /// # Errors
    /// See [`crate::Child::renew`].
    pub fn renew(&self) -> Result<(), Error> {
        self.event_loop.run(self.inner.renew())
    }

    /// Reads what it wrote to its standard output, all that is kept of it.
    ///
    /// # Errors
    /// See [`crate::Child::logs`].
    pub fn logs(&self) -> Result<Logs, Error> {
        self.event_loop.run(self.inner.logs())
    }
}
