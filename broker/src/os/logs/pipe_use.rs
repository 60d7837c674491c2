//! What the log thread does with a child's pipe at this moment, for who looks whether it comes back from that.
//!
//! Whoever moves bytes from or to a pipe within the kernel (splice(2) and the like) holds that pipe as long as the other side
//! keeps them waiting, and whatever the log thread asks of it meanwhile, be it to close it, waits with them: no flag and no signal
//! ends that. So each such step is noted here, by a few writes to memory and no system call, and the [`stalls`](super::stalls)
//! thread looks at it now and then while the log thread is awake. With a log thread that sleeps it sleeps too.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::gettid;

use crate::os::process::proc;

/// How often it is looked at as long as nobody is known to hold pipes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked at in haste.
const LOOK_OFTEN: Duration = Duration::from_millis(50);

/// A timer that is set to nothing is off.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// A pipe, wherever it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PipePlace {
    /// The file system of its name.
    pub(super) device: u64,
    /// Its number there.
    pub(super) inode: u64,
}

impl PipePlace {
    /// Where a pipe is that is open. To ask for it does not wait for whoever holds the pipe.
    pub(super) fn of(pipe: impl AsFd) -> Result<Self, Errno> {
        fstat(pipe).map(|found| Self::told(&found))
    }

    pub(super) fn told(found: &FileStat) -> Self {
        Self { device: found.st_dev, inode: found.st_ino }
    }
}

/// A step that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The how manieth it is: no other has the same number.
    pub(super) number: u64,
    /// Of this pipe.
    pub(super) pipe: PipePlace,
    /// The user whose pipe it is.
    pub(super) user: u32,
}

/// What the two threads share.
#[derive(Debug)]
pub(super) struct PipeUse {
    /// How many steps have begun and ended: odd as long as one is under way.
    count: AtomicU64,
    device: AtomicU64,
    inode: AtomicU64,
    user: AtomicU32,
    /// Whether the log thread does anything but wait for something to do.
    is_awake: AtomicBool,
    /// Whether the timer is set, or about to be set by who looks.
    is_armed: AtomicBool,
    /// Whether there is a reason to look often: who holds pipes, or somebody who waits for the log thread.
    is_in_haste: AtomicBool,
    has_offenders: AtomicBool,
    is_over: AtomicBool,
    /// The number of the log thread, once it has begun.
    thread: AtomicI32,
    timer: TimerFd,
}

