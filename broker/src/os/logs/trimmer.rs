//! The bound of the output of each child: a thread that releases the oldest blocks of files that hold more.
//!
//! While children are silent it sleeps. The first write to any file of the folder wakes it; then it looks at all sizes
//! with pauses in between, as often as the fastest file needs it, until none grows any more. A child that writes pays
//! nothing for it but the one event, and the broker some looks a second at most.

mod pause;
mod sizes;
mod wait;

use std::io;
use std::thread;
use std::time::Instant;

use super::{Logs, LogsError};
use pause::Pause;
use sizes::{Look, Sizes};
use wait::{FolderWatch, StopReceiver, Stopper, Woken};

/// How much memory the thread may use for its calls, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// Keeps the bound for as long as this lives.
#[derive(Debug)]
pub struct LogTrimmer {
    /// Ends the thread when it is dropped. Nobody waits for that: a disk that does not answer may hold it.
    _stopper: Stopper,
}

impl LogTrimmer {
    /// Starts to hold every file of output to so many bytes, beginning with those that have more already.
    ///
    /// How far a file may exceed the bound for a moment depends on how fast it grows: by an eighth where that takes a
    /// tenth of a second or longer.
    ///
    /// # Errors
    /// When the system refuses a thread or a pipe.
    pub fn start(logs: &Logs, bound_bytes: u64) -> Result<Self, LogsError> {
        Self::start_telling(logs, bound_bytes, |_| {})
    }

    /// The same, telling of every look.
    fn start_telling(
        logs: &Logs,
        bound_bytes: u64,
        told: impl FnMut(&Look) + Send + 'static,
    ) -> Result<Self, LogsError> {
        let refused =
            |source| LogsError { attempt: "watch over the sizes in", path: logs.folder().to_owned(), source };
        let (stopper, order) = wait::stopper().map_err(|errno| refused(io::Error::from(errno)))?;
        let mut work = Work {
            sizes: Sizes::new(logs.folder().to_owned(), bound_bytes),
            watch: FolderWatch::new(logs.folder().to_owned()),
            stopped: order,
            pause: Pause::default(),
            warned: Warned::default(),
            told,
        };
        let builder = thread::Builder::new().name("log-trimmer".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || work.run()).map_err(refused)?;
        Ok(Self { _stopper: stopper })
    }
}

/// Whether what cannot be done was told: once is enough until it has been possible again.
#[derive(Debug, Default)]
struct Warned {
    looking: bool,
    watching: bool,
}

/// What the thread works with.
struct Work<T> {
    sizes: Sizes,
    watch: FolderWatch,
    stopped: StopReceiver,
    pause: Pause,
    warned: Warned,
    told: T,
}

impl<T: FnMut(&Look)> Work<T> {
    /// Works until it is told to stop, or finds that the file system cannot release anything.
    fn run(&mut self) {
        let mut armed = false;
        loop {
            let began = Instant::now();
            let look = self.look();
            (self.told)(&look);
            if look.cannot_release {
                return;
            }
            self.pause.looked(began.elapsed());
            if look.grew {
                armed = false;
                if self.stopped.comes_within(self.pause.after_growth(look.until_due)) {
                    return;
                }
            } else if !armed {
                // What was written before the watch was there is found by one more look.
                armed = true;
                self.arm();
            } else {
                armed = false;
                let fallback = self.warned.watching.then(|| self.pause.longest());
                match self.watch.wait(&self.stopped, fallback) {
                    Woken::Stop => return,
                    Woken::Written | Woken::TimeUp => {}
                }
                if self.stopped.comes_within(self.pause.after_silence()) {
                    return;
                }
            }
        }
    }

    fn look(&mut self) -> Look {
        let look = self.sizes.look(Instant::now());
        match &look.failure {
            None => self.warned.looking = false,
            Some(error) if look.cannot_release => {
                tracing::warn!(%error, "the file system of the state folder cannot release parts of files, so that \
                     the output of children is not bounded; keep it on another one (--state-dir)");
            }
            Some(error) if !self.warned.looking => {
                self.warned.looking = true;
                tracing::warn!(%error, "the output of children may exceed its bound");
            }
            Some(_) => {}
        }
        look
    }

    fn arm(&mut self) {
        match self.watch.arm() {
            Ok(()) => self.warned.watching = false,
            Err(errno) if !self.warned.watching => {
                self.warned.watching = true;
                tracing::warn!(
                    error = %io::Error::from(errno),
                    "cannot watch the output of children (fs.inotify.max_user_instances); its size is looked at \
                     every few seconds instead"
                );
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
