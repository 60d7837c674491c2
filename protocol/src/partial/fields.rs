//! Which members of a child are meant: a set of their names in JSON, a number with a bit for each in the binary form.

use std::fmt;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Field;
use crate::beginning::beginning;

/// A set of [`Field`]s. The empty one asks for ids alone.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fields(u32);

impl Fields {
    /// Whether a field is in the set.
    #[must_use]
    pub fn contains(self, field: Field) -> bool {
        self.0 & Self::bit(field) != 0
    }

    /// Returns the fields of the set, in the order in which they are sent.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |field| self.contains(*field))
    }

    /// Whether there is none in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the fields that are in both sets.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Returns the fields that are in one of the sets.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn len(self) -> usize {
        self.iter().count()
    }

    fn bit(field: Field) -> u32 {
        1 << field as u32
    }

    fn from_bits(bits: u32) -> Option<Self> {
        let known: Self = Field::ALL.iter().copied().collect();
        (bits & !known.0 == 0).then_some(Self(bits))
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        Self(fields.into_iter().fold(0, |bits, field| bits | Self::bit(field)))
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_u32(self.0);
        }
        let mut names = serializer.serialize_seq(Some(self.len()))?;
        for field in self.iter() {
            names.serialize_element(field.as_str())?;
        }
        names.end()
    }
}

/// A field by its name in JSON; `None` stands for `id`, which is always sent, and for `shortened`, which is sent wherever one of
/// the other members is.
struct Named(Option<Field>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if ["id", "shortened"].contains(&name.as_str()) {
            return Ok(Self(None));
        }
        let found = Field::ALL.iter().find(|field| field.as_str() == name);
        found.map(|field| Self(Some(*field))).ok_or_else(|| {
            let known: Vec<&str> = Field::ALL.iter().map(|field| field.as_str()).collect();
            de::Error::custom(format!(
                "a child has no member {:?}; it has id, shortened, {}",
                beginning(&name),
                known.join(", ")
            ))
        })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let names = Vec::<Named>::deserialize(deserializer)?;
            return Ok(names.into_iter().filter_map(|Named(field)| field).collect());
        }
        let bits = u32::deserialize(deserializer)?;
        let message = || format!("the fields {bits:#x} have one that this version does not know");
        Self::from_bits(bits).ok_or_else(|| de::Error::custom(message()))
    }
}