impl PipeUse {
    /// Begins with a log thread that sleeps.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            count: AtomicU64::new(0),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            user: AtomicU32::new(0),
            is_awake: AtomicBool::new(false),
            is_armed: AtomicBool::new(false),
            is_in_haste: AtomicBool::new(false),
            has_offenders: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?,
        })
    }

    /// The calling thread is the log thread, and has something to do.
    pub(super) fn begin(&self) {
        self.thread.store(gettid().as_raw(), Ordering::Relaxed);
        self.wake();
    }

    /// Whether the log thread could go on, if it were given a processor: it waits for nobody who holds a pipe.
    pub(super) fn could_go_on(&self) -> bool {
        proc::is_runnable(self.thread.load(Ordering::Relaxed))
    }

    /// The log thread does something that may wait for who holds the pipe.
    pub(super) fn during<T>(&self, pipe: PipePlace, user: u32, step: impl FnOnce() -> T) -> T {
        let count = self.count.load(Ordering::Relaxed);
        // Nobody who sees what follows takes the step before for one that is under way.
        fence(Ordering::Release);
        self.device.store(pipe.device, Ordering::Relaxed);
        self.inode.store(pipe.inode, Ordering::Relaxed);
        self.user.store(user, Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Release);
        let result = step();
        self.count.store(count.wrapping_add(2), Ordering::Release);
        result
    }

    /// The step that is under way, if one is.
    pub(super) fn step(&self) -> Option<Step> {
        let number = self.count.load(Ordering::Acquire);
        let pipe = PipePlace {
            device: self.device.load(Ordering::Relaxed),
            inode: self.inode.load(Ordering::Relaxed),
        };
        let user = self.user.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_whole = self.count.load(Ordering::Relaxed) == number;
        (is_whole && number % 2 == 1).then_some(Step { number, pipe, user })
    }

    /// Whether this very step is under way, still.
    pub(super) fn is_at(&self, step: Step) -> bool {
        self.count.load(Ordering::Acquire) == step.number
    }

    /// The log thread has something to do: from now on it is looked at.
    pub(super) fn wake(&self) {
        // This and the question are in the opposite order of those of who stops looking: one of the two sees the other.
        self.is_awake.store(true, Ordering::SeqCst);
        self.arm_unless_armed();
    }

    /// The log thread waits for something to do, and touches no pipe.
    pub(super) fn rest(&self) {
        self.is_awake.store(false, Ordering::SeqCst);
    }

    /// Somebody waits for the log thread, or nobody any more.
    pub(super) fn set_haste(&self, is_in_haste: bool) {
        self.is_in_haste.store(is_in_haste, Ordering::Relaxed);
        if is_in_haste {
            self.arm();
        }
    }

    /// Whether somebody waits for the log thread.
    pub(super) fn is_in_haste(&self) -> bool {
        self.is_in_haste.load(Ordering::Relaxed)
    }

    /// There are users who have held pipes.
    pub(super) fn note_offenders(&self) {
        self.has_offenders.store(true, Ordering::Relaxed);
    }

    /// The log thread has ended, and so does who looks at it.
    pub(super) fn finish(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.set(AT_ONCE);
    }

    /// Waits until it is time to look; false when there is nothing to look at any more.
    pub(super) fn wait(&self) -> bool {
        // It fails for nothing but a signal, and this thread takes none.
        let _rung_or_interrupted = self.timer.wait();
        !self.is_over.load(Ordering::SeqCst)
    }

    /// Goes on looking if the log thread is awake, and does not else.
    pub(super) fn go_on(&self) {
        if self.is_awake.load(Ordering::Relaxed) {
            self.arm();
            return;
        }
        self.is_armed.store(false, Ordering::SeqCst);
        if self.is_awake.load(Ordering::SeqCst) {
            self.arm_unless_armed();
        }
    }

    /// Looks again after so long, though nothing has helped so far.
    pub(super) fn look_after(&self, pause: Duration) {
        self.set(pause);
    }

    fn arm_unless_armed(&self) {
        if !self.is_armed.load(Ordering::SeqCst) && !self.is_armed.swap(true, Ordering::SeqCst) {
            self.arm();
        }
    }

    fn arm(&self) {
        let is_close = self.is_in_haste() || self.has_offenders.load(Ordering::Relaxed);
        self.set(if is_close { LOOK_OFTEN } else { LOOK_EVERY });
    }

    fn set(&self, pause: Duration) {
        let after = Expiration::OneShot(TimeSpec::from_duration(pause));
        if let Err(errno) = self.timer.set(after, TimerSetTimeFlags::empty()) {
            tracing::debug!(%errno, "cannot set the timer of who looks after the log thread");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: PipePlace = PipePlace { device: 1, inode: 2 };

    #[test]
    fn a_step_is_seen_as_long_as_it_is_under_way_and_no_other_is_taken_for_it() {
        let pipe_use = PipeUse::new().unwrap();
        assert_eq!(pipe_use.step(), None);
        let first = pipe_use.during(PIPE, 7, || pipe_use.step().unwrap());
        assert_eq!((first.pipe, first.user), (PIPE, 7));
        assert!(!pipe_use.could_go_on(), "no thread has begun");
        pipe_use.begin();
        assert!(pipe_use.could_go_on());
        assert_eq!(pipe_use.step(), None);
        pipe_use.during(PIPE, 7, || {
            assert!(!pipe_use.is_at(first));
            assert!(pipe_use.is_at(pipe_use.step().unwrap()));
        });
    }

    /// How long until the timer rings, if it is set.
    fn rings_in(pipe_use: &PipeUse) -> Option<Duration> {
        match pipe_use.timer.get().unwrap()? {
            Expiration::OneShot(left) => Some(Duration::from(left)),
            other @ (Expiration::IntervalDelayed(..) | Expiration::Interval(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_looked_at_while_the_log_thread_sleeps() {
        let pipe_use = PipeUse::new().unwrap();
        assert_eq!(rings_in(&pipe_use), None);
        pipe_use.wake();
        assert!(rings_in(&pipe_use).unwrap() > LOOK_OFTEN);
        // Whoever wakes and sleeps again and again sets it once.
        pipe_use.set(Duration::from_secs(3_600));
        pipe_use.rest();
        pipe_use.wake();
        assert!(rings_in(&pipe_use).unwrap() > LOOK_EVERY);
        pipe_use.go_on();
        assert!(rings_in(&pipe_use).unwrap() <= LOOK_EVERY);
        pipe_use.rest();
        pipe_use.timer.unset().unwrap();
        pipe_use.go_on();
        assert_eq!(rings_in(&pipe_use), None);
        pipe_use.wake();
        assert!(rings_in(&pipe_use).is_some());
    }

    #[test]
    fn who_is_in_haste_or_knows_an_offender_looks_soon() {
        let pipe_use = PipeUse::new().unwrap();
        pipe_use.set_haste(true);
        assert!(rings_in(&pipe_use).unwrap() <= LOOK_OFTEN);
        assert!(pipe_use.wait());
        pipe_use.set_haste(false);
        pipe_use.note_offenders();
        pipe_use.wake();
        assert!(rings_in(&pipe_use).unwrap() <= LOOK_OFTEN);
        pipe_use.finish();
        assert!(!pipe_use.wait());
    }
}
