//! Makes folders, and refuses those that others could have made or can change.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use procbroker_protocol::socket_path::Origin;
use thiserror::Error;

/// A folder that the broker cannot use.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It cannot be made or read.
    #[error("cannot {attempt} the folder {path}: {source}; make it, or give another path")]
    Refused {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The folder that is to be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is there, and somebody else could have put it there or can change it.
    #[error("the folder {path} is not to be trusted: it {flaw}; remove it, or give another path")]
    Untrusted {
        /// The folder that is to be used.
        path: PathBuf,
        /// What is wrong with it.
        flaw: &'static str,
    },
}

/// Whether a folder was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FolderOrigin {
    /// It has just been made.
    Made,
    /// Somebody else has made it, such as an earlier broker.
    Found,
}

/// Makes a folder and those above it, where they are missing, and looks at one that anybody could have made.
pub(crate) fn make_folder(path: &Path, origin: Origin) -> Result<(), FolderError> {
    let mode = match origin {
        Origin::System => 0o755,
        Origin::User | Origin::Temporary | Origin::Named => 0o700,
    };
    let result = DirBuilder::new().recursive(true).mode(mode).create(path);
    result.map_err(|source| FolderError::Refused { attempt: "make", path: path.to_owned(), source })?;
    if origin == Origin::Temporary {
        // Below /tmp: the first part of the path that is not /tmp itself is what others could have made.
        let top = path.ancestors().filter(|folder| folder.parent() == Some(Path::new("/tmp"))).last();
        trust(top.unwrap_or(path))?;
    }
    Ok(())
}

/// Refuses a folder that is not the broker's user's own, and closed to all others.
fn trust(path: &Path) -> Result<(), FolderError> {
    let found = fs::symlink_metadata(path);
    let found =
        found.map_err(|source| FolderError::Refused { attempt: "read", path: path.to_owned(), source })?;
    let flaw = if found.file_type().is_symlink() {
        "is a symbolic link"
    } else if !found.is_dir() {
        "is no folder"
    } else if found.uid() != geteuid().as_raw() {
        "belongs to another user"
    } else if found.mode() & 0o077 != 0 {
        "is open to others (its mode is not 0700)"
    } else {
        return Ok(());
    };
    Err(FolderError::Untrusted { path: path.to_owned(), flaw })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_can_change_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        trust(&path).unwrap();
        let flaw = |path: &Path| match trust(path) {
            Err(FolderError::Untrusted { flaw, .. }) => flaw,
            other => panic!("{other:?}"),
        };
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        assert_eq!(flaw(&path), "is open to others (its mode is not 0700)");
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(flaw(&link), "is a symbolic link");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(flaw(&file), "is no folder");
        if geteuid().is_root() {
            chown(&path, Some(12_345), None).unwrap();
            assert_eq!(flaw(&path), "belongs to another user");
        }
    }
}
