//! The children that a request means, as far as its caller may see them.

use std::collections::BTreeMap;

use procbroker_protocol::{ChildId, Error, ErrorKind, Target};

use crate::authorize;
use crate::broker::Broker;
use crate::child::Child;
use crate::ids::ConnectionId;
use crate::labels::has_labels;

impl Broker {
    /// The one child that a target means, if the caller may see it.
    pub(crate) fn find(&self, connection: ConnectionId, target: &Target) -> Result<&Child, Error> {
        let visible = self.connection(connection).and_then(|connection| {
            let caller = connection.peer().uid;
            let may_act_on = |uid| authorize::may_act_on(&self.config, caller, uid);
            self.children.find(target, may_act_on)
        });
        visible.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no child {target} among those that you may see; list shows them"),
            )
        })
    }

    /// The children that a target means, oldest first: one that must be there, or those that are `wanted`.
    pub(crate) fn resolve(
        &self,
        connection: ConnectionId,
        target: &Target,
        wanted: impl Fn(&Child) -> bool,
    ) -> Result<Vec<ChildId>, Error> {
        let none = BTreeMap::new();
        let labels = match target {
            Target::Id(_) | Target::Name(_) => {
                return self.find(connection, target).map(|child| vec![child.id()]);
            }
            Target::Labels(labels) => labels,
            Target::All => &none,
        };
        let Some(caller) = self.connection(connection) else {
            return Ok(Vec::new());
        };
        Ok(self
            .children
            .live_children()
            .filter(|child| {
                wanted(child)
                    && authorize::may_act_on(&self.config, caller.peer().uid, child.owner().uid)
                    && has_labels(child.view(), labels)
            })
            .map(Child::id)
            .collect())
    }
}
