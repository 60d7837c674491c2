//! Numbers of bytes on the command line: `16MiB`, `500k`, `65536`.

use std::fmt;
use std::str::FromStr;

use procbroker_protocol::byte_size::{self, SUFFIXES};
use thiserror::Error;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// A text that is not the number of bytes that is wanted.
#[derive(Debug, Error)]
pub enum ByteSizeError {
    /// It is something else.
    #[error(
        "{text:?} is not a size; give bytes, or a number with k, M, G or T (powers of 1024), such as 16MiB or 500k"
    )]
    Form {
        /// What was given.
        text: String,
    },
    /// It is too small a number.
    #[error("{given} is too little; give at least {least}")]
    TooLittle {
        /// The size that was given.
        given: ByteSize,
        /// The least that is taken.
        least: ByteSize,
    },
}

impl ByteSize {
    /// Makes a size of so many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns this size, or an error where it is less than the least.
    pub(in crate::cli) fn at_least(self, least: Self) -> Result<Self, ByteSizeError> {
        if self < least { Err(ByteSizeError::TooLittle { given: self, least }) } else { Ok(self) }
    }

    /// Returns the size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        byte_size::parse(text).map(Self).ok_or_else(|| ByteSizeError::Form { text: text.to_owned() })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        let suffix = SUFFIXES.iter().rev().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
        match suffix {
            Some((suffix, shift)) => write!(formatter, "{}{}iB", bytes >> shift, suffix.to_ascii_uppercase()),
            None => write!(formatter, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_suffix() {
        let cases = [
            ("0", 0),
            ("65536", 65536),
            ("500k", 500 << 10),
            ("500K", 500 << 10),
            ("16MiB", 16 << 20),
            ("16mib", 16 << 20),
            ("2G", 2 << 30),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_not_clear_is_refused() {
        for text in
            ["", "k", "ib", "16iB", "16KB", "16 M", "-1", "+1", "1.5G", "16777216T", "18446744073709551616"]
        {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("16MiB"), "{error}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_can_be_read() {
        for (bytes, text) in
            [(0, "0"), (16 << 20, "16MiB"), (1000, "1000"), (3 << 10, "3KiB"), (1 << 40, "1TiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes));
        }
    }
}
