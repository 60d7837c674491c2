//! A signal, by number inside and in the binary form, by name in JSON.

use std::fmt;
use std::str::FromStr;

use crate::beginning::beginning;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The first real-time signal that programs may use; the C library keeps 32 and 33 (signal(7)).
const REALTIME_MIN: i32 = 34;
/// The last signal of Linux (signal(7)).
const SIGNAL_MAX: i32 = 64;

/// A signal that can be sent: 1 to 64, as this machine numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

/// A text or number that is no signal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{given} is not a signal; give a name such as \"SIGHUP\" or \"HUP\", or a number from 1 to 64")]
pub struct SignalError {
    given: String,
}

impl Signal {
    /// Hangup.
    pub const HUP: Self = Self(nix::libc::SIGHUP);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(nix::libc::SIGINT);
    /// The kill that cannot be caught.
    pub const KILL: Self = Self(nix::libc::SIGKILL);
    /// The stop that cannot be caught.
    pub const STOP: Self = Self(nix::libc::SIGSTOP);
    /// Continues a process that is stopped.
    pub const CONT: Self = Self(nix::libc::SIGCONT);
    /// Termination.
    pub const TERM: Self = Self(nix::libc::SIGTERM);
    /// An end that leaves a trace of where it was.
    pub const ABRT: Self = Self(nix::libc::SIGABRT);
    /// The end of a timer.
    pub const ALRM: Self = Self(nix::libc::SIGALRM);
    /// SIGQUIT.
    pub const QUIT: Self = Self(nix::libc::SIGQUIT);
    /// SIGUSR1.
    pub const USR1: Self = Self(nix::libc::SIGUSR1);
    /// SIGUSR2.
    pub const USR2: Self = Self(nix::libc::SIGUSR2);
    /// SIGWINCH.
    pub const WINCH: Self = Self(nix::libc::SIGWINCH);

    /// The signal with this number.
    ///
    /// # Errors
    /// When the number is not from 1 to 64, or is one that the C library keeps for itself (32, 33).
    pub fn from_number(number: i64) -> Result<Self, SignalError> {
        i32::try_from(number)
            .ok()
            .filter(|&number| standard(number).is_some() || (REALTIME_MIN..=SIGNAL_MAX).contains(&number))
            .map(Self)
            .ok_or_else(|| SignalError { given: number.to_string() })
    }

    /// The number, as kill(2) takes it.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

/// The standard signal of a number, if it is one.
fn standard(number: i32) -> Option<nix::sys::signal::Signal> {
    nix::sys::signal::Signal::try_from(number).ok()
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let refusal = || SignalError { given: format!("{:?}", beginning(text)) };
        if let Ok(number) = text.parse::<i64>() {
            return Self::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        let realtime = |offset: &str| -> Option<i64> {
            if offset.is_empty() { Some(0) } else { offset.parse::<i64>().ok() }
        };
        if let Some(offset) = short.strip_prefix("RTMIN") {
            let offset = realtime(offset).filter(|offset| *offset >= 0).ok_or_else(refusal)?;
            return Self::from_number(i64::from(REALTIME_MIN).saturating_add(offset)).map_err(|_| refusal());
        }
        if let Some(offset) = short.strip_prefix("RTMAX") {
            let offset = realtime(offset).filter(|offset| (-30..=0).contains(offset)).ok_or_else(refusal)?;
            return Self::from_number(i64::from(SIGNAL_MAX) + offset).map_err(|_| refusal());
        }
        let signal: nix::sys::signal::Signal = format!("SIG{short}").parse().map_err(|_| refusal())?;
        Self::from_number(i64::from(signal as i32))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match standard(self.0) {
            Some(signal) => formatter.write_str(signal.as_str()),
            None if self.0 == REALTIME_MIN => formatter.write_str("SIGRTMIN"),
            None if self.0 == SIGNAL_MAX => formatter.write_str("SIGRTMAX"),
            None => write!(formatter, "SIGRTMIN+{}", self.0.saturating_sub(REALTIME_MIN)),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u8(u8::try_from(self.0).unwrap_or_default())
        }
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl de::Visitor<'_> for Readable {
            type Value = Signal;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a signal's name or number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Signal, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Signal, E> {
                Signal::from_number(number).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Signal, E> {
                Signal::from_number(i64::try_from(number).unwrap_or(i64::MAX)).map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Readable)
        } else {
            Self::from_number(i64::from(u8::deserialize(deserializer)?)).map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_prefix_and_numbers_mean_the_same() {
        for text in ["SIGHUP", "HUP", "hup", "1"] {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal::HUP, "{text}");
        }
        assert_eq!(serde_json::from_str::<Signal>("15").unwrap(), Signal::TERM);
        assert_eq!(serde_json::from_str::<Signal>("\"TERM\"").unwrap(), Signal::TERM);
    }

    #[test]
    fn every_signal_is_written_as_the_name_that_reads_back() {
        for number in (1..=31).chain(34..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
        assert_eq!("SIGRTMAX-1".parse::<Signal>().unwrap().number(), 63);
        assert_eq!(Signal::from_number(35).unwrap().to_string(), "SIGRTMIN+1");
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "SIG", "SIGFOO", "0", "65", "-9", "32", "RTMIN+99", "RTMAX+1", "9.0", "RTMIN-1"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        for json in ["0", "-1", "1.5", "null", "99999999999999999999", "[]"] {
            assert!(serde_json::from_str::<Signal>(json).is_err(), "{json}");
        }
    }
}
