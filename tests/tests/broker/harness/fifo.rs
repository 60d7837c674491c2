//! A named pipe between a test and the children of its broker.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::PATIENCE;

/// A pipe that children write lines to, or that they read until the test lets go of it.
#[derive(Debug)]
pub(crate) struct Fifo {
    path: PathBuf,
    end: File,
    unread: Vec<u8>,
}

impl Fifo {
    /// Makes it, for everybody.
    pub(crate) fn make(path: PathBuf) -> Self {
        mkfifo(&path, Mode::from_bits_truncate(0o666)).expect("a named pipe");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        // Open for both, so that neither this nor any child waits for the other to open it.
        let end = OpenOptions::new().read(true).write(true).open(&path).expect("a named pipe");
        Self { path, end, unread: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next line that a child writes.
    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(length) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.drain(..=length).collect::<Vec<_>>();
                return String::from_utf8(line).expect("a line of text").trim_end().to_owned();
            }
            let mut fds = [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap();
            assert!(ready > 0, "no child wrote a line to {}", self.path.display());
            let mut chunk = [0; 4096];
            let length = self.end.read(&mut chunk).unwrap();
            self.unread.extend_from_slice(&chunk[..length]);
        }
    }

    /// So many lines, in the order in which they came.
    pub(crate) fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// What has been written and not read, now that nobody writes any more.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.end.write_all(b"\nend of the rest\n").unwrap();
        let mut lines = Vec::new();
        loop {
            match self.line().as_str() {
                "end of the rest" => return lines,
                "" => {}
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// Writes a line, for one child to read.
    pub(crate) fn say(&mut self, line: &str) {
        self.end.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}
