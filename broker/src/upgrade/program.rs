//! The program that is executed by an upgrade, and how it is executed.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::error::UpgradeError;
use super::handover::Handover;
use super::start::{Start, environment};
use super::{history, manifest};
use crate::os::process::signal_mask::HeldBack;
use crate::os::process::variables::{FORMER_VARIABLE, MANIFEST_VARIABLE, START_VARIABLE};

/// The program that is in the place of this one, with what it is told: as this one was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

impl Program {
    /// How this program was started: to be called early, before anybody replaces its file.
    ///
    /// It is found by the name that it was called by, and not by the file that this turned out to be: a link to the
    /// present version will be one to the next.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn own() -> io::Result<Self> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let called = arguments.first().map(PathBuf::from).unwrap_or_default();
        let path = if called.as_os_str().as_bytes().contains(&b'/') {
            std::path::absolute(&called)?
        } else {
            match in_path(&called, &std::env::var_os("PATH").unwrap_or_default()) {
                Some(path) => path,
                None => std::env::current_exe()?,
            }
        };
        Ok(Self { path, arguments })
    }

    /// Returns the path by which the program is executed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Becomes this program. It returns only when that fails, and nothing has changed then.
    ///
    /// Signals have to be [held back](HeldBack) until the new program is ready for them: a SIGTERM in between would
    /// end the broker and leave its children.
    #[must_use]
    pub fn execute(&self, handover: &Handover<'_>, _held_back: &HeldBack) -> UpgradeError {
        // Whatever is in the place of its file by now.
        let own = match File::open("/proc/self/exe") {
            Ok(own) => own,
            Err(error) => return UpgradeError::KeepProgram(error),
        };
        let start = match Start::own().write() {
            Ok(start) => start,
            Err(error) => return UpgradeError::Pack(error),
        };
        let packed = history::write(&handover.events)
            .and_then(|(count, events)| Ok((manifest::pack(handover, (count, events.as_raw_fd()))?, events)));
        let (manifest, events) = match packed {
            Ok(packed) => packed,
            Err(error) => return UpgradeError::Pack(error),
        };
        let beside = [manifest.as_fd(), events.as_fd(), own.as_fd(), start.as_fd()];
        let kept: Vec<BorrowedFd<'_>> = handover.descriptors().chain(beside).collect();
        let error = match keep_open(&kept) {
            Ok(()) => self.execute_with([
                told(MANIFEST_VARIABLE, manifest.as_raw_fd()),
                told(FORMER_VARIABLE, own.as_raw_fd()),
                told(START_VARIABLE, start.as_raw_fd()),
            ]),
            Err(error) => error,
        };
        for descriptor in kept {
            // It was set before, so that it can be set.
            let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
        error
    }

    fn execute_with(&self, words: [OsString; 3]) -> UpgradeError {
        let failed = |errno| UpgradeError::Execute { program: self.path.clone(), errno };
        let arguments = c_strings(self.arguments.iter().cloned());
        let environment = c_strings(environment().into_iter().chain(words));
        match (text(self.path.as_os_str()), arguments, environment) {
            (Some(path), Some(arguments), Some(environment)) => {
                match nix::unistd::execve(&path, &arguments, &environment) {
                    Err(errno) => failed(errno),
                }
            }
            _ => failed(Errno::EINVAL),
        }
    }
}

/// What tells the program that is executed in this process of a descriptor.
pub(super) fn told(variable: &str, descriptor: RawFd) -> OsString {
    format!("{variable}={}:{descriptor}", std::process::id()).into()
}

/// What execve(2) takes; nothing where a NUL is in one of them.
pub(super) fn c_strings(words: impl Iterator<Item = OsString>) -> Option<Vec<CString>> {
    words.map(|word| text(&word)).collect()
}

/// Lets descriptors stay open in the next program.
pub(super) fn keep_open(descriptors: &[BorrowedFd<'_>]) -> Result<(), UpgradeError> {
    descriptors.iter().try_for_each(|descriptor| {
        let result = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()));
        let number = descriptor.as_raw_fd();
        result.map(drop).map_err(|errno| UpgradeError::Keep { descriptor: number, errno })
    })
}

fn text(value: &OsStr) -> Option<CString> {
    CString::new(value.as_bytes()).ok()
}

/// The first program of this name in a list of folders, as a shell finds it.
fn in_path(name: &Path, folders: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
