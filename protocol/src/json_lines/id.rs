//! The id of a request, echoed as it came.

use std::fmt;

/// The longest id that is kept for an answer, in bytes: of a string, as it is written between its quotes.
pub(super) const ID_BYTES_MAX: usize = 1024;

/// A JSON number or string, byte for byte as the client wrote it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonId(Box<str>);

impl JsonId {
    /// The id that is this number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number.to_string().into())
    }

    /// The id as it is written in JSON.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Takes the text of a JSON value; none when that is neither a number nor a string, or too long.
    pub(super) fn from_json(json: &str) -> Option<Self> {
        let written = match json.bytes().next()? {
            b'"' => json.len().saturating_sub("\"\"".len()),
            b'-' | b'0'..=b'9' => json.len(),
            _ => return None,
        };
        (written <= ID_BYTES_MAX).then(|| Self(json.into()))
    }
}

impl fmt::Display for JsonId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for JsonId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
