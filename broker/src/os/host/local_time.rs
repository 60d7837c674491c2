//! The time of day as people here tell it: for syslog, whose messages have no other.
#![expect(unsafe_code, reason = "what the time zone is, the C library alone knows")]

use std::mem::MaybeUninit;
use std::time::SystemTime;

/// The names of the months, whatever the language.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns a time as syslog has it: `Nov  9 06:51:44` (RFC 3164, section 4.1.2).
#[must_use]
pub fn stamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or_default();
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are good for the call. What it reads of the environment, nobody changes after the start.
    let _same = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
    // SAFETY: all zeroes are a value of it too, where the call has failed: the year is out of its range.
    let parts = unsafe { parts.assume_init() };
    let month = usize::try_from(parts.tm_mon).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"Jan");
    let (day, hour, minute, second) = (parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    format!("{month} {day:2} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_told_as_the_machine_tells_it() {
        for seconds in [0, 951_827_696, 1_764_400_000, 1_785_000_000, 4_102_444_799] {
            let mut command = Command::new("date");
            command.env("LC_ALL", "C").args(["-d", &format!("@{seconds}"), "+%b %e %T"]);
            let output = command.output().expect("date");
            let told = String::from_utf8(output.stdout).unwrap();
            assert_eq!(stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), told.trim_end());
        }
    }
}
