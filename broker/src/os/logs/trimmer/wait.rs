//! What the trimmer waits for: the first write to any file of the folder, and the order to stop.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::pipe2;

/// Gives the order to stop when it is dropped.
#[derive(Debug)]
pub(super) struct Stopper {
    _writer: OwnedFd,
}

/// Gets the order to stop.
#[derive(Debug)]
pub(super) struct StopReceiver {
    reader: OwnedFd,
}

/// A way to give the order.
pub(super) fn stopper() -> Result<(Stopper, StopReceiver), Errno> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((Stopper { _writer: writer }, StopReceiver { reader }))
}

impl StopReceiver {
    /// Rests for so long, unless the order comes.
    pub(super) fn comes_within(&self, rest: Duration) -> bool {
        wait_for(&[&self.reader], Some(rest)).is_some()
    }
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The order to stop has come.
    Stop,
    /// A file may have been written to.
    Written,
    /// The time is up.
    TimeUp,
}

/// Tells of one write to any file of a folder, each time that it is armed. Later ones cost their writers nothing.
#[derive(Debug)]
pub(super) struct FolderWatch {
    folder: PathBuf,
    inotify: Option<Inotify>,
}

impl FolderWatch {
    /// One that is not armed yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, inotify: None }
    }

    /// Watches for the next write.
    pub(super) fn arm(&mut self) -> Result<(), Errno> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
        };
        // What is left of earlier writes says nothing new. A watch that goes off just now, and so is renewed in vain,
        // says that it is gone after this (IN_IGNORED).
        while inotify.read_events().is_ok() {}
        inotify.add_watch(&self.folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT)?;
        self.inotify = Some(inotify);
        Ok(())
    }

    /// Waits for a write, for the order to stop, or for so long where a time is given.
    pub(super) fn wait(&self, stopped: &StopReceiver, at_most: Option<Duration>) -> Woken {
        let come = match &self.inotify {
            Some(inotify) => wait_for(&[&stopped.reader, inotify], at_most),
            None => wait_for(&[&stopped.reader], at_most),
        };
        match come {
            Some(0) => Woken::Stop,
            Some(_) => Woken::Written,
            None => Woken::TimeUp,
        }
    }
}

/// Waits until one of the descriptors has something to say, and tells which, the first of several; none when the time
/// is up.
fn wait_for(descriptors: &[&dyn AsFd], at_most: Option<Duration>) -> Option<usize> {
    let deadline = at_most.and_then(|at_most| Instant::now().checked_add(at_most));
    let mut waiting: Vec<_> =
        descriptors.iter().map(|descriptor| PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)).collect();
    loop {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut waiting, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return waiting.iter().position(|one| one.any().unwrap_or(true)),
            // It has no memory (ENOMEM): the time passes without news.
            Err(_) => return None,
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;

    #[test]
    fn a_watch_tells_of_the_first_write_each_time_that_it_is_armed() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("a")).unwrap();
        let (_stopper, stopped) = stopper().unwrap();
        let mut watch = FolderWatch::new(folder.path().to_owned());
        for _ in 0..3 {
            watch.arm().unwrap();
            assert_eq!(watch.wait(&stopped, Some(Duration::ZERO)), Woken::TimeUp);
            file.write_all(b"1").unwrap();
            file.write_all(b"2").unwrap();
            assert_eq!(watch.wait(&stopped, None), Woken::Written);
        }
        watch.arm().unwrap();
        watch.arm().unwrap();
        file.write_all(b"3").unwrap();
        assert_eq!(watch.wait(&stopped, None), Woken::Written);
    }

    #[test]
    fn the_order_to_stop_comes_before_everything_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let (stopper, order) = stopper().unwrap();
        let mut watch = FolderWatch::new(folder.path().to_owned());
        watch.arm().unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        assert!(!order.comes_within(Duration::ZERO));
        drop(stopper);
        assert!(order.comes_within(Duration::MAX));
        assert_eq!(watch.wait(&order, None), Woken::Stop);
    }

    #[test]
    fn a_folder_that_is_not_there_cannot_be_watched() {
        let mut watch = FolderWatch::new("/nonexistent/folder".into());
        assert_eq!(watch.arm(), Err(Errno::ENOENT));
        let (_stopper, stopped) = stopper().unwrap();
        assert_eq!(watch.wait(&stopped, Some(Duration::ZERO)), Woken::TimeUp);
    }
}
