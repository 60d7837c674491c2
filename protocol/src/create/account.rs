//! A user or a group, by name or by number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A user or a group: by name, or by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Account {
    /// By name, or by a number that was written as a text.
    Name(String),
    /// By number.
    Id(u32),
}

/// Bytes of the longest name: `LOGIN_NAME_MAX` of Linux (limits.h(0p)), and more than useradd(8) and groupadd(8) allow.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 256;

/// A name that no user or group can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of {length} bytes is no user's or group's; it has at most {ACCOUNT_NAME_BYTES_MAX}")]
pub struct AccountError {
    /// How many bytes it has.
    pub length: usize,
}

impl Account {
    /// Returns the account, if there can be one of this name or number.
    ///
    /// # Errors
    /// When its name is longer than [`ACCOUNT_NAME_BYTES_MAX`]: whatever looks it up may trust in that.
    pub fn checked(self) -> Result<Self, AccountError> {
        match &self {
            Self::Name(name) if name.len() > ACCOUNT_NAME_BYTES_MAX => {
                Err(AccountError { length: name.len() })
            }
            Self::Name(_) | Self::Id(_) => Ok(self),
        }
    }

    /// The account that a text means: all digits are a number, anything else is a name.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text.parse() {
            // The last number means "no change" to setresuid(2): it is nobody's id.
            Ok(id) if id != u32::MAX && text.bytes().all(|byte| byte.is_ascii_digit()) => Self::Id(id),
            Ok(_) | Err(_) => Self::Name(text.to_owned()),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Id(id) => id.fmt(formatter),
        }
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        match self {
            Self::Name(name) => name.serialize(serializer),
            Self::Id(id) => id.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Readable;
        impl de::Visitor<'_> for Readable {
            type Value = Account;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name or a numeric id")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Account, E> {
                Account::from_text(text).checked().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Account, E> {
                u32::try_from(id).map_err(|_| E::custom(no_account(id))).and_then(checked_account)
            }
        }
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Readable);
        }
        match Self::deserialize(deserializer)? {
            Self::Id(id) => checked_account(id),
            name @ Self::Name(_) => name.checked().map_err(de::Error::custom),
        }
    }
}

/// The last number means "no change" to setresuid(2): it is nobody's id.
fn checked_account<E: de::Error>(id: u32) -> Result<Account, E> {
    if id == u32::MAX { Err(E::custom(no_account(id.into()))) } else { Ok(Account::Id(id)) }
}

fn no_account(id: u64) -> String {
    format!("{id} is no user or group id")
}
