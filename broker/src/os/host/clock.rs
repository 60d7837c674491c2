//! The time since the machine was started, and an alarm by it.
//!
//! Both go by `CLOCK_BOOTTIME` (`clock_gettime(2)`), which nobody can set and which goes on while the machine is suspended:
//! a deadline is the same moment for a broker that comes after a crash.
#![expect(unsafe_code, reason = "tokio takes an owned descriptor on trust")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns how long it is since the machine was started.
///
/// Every kernel from 2.6.39 on has this clock, so that it cannot fail; a machine without it would be one whose time stands
/// still.
#[must_use]
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Returns how long after the machine's start a moment of the other clock is, as far as the machine is not suspended.
#[must_use]
pub fn after_boot(moment: Instant) -> Duration {
    let now = Instant::now();
    match moment.checked_duration_since(now) {
        Some(ahead) => since_boot().saturating_add(ahead),
        None => since_boot().saturating_sub(now.saturating_duration_since(moment)),
    }
}

/// Wakes its waiter at a moment (`timerfd_create(2)`).
///
/// To move it to a later moment costs no system call: it rings for nothing then, at most once.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
    /// What the kernel has been told.
    rings_at: Option<Duration>,
}

/// What the event loop waits for.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// An alarm is put off when it would ring earlier than this.
const EARLY: Duration = Duration::from_millis(10);

impl Alarm {
    /// Makes one that is not set. To be called in the event loop.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags)?;
        // SAFETY: the timer owns its descriptor, lives in what is registered, and is closed after it.
        let timer = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) };
        Ok(Self { timer: timer.map_err(io::Error::from)?, rings_at: None })
    }

    /// Has it ring at this moment after the machine's start, or before.
    pub fn set(&mut self, at: Duration) {
        if self.rings_at.is_some_and(|rings_at| rings_at <= at) {
            return;
        }
        self.move_to(at);
    }

    /// Has it ring no earlier than at this moment, or not at all: to be called where there is time for it, because it takes a
    /// system call where an early ring may never come to matter.
    pub fn put_off(&mut self, at: Option<Duration>) {
        if self.rings_at.is_some_and(|rings_at| at.is_none_or(|at| rings_at.saturating_add(EARLY) < at)) {
            match at {
                Some(at) => self.move_to(at),
                None => self.switch_off(),
            }
        }
    }

    fn switch_off(&mut self) {
        match self.timer.get_ref().0.unset() {
            Ok(()) => self.rings_at = None,
            // It rings for nothing, once.
            Err(errno) => tracing::debug!(%errno, "cannot switch an alarm off"),
        }
    }

    fn move_to(&mut self, at: Duration) {
        // Nothing at all would switch it off.
        let moment = TimeSpec::from_duration(at.max(Duration::from_nanos(1)));
        let set =
            self.timer.get_ref().0.set(Expiration::OneShot(moment), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        match set {
            Ok(()) => self.rings_at = Some(at),
            // A moment that far ahead is none that anybody waits for.
            Err(errno) => tracing::debug!(%errno, ?at, "cannot set an alarm"),
        }
    }

    /// Waits until it rings.
    pub async fn rings(&mut self) {
        match self.timer.readable().await {
            Ok(mut ready) => {
                ready.clear_ready();
                // It has been read, or has not rung; it is set anew either way.
                let _ = self.timer.get_ref().0.wait();
                self.rings_at = None;
            }
            // The event loop itself has ended.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_that_is_put_off_rings_at_the_later_moment_or_not_at_all() {
        let mut alarm = Alarm::new().unwrap();
        let start = since_boot();
        let [soon, later] = [1, 30].map(|milliseconds| start + Duration::from_millis(milliseconds));
        alarm.set(soon);
        alarm.put_off(Some(later));
        // It is no later than that already.
        alarm.put_off(Some(soon));
        alarm.rings().await;
        assert!(since_boot() >= later);
        alarm.put_off(Some(later));
        assert_eq!(alarm.rings_at, None, "one that is not set stays so");
        alarm.set(start + Duration::from_secs(3_600));
        alarm.put_off(None);
        assert_eq!(alarm.rings_at, None);
        assert_eq!(alarm.timer.get_ref().0.get().unwrap(), None);
    }

    #[tokio::test]
    async fn an_alarm_rings_at_its_moment_or_at_an_earlier_one_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        let start = since_boot();
        alarm.set(start + Duration::from_secs(3_600));
        alarm.set(start + Duration::from_millis(5));
        // Later than what it is set for: it rings all the same.
        alarm.set(start + Duration::from_secs(60));
        alarm.rings().await;
        assert!(since_boot() >= start + Duration::from_millis(5));
        assert_eq!(alarm.rings_at, None);
        alarm.set(Duration::ZERO);
        alarm.rings().await;
    }

    #[test]
    fn the_other_clock_is_translated_ahead_and_back() {
        let moment = Instant::now();
        let (before, translated, after) = (since_boot(), after_boot(moment), since_boot());
        assert!(translated <= after);
        let ahead = after_boot(moment + Duration::from_secs(60));
        assert!(ahead >= before + Duration::from_secs(59) && ahead <= after + Duration::from_secs(61));
    }
}
