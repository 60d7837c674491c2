//! Bounds of a child and its descendants together, set through control groups.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::beginning::beginning;
use crate::byte_size;
use crate::create::CpuMax;
use crate::nullable::or_default;

/// Bounds set through control groups (version 2); see the kernel's cgroup-v2 documentation for what each does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// `memory.max`, in bytes: what is over it ends by an out-of-memory kill. In JSON a number, a text such as `"512M"`, or
    /// `"max"` for no bound.
    #[serde(deserialize_with = "bytes")]
    pub memory_max: Option<u64>,
    /// `cpu.weight`, 1 to 10,000; 100 is what every group has.
    #[serde(deserialize_with = "or_default")]
    pub cpu_weight: Option<u32>,
    /// `cpu.max`: the processor time in each period.
    #[serde(deserialize_with = "or_default")]
    pub cpu_max: Option<CpuMax>,
    /// `pids.max`, in processes and threads.
    #[serde(deserialize_with = "or_default")]
    pub pids_max: Option<u32>,
    /// `memory.high`, in bytes, in the same forms: what is over it is slowed down.
    #[serde(deserialize_with = "bytes")]
    pub memory_high: Option<u64>,
    /// `io.weight`, 1 to 10,000; 100 is what every group has.
    #[serde(deserialize_with = "or_default")]
    pub io_weight: Option<u32>,
}

/// Reads a number of bytes, where `max` is none, as no bound is what every group has.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Readable;
    impl de::Visitor<'_> for Readable {
        type Value = Option<u64>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a number of bytes, a text such as \"512M\", or \"max\"")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }

        fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Option<u64>, E> {
            Ok(Some(bytes))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<u64>, E> {
            if text == "max" {
                return Ok(None);
            }
            byte_size::parse(text).map(Some).ok_or_else(|| {
                E::custom(format!(
                    "{:?} is not a size; give bytes, or a number with k, M, G or T (powers of 1024) such as \"512M\", or \
                     \"max\"",
                    beginning(text)
                ))
            })
        }
    }
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(Readable)
    } else {
        Option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_number_a_size_or_max() {
        let memory = |json: &str| {
            let json = format!(r#"{{"memory_max":{json}}}"#);
            serde_json::from_str::<Resources>(&json).map(|resources| resources.memory_max)
        };
        for (json, expected) in [
            ("1", Some(1)),
            ("\"512M\"", Some(512 << 20)),
            ("\"65536\"", Some(65536)),
            ("\"max\"", None),
            ("null", None),
        ] {
            assert_eq!(memory(json).unwrap(), expected, "{json}");
        }
        for json in ["-1", "1.5", "\"512MB\"", "\"much\"", "\"\"", "true", "[]"] {
            assert!(memory(json).is_err(), "{json}");
        }
    }
}
