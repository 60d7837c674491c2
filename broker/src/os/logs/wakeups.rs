//! Wakes followers when there may be more for them: one inotify instance for all, and a watch for each file that says
//! one word and is gone, so that a child whose followers are busy pays nothing for them.
#![expect(
    unsafe_code,
    reason = "tokio has to be promised that the instance stays open while it is registered"
)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::limits::UNWATCHED_LOG_REST;

/// What a follower waits for.
#[derive(Clone, Copy, Debug)]
pub enum Awaited<'a> {
    /// More in this file.
    Written(&'a Path),
    /// That a file is made, or passed on to a child.
    Made,
}

/// Where watches are made.
#[derive(Debug)]
pub struct Wakeups {
    folder: PathBuf,
    state: Mutex<State>,
    warned: AtomicBool,
}

/// The instance, once there was a follower, and who waits for which watch.
#[derive(Debug, Default)]
struct State {
    instance: Option<Arc<AsyncFd<Instance>>>,
    waiting: HashMap<WatchDescriptor, Vec<oneshot::Sender<()>>>,
}

#[derive(Debug)]
struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A watch that goes off once.
#[derive(Debug)]
pub enum Watch {
    /// When this comes.
    Set(oneshot::Receiver<()>),
    /// Never: the file has no name any more, so that nobody will open it to write.
    Never,
    /// After a while: the system has no watch left.
    Timed,
}

impl Watch {
    /// Waits until there may be more.
    pub async fn wait(self) {
        match self {
            // One that is lost with its instance says that it is time to look, too.
            Self::Set(sign) => drop(sign.await),
            Self::Never => std::future::pending().await,
            Self::Timed => tokio::time::sleep(UNWATCHED_LOG_REST).await,
        }
    }
}

impl Wakeups {
    /// For the files of this folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default(), warned: AtomicBool::new(false) }
    }

    /// Sets a watch. What happened before is not told.
    pub fn arm(self: &Arc<Self>, awaited: Awaited<'_>) -> Watch {
        match self.try_arm(awaited) {
            Ok(sign) => Watch::Set(sign),
            Err(Errno::ENOENT) => Watch::Never,
            Err(errno) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        error = %io::Error::from(errno),
                        "cannot watch the output of children for those who follow it (fs.inotify.max_user_watches); \
                         it is looked at every second instead"
                    );
                }
                Watch::Timed
            }
        }
    }

    fn try_arm(self: &Arc<Self>, awaited: Awaited<'_>) -> Result<oneshot::Receiver<()>, Errno> {
        let (path, flags) = match awaited {
            Awaited::Written(path) => (path, AddWatchFlags::IN_MODIFY),
            Awaited::Made => (self.folder.as_path(), AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO),
        };
        let mut state = self.state();
        let instance = match &state.instance {
            Some(instance) => Arc::clone(instance),
            None => self.open(&mut state)?,
        };
        // The list is locked from before the watch is there until it is on it: whatever the watch says, even that it is
        // gone already because it went off for somebody else just then, finds the one who waits.
        let watch = instance.get_ref().0.add_watch(path, flags | AddWatchFlags::IN_ONESHOT)?;
        let (tell, sign) = oneshot::channel();
        let waiting = state.waiting.entry(watch).or_default();
        waiting.retain(|follower| !follower.is_closed());
        waiting.push(tell);
        Ok(sign)
    }

    fn open(self: &Arc<Self>, state: &mut State) -> Result<Arc<AsyncFd<Instance>>, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: the instance owns its descriptor, which nobody closes or replaces before it is dropped, and always
        // shows the same one.
        let registered = unsafe { AsyncFd::register_with_interest(Instance(inotify), Interest::READABLE) };
        let instance = Arc::new(registered.map_err(|error| {
            let error = io::Error::from(error);
            error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
        })?);
        state.instance = Some(Arc::clone(&instance));
        tokio::spawn(pass_on(Arc::clone(&instance), Arc::downgrade(self)));
        Ok(instance)
    }

    /// Wakes those whose watches have gone off, or all where the kernel had no room to tell which.
    fn wake(&self, events: &[InotifyEvent]) {
        let mut state = self.state();
        if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)) {
            // Who waits is woken by the loss of the sender.
            state.waiting.clear();
        }
        for event in events {
            for follower in state.waiting.remove(&event.wd).unwrap_or_default() {
                // One that is gone needs no waking.
                let _ = follower.send(());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what the kernel says, until nobody can be woken any more.
async fn pass_on(instance: Arc<AsyncFd<Instance>>, wakeups: Weak<Wakeups>) {
    while let Ok(mut ready) = instance.readable().await {
        let Ok(result) = ready.try_io(|instance| Ok(instance.get_ref().0.read_events()?)) else { continue };
        let (Some(wakeups), Ok(events)) = (wakeups.upgrade(), result) else { return };
        wakeups.wake(&events);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;

    fn scene() -> (tempfile::TempDir, PathBuf, Arc<Wakeups>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        let wakeups = Arc::new(Wakeups::new(folder.path().to_owned()));
        (folder, path, wakeups)
    }

    #[tokio::test]
    async fn a_write_wakes_everybody_who_waits_for_it() {
        let (_folder, path, wakeups) = scene();
        let mut file = File::create(&path).unwrap();
        for _ in 0..3 {
            let watches = [wakeups.arm(Awaited::Written(&path)), wakeups.arm(Awaited::Written(&path))];
            file.write_all(b"x").unwrap();
            for watch in watches {
                assert!(matches!(watch, Watch::Set(_)), "{watch:?}");
                watch.wait().await;
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_made_or_passed_on_wakes_those_who_wait_for_it() {
        let (folder, path, wakeups) = scene();
        let watch = wakeups.arm(Awaited::Made);
        fs::write(&path, "").unwrap();
        watch.wait().await;
        let other = folder.path().join("b.out");
        let watch = wakeups.arm(Awaited::Made);
        fs::rename(&path, &other).unwrap();
        watch.wait().await;
    }

    #[tokio::test]
    async fn a_file_that_is_removed_wakes_its_followers_and_is_not_waited_for_again() {
        let (_folder, path, wakeups) = scene();
        fs::write(&path, "").unwrap();
        let watch = wakeups.arm(Awaited::Written(&path));
        fs::remove_file(&path).unwrap();
        watch.wait().await;
        assert!(matches!(wakeups.arm(Awaited::Written(&path)), Watch::Never));
    }

    #[tokio::test]
    async fn those_who_have_gone_are_forgotten() {
        let (_folder, path, wakeups) = scene();
        fs::write(&path, "").unwrap();
        for _ in 0..100 {
            drop(wakeups.arm(Awaited::Written(&path)));
        }
        let state = wakeups.state();
        assert_eq!(state.waiting.values().map(Vec::len).sum::<usize>(), 1);
    }
}
