//! What a create has to do about the child that holds its name.

use std::sync::Arc;

use procbroker_protocol::create::IfExists;
use procbroker_protocol::{Child as ChildView, ChildId, Error, ErrorKind, Holder, Name};

use crate::attempt::{Attempt, Claim, Stage};
use crate::authorize;
use crate::children::Children;
use crate::config::Config;

/// What is to be done about a create, as far as the name decides.
pub(super) enum Holding {
    /// No live child has the name, or none is asked for.
    Free,
    /// The holder of the name is the answer.
    Existing { child: Arc<ChildView>, same_spec: bool },
    /// The holder of the name has to change first.
    Wait { holder: ChildId },
    /// The holder of the name has to go first.
    Replace { holder: ChildId },
}

impl Holding {
    /// Decides about a create of a user.
    ///
    /// # Errors
    /// `name_taken`, where the create does not want the holder, or its user may not have it.
    pub(super) fn of(
        children: &Children,
        config: &Config,
        uid: u32,
        attempt: &Attempt,
    ) -> Result<Self, Error> {
        let Some((name, child)) =
            attempt.params.name.as_ref().and_then(|name| Some((name, children.holder(name)?)))
        else {
            return Ok(Self::Free);
        };
        let holder = child.id();
        // One that never was is no reason to refuse another one, nor to tell it that something was replaced.
        if children.is_void(holder) {
            return Ok(Self::Wait { holder });
        }
        if !authorize::may_act_on(config, uid, child.owner().uid) {
            let message = format!("the name {name} is taken by a child of another user; choose another name");
            return Err(Error::new(ErrorKind::NameTaken(None), message));
        }
        match attempt.claim {
            Claim::Own(IfExists::Fail) => Err(name_taken(name, child.view())),
            Claim::Own(IfExists::Replace) => Ok(Self::Replace { holder }),
            Claim::Own(IfExists::Reuse) | Claim::Yielded | Claim::Superseded
                if child.has_come_to(Stage::of(&attempt.params)) && !child.is_ending() =>
            {
                let same_spec = child.has_same_spec(config, uid, attempt);
                Ok(Self::Existing { child: Arc::clone(child.view()), same_spec })
            }
            Claim::Own(IfExists::Reuse) | Claim::Yielded | Claim::Superseded => Ok(Self::Wait { holder }),
        }
    }
}

fn name_taken(name: &Name, holder: &ChildView) -> Error {
    Error::new(
        ErrorKind::NameTaken(Some(Holder { id: holder.id, state: holder.state })),
        format!(
            "the name {name} is held by the child {} ({}); use if_exists reuse or replace, or another name",
            holder.id,
            holder.state.as_str()
        ),
    )
}
