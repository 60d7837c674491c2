//! A length of time: a number of seconds or a text such as "1m 30s" coming in, seconds going out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The longest span that is taken: a hundred years, in seconds. It keeps all sums of times in range.
const SECONDS_MAX: u64 = 100 * 366 * 24 * 60 * 60;

/// A length of time of at most a hundred years, to the nanosecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

/// Why a text or number is no span of time.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SpanError {
    /// A text of another form.
    #[error(
        "{text:?} is not a duration; give seconds as a number, or a text such as \"250ms\" or \"1m 30s\""
    )]
    Form {
        /// The text.
        text: String,
    },
    /// Negative, not a number, or longer than a hundred years.
    #[error("a duration of {seconds} seconds is out of range; it is at least 0 and at most a hundred years")]
    Range {
        /// The number of seconds.
        seconds: f64,
    },
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// A whole number of seconds, cut at a hundred years.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(if seconds > SECONDS_MAX { SECONDS_MAX } else { seconds }))
    }

    /// A whole number of milliseconds, cut at a hundred years.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        if milliseconds / 1000 > SECONDS_MAX {
            Self::from_secs(SECONDS_MAX)
        } else {
            Self(Duration::from_millis(milliseconds))
        }
    }

    /// A whole number of nanoseconds, cut at a hundred years.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        let duration = Duration::from_nanos(nanoseconds);
        if duration.as_secs() >= SECONDS_MAX { Self::from_secs(SECONDS_MAX) } else { Self(duration) }
    }

    /// The span as the standard library's duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// The span in nanoseconds: a hundred years are less than 2^62 of them.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    fn from_secs_f64(seconds: f64) -> Result<Self, SpanError> {
        let duration = Duration::try_from_secs_f64(seconds).map_err(|_| SpanError::Range { seconds })?;
        Self::try_from(duration)
    }
}

impl TryFrom<Duration> for Span {
    type Error = SpanError;

    fn try_from(duration: Duration) -> Result<Self, SpanError> {
        if duration.as_secs() > SECONDS_MAX {
            return Err(SpanError::Range { seconds: duration.as_secs_f64() });
        }
        Ok(Self(duration))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        if let Ok(seconds) = text.trim().parse::<f64>() {
            return Self::from_secs_f64(seconds);
        }
        let duration =
            humantime::parse_duration(text).map_err(|_| SpanError::Form { text: text.to_owned() })?;
        Self::try_from(duration)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(formatter)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            serializer.serialize_u64(self.as_nanos())
        } else if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl de::Visitor<'_> for Readable {
            type Value = Span;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a duration (seconds, or a text such as \"250ms\")")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                Span::from_secs_f64(seconds).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Span::try_from(Duration::from_secs(seconds)).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                u64::try_from(seconds)
                    .map_err(|_| E::custom(format!("a duration of {seconds} seconds is negative")))
                    .and_then(|seconds| self.visit_u64(seconds))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Readable)
        } else {
            Self::try_from(Duration::from_nanos(u64::deserialize(deserializer)?)).map_err(de::Error::custom)
        }
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
        ];
        for (input, milliseconds, output) in cases {
            let span: Span = serde_json::from_str(input).unwrap();
            assert_eq!(span, Span::from_millis(milliseconds), "{input}");
            assert_eq!(serde_json::to_string(&span).unwrap(), output, "{input}");
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
            assert!(serde_json::from_str::<Span>(input).is_err(), "{input}");
        }
    }
}
