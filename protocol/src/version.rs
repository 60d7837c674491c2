//! How a connection begins: which encoding it speaks, and which version of the binary one.
//!
//! The client sends `PBRK` and the lowest and highest version that it speaks (u16, little-endian); the
//! broker answers `PBRK` and the highest version that both speak, or `PBRK`, 0 and its own lowest and
//! highest. Decoding takes whatever has come so far and says when that is not enough yet.

use thiserror::Error;

use crate::error::{Error, ErrorKind};
use crate::json_lines;
pub use crate::status::ProtocolRange;

/// The versions of the binary protocol that this library speaks.
///
/// A message that gains a member has another layout, and needs a version of its own. Version 1 is that of the first
/// release: until then, its layout is what `protocol/tests/golden` has.
pub const PROTOCOL: ProtocolRange = ProtocolRange { lowest: 1, highest: 1 };

/// What both sides begin the binary encoding with.
pub const MAGIC: [u8; 4] = *b"PBRK";

/// The length of what a client begins with, in bytes.
pub const OFFER_BYTES: usize = MAGIC.len() + 4;

/// The longest line of JSON that is read in the place of an answer, in bytes.
const REFUSAL_BYTES_MAX: usize = 1 << 16;

/// One of the two encodings of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON-RPC 2.0, one message a line.
    Json,
    /// Frames of bincode, after a handshake.
    Binary,
}

impl Encoding {
    /// The encoding that begins with this byte.
    ///
    /// # Errors
    /// When neither does.
    pub fn detect(first: u8) -> Result<Self, HandshakeError> {
        match first {
            b'{' | b' ' | b'\t' | b'\r' | b'\n' => Ok(Self::Json),
            b'P' => Ok(Self::Binary),
            _ => Err(HandshakeError::UnknownEncoding { first }),
        }
    }
}

/// Why a connection could not begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first byte belongs to neither encoding.
    #[error(
        "the first byte is {first:#04x}; send JSON-RPC, one object a line, or the binary encoding, which begins with PBRK"
    )]
    UnknownEncoding {
        /// The byte that came instead.
        first: u8,
    },
    /// It began with a P and went on differently.
    #[error("the binary encoding begins with PBRK, not with \"{}\"", found.escape_ascii())]
    Magic {
        /// The bytes that came instead.
        found: Vec<u8>,
    },
    /// The client closed its side before it had said which versions it speaks.
    #[error(
        "the connection was closed after {bytes} of the {OFFER_BYTES} bytes that the binary encoding begins with: PBRK, and the \
         lowest and the highest version"
    )]
    BrokenOff {
        /// How many bytes came.
        bytes: usize,
    },
    /// The lowest version is 0, or above the highest.
    #[error("there is no version from {lowest} to {highest}; versions count from 1, and the lowest comes first", lowest = .0.lowest, highest = .0.highest)]
    Range(ProtocolRange),
    /// The broker chose a version that was not offered.
    #[error("the broker chose version {chosen}, which was not offered")]
    NotOffered {
        /// The version that the broker chose.
        chosen: u16,
    },
    /// The broker answered with a line that is no JSON-RPC error.
    #[error("the broker answered with a line that is no JSON-RPC error")]
    Refusal(#[from] json_lines::ErrorLineError),
    /// The broker's line of JSON does not end.
    #[error("the broker answered with a line of more than {REFUSAL_BYTES_MAX} bytes")]
    EndlessRefusal,
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::new(ErrorKind::InvalidRequest, error.to_string())
    }
}

/// What the broker answers to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The version that both will speak.
    Chosen(u16),
    /// No version in common; these are the broker's.
    NoneInCommon(ProtocolRange),
    /// The broker does not take the connection, and said why in a line of JSON.
    Refused(Box<Error>),
}

/// The highest version in both ranges.
#[must_use]
pub fn choose(ours: ProtocolRange, theirs: ProtocolRange) -> Option<u16> {
    let highest = ours.highest.min(theirs.highest);
    (highest >= ours.lowest.max(theirs.lowest)).then_some(highest)
}

