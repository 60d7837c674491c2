//! Where the broker is, and how long to try to reach it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procbroker_protocol::socket_path::{self, Origin, Place};

/// How long connecting may take unless set otherwise. A broker that is restarted is back within a
/// fraction of it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time for connecting: a year. It keeps the sum with any moment in range.
pub(crate) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What to do when nobody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Say so at once.
    AtOnce,
    /// Try again until the time for connecting is up.
    UntilTimeout,
}

/// The way to a broker.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) socket: PathBuf,
    pub(crate) connect_timeout: Duration,
    /// Of the first connection; a lost one is always tried again until the time is up.
    pub(crate) patience: Patience,
}

/// The socket that a client uses when none is named: `$PROCBROKER_SOCKET`, else the user's own broker's if it
/// is there, else the machine's.
///
/// A folder below `/tmp` that belongs to somebody else, or is open to others, is passed over: anybody
/// could have put it there.
#[must_use]
pub fn default_socket() -> PathBuf {
    let uid = nix::unistd::geteuid().as_raw();
    let usable = |place: &Place| match place.origin {
        Origin::Named | Origin::System | Origin::User => place.path.exists(),
        Origin::Temporary => {
            place.path.parent().is_some_and(|folder| is_private(folder, uid)) && place.path.exists()
        }
    };
    socket_path::client_socket(uid, |name| std::env::var_os(name), usable).path
}

/// Whether a path is a folder (not a link to one) of this user that nobody else may enter.
fn is_private(folder: &Path, uid: u32) -> bool {
    folder
        .symlink_metadata()
        .is_ok_and(|found| found.is_dir() && found.uid() == uid && found.mode() & 0o777 == 0o700)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_folder_of_ones_own_that_is_closed_to_others_is_private() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("procbroker");
        let uid = nix::unistd::geteuid().as_raw();
        assert!(!is_private(&folder, uid));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        assert!(is_private(&folder, uid));
        assert!(!is_private(&folder, uid + 1));
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(!is_private(&link, uid));
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o750)).unwrap();
        assert!(!is_private(&folder, uid));
    }
}
