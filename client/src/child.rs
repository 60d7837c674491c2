//! The handle of a child.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::child::Child as ChildInfo;
use procbroker_protocol::request::{DestroyParams, Method, OneParams, Scope};
use procbroker_protocol::response::Logs;
use procbroker_protocol::{ChildId, ChildState, Name, Outcome, Request, Response, Spec, Target};

use crate::broker::Broker;
use crate::convert::{ToSignal, ToTarget};
use crate::error::{Error, Invalid};
use crate::retry::unexpected;

/// A child of the broker: a snapshot of it, and what can be done to it.
///
/// Dropping it changes nothing: the child belongs to the broker.
#[derive(Clone, Debug)]
pub struct Child {
    broker: Broker,
    info: Arc<ChildInfo>,
    spec: Option<Arc<Spec>>,
}

/// What a create came to; it derefs to the [`Child`].
#[derive(Clone, Debug)]
pub struct Created {
    /// Whether a child was started, found, or put in another's place.
    pub outcome: Outcome,
    /// The child.
    pub child: Child,
}

impl Created {
    pub(crate) fn from_response(broker: &Broker, response: Response) -> Result<Self, Error> {
        match response {
            Response::Created(created) => {
                Ok(Self { outcome: created.outcome, child: Child::new(broker.clone(), created.child, None) })
            }
            other => Err(unexpected(Method::Create, &other)),
        }
    }
}

impl Deref for Created {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl ToTarget for Child {
    fn to_target(&self) -> Result<Target, Invalid> {
        Ok(self.target())
    }
}

impl Child {
    pub(crate) fn new(broker: Broker, info: Arc<ChildInfo>, spec: Option<Box<Spec>>) -> Self {
        Self { broker, info, spec: spec.map(Arc::from) }
    }

    /// Its id, the same through restarts of it and of the broker.
    #[must_use]
    pub fn id(&self) -> ChildId {
        self.info.id
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.info.name.as_ref()
    }

    /// Its process as of the snapshot; none when it had ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.info.pid
    }

    /// All that was known of it when the snapshot was taken: by the create, the list or the last
    /// [`refresh`](Self::refresh).
    #[must_use]
    pub fn info(&self) -> &Arc<ChildInfo> {
        &self.info
    }

    /// What it was created with, and what that has become: user, groups, environment, stop, limits, where its output is
    /// kept. None unless the snapshot is of [`Broker::get`] or [`refresh`](Self::refresh), and this user may see it.
    #[must_use]
    pub fn spec(&self) -> Option<&Spec> {
        self.spec.as_deref()
    }

    fn target(&self) -> Target {
        Target::Id(self.info.id)
    }

    /// Takes a new snapshot.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when it ended long ago.
    pub async fn refresh(&mut self) -> Result<&Arc<ChildInfo>, Error> {
        let got = self.broker.got(Request::Get(OneParams { target: self.target() })).await?;
        (self.info, self.spec) = (got.child, got.spec.map(Arc::from));
        Ok(&self.info)
    }

    /// Waits until it has ended and is cleaned up; `exit` of the answer tells how it ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wait(&self) -> Result<Arc<ChildInfo>, Error> {
        self.broker.wait(self.target()).await
    }

    /// Waits until it is ready, or has ended before it was.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wait_ready(&self) -> Result<Arc<ChildInfo>, Error> {
        self.broker.wait_ready(self.target()).await
    }

    /// Waits until it has ended and is cleaned up, but not longer than this; none when it has not by then.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wait_timeout(&self, timeout: Duration) -> Result<Option<Arc<ChildInfo>>, Error> {
        self.broker.wait_timeout(self.target(), timeout).await
    }

    /// Stops it by its own steps, and answers when it and all its descendants are gone and it is cleaned
    /// up. That it has ended already is no error.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when it ended long ago.
    pub async fn destroy(&self) -> Result<Arc<ChildInfo>, Error> {
        let params = DestroyParams { target: self.target(), stop: None, no_wait: false };
        let ended = self.broker.many(Request::Destroy(params)).await?;
        // None is left when the broker was lost meanwhile and has forgotten the child: that it is gone is all
        // that is known then.
        Ok(ended.into_iter().next().unwrap_or_else(|| {
            Arc::new(ChildInfo { state: ChildState::Ended, pid: None, ..ChildInfo::clone(&self.info) })
        }))
    }

    /// Sends a signal to its main process. It is sent once at most: when the connection is lost
    /// meanwhile, the call fails.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when it has ended; [`Error::ConnectionLost`]
    /// when it is not known whether the signal was sent.
    pub async fn signal(&self, signal: impl ToSignal) -> Result<(), Error> {
        self.signal_to(signal, Scope::Main).await
    }

    /// Sends a signal to its main process, its process group or everything that descends from it.
    ///
    /// # Errors
    /// See [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: impl ToSignal, scope: Scope) -> Result<(), Error> {
        self.broker.signal_to(self.target(), signal, scope).await.map(drop)
    }

    /// Stops it and starts it again, with the same id and name; once, also when the connection is lost meanwhile.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when it has ended, and `spawn_failed` when its program cannot be executed any more.
    pub async fn restart(&mut self) -> Result<&Arc<ChildInfo>, Error> {
        let restarted = self.broker.restart(self.target()).await?;
        self.info = restarted.into_iter().next().ok_or_else(|| Error::Protocol {
            detail: "it answered the restart of a child with no child".to_owned(),
        })?;
        Ok(&self.info)
    }

    /// Gives it its whole time to live again.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `unsupported` when its life is not bound to a time.
    pub async fn renew(&self) -> Result<(), Error> {
        self.broker.renew(self.target()).await.map(drop)
    }

    /// Reads what it wrote to its standard output, all that is kept of it; [`Broker::read_logs`] reads less, or its
    /// standard error.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when it ended long ago.
    pub async fn logs(&self) -> Result<Logs, Error> {
        self.broker.logs(self.target()).await
    }
}
