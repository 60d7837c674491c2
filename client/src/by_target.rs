//! What is done to children by their id, their name or their labels, without a handle of each.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::child::Child as ChildInfo;
use procbroker_protocol::request::{
    LogStream, LogsParams, ManyParams, Scope, SignalParams, Until, WaitParams,
};
use procbroker_protocol::response::Logs;
use procbroker_protocol::{ErrorKind, Request, Response, duration};

use crate::blocking;
use crate::broker::Broker;
use crate::convert::{ToSignal, ToTarget};
use crate::error::{Error, Invalid};
use crate::retry::unexpected;

impl Broker {
    /// Waits until one child has ended and is cleaned up; `exit` of the answer tells how it ended.
    ///
    /// A name means the child that has it when this is called, also when the connection is lost meanwhile.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child.
    pub async fn wait(&self, target: impl ToTarget) -> Result<Arc<ChildInfo>, Error> {
        self.wait_until(target, Until::Ended, None).await
    }

    /// Waits until one child is ready, or has ended before it was.
    ///
    /// # Errors
    /// See [`wait`](Self::wait).
    pub async fn wait_ready(&self, target: impl ToTarget) -> Result<Arc<ChildInfo>, Error> {
        self.wait_until(target, Until::Ready, None).await
    }

    /// Waits until one child has ended and is cleaned up, but not longer than this; none when it has not by then.
    ///
    /// # Errors
    /// See [`wait`](Self::wait).
    pub async fn wait_timeout(
        &self,
        target: impl ToTarget,
        timeout: Duration,
    ) -> Result<Option<Arc<ChildInfo>>, Error> {
        let timeout = duration::in_range(timeout).map_err(Invalid::from)?;
        match self.wait_until(target, Until::Ended, Some(timeout)).await {
            Ok(info) => Ok(Some(info)),
            Err(Error::Broker(error)) if error.kind == ErrorKind::Timeout(None) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn wait_until(
        &self,
        target: impl ToTarget,
        until: Until,
        timeout: Option<Duration>,
    ) -> Result<Arc<ChildInfo>, Error> {
        let target = target.to_target()?;
        self.one(Request::Wait(WaitParams { target, until, timeout })).await
    }

    /// Sends a signal to the main process of each of these children, and answers with them. It is sent once at
    /// most: when the connection is lost meanwhile, the call fails.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child or it has ended, `permission_denied` when
    /// this user may not signal it; [`Error::ConnectionLost`] when it is not known whether the signal was sent.
    pub async fn signal(
        &self,
        target: impl ToTarget,
        signal: impl ToSignal,
    ) -> Result<Vec<Arc<ChildInfo>>, Error> {
        self.signal_to(target, signal, Scope::Main).await
    }

    /// Sends a signal to the main process, the process group or all descendants of each of these children.
    ///
    /// # Errors
    /// See [`signal`](Self::signal).
    pub async fn signal_to(
        &self,
        target: impl ToTarget,
        signal: impl ToSignal,
        scope: Scope,
    ) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let (target, signal) = (target.to_target()?, signal.to_signal()?);
        self.many(Request::Signal(SignalParams { target, signal, scope })).await
    }

    /// Stops these children and starts them again, each with the id and the name that it has.
    ///
    /// Each is restarted once, also when the connection is lost meanwhile: one that was started since the call began, or is on
    /// its way to that, is waited for then.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child or it has ended, and `spawn_failed` when one child is
    /// meant and its program cannot be executed any more.
    pub async fn restart(&self, target: impl ToTarget) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.many(Request::Restart(ManyParams { target })).await
    }

