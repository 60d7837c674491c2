//! The value of a resource limit.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The value of a resource limit: a number, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Rlimit {
    /// In the unit of the resource (setrlimit(2)).
    Value(u64),
    /// `RLIM_INFINITY`.
    Unlimited,
}

impl Serialize for Rlimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        match self {
            Self::Value(value) => serializer.serialize_u64(*value),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Rlimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl de::Visitor<'_> for Readable {
            type Value = Rlimit;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number or \"unlimited\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rlimit, E> {
                match text {
                    "unlimited" | "infinity" => Ok(Rlimit::Unlimited),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Rlimit, E> {
                Ok(Rlimit::Value(value))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Readable)
        } else {
            Self::deserialize(deserializer)
        }
    }
}
