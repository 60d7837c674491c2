//! Whose rights in the file system count where the broker looks at something for a user.

use procbroker_core::RunAs;

/// Whose rights count when a path is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The broker's own rights: everything, where it is root.
    Own,
    /// Those of another user, and of nobody else: not even the broker's groups and capabilities count.
    Of {
        /// The user id.
        uid: u32,
        /// The id of the primary group.
        gid: u32,
        /// The ids of the supplementary groups.
        groups: Vec<u32>,
    },
}

impl Rights {
    /// Those of a child that runs so.
    #[must_use]
    pub fn of(run_as: &RunAs) -> Self {
        match run_as {
            RunAs::Broker => Self::Own,
            RunAs::User { uid, gid, groups, .. } => Self::Of { uid: *uid, gid: *gid, groups: groups.clone() },
        }
    }
}
