//! One stream of one child, and the names of what belongs to it.

use std::fmt;

use procbroker_protocol::ChildId;
use procbroker_protocol::request::LogStream;
use uuid::Uuid;

/// What ends the name of a file of times.
const TIMES: &str = "times";

/// One of a child's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The child that writes.
    pub child: ChildId,
    /// Standard output or standard error.
    pub stream: LogStream,
}

impl StreamId {
    /// Both outputs of a child.
    /// Both streams of a child.
    pub(crate) fn both(child: ChildId) -> [Self; 2] {
        [LogStream::Stdout, LogStream::Stderr].map(|stream| Self { child, stream })
    }

    /// The name of the file with what was written from a position on: `ID.out` for the first one, `ID.out.START` later.
    pub(super) fn segment_name(self, start: u64) -> String {
        if start == 0 { self.to_string() } else { format!("{self}.{start}") }
    }

    /// The name of the file with the times of a segment.
    pub(super) fn times_name(self, start: u64) -> String {
        format!("{}.{TIMES}", self.segment_name(start))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = match self.stream {
            LogStream::Stdout => "out",
            LogStream::Stderr => "err",
        };
        write!(formatter, "{}.{ending}", self.child)
    }
}

/// What the name of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Whose output it is.
    pub(super) id: StreamId,
    /// Where the segment starts.
    pub(super) start: u64,
    /// Whether it holds its times.
    pub(super) is_times: bool,
}

/// Takes the name of a file apart; `None` for one that no broker has made.
pub(super) fn parse(name: &str) -> Option<Named> {
    let mut parts = name.split('.');
    let child = ChildId::from_uuid(Uuid::try_parse(parts.next()?).ok()?);
    let stream = match parts.next()? {
        "out" => LogStream::Stdout,
        "err" => LogStream::Stderr,
        _ => return None,
    };
    let id = StreamId { child, stream };
    let mut named = Named { id, start: 0, is_times: false };
    let mut next = parts.next();
    if let Some(start) = next.and_then(|part| part.parse().ok()) {
        named.start = start;
        next = parts.next();
    }
    if next == Some(TIMES) {
        named.is_times = true;
        next = parts.next();
    }
    let own = if named.is_times { id.times_name(named.start) } else { id.segment_name(named.start) };
    (next.is_none() && own == name).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_says_is_what_it_was_made_of() {
        for id in StreamId::both(ChildId::from_uuid(Uuid::from_u128(7))) {
            for start in [0, 1, 65_536, u64::MAX] {
                let names = [id.segment_name(start), id.times_name(start)];
                let said = names.map(|name| parse(&name).unwrap());
                assert_eq!(said, [false, true].map(|is_times| Named { id, start, is_times }));
            }
        }
    }

    #[test]
    fn other_names_are_no_output() {
        let id = "00000000-0000-0000-0000-000000000007";
        for rest in
            ["", ".txt", ".out.", ".out.0", ".out.07", ".out.x", ".out.7.time", ".out.7.times.x", ".OUT"]
        {
            assert_eq!(parse(&format!("{id}{rest}")), None, "{rest}");
        }
        assert_eq!(parse("notes.out"), None);
    }
}
