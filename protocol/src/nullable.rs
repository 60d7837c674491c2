//! Absent and `null` mean the same in a request's JSON form.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use crate::beginning::beginning;

use serde::{Deserialize, Deserializer, de};

/// Reads a field whose JSON form may be `null`, which stands for the type's default.
///
/// The binary form has no `null`: there the value is read as it is.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    or_else(deserializer, T::default)
}

/// Reads a field whose JSON form may be `null`, which stands for this default.
pub(crate) fn or_else<'de, D, T>(deserializer: D, default: impl FnOnce() -> T) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    if deserializer.is_human_readable() {
        Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_else(default))
    } else {
        T::deserialize(deserializer)
    }
}

/// Reads a map, or `null` for an empty one, and refuses a key that is given twice: which value was meant
/// is anybody's guess.
pub(crate) fn map_or_default<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    or_default(deserializer).map(|UniqueKeys(map)| map)
}

/// A map whose keys are all different.
pub(crate) struct UniqueKeys<T>(pub(crate) BTreeMap<String, T>);

impl<T> Default for UniqueKeys<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueKeys<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Entries<T> {
            type Value = UniqueKeys<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<UniqueKeys<T>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, T>()? {
                    if map.contains_key(&key) {
                        return Err(de::Error::custom(format_args!(
                            "the key {:?} is given twice",
                            beginning(&key)
                        )));
                    }
                    map.insert(key, value);
                }
                Ok(UniqueKeys(map))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
