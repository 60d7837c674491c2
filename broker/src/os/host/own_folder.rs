//! Folders and files that have to be the broker's own: opened without following links, and refused where somebody else
//! could have made them or can change them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use thiserror::Error;

/// The permissions that make a folder or a file somebody else's as well.
const WRITE_BY_OTHERS: u32 = 0o022;

/// What is said of something with any of them.
const WRITABLE: &str = "can be written to by others";

/// A folder that is open, and whose entries are reached through its descriptor: a folder or a link that is put in its
/// place later is not followed.
#[derive(Debug)]
pub struct OwnFolder {
    path: PathBuf,
    descriptor: OwnedFd,
}

/// Something cannot be used as the broker's own.
#[derive(Debug, Error)]
pub enum OwnError {
    /// The system refuses what was attempted.
    #[error("cannot {attempt} {path}: {source}")]
    Refused {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could have made it, or can change it.
    #[error("{path} is not to be trusted: it {flaw}; see who put it there, and remove it")]
    Untrusted {
        /// What it is about.
        path: PathBuf,
        /// What is wrong with it.
        flaw: &'static str,
    },
}

impl OwnError {
    fn refused(attempt: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Refused { attempt, path: path.to_owned(), source: errno.into() }
    }

    /// Whether there is nothing of that name.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Refused { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Untrusted { .. } => false,
        }
    }
}

impl OwnFolder {
    /// Opens a folder that is there, as its path says: that it is the broker's own is for the caller to
    /// [check](Self::check_closed).
    ///
    /// # Errors
    /// When it is a link or no folder, or when the system refuses.
    pub fn open(path: &Path) -> Result<Self, OwnError> {
        Self::at(AT_FDCWD, path, path.to_owned())
    }

    /// A folder that an earlier program of this process has opened and checked.
    #[must_use]
    pub fn passed(path: PathBuf, descriptor: OwnedFd) -> Self {
        Self { path, descriptor }
    }

