//! Reads children of which only some members were sent, from the binary form.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Fields, PartialChildren, read_element};
use crate::child::Child;

impl<'de> Deserialize<'de> for PartialChildren {
    /// Reads the binary form; the JSON form does not tell which members were asked for.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = PartialChildren;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the binary form of children with some of their members")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<PartialChildren, A::Error> {
                let missing = || de::Error::missing_field("children");
                let fields = parts.next_element()?.ok_or_else(missing)?;
                let children = parts.next_element_seed(RowsOf(fields))?.ok_or_else(missing)?;
                Ok(PartialChildren { fields, children })
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<PartialChildren, A::Error> {
                Err(de::Error::custom("children with some of their members are not read from JSON"))
            }
        }
        deserializer.deserialize_tuple(2, Table)
    }
}

/// Reads any number of children with these fields.
struct RowsOf(Fields);

impl<'de> DeserializeSeed<'de> for RowsOf {
    type Value = Vec<Arc<Child>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsOf {
    type Value = Vec<Arc<Child>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("children")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        // Nothing is set aside for what is only claimed: each child takes far more room than its bytes here.
        let mut children = Vec::new();
        while let Some(child) = rows.next_element_seed(RowOf(self.0))? {
            children.push(Arc::new(child));
        }
        Ok(children)
    }
}

/// Reads one child with these fields.
struct RowOf(Fields);

impl<'de> DeserializeSeed<'de> for RowOf {
    type Value = Child;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Child, D::Error> {
        deserializer.deserialize_tuple(2 + self.0.len(), self)
    }
}

impl<'de> Visitor<'de> for RowOf {
    type Value = Child;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a child's id and the members that were asked for")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Child, A::Error> {
        let mut child =
            Child::with_id(elements.next_element()?.ok_or_else(|| de::Error::missing_field("id"))?);
        for field in self.0.iter() {
            read_element(field, &mut child, &mut elements)?;
        }
        child.shortened = elements.next_element()?.ok_or_else(|| de::Error::missing_field("shortened"))?;
        Ok(child)
    }
}
