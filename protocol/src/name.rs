//! The name of a child, which at most one live child holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A well-formed name: `[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}`, and not a UUID.
///
/// A UUID is not a name because a target that reads as one means an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing was given.
    #[error("a name has at least one character")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the name has {length} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// How many bytes it has.
        length: usize,
    },
    /// A character outside of the allowed ones.
    #[error(
        "the name {name:?} has the character {character:?}; ASCII letters, digits and (after the first) any of . _ : @ - are allowed"
    )]
    Character {
        /// The text that is no name.
        name: String,
        /// The first character that is not allowed where it stands.
        character: char,
    },
    /// It reads as a UUID.
    #[error("the name {name:?} is a UUID, which would be taken for an id")]
    Uuid {
        /// The text that is no name.
        name: String,
    },
}

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { length: text.len() });
        }
        for (index, character) in text.chars().enumerate() {
            let punctuation = index > 0 && matches!(character, '.' | '_' | ':' | '@' | '-');
            if !character.is_ascii_alphanumeric() && !punctuation {
                return Err(NameError::Character { name: text.to_owned(), character });
            }
        }
        if Uuid::try_parse(text).is_ok() {
            return Err(NameError::Uuid { name: text.to_owned() });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_names_are_taken() {
        for text in ["a", "0", "render-42", "a.b_c:d@e-f", &"x".repeat(128)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("x".repeat(129).parse::<Name>(), Err(NameError::TooLong { length: 129 }));
        for text in ["-a", ".a", "a b", "a/b", "ä", "a\0", "a\n"] {
            assert!(matches!(text.parse::<Name>(), Err(NameError::Character { .. })), "{text:?}");
        }
        for text in ["67e55044-10b1-426f-9247-bb680e5fe0c8", "67e5504410b1426f9247bb680e5fe0c8"] {
            assert!(matches!(text.parse::<Name>(), Err(NameError::Uuid { .. })), "{text:?}");
        }
    }
}
