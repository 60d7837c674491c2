//! A mask of file permissions, in octal.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::beginning::beginning;

/// A mask of file permissions, written as an octal text such as `"022"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Umask(u16);

impl Umask {
    /// The mask with these bits; bits beyond the nine permissions are dropped, as umask(2) does.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0o777)
    }

    /// The nine bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0 & 0o777
    }
}

impl Default for Umask {
    fn default() -> Self {
        Self(0o022)
    }
}

impl std::str::FromStr for Umask {
    type Err = UmaskError;

    fn from_str(text: &str) -> Result<Self, UmaskError> {
        let refusal = || UmaskError { text: beginning(text).into_owned() };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refusal());
        }
        let bits = u16::from_str_radix(text, 8).map_err(|_| refusal())?;
        if bits > 0o777 { Err(refusal()) } else { Ok(Self(bits)) }
    }
}

/// A text that is no umask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a umask; give an octal text from \"000\" to \"777\"")]
pub struct UmaskError {
    text: String,
}

impl Serialize for Umask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{:03o}", self.0))
        } else {
            Self::serialize(self, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Umask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            Self::deserialize(deserializer).map(|umask| Self::from_bits(umask.0))
        }
    }
}
