//! Whose children are, by name, where they are not all of one user.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::unistd::{Uid, User};
use procbroker_protocol::Child;

use super::escape::escaped;

/// The names of the users of children; none where there is only one user.
pub(super) struct Users(BTreeMap<u32, String>);

impl Users {
    /// The users of these children.
    pub(super) fn of(children: &[Arc<Child>]) -> Self {
        let mut users: BTreeMap<u32, String> =
            children.iter().map(|child| (child.owner.uid, String::new())).collect();
        if users.len() < 2 {
            return Self(BTreeMap::new());
        }
        for (uid, name) in &mut users {
            *name = name_of(*uid);
        }
        Self(users)
    }

    /// The user who has created this child, where that tells it apart from others.
    pub(super) fn owner(&self, child: &Child) -> Option<&str> {
        self.0.get(&child.owner.uid).map(String::as_str)
    }
}

/// The name of a user, or its number where it has none here.
fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| escaped(&user.name))
}
