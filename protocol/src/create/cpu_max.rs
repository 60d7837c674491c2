//! How much processor time a child and its descendants may take.

use std::fmt;
use std::str::FromStr;

use crate::beginning::beginning;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The period that the kernel has by itself, in microseconds.
const PERIOD: u64 = 100_000;

/// The most processors that a number of them stands for: more than any machine has.
const CPUS_MAX: f64 = 1_000_000.0;

/// How much processor time a child and its descendants may take: a quota in each period, `cpu.max` of the kernel's cgroup-v2
/// documentation.
///
/// In JSON a number of processors (`1.5`), a share of one in percent (`"150%"`), both in microseconds as the kernel takes
/// them (`"150000 100000"`), or `"max"` for no bound; what is written is the kernel's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// The microseconds in each period; none is no bound.
    pub quota: Option<u64>,
    /// The length of a period, in microseconds.
    pub period: u64,
}

/// A text or a number that is no bound on processor time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{given:?} is no bound on processor time; give a number of processors such as 1.5, \"150%\", a quota and a period in \
     microseconds such as \"150000 100000\", or \"max\""
)]
pub struct CpuMaxError {
    given: String,
}

impl CpuMax {
    /// No bound.
    pub const MAX: Self = Self { quota: None, period: PERIOD };

    /// As much as so many processors have, such as 1.5.
    ///
    /// # Errors
    /// When it is no number of processors: negative, or no number at all.
    pub fn cpus(number: f64) -> Result<Self, CpuMaxError> {
        if !(0.0..=CPUS_MAX).contains(&number) {
            return Err(CpuMaxError { given: number.to_string() });
        }
        // Of a bounded number that is not negative nothing is lost but a fraction of a microsecond.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "bounded above"
        )]
        let quota = (number * PERIOD as f64).round() as u64;
        Ok(Self { quota: Some(quota), period: PERIOD })
    }
}

impl FromStr for CpuMax {
    type Err = CpuMaxError;

    fn from_str(text: &str) -> Result<Self, CpuMaxError> {
        let refusal = || CpuMaxError { given: beginning(text).into_owned() };
        let micros = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| digits).ok_or_else(refusal)
        };
        let number = |text: &str| {
            let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            text.parse::<f64>().ok().filter(|_| decimal).ok_or_else(refusal)
        };
        match (text.split_once(' '), text.strip_suffix('%')) {
            (None, None) if text == "max" => Ok(Self::MAX),
            (Some(("max", period)), _) => Ok(Self { quota: None, period: micros(period)? }),
            (Some((quota, period)), _) => Ok(Self { quota: Some(micros(quota)?), period: micros(period)? }),
            (None, Some(percent)) => Self::cpus(number(percent)? / 100.0).map_err(|_| refusal()),
            (None, None) => Self::cpus(number(text)?).map_err(|_| refusal()),
        }
    }
}

impl fmt::Display for CpuMax {
    /// Writes what the kernel takes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quota, period } = self;
        match quota {
            Some(quota) => write!(formatter, "{quota} {period}"),
            None => write!(formatter, "max {period}"),
        }
    }
}

impl Serialize for CpuMax {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuMax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl de::Visitor<'_> for Readable {
            type Value = CpuMax;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of processors, or a text such as \"150%\" or \"150000 100000\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CpuMax, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, cpus: f64) -> Result<CpuMax, E> {
                CpuMax::cpus(cpus).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, cpus: u64) -> Result<CpuMax, E> {
                let number =
                    u32::try_from(cpus).map_err(|_| E::custom(format!("{cpus} processors are too many")))?;
                CpuMax::cpus(f64::from(number)).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, cpus: i64) -> Result<CpuMax, E> {
                u64::try_from(cpus)
                    .map_err(|_| E::custom(format!("{cpus} processors are too few")))
                    .and_then(|cpus| self.visit_u64(cpus))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Readable)
        } else {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_shares_of_them_are_what_the_kernel_counts_in() {
        let cases = [
            ("1.5", "150000 100000"),
            ("2", "200000 100000"),
            ("\"0.5\"", "50000 100000"),
            ("\"150%\"", "150000 100000"),
            ("\"12.5%\"", "12500 100000"),
            ("\"max\"", "max 100000"),
            ("\"max 50000\"", "max 50000"),
            ("\"50000 1000000\"", "50000 1000000"),
        ];
        for (given, kernels) in cases {
            let read: CpuMax = serde_json::from_str(given).unwrap();
            assert_eq!(read.to_string(), kernels, "{given}");
            let written = serde_json::to_string(&read).unwrap();
            assert_eq!(written, format!("\"{kernels}\""), "{given}");
            assert_eq!(serde_json::from_str::<CpuMax>(&written).unwrap(), read, "{given}");
        }
    }

    #[test]
    fn what_is_no_bound_is_refused() {
        for given in [
            "-1",
            "-0.5",
            "1e9",
            "5000000000",
            "\"\"",
            "\"half\"",
            "\"1e3\"",
            "\"+1\"",
            "\"inf\"",
            "\"%\"",
            "\"50 %\"",
            "\"max max\"",
            "\"5  5\"",
            "null",
            "[]",
        ] {
            assert!(serde_json::from_str::<CpuMax>(given).is_err(), "{given}");
        }
    }
}
