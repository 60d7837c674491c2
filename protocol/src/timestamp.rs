//! A moment of wall-clock time: RFC 3339 in UTC for humans, microseconds in the binary form.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::beginning::beginning;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last moment that RFC 3339 can write, in microseconds: the end of the year 9999.
const MICROS_MAX: u64 = 253_402_300_799_999_999;

/// Where a time in RFC 3339 goes on after its date.
const SEPARATOR_AT: usize = "2026-11-23".len();

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no time in RFC 3339, such as \"2026-11-23T14:52:17Z\" or \"2026-11-23T15:52:17+01:00\"")]
pub struct TimestampError {
    text: String,
}

/// Microseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that many microseconds after the epoch, cut at the end of the year 9999.
    #[must_use]
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(if microseconds > MICROS_MAX { MICROS_MAX } else { microseconds })
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Reads a time in RFC 3339, with any offset; between date and time may be a space, as there. A moment before the epoch
    /// reads as the epoch.
    ///
    /// # Errors
    /// When the text is no such time.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError { text: beginning(text).into_owned() };
        // The parser takes whatever stands between the two.
        if !matches!(text.as_bytes().get(SEPARATOR_AT), Some(b'T' | b't' | b' ')) {
            return Err(error());
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| error())?;
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        Ok(Self::from_micros(u64::try_from(micros.max(0)).unwrap_or(MICROS_MAX)))
    }

    /// The moment as the standard library has it.
    #[must_use]
    pub fn as_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }
}

impl From<SystemTime> for Timestamp {
    /// A clock that stands before the epoch reads as the epoch.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_micros(u64::try_from(since.as_micros()).unwrap_or(MICROS_MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros(self.as_system_time()).fmt(formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse_rfc3339(&text).map_err(de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_and_reads_back() {
        let moment = Timestamp::from_micros(1_795_445_537_123_456);
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(json, "\"2026-11-23T14:52:17.123456Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), moment);
    }

    #[test]
    fn a_moment_reads_however_rfc_3339_writes_it() {
        let moment = Timestamp::from_micros(946_684_800_000_000);
        for text in [
            "2000-01-01T00:00:00Z",
            "2000-01-01t00:00:00z",
            "2000-01-01 00:00:00Z",
            "2000-01-01T00:00:00.000000000Z",
            "2000-01-01T02:00:00+02:00",
            "1999-12-31T18:30:00-05:30",
            "2000-01-01T00:00:00-00:00",
            "2000-01-01T00:00:00+00:00",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), Ok(moment), "{text}");
        }
        // A leap second, as far as a clock without them can tell; what is finer than a microsecond; before the epoch.
        for (text, micros) in [
            ("2016-12-31T23:59:60Z", 1_483_228_799_999_999),
            ("1970-01-01T00:00:01.0000019Z", 1_000_001),
            ("1970-01-01T00:30:00+01:00", 0),
            ("0001-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), Ok(Timestamp::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_rfc_3339_does_not_write_is_refused() {
        for text in [
            "",
            "2000-01-01",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00Z",
            "2000-01-01x00:00:00Z",
            "2000-01-01T00:00:00Z ",
            "2000-13-01T00:00:00Z",
            "2001-02-29T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:00:00+0200",
            "2000-01-01T00:00:00+24:00",
            "2000-01-01T00:00:00+02:60",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:60Z",
            "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4} 00:00:00Z",
        ] {
            assert!(Timestamp::parse_rfc3339(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_moment_can_be_written() {
        assert_eq!(Timestamp::from_micros(u64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }
}
