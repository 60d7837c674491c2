//! `renew`: gives children with a time to live their whole time again, from now on.

use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{ChildId, Error, ErrorKind, Response, Target};

use crate::broker::Broker;
use crate::child::{Child, Next};
use crate::ids::Call;
use crate::turn::Turn;

impl Broker {
    /// `renew`: children that are meant by labels and have no time to live are left out.
    pub(crate) fn renew(&mut self, call: Call, params: &ManyParams, turn: &mut Turn<'_>) {
        let wanted = |child: &Child| !child.is_ending() && self.leases.is_timed(child.id());
        let children = match self.resolve(call.connection, &params.target, wanted) {
            Ok(children) => children,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        if let Err(error) = self.check_renewable(&params.target, &children) {
            return self.answer(call, Err(error), turn);
        }
        for id in &children {
            if let Some(until) = self.leases.renew(*id, turn.now.instant, &mut self.timers) {
                self.with_child(*id, turn, |child, orders| {
                    child.expires_at(until, orders);
                    Next::Nothing
                });
            }
        }
        let shown = self.children.views(&children);
        self.promise(call, Ok(Response::Children(shown)), turn);
    }

    /// Whether the one child that a target names can be renewed.
    fn check_renewable(&self, target: &Target, children: &[ChildId]) -> Result<(), Error> {
        match (target, children) {
            (Target::Id(_) | Target::Name(_), [id]) => {
                if self.children.get(*id).is_none_or(Child::is_ending) {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!(
                            "the child {} is ending or has ended, and cannot be renewed; create it anew",
                            self.children.title(*id)
                        ),
                    ));
                }
                if !self.leases.is_timed(*id) {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "cannot renew the child {}: it has no time to live (lifetime ttl)",
                            self.children.title(*id)
                        ),
                    ));
                }
                Ok(())
            }
            (Target::Id(_) | Target::Name(_) | Target::Labels(_) | Target::All, _) => Ok(()),
        }
    }
}
