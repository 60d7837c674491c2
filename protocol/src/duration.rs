//! Lengths of time on the wire: seconds or a text such as "1m 30s" come in, seconds go out.
//!
//! JSON takes a number of seconds or a text, and is given seconds. The binary form is a number of nanoseconds.
//! The longest duration that either form takes is a hundred years, which keeps all sums of times in range.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::beginning::beginning;
use crate::nullable::or_else;

/// A hundred years, the longest duration that a message may have.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// The reason why a text or a number is not taken for a duration.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DurationError {
    /// A text of another form.
    #[error(
        "{text:?} is not a duration; give seconds as a number, or a text such as \"250ms\" or \"1m 30s\""
    )]
    Form {
        /// The text that is no duration.
        text: String,
    },
    /// Negative, not a number, or longer than a hundred years.
    #[error("a duration of {seconds} seconds is out of range; it is at least 0 and at most a hundred years")]
    Range {
        /// The number of seconds.
        seconds: f64,
    },
}

/// Reads a number of seconds or a text such as `250ms` or `1m 30s`.
///
/// # Errors
/// When the text has another form, or is negative or longer than [`DURATION_MAX`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return from_seconds(seconds);
    }
    let duration = humantime::parse_duration(text)
        .map_err(|_| DurationError::Form { text: beginning(text).into_owned() })?;
    in_range(duration)
}

/// Returns the duration, if a message may have it.
///
/// # Errors
/// When it is longer than [`DURATION_MAX`].
pub fn in_range(duration: Duration) -> Result<Duration, DurationError> {
    if duration > DURATION_MAX {
        return Err(DurationError::Range { seconds: duration.as_secs_f64() });
    }
    Ok(duration)
}

/// Shows a duration to people, such as `1m 30s`.
#[must_use]
pub fn display(duration: Duration) -> impl fmt::Display {
    humantime::format_duration(duration)
}

/// Returns the duration in nanoseconds, cut at 2^64: some 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn from_seconds(seconds: f64) -> Result<Duration, DurationError> {
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| DurationError::Range { seconds })?;
    in_range(duration)
}

/// Writes a duration; for `#[serde(with = "duration")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        serializer.serialize_u64(nanos(*duration))
    } else if duration.subsec_nanos() == 0 {
        serializer.serialize_u64(duration.as_secs())
    } else {
        // A division would be off by the last digit of some numbers.
        let decimal = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
        serializer.serialize_f64(decimal.parse().unwrap_or(duration.as_secs_f64()))
    }
}

/// Reads a duration; for `#[serde(with = "duration")]`.
///
/// # Errors
/// When it is none, or longer than [`DURATION_MAX`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Readable;
    impl de::Visitor<'_> for Readable {
        type Value = Duration;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a duration (seconds, or a text such as \"250ms\")")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }

        fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
            from_seconds(seconds).map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
            in_range(Duration::from_secs(seconds)).map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
            u64::try_from(seconds)
                .map_err(|_| E::custom(format!("a duration of {seconds} seconds is negative")))
                .and_then(|seconds| self.visit_u64(seconds))
        }
    }
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(Readable)
    } else {
        in_range(Duration::from_nanos(u64::deserialize(deserializer)?)).map_err(de::Error::custom)
    }
}

/// Reads a duration, or `null` in JSON, which stands for this default.
pub(crate) fn deserialize_or<'de, D: Deserializer<'de>>(
    deserializer: D,
    default: Duration,
) -> Result<Duration, D::Error> {
    or_else(deserializer, || OnWire(default)).map(|OnWire(duration)| duration)
}

/// A duration that is read and written by this module's functions.
#[derive(Serialize, Deserialize)]
struct OnWire(#[serde(with = "self")] Duration);

/// Durations that need not be given; for `#[serde(with = "duration::optional")]`.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::OnWire;

    /// Writes a duration, or `null` in JSON.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(OnWire).serialize(serializer)
    }

    /// Reads a duration, or `null` in JSON.
    ///
    /// # Errors
    /// When it is none, or longer than [`DURATION_MAX`](super::DURATION_MAX).
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<OnWire>::deserialize(deserializer)?.map(|OnWire(duration)| duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_read_and_seconds_are_written() {
        let cases = [
            ("10", 10_000, "10"),
            ("0.25", 250, "0.25"),
            ("\"250ms\"", 250, "0.25"),
            ("\"1m 30s\"", 90_000, "90"),
            ("\"7\"", 7_000, "7"),
            ("0", 0, "0"),
            ("\"1s 501ms\"", 1_501, "1.501"),
        ];
        for (input, milliseconds, output) in cases {
            let read: OnWire = serde_json::from_str(input).unwrap();
            assert_eq!(read.0, Duration::from_millis(milliseconds), "{input}");
            assert_eq!(serde_json::to_string(&read).unwrap(), output, "{input}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for input in [
            "-1",
            "-0.5",
            "\"\"",
            "\"soon\"",
            "\"NaN\"",
            "\"inf\"",
            "1e300",
            "\"200 years\"",
            "null",
            "[]",
            "3162240001",
        ] {
            assert!(serde_json::from_str::<OnWire>(input).is_err(), "{input}");
        }
    }
}
