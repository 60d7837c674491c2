//! Puts pieces of streams together to lines: cut where a line is too long, and where nothing of it can follow.

use std::collections::HashMap;
use std::sync::Arc;

use super::author::Author;
use super::queue::Piece;
use crate::limits::BEGUN_LINE_BYTES_OF_A_USER_MAX;
use crate::os::logs::stream::StreamId;
use crate::os::logs::text::unfinished;

/// The lines that have begun, and the rule by which they end.
#[derive(Debug)]
pub(super) struct LineSplitter {
    bytes_max: usize,
    begun: HashMap<StreamId, Begun>,
    /// What the lines take that have begun, by user.
    of_users: HashMap<u32, usize>,
}

/// The beginning of a line.
#[derive(Debug)]
struct Begun {
    user: u32,
    author: Arc<Author>,
    bytes: Vec<u8>,
}

impl LineSplitter {
    /// No line has begun. A longer one than this is cut.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, begun: HashMap::new(), of_users: HashMap::new() }
    }

    /// Takes the next line out of a piece, without its end; false when there is none, and what is left waits for more.
    pub(super) fn next(&mut self, user: u32, piece: &mut Piece, line: &mut Vec<u8>) -> bool {
        line.clear();
        if let Some(begun) = self.end(piece.id) {
            line.extend_from_slice(&begun.bytes);
        }
        if std::mem::take(&mut piece.follows_gap) && !line.is_empty() {
            return true;
        }
        let rest = piece.rest();
        let end = rest.iter().position(|byte| *byte == b'\n');
        let content = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let room = self.bytes_max.saturating_sub(line.len());
        if content.len() > room {
            line.extend_from_slice(content.get(..room).unwrap_or_default());
            // No character is cut in two. What belongs to the next line may have come with an earlier piece.
            let whole = line.len().saturating_sub(unfinished(line));
            let left = line.split_off(whole);
            piece.take(room);
            self.begin(user, piece, &left);
            return true;
        }
        line.extend_from_slice(content);
        let length = content.len();
        if end.is_some() {
            piece.take(length.saturating_add(1));
            return true;
        }
        piece.take(length);
        let held = self.of_users.get(&user).copied().unwrap_or_default();
        if held.saturating_add(line.len()) > BEGUN_LINE_BYTES_OF_A_USER_MAX {
            // There are too many of them to wait for their ends.
            return true;
        }
        self.begin(user, piece, line);
        false
    }

    /// What has come of a line that ends here.
    pub(super) fn cut(&mut self, id: StreamId) -> Option<(Arc<Author>, Vec<u8>)> {
        self.end(id).map(|begun| (begun.author, begun.bytes))
    }

    /// What has come of the lines of all streams, which end here.
    pub(super) fn cut_all(&mut self) -> Vec<(StreamId, Arc<Author>, Vec<u8>)> {
        self.of_users.clear();
        self.begun.drain().map(|(id, begun)| (id, begun.author, begun.bytes)).collect()
    }

    fn begin(&mut self, user: u32, piece: &Piece, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let held = self.of_users.entry(user).or_default();
        *held = held.saturating_add(bytes.len());
        let begun = Begun { user, author: Arc::clone(&piece.author), bytes: bytes.to_vec() };
        self.begun.insert(piece.id, begun);
    }

    fn end(&mut self, id: StreamId) -> Option<Begun> {
        let begun = self.begun.remove(&id)?;
        if let Some(held) = self.of_users.get_mut(&begun.user) {
            *held = held.saturating_sub(begun.bytes.len());
            if *held == 0 {
                self.of_users.remove(&begun.user);
            }
        }
        Some(begun)
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::request::LogStream;
    use procbroker_protocol::{ChildId, CreateParams};
    use uuid::Uuid;

    use super::*;

    const MAX: usize = 16;

    fn piece(child: u128, bytes: &[u8], follows_gap: bool) -> Piece {
        let id = StreamId { child: ChildId::from_uuid(Uuid::from_u128(child)), stream: LogStream::Stderr };
        let author = Author::new(7, Arc::new(CreateParams::new(vec!["one".to_owned()])), None);
        Piece::new(id, Arc::new(author), bytes.to_vec(), follows_gap)
    }

    fn taken(lines: &mut LineSplitter, mut piece: Piece) -> Vec<Vec<u8>> {
        let (mut all, mut line) = (Vec::new(), Vec::new());
        while lines.next(7, &mut piece, &mut line) {
            all.push(line.clone());
        }
        assert_eq!(piece.rest(), b"");
        all
    }

    /// All lines of a text that comes in these pieces.
    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = LineSplitter::new(MAX);
        let mut all: Vec<_> =
            pieces.iter().flat_map(|bytes| taken(&mut lines, piece(1, bytes, false))).collect();
        all.extend(lines.cut_all().into_iter().map(|(_, _, line)| line));
        assert!(lines.of_users.is_empty() && lines.begun.is_empty());
        all.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_the_same_wherever_its_pieces_were_cut() {
        let text = "one\n\ntwo \u{20ac}\nthe third is far too long \u{20ac}\u{20ac}\u{20ac}\u{20ac}\u{20ac}\u{20ac}\n16 bytes, no end";
        let expected = [
            "one",
            "",
            "two \u{20ac}",
            "the third is far",
            " too long \u{20ac}\u{20ac}",
            "\u{20ac}\u{20ac}\u{20ac}\u{20ac}",
            "16 bytes, no end",
        ];
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(lines_of(&pieces), expected, "{first} {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(lines_of(&single), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_where_there_is_no_room() {
        let mut lines = LineSplitter::new(MAX);
        let taken = taken(&mut lines, piece(1, &[0x80; 40], false));
        assert_eq!(taken, [vec![0x80; 16], vec![0x80; 16]]);
        assert_eq!(lines.cut_all().len(), 1);
    }

    #[test]
    fn what_follows_a_gap_goes_on_with_no_line_of_before() {
        let mut lines = LineSplitter::new(MAX);
        assert!(taken(&mut lines, piece(1, b"before", false)).is_empty());
        assert!(taken(&mut lines, piece(2, b"another's", false)).is_empty());
        assert_eq!(taken(&mut lines, piece(1, b"after\n", true)), [b"before".to_vec(), b"after".to_vec()]);
        let id = piece(2, b"", false).id;
        assert_eq!(lines.cut(id).unwrap().1, b"another's");
        assert!(lines.cut(id).is_none());
    }

    #[test]
    fn lines_that_do_not_end_take_a_user_no_more_than_its_share() {
        let mut lines = LineSplitter::new(48 << 10);
        let begun = vec![b'x'; 40 << 10];
        let sent =
            (0..1_000).map(|child| taken(&mut lines, piece(child, &begun, false)).len()).sum::<usize>();
        let held: usize = lines.begun.values().map(|begun| begun.bytes.len()).sum();
        assert!(
            held <= BEGUN_LINE_BYTES_OF_A_USER_MAX && sent + held / begun.len() == 1_000,
            "{sent} {held}"
        );
    }
}
