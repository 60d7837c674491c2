//! The beginning of a stretch of time: a moment, or an age counted from now.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::beginning::beginning;
use crate::duration;
use crate::timestamp::Timestamp;

/// The beginning of a stretch of time.
///
/// In JSON a time in RFC 3339, or an age: a number of seconds, or a text such as `"5m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Since {
    /// At this moment, by the wall clock.
    Time(Timestamp),
    /// So long ago, counted from when the request is carried out.
    Age(#[serde(with = "duration")] Duration),
}

/// A text that says no beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is neither a time such as \"2026-11-23T14:52:17Z\" nor an age such as \"5m\" or a number of seconds"
)]
pub struct SinceError {
    text: String,
}

impl std::str::FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        if let Ok(time) = Timestamp::parse_rfc3339(text) {
            return Ok(Self::Time(time));
        }
        duration::parse(text).map(Self::Age).map_err(|_| SinceError { text: beginning(text).into_owned() })
    }
}

impl Since {
    /// Returns the moment that is meant when it is now this time.
    #[must_use]
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Age(age) => {
                let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
                Timestamp::from_micros(now.as_micros().saturating_sub(age))
            }
        }
    }
}

impl Serialize for Since {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        match self {
            Self::Time(time) => time.serialize(serializer),
            Self::Age(age) => duration::serialize(age, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl de::Visitor<'_> for Readable {
            type Value = Since;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time such as \"2026-11-23T14:52:17Z\", or an age such as \"5m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Since, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Since, E> {
                duration::from_seconds(seconds).map(Since::Age).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Since, E> {
                duration::in_range(Duration::from_secs(seconds)).map(Since::Age).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Since, E> {
                Err(E::custom(format!("an age of {seconds} seconds is negative")))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Readable)
        } else {
            Self::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_and_an_age_are_told_apart_and_read_back() {
        let time = Since::Time(Timestamp::from_micros(1_795_445_537_123_456));
        let cases = [
            ("\"2026-11-23T14:52:17.123456Z\"", time, "\"2026-11-23T14:52:17.123456Z\""),
            ("\"2026-11-23t16:52:17.123456+02:00\"", time, "\"2026-11-23T14:52:17.123456Z\""),
            ("\"5m\"", Since::Age(Duration::from_secs(300)), "300"),
            ("\"5\"", Since::Age(Duration::from_secs(5)), "5"),
            ("0.5", Since::Age(Duration::from_millis(500)), "0.5"),
            ("0", Since::Age(Duration::ZERO), "0"),
        ];
        for (input, since, output) in cases {
            assert_eq!(serde_json::from_str::<Since>(input).unwrap(), since, "{input}");
            assert_eq!(serde_json::to_string(&since).unwrap(), output, "{input}");
        }
        for input in ["\"yesterday\"", "-1", "\"2026-11-23\"", "true", "[]", "\"\""] {
            assert!(serde_json::from_str::<Since>(input).is_err(), "{input}");
        }
    }

    #[test]
    fn an_age_counts_back_from_now_and_not_beyond_the_epoch() {
        let now = Timestamp::from_micros(10_000_000);
        assert_eq!(Since::Age(Duration::from_secs(4)).moment(now), Timestamp::from_micros(6_000_000));
        assert_eq!(Since::Age(Duration::from_secs(40)).moment(now), Timestamp::from_micros(0));
        assert_eq!(Since::Time(now).moment(Timestamp::default()), now);
    }
}
