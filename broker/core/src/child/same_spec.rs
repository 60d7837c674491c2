//! Whether a child is what another create asks for.

use procbroker_protocol::CreateParams;
use procbroker_protocol::create::{IfExists, Limit};

use crate::attempt::Attempt;
use crate::authorize::RunAs;
use crate::child::Child;
use crate::config::Config;

impl Child {
    /// Whether it was created from a specification equal to that of a create of this user: what decides how it runs and stops. The
    /// accounts count by the rights that they gave, whatever they were called, and a process by what it is, not by its
    /// number alone. Of a limit counts under which key the child has its place, not how many and how long its create
    /// would have it; the time to be ready counts, because each of its runs is stopped that takes longer.
    pub(crate) fn has_same_spec(&self, config: &Config, uid: u32, attempt: &Attempt) -> bool {
        let decisive = |params: &CreateParams| CreateParams {
            request_id: None,
            no_wait: false,
            if_exists: IfExists::default(),
            user: None,
            groups: None,
            cwd: Some(params.cwd.clone().unwrap_or_else(|| "/".to_owned())),
            limit: params.limit.as_ref().map(|limit| Limit { max: 0, wait: None, ..limit.clone() }),
            ..params.clone()
        };
        let same_user = match (self.run_as(), &attempt.run_as) {
            (RunAs::Broker, RunAs::Broker) => config.broker_uid != 0 || self.owner().uid == uid,
            (existing, wanted) => existing == wanted,
        };
        let same_anchor = self.lease().anchor() == attempt.anchor;
        same_user && same_anchor && decisive(self.params()) == decisive(&attempt.params)
    }
}
