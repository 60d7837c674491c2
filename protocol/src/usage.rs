//! What a child and its descendants use of the machine.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::duration;

/// What a child and its descendants use at one moment; what cannot be told is not there.
///
/// In JSON an object of those members that can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Usage {
    /// The time that processors have spent on them so far.
    #[serde(with = "duration::optional")]
    pub cpu: Option<Duration>,
    /// Their memory, in bytes.
    pub memory: Option<u64>,
    /// The most memory that they have had at any time, in bytes.
    pub memory_peak: Option<u64>,
    /// The number of their processes.
    pub processes: Option<u32>,
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let mut object = serializer.serialize_map(None)?;
        if let Some(cpu) = self.cpu {
            object.serialize_entry("cpu", &Seconds(cpu))?;
        }
        if let Some(memory) = self.memory {
            object.serialize_entry("memory", &memory)?;
        }
        if let Some(memory_peak) = self.memory_peak {
            object.serialize_entry("memory_peak", &memory_peak)?;
        }
        if let Some(processes) = self.processes {
            object.serialize_entry("processes", &processes)?;
        }
        object.end()
    }
}

/// A time as a JSON number of seconds.
#[derive(Serialize)]
struct Seconds(#[serde(serialize_with = "duration::serialize")] Duration);

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_left_out() {
        let some = Usage { cpu: Some(Duration::from_millis(1250)), processes: Some(2), ..Usage::default() };
        let json = serde_json::to_string(&some).unwrap();
        assert_eq!(json, r#"{"cpu":1.25,"processes":2}"#);
        assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), some);
        assert_eq!(serde_json::to_string(&Usage::default()).unwrap(), "{}");
    }
}