/// What a client begins with.
#[must_use]
pub fn encode_offer(versions: ProtocolRange) -> [u8; OFFER_BYTES] {
    let mut bytes = [0; OFFER_BYTES];
    let parts = MAGIC.into_iter().chain(versions.lowest.to_le_bytes()).chain(versions.highest.to_le_bytes());
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = part;
    }
    bytes
}

/// Reads what a client begins with: its versions and how many bytes they took, or none when they have
/// not come entirely.
///
/// # Errors
/// When it is certain that these bytes begin no offer.
pub fn decode_offer(bytes: &[u8]) -> Result<Option<(ProtocolRange, usize)>, HandshakeError> {
    check_magic(bytes)?;
    let Some(versions) = range_at(bytes, MAGIC.len()) else { return Ok(None) };
    Ok(Some((checked(versions)?, OFFER_BYTES)))
}

/// Answers an offer: the bytes to send, and the version to speak from then on; none when there is none in
/// common, and the connection is to be closed.
#[must_use]
pub fn answer_offer(ours: ProtocolRange, theirs: ProtocolRange) -> (Vec<u8>, Option<u16>) {
    let chosen = choose(ours, theirs);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&chosen.unwrap_or(0).to_le_bytes());
    if chosen.is_none() {
        bytes.extend_from_slice(&ours.lowest.to_le_bytes());
        bytes.extend_from_slice(&ours.highest.to_le_bytes());
    }
    (bytes, chosen)
}

/// Reads the broker's answer to the offer of these versions, and how many bytes it took, or none when it
/// has not come entirely.
///
/// # Errors
/// When it is certain that these bytes begin no answer.
pub fn decode_reply(bytes: &[u8], offered: ProtocolRange) -> Result<Option<(Reply, usize)>, HandshakeError> {
    if bytes.first() == Some(&b'{') {
        return decode_refusal(bytes);
    }
    check_magic(bytes)?;
    let Some(chosen) = number_at(bytes, MAGIC.len()) else { return Ok(None) };
    if chosen != 0 {
        return if (offered.lowest..=offered.highest).contains(&chosen) {
            Ok(Some((Reply::Chosen(chosen), MAGIC.len() + 2)))
        } else {
            Err(HandshakeError::NotOffered { chosen })
        };
    }
    let Some(theirs) = range_at(bytes, MAGIC.len() + 2) else { return Ok(None) };
    Ok(Some((Reply::NoneInCommon(checked(theirs)?), MAGIC.len() + 6)))
}

fn decode_refusal(bytes: &[u8]) -> Result<Option<(Reply, usize)>, HandshakeError> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > REFUSAL_BYTES_MAX { Err(HandshakeError::EndlessRefusal) } else { Ok(None) };
    };
    let error = json_lines::decode_error_line(bytes.get(..end).unwrap_or_default())?;
    Ok(Some((Reply::Refused(Box::new(error)), end + 1)))
}

/// Refuses bytes as soon as one of them differs from the magic.
fn check_magic(bytes: &[u8]) -> Result<(), HandshakeError> {
    let found = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if MAGIC.starts_with(found) { Ok(()) } else { Err(HandshakeError::Magic { found: found.to_vec() }) }
}

fn checked(range: ProtocolRange) -> Result<ProtocolRange, HandshakeError> {
    if range.lowest == 0 || range.lowest > range.highest {
        Err(HandshakeError::Range(range))
    } else {
        Ok(range)
    }
}

