//! The FIFO through which a child says that its first instruction runs.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::failure::{Attempt, Failure};
use crate::scene::Scene;

/// How long a child may take to say hello, in milliseconds, before something is wrong.
const PATIENCE_MS: u16 = 10_000;

/// A FIFO. Its file is in the scene's folder.
#[derive(Debug)]
pub(crate) struct Hello {
    path: PathBuf,
    fifo: File,
}

impl Hello {
    pub(crate) fn new(scene: &Scene, name: &str) -> Result<Self, Failure> {
        let path = scene.path(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).attempting("make a FIFO")?;
        // Open for writing as well, so that it never ends and no opening waits for the other side.
        let fifo = OpenOptions::new().read(true).write(true).open(&path).attempting("open a FIFO")?;
        Ok(Self { path, fifo })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for one child's hello.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        let attempt = "wait for a child to say hello";
        let mut ready = [PollFd::new(self.fifo.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(PATIENCE_MS)).attempting(attempt)? == 0 {
            return Err(Failure::unexpected(attempt, "it said nothing for 10 seconds"));
        }
        (&self.fifo).read_exact(&mut [0]).attempting(attempt)
    }
}
