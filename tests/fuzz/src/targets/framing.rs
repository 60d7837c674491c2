//! Streams that come in pieces: the messages in them are the same, however they are cut.

use procbroker_protocol::frame::{Framed, Frames, Lines};

/// So small that the engine gets over it easily.
const CAP: usize = 48;

/// A message as it was found, for comparing.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Message(Vec<u8>),
    Oversize(usize, Vec<u8>),
}

impl From<Framed<'_>> for Found {
    fn from(framed: Framed<'_>) -> Self {
        match framed {
            Framed::Message(bytes) => Self::Message(bytes.to_owned()),
            Framed::Oversize { length, head } => Self::Oversize(length, head.to_owned()),
        }
    }
}

/// The first byte says how long the pieces are; the rest is the stream.
fn cut(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, stream) = bytes.split_first()?;
    Some((usize::from(*first).max(1), stream))
}

pub(super) fn lines(bytes: &[u8]) {
    let Some((length, stream)) = cut(bytes) else { return };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut lines = Lines::new(CAP);
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(framed) = lines.next_message() {
                found.push(Found::from(framed));
            }
        }
        found.extend(lines.finish().map(Found::from));
        found
    };
    let whole = read(&mut std::iter::once(stream));
    let cut = read(&mut stream.chunks(length));
    assert_eq!(messages(&whole), messages(&cut));
}

pub(super) fn frames(bytes: &[u8]) {
    let Some((length, stream)) = cut(bytes) else { return };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut frames = Frames::new(CAP);
        let mut found = Vec::new();
        for piece in pieces {
            frames.push(piece);
            while let Some(framed) = frames.next_message() {
                found.push(Found::from(framed));
            }
        }
        (found, frames.finish().is_ok())
    };
    let (whole, cut) = (read(&mut std::iter::once(stream)), read(&mut stream.chunks(length)));
    assert_eq!((messages(&whole.0), whole.1), (messages(&cut.0), cut.1));
}

/// What has to be the same: how an oversize message begins is shown as far as it has come.
fn messages(found: &[Found]) -> Vec<Result<&[u8], usize>> {
    found
        .iter()
        .map(|found| match found {
            Found::Message(bytes) => Ok(bytes.as_slice()),
            Found::Oversize(length, _) => Err(*length),
        })
        .collect()
}
