//! Refuses a request at once for which there is no room, before anything of it is done.

use procbroker_protocol::{Error, Request};

use crate::broker::Broker;
use crate::pending::watched_bytes;

impl Broker {
    /// Whether a request may wait that is none for a child.
    pub(crate) fn check_room(&self, uid: u32, request: &Request) -> Result<(), Error> {
        let meant = |target| self.children.meant_at_most(&self.config, uid, target);
        let children = match request {
            Request::Destroy(params) => meant(&params.target),
            Request::Signal(params) => meant(&params.target),
            Request::Restart(params) => meant(&params.target),
            Request::Wait(_) | Request::Logs(_) => 1,
            // Where a create waits is decided later, and the others are answered at once, or are the administrators'.
            Request::Create(_)
            | Request::List(_)
            | Request::Get(_)
            | Request::Renew(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => return Ok(()),
        };
        self.pending.check_room(&self.config, uid, watched_bytes(children))
    }
}
