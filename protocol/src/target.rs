//! Which children a request means.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::child::ChildId;
use crate::name::Name;
use crate::nullable::UniqueKeys;

/// Which children a request means: one by id or by name, those with given labels, or all.
///
/// In JSON a string (a UUID is an id, anything else a name), `{"labels": {..}}` or `{"all": true}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Target {
    /// The child with this id.
    Id(ChildId),
    /// The child with this name: the live one, else the one that held it last.
    Name(Name),
    /// Every live child that carries all of these labels with these values.
    Labels(BTreeMap<String, String>),
    /// Every live child that the caller may act on.
    All,
}

impl Target {
    /// Reads a target as a command line or a JSON string gives it.
    ///
    /// # Errors
    /// When the text is neither a UUID nor a well-formed name.
    pub fn from_text(text: &str) -> Result<Self, crate::name::NameError> {
        match uuid::Uuid::try_parse(text) {
            Ok(id) => Ok(Self::Id(ChildId::from_uuid(id))),
            Err(_) => text.parse().map(Self::Name),
        }
    }

    /// Whether it means at most one child.
    #[must_use]
    pub fn is_single(&self) -> bool {
        match self {
            Self::Id(_) | Self::Name(_) => true,
            Self::Labels(_) | Self::All => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
            Self::Labels(labels) => {
                let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(formatter, "labels {}", pairs.join(","))
            }
            Self::All => formatter.write_str("all children"),
        }
    }
}

impl Target {
    /// A target by labels; none at all would mean every child, which is to be said as such.
    fn checked_labels<E: de::Error>(labels: BTreeMap<String, String>) -> Result<Self, E> {
        if labels.is_empty() {
            return Err(E::custom("a target's labels are empty; give {\"all\": true} to mean every child"));
        }
        Ok(Self::Labels(labels))
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        match self {
            Self::Id(id) => id.serialize(serializer),
            Self::Name(name) => name.serialize(serializer),
            Self::Labels(labels) => serialize_member(serializer, "labels", labels),
            Self::All => serialize_member(serializer, "all", &true),
        }
    }
}

fn serialize_member<S: Serializer>(
    serializer: S,
    name: &str,
    value: &impl Serialize,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(1))?;
    object.serialize_entry(name, value)?;
    object.end()
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl<'de> de::Visitor<'de> for Readable {
            type Value = Target;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an id, a name, {\"labels\": {..}} or {\"all\": true}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
                Target::from_text(text).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Target, A::Error> {
                let not_one =
                    || de::Error::custom("it has labels or all, and nothing else; give one of them");
                let (mut labels, mut all) = (None, None);
                while let Some(member) = map.next_key::<String>()? {
                    match member.as_str() {
                        "labels" if labels.is_some() => return Err(de::Error::duplicate_field("labels")),
                        "labels" => labels = Some(map.next_value::<Option<UniqueKeys<String>>>()?),
                        "all" if all.is_some() => return Err(de::Error::duplicate_field("all")),
                        "all" => all = Some(map.next_value::<Option<bool>>()?),
                        other => return Err(de::Error::unknown_field(other, &["labels", "all"])),
                    }
                }
                match (labels.flatten(), all.flatten()) {
                    (Some(UniqueKeys(labels)), None) => Target::checked_labels(labels),
                    (None, Some(true)) => Ok(Target::All),
                    (None, Some(false)) => Err(de::Error::custom("a target's \"all\" can only be true")),
                    (Some(_), Some(_)) | (None, None) => Err(not_one()),
                }
            }
        }
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Readable);
        }
        match Self::deserialize(deserializer)? {
            Self::Labels(labels) => Self::checked_labels(labels),
            other @ (Self::Id(_) | Self::Name(_) | Self::All) => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Target, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_uuid_is_an_id_and_anything_else_a_name() {
        assert!(matches!(read("\"67e55044-10b1-426f-9247-bb680e5fe0c8\"").unwrap(), Target::Id(_)));
        assert!(matches!(read("\"render-42\"").unwrap(), Target::Name(_)));
    }

    #[test]
    fn every_form_reads_back_as_written() {
        for json in [
            "\"67e55044-10b1-426f-9247-bb680e5fe0c8\"",
            "\"a\"",
            "{\"labels\":{\"pool\":\"render\"}}",
            "{\"all\":true}",
        ] {
            assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
        }
    }

    #[test]
    fn a_target_that_could_be_misread_is_refused() {
        for json in [
            "{}",
            "{\"all\":false}",
            "{\"labels\":{}}",
            "{\"all\":true,\"labels\":{\"a\":\"b\"}}",
            "\"\"",
            "7",
            "null",
            "\"a b\"",
            "{\"label\":{}}",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