fn number_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn range_at(bytes: &[u8], offset: usize) -> Option<ProtocolRange> {
    Some(ProtocolRange { lowest: number_at(bytes, offset)?, highest: number_at(bytes, offset + 2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(lowest: u16, highest: u16) -> ProtocolRange {
        ProtocolRange { lowest, highest }
    }

    #[test]
    fn the_first_byte_decides_the_encoding() {
        for first in *b"{ \t\r\n" {
            assert_eq!(Encoding::detect(first), Ok(Encoding::Json));
        }
        assert_eq!(Encoding::detect(b'P'), Ok(Encoding::Binary));
        for first in *b"[Gp\0\xff\"0" {
            assert_eq!(Encoding::detect(first), Err(HandshakeError::UnknownEncoding { first }));
        }
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(choose(range(1, 3), range(2, 5)), Some(3));
        assert_eq!(choose(range(1, 3), range(1, 2)), Some(2));
        assert_eq!(choose(range(1, 3), range(4, 5)), None);
        assert_eq!(choose(range(4, 5), range(1, 3)), None);
    }

    #[test]
    fn an_offer_is_read_once_it_is_whole() {
        let bytes = encode_offer(range(1, 0x0203));
        assert_eq!(bytes, *b"PBRK\x01\0\x03\x02");
        for length in 0..bytes.len() {
            assert_eq!(decode_offer(&bytes[..length]), Ok(None));
        }
        assert_eq!(decode_offer(&[&bytes[..], b"rest"].concat()), Ok(Some((range(1, 0x0203), 8))));
    }

    #[test]
    fn an_offer_out_of_form_is_refused_as_soon_as_it_shows() {
        assert_eq!(decode_offer(b"PX"), Err(HandshakeError::Magic { found: b"PX".to_vec() }));
        assert_eq!(decode_offer(b"PBRX\x01\0\x01\0"), Err(HandshakeError::Magic { found: b"PBRX".to_vec() }));
        assert_eq!(decode_offer(b"PBRK\x02\0\x01\0"), Err(HandshakeError::Range(range(2, 1))));
        assert_eq!(decode_offer(b"PBRK\0\0\x01\0"), Err(HandshakeError::Range(range(0, 1))));
    }

    #[test]
    fn a_reply_reads_back_as_written() {
        let (bytes, chosen) = answer_offer(range(1, 2), range(2, 9));
        assert_eq!((bytes.as_slice(), chosen), (&b"PBRK\x02\0"[..], Some(2)));
        assert_eq!(decode_reply(&bytes[..5], range(2, 9)), Ok(None));
        assert_eq!(decode_reply(&bytes, range(2, 9)), Ok(Some((Reply::Chosen(2), 6))));
        let (bytes, chosen) = answer_offer(range(1, 2), range(3, 9));
        assert_eq!((bytes.as_slice(), chosen), (&b"PBRK\0\0\x01\0\x02\0"[..], None));
        for length in 0..bytes.len() {
            assert_eq!(decode_reply(&bytes[..length], range(3, 9)), Ok(None));
        }
        assert_eq!(decode_reply(&bytes, range(3, 9)), Ok(Some((Reply::NoneInCommon(range(1, 2)), 10))));
    }

    #[test]
    fn a_version_that_was_not_offered_is_refused() {
        assert_eq!(decode_reply(b"PBRK\x03\0", range(1, 2)), Err(HandshakeError::NotOffered { chosen: 3 }));
        assert!(matches!(decode_reply(b"HTTP/1.1", range(1, 2)), Err(HandshakeError::Magic { .. })));
    }

    #[test]
    fn a_refusal_in_place_of_a_reply_is_read() {
        let error = Error::new(ErrorKind::PermissionDenied, "uid 7 may not connect");
        let mut line = Vec::new();
        json_lines::encode_answer(None, &Err(error.clone()), &mut line);
        assert_eq!(decode_reply(&line[..line.len() - 1], PROTOCOL), Ok(None));
        assert_eq!(decode_reply(&line, PROTOCOL), Ok(Some((Reply::Refused(Box::new(error)), line.len()))));
        assert!(matches!(decode_reply(b"{}\n", PROTOCOL), Err(HandshakeError::Refusal(_))));
        let endless = vec![b'{'; REFUSAL_BYTES_MAX + 1];
        assert_eq!(decode_reply(&endless, PROTOCOL), Err(HandshakeError::EndlessRefusal));
    }
}
