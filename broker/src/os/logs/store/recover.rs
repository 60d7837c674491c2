//! What an earlier broker has kept, or the program before this one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;
use procbroker_protocol::ChildId;

use super::{Child, OutputStore, Segment};
use crate::os::logs::LogsError;
use crate::os::logs::stream::{self, StreamId};
use crate::os::logs::times::{self, TimeMark};

/// A segment as it was found.
#[derive(Debug)]
struct Found {
    id: StreamId,
    user: u32,
    segment: Segment,
}

impl OutputStore {
    /// Takes over what is there of the children that are known, with whom it belongs to, and removes what there is of
    /// others. Returns how many files that were.
    ///
    /// # Errors
    /// When the folder cannot be listed. A file that is not the broker's own is left alone and warned of, and whoever asks for
    /// that output is told.
    pub(in crate::os::logs) fn recover(
        &mut self,
        known: impl Fn(ChildId) -> Option<u32>,
    ) -> Result<usize, LogsError> {
        let mut removed = 0;
        // Where segments of the same age are apart, by their place in the stream.
        let mut found = BTreeMap::new();
        for name in self.folder.names()? {
            let Some(named) = stream::parse(&name) else { continue };
            let Some(user) = known(named.id.child) else {
                match self.folder.remove(&name) {
                    Ok(()) => removed += 1,
                    Err(error) => {
                        tracing::warn!(%error, file = name, "cannot remove output that is nobody's");
                    }
                }
                continue;
            };
            if named.is_times {
                continue;
            }
            match self.examine(named.id, named.start) {
                Ok((modified, segment)) => {
                    let place = (modified, named.start, named.id);
                    found.insert(place, Found { id: named.id, user, segment });
                }
                Err(error) => {
                    tracing::warn!(
                        %error, file = name, "a file of output is left alone: it is not the broker's own, or cannot be read"
                    );
                    let child = self.children.entry(named.id.child).or_insert_with(|| Child::new(user));
                    child.stream_mut(named.id.stream).left_alone = Some(named.start);
                }
            }
        }
        for (_, one) in found {
            self.adopt(one);
        }
        for child in self.children.keys().copied().collect::<Vec<_>>() {
            self.keep_to_bounds(child);
        }
        Ok(removed)
    }

    /// What a file says, and when it was written to last.
    fn examine(&self, id: StreamId, start: u64) -> io::Result<(i64, Segment)> {
        let file = self.folder.own_file(&id.segment_name(start), OFlag::O_RDONLY)?.metadata()?;
        let modified = file.mtime().saturating_mul(1_000_000).saturating_add(file.mtime_nsec() / 1_000);
        let only = TimeMark { offset: start, at: u64::try_from(modified).unwrap_or_default(), dropped: 0 };
        let marks = |file: File| times::ends(&file);
        let marks = self.folder.own_file(&id.times_name(start), OFlag::O_RDONLY).and_then(marks);
        let (first, last, times) = match marks {
            Ok(Some(marks)) => marks,
            Ok(None) => (only, only, 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (only, only, 0),
            Err(error) => return Err(error),
        };
        Ok((modified, Segment { born: 0, start, length: file.len(), times, first, last }))
    }

    fn adopt(&mut self, Found { id, user, mut segment }: Found) {
        segment.born = self.usage.bear(user, id);
        self.usage.grow(user, segment.room());
        let stream = self.children.entry(id.child).or_insert_with(|| Child::new(user)).stream_mut(id.stream);
        let place = stream.segments.partition_point(|other| other.start < segment.start);
        stream.segments.insert(place, segment);
        stream.end = stream.end.max(segment.start.saturating_add(segment.length));
        stream.dropped = stream.dropped.max(segment.last.dropped);
    }

    /// Removes what is over bounds that may be less than they were.
    fn keep_to_bounds(&mut self, child: ChildId) {
        let Some(user) = self.children.get(&child).map(|child| child.user) else { return };
        for id in StreamId::both(child) {
            self.make_room(id, user, 0, 0);
        }
    }
}
