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

/// What of a datagram cannot be taken for what it was meant to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// All of it: a NUL stands in its midst.
    Datagram,
    /// Its `STATUS=`, which is not UTF-8. The other lines count.
    Status,
}

impl Unreadable {
    /// Returns what is wrong with it, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Datagram => "the message has a NUL in its midst, and is passed over",
            Self::Status => "the STATUS is not UTF-8, and is passed over; the other lines count",
        }
    }
}

impl Notice {
    /// Reads a datagram as systemd does: assignments, one a line, where `\r` ends a line too and one NUL may stand at the end.
    /// What means nothing here is passed over, as the page says. Returns beside it what cannot be read.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> (Vec<Self>, Option<Unreadable>) {
        let text = datagram.strip_suffix(b"\0").unwrap_or(datagram);
        if text.contains(&b'\0') {
            return (Vec::new(), Some(Unreadable::Datagram));
        }
        let (mut notices, mut unreadable) = (Vec::new(), None);
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            match Self::of_line(line) {
                Ok(notice) => notices.extend(notice),
                Err(what) => unreadable = Some(what),
            }
        }
        // What it says of itself is shown with whatever else it tells at the same time.
        notices.sort_by_key(|notice| !matches!(notice, Self::Status(_)));
        (notices, unreadable)
    }

    fn of_line(line: &[u8]) -> Result<Option<Self>, Unreadable> {
        let text = std::str::from_utf8(line);
        if text.is_err() && line.starts_with(b"STATUS=") {
            return Err(Unreadable::Status);
        }
        let Some((name, value)) = text.ok().and_then(|text| text.split_once('=')) else {
            return Ok(None);
        };
        Ok(match (name, value) {
            ("READY", "1") => Some(Self::Ready),
            ("STATUS", text) => Some(Self::Status(cut(text, STATUS_BYTES_MAX).to_owned())),
            ("STOPPING", "1") => Some(Self::Stopping),
            ("EXTEND_TIMEOUT_USEC", number) => {
                number.parse().ok().map(Duration::from_micros).map(Self::MoreTime)
            }
            ("WATCHDOG", "1") => Some(Self::Well),
            ("WATCHDOG", "trigger") => Some(Self::Unwell),
            _ => None,
        })
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
            assert_eq!(Notice::parse(datagram), (expected, None), "{}", String::from_utf8_lossy(datagram));
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
            b"ready=1",
            b"\xff=1",
            b"READY=\xff",
            b"EXTEND_TIMEOUT_USEC=-1",
            b"EXTEND_TIMEOUT_USEC=99999999999999999999999",
            b"WATCHDOG=2",
        ] {
            assert_eq!(Notice::parse(datagram), (vec![], None), "{}", String::from_utf8_lossy(datagram));
        }
    }

    #[test]
    fn what_cannot_be_read_costs_no_more_than_systemd_lets_it_cost() {
        for (datagram, expected, unreadable) in [
            // sendto(fd, "READY=1", sizeof "READY=1", ...) of C.
            (&b"READY=1\0"[..], vec![Notice::Ready], None),
            (b"READY=1\n\0", vec![Notice::Ready], None),
            (b"READY=1\r\nWATCHDOG=1\r\n", vec![Notice::Ready, Notice::Well], None),
            (b"READY=1\rSTOPPING=1", vec![Notice::Ready, Notice::Stopping], None),
            (b"\xff\nREADY=1", vec![Notice::Ready], None),
            (b"READY=1\nSTATUS=f\xfcr alle", vec![Notice::Ready], Some(Unreadable::Status)),
            (b"STATUS=\xe4\nSTATUS=well", vec![status("well")], Some(Unreadable::Status)),
            (b"READY=1\0\0", vec![], Some(Unreadable::Datagram)),
            (b"READY=1\nSTATUS=a\0b", vec![], Some(Unreadable::Datagram)),
            (b"\0READY=1", vec![], Some(Unreadable::Datagram)),
        ] {
            let read = Notice::parse(datagram);
            assert_eq!(read, (expected, unreadable), "{}", String::from_utf8_lossy(datagram));
        }
    }

    #[test]
    fn a_long_status_is_cut_between_two_characters() {
        let long = format!("STATUS={}", "ä".repeat(600));
        assert_eq!(Notice::parse(long.as_bytes()).0, [status(&"ä".repeat(512))]);
        let odd = format!("STATUS=x{}", "ä".repeat(600));
        assert_eq!(Notice::parse(odd.as_bytes()).0, [status(&format!("x{}", "ä".repeat(511)))]);
    }
}