    /// Opens the folder once more, by a descriptor of its own.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn try_clone(&self) -> Result<Self, OwnError> {
        let descriptor = self.descriptor.try_clone();
        let refused = |source| OwnError::Refused { attempt: "keep open", path: self.path.clone(), source };
        Ok(Self { path: self.path.clone(), descriptor: descriptor.map_err(refused)? })
    }

    fn at(folder: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Self, OwnError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(folder, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Self { path, descriptor }),
            // What a link gives depends on what O_DIRECTORY is checked before (open(2)).
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                Err(OwnError::Untrusted { path, flaw: "is a link, or no folder" })
            }
            Err(errno) => Err(OwnError::refused("open", &path)(errno)),
        }
    }

    /// Where it is, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder is the broker's own, and nobody else's to write to.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_own(&self) -> Result<(), OwnError> {
        self.check(WRITE_BY_OTHERS, WRITABLE)
    }

    /// Whether the folder is the broker's own, and nobody else's to enter.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_closed(&self) -> Result<(), OwnError> {
        self.check(0o077, "is open to others (its mode is not 0700)")
    }

    /// Whether the folder is the broker's own, and nobody else's to look into: they may pass through at most.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_passable(&self) -> Result<(), OwnError> {
        self.check(0o066, "is open to others (its mode is neither 0700 nor 0711)")
    }

    /// A folder in this one, made where it is missing, that is the broker's own, and that others may pass through at most.
    ///
    /// # Errors
    /// When something else is in its place, or the system refuses.
    pub fn passable_subfolder(&self, name: &str) -> Result<Self, OwnError> {
        let folder = self.make(name)?;
        folder.check_passable()?;
        Ok(folder)
    }

    fn check(&self, forbidden: u32, flaw: &'static str) -> Result<(), OwnError> {
        let found = fstat(&self.descriptor).map_err(OwnError::refused("read", &self.path))?;
        match flaw_of(&found, forbidden, flaw) {
            None => Ok(()),
            Some(flaw) => Err(OwnError::Untrusted { path: self.path.clone(), flaw }),
        }
    }

    /// A folder in this one that is there: that it is the broker's own is for the caller to check.
    ///
    /// # Errors
    /// When it is a link or no folder, or when the system refuses.
    pub fn folder(&self, name: &str) -> Result<Self, OwnError> {
        Self::at(self.descriptor.as_fd(), Path::new(name), self.path.join(name))
    }

    /// A folder in this one, made where it is missing, that is the broker's own and closed to others.
    ///
    /// # Errors
    /// When something else is in its place, or the system refuses.
    pub fn subfolder(&self, name: &str) -> Result<Self, OwnError> {
        let folder = self.make(name)?;
        folder.check_closed()?;
        Ok(folder)
    }

    fn make(&self, name: &str) -> Result<Self, OwnError> {
        let path = self.path.join(name);
        match mkdirat(&self.descriptor, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(OwnError::refused("make the folder", &path)(errno)),
        }
        Self::at(self.descriptor.as_fd(), Path::new(name), path)
    }

    /// Opens a file in this folder, or makes it, mode 0600, where the flags say so. It is a regular file of the broker's
    /// own, with one link, and nobody else can write to it.
    ///
    /// # Errors
    /// When it is anything else, or the system refuses.
    pub fn file(&self, name: &str, flags: OFlag) -> Result<File, OwnError> {
        let path = self.path.join(name);
        // What is no file may wait for somebody at its other end.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = match openat(&self.descriptor, name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => file,
            Err(Errno::ELOOP) => return Err(OwnError::Untrusted { path, flaw: "is a link" }),
            Err(Errno::ENXIO) => return Err(OwnError::Untrusted { path, flaw: "is no file" }),
            Err(errno) => return Err(OwnError::refused("open", &path)(errno)),
        };
        check_file(&file, &path)?;
        Ok(file.into())
    }

    /// Whether what is in the place of a path is this folder, still.
    ///
    /// # Errors
    /// When it is another one, or the system refuses.
    pub fn check_in_place(&self) -> Result<(), OwnError> {
        let own = fstat(&self.descriptor).map_err(OwnError::refused("read", &self.path))?;
        if place_of(&self.path)? == (own.st_dev, own.st_ino) {
            Ok(())
        } else {
            Err(OwnError::Untrusted {
                path: self.path.clone(),
                flaw: "was put in the place of another folder",
            })
        }
    }

    /// Whether there is a file of that name that is the broker's own, as [`file`](Self::file) would open it.
    ///
    /// # Errors
    /// When it is there and is anything else, or the system refuses.
    pub fn has_file(&self, name: &str) -> Result<bool, OwnError> {
        let path = self.path.join(name);
        match fstatat(&self.descriptor, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => match flaw_of_file(&found) {
                None => Ok(true),
                Some(flaw) => Err(OwnError::Untrusted { path, flaw }),
            },
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(OwnError::refused("read", &path)(errno)),
        }
    }

    /// Whether everything in it, files and folders, is the broker's own; what is in the folders is not looked at.
    ///
    /// # Errors
    /// When something is not, or the system refuses.
    pub fn check_entries(&self) -> Result<(), OwnError> {
        for name in self.entries()? {
            let path = self.path.join(&name);
            let found = match fstatat(&self.descriptor, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                // A name that is not UTF-8 stands here as another one, and is nothing that a broker opens.
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(OwnError::refused("read", &path)(errno)),
            };
            let flaw = if kind_of(&found) == SFlag::S_IFDIR {
                flaw_of(&found, WRITE_BY_OTHERS, WRITABLE)
            } else {
                flaw_of_file(&found)
            };
            if let Some(flaw) = flaw {
                return Err(OwnError::Untrusted { path, flaw });
            }
        }
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When the system refuses. That there is none is no error.
    pub fn remove(&self, name: &str) -> Result<(), OwnError> {
        self.unlink(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes a folder in this one, if nothing is in it.
    ///
    /// # Errors
    /// When the system refuses. That there is none is no error.
    pub fn remove_folder(&self, name: &str) -> Result<(), OwnError> {
        self.unlink(name, UnlinkatFlags::RemoveDir)
    }

    fn unlink(&self, name: &str, flag: UnlinkatFlags) -> Result<(), OwnError> {
        match unlinkat(&self.descriptor, name, flag) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(OwnError::refused("remove", &self.path.join(name))(errno)),
        }
    }

    /// What is in it, by name; a name that is not UTF-8 is not the broker's, and stands here as it can be read.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn entries(&self) -> Result<Vec<String>, OwnError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let refused = || OwnError::refused("list", &self.path);
        let mut folder = Dir::openat(&self.descriptor, ".", flags, Mode::empty()).map_err(refused())?;
        let mut names = Vec::new();
        for entry in folder.iter() {
            let name = entry.map_err(refused())?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl AsFd for OwnFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether an open file is a regular one of the broker's own, with one name at most, to which nobody else can write.
///
/// # Errors
/// When it is not.
pub fn check_file(file: impl AsFd, path: &Path) -> Result<(), OwnError> {
    let found = fstat(file).map_err(OwnError::refused("read", path))?;
    match flaw_of_file(&found) {
        None => Ok(()),
        Some(flaw) => Err(OwnError::Untrusted { path: path.to_owned(), flaw }),
    }
}

/// The file, or the folder, that is in the place of another one now, if any is: its device and its inode.
///
/// # Errors
/// When the system refuses.
pub fn place_of(path: &Path) -> Result<(u64, u64), OwnError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = open(path, flags, Mode::empty()).and_then(|descriptor| fstat(&descriptor));
    found.map(|found| (found.st_dev, found.st_ino)).map_err(OwnError::refused("read", path))
}

fn flaw_of(found: &FileStat, forbidden: u32, open: &'static str) -> Option<&'static str> {
    if found.st_uid != geteuid().as_raw() {
        Some("belongs to another user")
    } else if found.st_mode & forbidden != 0 {
        Some(open)
    } else {
        None
    }
}

fn kind_of(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

fn flaw_of_file(found: &FileStat) -> Option<&'static str> {
    let kind = kind_of(found);
    if kind == SFlag::S_IFLNK {
        return Some("is a link");
    }
    if kind != SFlag::S_IFREG {
        return Some("is no file");
    }
    let flaw = flaw_of(found, WRITE_BY_OTHERS, WRITABLE);
    flaw.or_else(|| (found.st_nlink > 1).then_some("has a second name (a hard link)"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn flaw<T: std::fmt::Debug>(result: Result<T, OwnError>) -> &'static str {
        match result.unwrap_err() {
            OwnError::Untrusted { flaw, .. } => flaw,
            refused @ OwnError::Refused { .. } => panic!("{refused}"),
        }
    }

    #[test]
    fn a_file_that_is_not_the_brokers_alone_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = OwnFolder::open(scratch.path()).unwrap();
        let at = |name: &str| scratch.path().join(name);
        drop(folder.file("own", OFlag::O_RDWR | OFlag::O_CREAT).unwrap());
        assert!(folder.has_file("own").unwrap() && !folder.has_file("none").unwrap());
        symlink(at("own"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("open"), "").unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o620)).unwrap();
        fs::write(at("two"), "").unwrap();
        fs::hard_link(at("two"), at("names")).unwrap();
        for (name, said) in [
            ("link", "is a link"),
            ("fifo", "is no file"),
            ("folder", "is no file"),
            ("open", "can be written to by others"),
            ("two", "has a second name (a hard link)"),
        ] {
            assert_eq!(flaw(folder.file(name, OFlag::O_RDONLY)), said, "{name}");
            assert_eq!(flaw(folder.has_file(name)), said, "{name}");
            if name != "folder" {
                let within = OwnFolder::open(&at("folder")).unwrap();
                within.check_entries().unwrap();
                fs::rename(at(name), at("folder").join(name)).unwrap();
                assert_eq!(flaw(within.check_entries()), said, "{name}");
                fs::remove_file(at("folder").join(name)).unwrap();
                fs::create_dir_all(at("folder").join("below")).unwrap();
            }
        }
        if geteuid().is_root() {
            fs::write(at("others"), "").unwrap();
            chown(at("others"), Some(65_534), None).unwrap();
            assert_eq!(flaw(folder.file("others", OFlag::O_RDWR)), "belongs to another user");
        }
    }

    #[test]
    fn a_folder_that_is_not_the_brokers_alone_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = OwnFolder::open(scratch.path()).unwrap();
        let made = folder.subfolder("made").unwrap();
        assert_eq!(fs::metadata(made.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let at = |name: &str| scratch.path().join(name);
        symlink(at("made"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o755)).unwrap();
        for name in ["link", "file"] {
            assert_eq!(flaw(folder.subfolder(name)), "is a link, or no folder", "{name}");
        }
        assert!(flaw(folder.subfolder("open")).starts_with("is open to others"));
        OwnFolder::open(&at("open")).unwrap().check_own().unwrap();
        assert!(OwnFolder::open(&at("none")).unwrap_err().is_absence());
        if geteuid().is_root() {
            chown(at("made"), Some(65_534), None).unwrap();
            assert_eq!(flaw(folder.subfolder("made")), "belongs to another user");
        }
    }
}