    /// Gives these children their whole time to live again.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `unsupported` when the life of one is not bound to a time.
    pub async fn renew(&self, target: impl ToTarget) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.many(Request::Renew(ManyParams { target })).await
    }

    /// Reads what one child wrote to its standard output, all that is kept of it.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child.
    pub async fn logs(&self, target: impl ToTarget) -> Result<Logs, Error> {
        self.read_logs(everything(target)?).await
    }

    /// Reads what one child wrote: which of its outputs, and how much of it, say the parameters.
    ///
    /// # Errors
    /// [`Error::Broker`] of the kind `not_found` when there is no such child; [`Invalid::Subscription`] when the
    /// parameters ask to [`follow`](Self::follow).
    pub async fn read_logs(&self, params: LogsParams) -> Result<Logs, Error> {
        let request = Request::Logs(params);
        let method = request.method();
        match self.call(request).await? {
            Response::Logs(logs) => Ok(logs),
            other => Err(unexpected(method, &other)),
        }
    }
}

impl blocking::Broker {
    /// Waits until one child has ended and is cleaned up; see [`Broker::wait`].
    ///
    /// # Errors
    /// See [`Broker::wait`].
    pub fn wait(&self, target: impl ToTarget) -> Result<Arc<ChildInfo>, Error> {
        let target = target.to_target()?;
        self.run(self.inner().wait(target))
    }

    /// Waits until one child is ready, or has ended before it was.
    ///
    /// # Errors
    /// See [`Broker::wait`].
    pub fn wait_ready(&self, target: impl ToTarget) -> Result<Arc<ChildInfo>, Error> {
        let target = target.to_target()?;
        self.run(self.inner().wait_ready(target))
    }

    /// Waits until one child has ended and is cleaned up, but not longer than this; none when it has not by then.
    ///
    /// # Errors
    /// See [`Broker::wait`].
    pub fn wait_timeout(
        &self,
        target: impl ToTarget,
        timeout: Duration,
    ) -> Result<Option<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.run(self.inner().wait_timeout(target, timeout))
    }

    /// Sends a signal to the main process of each of these children; see [`Broker::signal`].
    ///
    /// # Errors
    /// See [`Broker::signal`].
    pub fn signal(
        &self,
        target: impl ToTarget,
        signal: impl ToSignal + Send,
    ) -> Result<Vec<Arc<ChildInfo>>, Error> {
        self.signal_to(target, signal, Scope::Main)
    }

    /// Sends a signal to the main process, the process group or all descendants of each of these children.
    ///
    /// # Errors
    /// See [`Broker::signal`].
    pub fn signal_to(
        &self,
        target: impl ToTarget,
        signal: impl ToSignal + Send,
        scope: Scope,
    ) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.run(self.inner().signal_to(target, signal, scope))
    }

    /// Stops these children and starts them again; see [`Broker::restart`].
    ///
    /// # Errors
    /// See [`Broker::restart`].
    pub fn restart(&self, target: impl ToTarget) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.run(self.inner().restart(target))
    }

    /// Gives these children their whole time to live again.
    ///
    /// # Errors
    /// See [`Broker::renew`].
    pub fn renew(&self, target: impl ToTarget) -> Result<Vec<Arc<ChildInfo>>, Error> {
        let target = target.to_target()?;
        self.run(self.inner().renew(target))
    }

    /// Reads what one child wrote to its standard output, all that is kept of it.
    ///
    /// # Errors
    /// See [`Broker::logs`].
    pub fn logs(&self, target: impl ToTarget) -> Result<Logs, Error> {
        self.read_logs(everything(target)?)
    }

    /// Reads what one child wrote; see [`Broker::read_logs`].
    ///
    /// # Errors
    /// See [`Broker::read_logs`].
    pub fn read_logs(&self, params: LogsParams) -> Result<Logs, Error> {
        self.run(self.inner().read_logs(params))
    }
}

fn everything(target: impl ToTarget) -> Result<LogsParams, Invalid> {
    let target = target.to_target()?;
    let stream = LogStream::default();
    Ok(LogsParams {
        target,
        stream,
        tail: None,
        follow: false,
        since: None,
        timestamps: false,
        position: None,
    })
}
