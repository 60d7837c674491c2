//! What a process of a child tells of itself, in the words of `sd_notify(3)`, as far as they mean something here.

use std::time::Duration;

use crate::shown::cut;

/// Bytes of a status text that are kept.
const STATUS_BYTES_MAX: usize = 1024;

/// One thing that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`: it has started up.
    Ready,
    /// `STATUS=`: what it is doing, for people.
    Status(String),
    /// `STOPPING=1`: it is about to end by itself.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=`: what it is at takes so much longer from now on.
    MoreTime(Duration),
    /// `WATCHDOG=1`: it is well.
    Well,
    /// `WATCHDOG=trigger`: it is not well, and knows it.
    Unwell,
}

impl Notice {
    /// Reads a datagram: assignments, one a line. What means nothing here is passed over, as the page says; so is a whole
    /// datagram that is no text.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Vec<Self> {
        let text = std::str::from_utf8(datagram).unwrap_or_default();
        let mut notices: Vec<Self> = text.split('\n').filter_map(Self::of_line).collect();
        // What it says of itself is shown with whatever else it tells at the same time.
        notices.sort_by_key(|notice| !matches!(notice, Self::Status(_)));
        notices
    }

    fn of_line(line: &str) -> Option<Self> {
        let (name, value) = line.split_once('=')?;
        match (name, value) {
            ("READY", "1") => Some(Self::Ready),
            ("STATUS", text) => Some(Self::Status(cut(text, STATUS_BYTES_MAX).to_owned())),
            ("STOPPING", "1") => Some(Self::Stopping),
            ("EXTEND_TIMEOUT_USEC", number) => {
                number.parse().ok().map(Duration::from_micros).map(Self::MoreTime)
            }
            ("WATCHDOG", "1") => Some(Self::Well),
            ("WATCHDOG", "trigger") => Some(Self::Unwell),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Notice {
        Notice::Status(text.to_owned())
    }

    #[test]
    fn the_usual_libraries_are_understood() {
        let minute = Notice::MoreTime(Duration::from_secs(60));
        for (datagram, expected) in [
            // systemd-notify --ready --status=...: one assignment a line, without a line break at the end.
            (&b"READY=1\nSTATUS=Serving"[..], vec![status("Serving"), Notice::Ready]),
            // sd_notify(0, "READY=1\nSTATUS=...\nMAINPID=...") of C.
            (b"READY=1\nSTATUS=Up\nMAINPID=4711", vec![status("Up"), Notice::Ready]),
            // sdnotify.SystemdNotifier().notify("READY=1") of Python, and daemon.SdNotify of Go.
            (b"READY=1", vec![Notice::Ready]),
            (b"WATCHDOG=1", vec![Notice::Well]),
            (b"WATCHDOG=trigger\n", vec![Notice::Unwell]),
            (b"STOPPING=1", vec![Notice::Stopping]),
            (b"RELOADING=1\nMONOTONIC_USEC=123", vec![]),
            (b"EXTEND_TIMEOUT_USEC=60000000", vec![minute]),
            (b"BARRIER=1", vec![]),
            (b"FDSTORE=1\nFDNAME=x", vec![]),
        ] {
            assert_eq!(Notice::parse(datagram), expected, "{}", String::from_utf8_lossy(datagram));
        }
    }

    #[test]
    fn what_is_no_assignment_means_nothing() {
        for datagram in [
            &b""[..],
            b"READY",
            b"READY=0",
            b"READY=11",
            b" READY=1",
            b"READY=1 ",
            b"READY=1\0",
            b"ready=1",
            b"\xff\nREADY=1",
            b"EXTEND_TIMEOUT_USEC=-1",
            b"EXTEND_TIMEOUT_USEC=99999999999999999999999",
            b"WATCHDOG=2",
        ] {
            assert_eq!(Notice::parse(datagram), [], "{}", String::from_utf8_lossy(datagram));
        }
    }

    #[test]
    fn a_long_status_is_cut_between_two_characters() {
        let long = format!("STATUS={}", "ä".repeat(600));
        assert_eq!(Notice::parse(long.as_bytes()), [status(&"ä".repeat(512))]);
        let odd = format!("STATUS=x{}", "ä".repeat(600));
        assert_eq!(Notice::parse(odd.as_bytes()), [status(&format!("x{}", "ä".repeat(511)))]);
    }
}
