//! The files that output is kept in: segments that are appended to, and the oldest of which go first.
//!
//! Each stream has a row of segments and beside each, as soon as it holds pieces of different times, a file of those.
//! All of them are the broker's own: nobody else opens, shortens, links or reads them.

mod recover;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use procbroker_protocol::ChildId;
use procbroker_protocol::request::LogStream;

use super::error::LogsError;
use super::folder::Folder;
use super::output::{KeptStream, Part};
use super::stream::StreamId;
use super::times::{self, RECORD_BYTES, TIMES_APART, TimeMark};
use super::transfer::Transfer;
use usage::{SegmentKey, Usage};

/// What file systems hand out at a time, in bytes; a file of one byte takes that much.
const BLOCK_BYTES: u64 = 4 << 10;

/// How many segments a child's bound is made of: what is lost at a time when it is reached.
const SEGMENTS_PER_CHILD: u64 = 16;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Of a child, both streams together, in bytes on the disk.
    pub per_child: u64,
    /// Of all children together, likewise.
    pub in_all: u64,
}

/// The segments of all streams, and what they take on the disk.
#[derive(Debug)]
pub(super) struct OutputStore {
    folder: Folder,
    bounds: LogBounds,
    children: HashMap<ChildId, Child>,
    usage: Usage,
}

/// What is kept of a child.
#[derive(Debug)]
struct Child {
    /// Whose it is: the one who pays for the room.
    user: u32,
    stdout: Stream,
    stderr: Stream,
}

/// What is kept of a stream.
#[derive(Debug, Default)]
struct Stream {
    segments: VecDeque<Segment>,
    /// How many bytes were kept, with those that are gone.
    end: u64,
    /// How many bytes could not be kept.
    dropped: u64,
    open: Option<Opened>,
    /// Where a segment starts that an earlier program has kept, and whose file is not to be used.
    left_alone: Option<u64>,
}

/// One file of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    /// Its place among all segments, in the order in which they were begun.
    born: u64,
    /// Where it starts in its stream.
    start: u64,
    /// How long it is, in bytes.
    length: u64,
    /// How long the file of its times is.
    times: u64,
    /// When its first piece came.
    first: TimeMark,
    /// When its last piece came that has a time of its own.
    last: TimeMark,
}

/// The files of the newest segment, open for as long as its child has something to say.
#[derive(Debug)]
struct Opened {
    data: File,
    times: Option<File>,
}

impl Segment {
    /// What it takes on the disk.
    fn room(&self) -> u64 {
        blocks(self.length).saturating_add(blocks(self.times))
    }
}

/// What a file of this length takes on the disk.
fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

impl Child {
    fn new(user: u32) -> Self {
        Self { user, stdout: Stream::default(), stderr: Stream::default() }
    }

    fn stream(&self, stream: LogStream) -> &Stream {
        match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
        }
    }

    fn stream_mut(&mut self, stream: LogStream) -> &mut Stream {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }

    /// The stream with the oldest segment, beside the one that is written to.
    fn oldest(&self, written: u64) -> Option<LogStream> {
        let born = |stream: LogStream| Some((self.stream(stream).segments.front()?.born, stream));
        let born = [LogStream::Stdout, LogStream::Stderr].into_iter().filter_map(born);
        born.filter(|(born, _)| *born != written).min().map(|(_, stream)| stream)
    }
}

impl OutputStore {
    /// Nothing is known yet of what an earlier broker has left in the folder.
    pub(super) fn new(folder: Folder, bounds: LogBounds) -> Self {
        Self { folder, bounds, children: HashMap::new(), usage: Usage::default() }
    }

    /// Appends so many bytes of a transfer to a stream, and makes room for them. Returns how many are kept: fewer when the
    /// disk takes no more.
    pub(super) fn append(
        &mut self,
        id: StreamId,
        user: u32,
        transfer: &mut Transfer,
        length: usize,
        now: u64,
    ) -> (usize, Result<(), LogsError>) {
        let mut kept = 0;
        while kept < length {
            match self.append_to_segment(id, user, transfer, length - kept, now) {
                Ok((written, result)) => {
                    kept += written;
                    if let Err(source) = result {
                        return (kept, Err(self.folder.refused("append to", &id.to_string(), source)));
                    }
                }
                Err(source) => return (kept, Err(self.folder.refused("open", &id.to_string(), source))),
            }
        }
        (kept, Ok(()))
    }

    /// Appends as much as the newest segment takes; an outer error is one before anything was written.
    fn append_to_segment(
        &mut self,
        id: StreamId,
        user: u32,
        transfer: &mut Transfer,
        length: usize,
        now: u64,
    ) -> io::Result<(usize, io::Result<()>)> {
        let segment_bytes = self.segment_bytes();
        let found = self.stream(id).and_then(|stream| stream.segments.back().copied());
        let segment = match found.filter(|segment| segment.length < segment_bytes) {
            Some(segment) => segment,
            None => self.begin_segment(id, user)?,
        };
        let left = usize::try_from(segment_bytes.saturating_sub(segment.length)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let grown = blocks(segment.length.saturating_add(length as u64)) - blocks(segment.length);
        // With a block for a time that may be noted.
        self.make_room(id, user, segment.born, grown.saturating_add(BLOCK_BYTES));
        let folder = self.folder.clone();
        let Some(stream) = self.children.get_mut(&id.child).map(|child| child.stream_mut(id.stream)) else {
            return Err(Errno::ENOENT.into());
        };
        let opened = match stream.open.take() {
            Some(opened) => stream.open.insert(opened),
            None => match folder.own_file(&id.segment_name(segment.start), OFlag::O_WRONLY) {
                Ok(data) => stream.open.insert(Opened { data, times: None }),
                // Somebody has removed it; the next round begins another one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    stream.segments.pop_back();
                    self.usage.bury(user, segment.born, segment.room());
                    return Ok((0, Ok(())));
                }
                Err(error) => return Err(error),
            },
        };
        let (written, result) = transfer.write(&opened.data, segment.length, length);
        let Some(newest) = stream.segments.back_mut() else { return Ok((written, result)) };
        let before = newest.room();
        let offset = stream.end;
        newest.length = newest.length.saturating_add(written as u64);
        stream.end = stream.end.saturating_add(written as u64);
        if written > 0 {
            let mark = TimeMark { offset, at: now, dropped: stream.dropped };
            note_time(&folder, id, newest, opened, mark);
        }
        let (before, after) = (before, newest.room());
        self.usage.grow(user, after.saturating_sub(before));
        Ok((written, result))
    }

    /// Begins another file of a stream.
    fn begin_segment(&mut self, id: StreamId, user: u32) -> io::Result<Segment> {
        let start = self.stream(id).map_or(0, |stream| stream.end);
        let data = self.folder.make_file(&id.segment_name(start))?;
        let born = self.usage.bear(user, id);
        let child = self.children.entry(id.child).or_insert_with(|| Child::new(user));
        let stream = child.stream_mut(id.stream);
        stream.open = Some(Opened { data, times: None });
        let none = TimeMark::default();
        let segment = Segment { born, start, length: 0, times: 0, first: none, last: none };
        stream.segments.push_back(segment);
        Ok(segment)
    }

    /// Removes the oldest output until so much more fits: of the child itself, then of the user who has the most. The
    /// segment that is to be written to stays.
    fn make_room(&mut self, id: StreamId, user: u32, written: u64, more: u64) {
        while self.room_of(id.child).saturating_add(more) > self.bounds.per_child {
            let oldest = self.children.get(&id.child).and_then(|child| child.oldest(written));
            let Some(stream) = oldest else { break };
            if !self.remove_oldest(StreamId { child: id.child, stream }, written) {
                break;
            }
        }
        while self.usage.in_all().saturating_add(more) > self.bounds.in_all {
            let Some(SegmentKey { id, .. }) = self.usage.oldest_of_greediest(user, more, written) else {
                break;
            };
            if !self.remove_oldest(id, written) {
                break;
            }
        }
    }

    /// Removes the oldest segment of a stream, unless it is the one that is being written to.
    fn remove_oldest(&mut self, id: StreamId, written: u64) -> bool {
        let Some(child) = self.children.get_mut(&id.child) else { return false };
        let user = child.user;
        let stream = child.stream_mut(id.stream);
        let Some(segment) = stream.segments.front().copied().filter(|segment| segment.born != written) else {
            return false;
        };
        stream.segments.pop_front();
        if stream.segments.is_empty() {
            stream.open = None;
        }
        self.usage.bury(user, segment.born, segment.room());
        remove_files(&self.folder, id, &segment);
        true
    }

    /// What all that is kept takes on the disk.
    pub(super) fn room(&self) -> u64 {
        self.usage.in_all()
    }

    /// Bytes of a stream could not be kept.
    pub(super) fn count_dropped(&mut self, id: StreamId, user: u32, bytes: u64) {
        let child = self.children.entry(id.child).or_insert_with(|| Child::new(user));
        let stream = child.stream_mut(id.stream);
        stream.dropped = stream.dropped.saturating_add(bytes);
    }

    /// A child is silent for now: what is open of it is closed.
    pub(super) fn rest(&mut self, id: StreamId) {
        if let Some(child) = self.children.get_mut(&id.child) {
            child.stream_mut(id.stream).open = None;
        }
    }

    /// Removes everything of a child.
    pub(super) fn remove(&mut self, child: ChildId) {
        let Some(known) = self.children.remove(&child) else { return };
        for id in StreamId::both(child) {
            for segment in &known.stream(id.stream).segments {
                self.usage.bury(known.user, segment.born, segment.room());
                remove_files(&self.folder, id, segment);
            }
        }
    }

    /// What is kept of a stream now.
    pub(super) fn kept(&self, id: StreamId) -> KeptStream {
        let mut kept = KeptStream::nothing(self.folder.clone(), id);
        if let Some(stream) = self.stream(id) {
            kept.end = stream.end;
            kept.dropped = stream.dropped;
            kept.left_alone = stream.left_alone;
            kept.parts.extend(stream.segments.iter().map(|segment| Part {
                start: segment.start,
                length: segment.length,
                first: segment.first,
                is_timed: segment.times > 0,
            }));
        }
        kept
    }

    fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.children.get(&id.child).map(|child| child.stream(id.stream))
    }

    /// What a child's output takes on the disk.
    fn room_of(&self, child: ChildId) -> u64 {
        let Some(child) = self.children.get(&child) else { return 0 };
        child.stdout.segments.iter().chain(&child.stderr.segments).map(Segment::room).sum()
    }

    fn segment_bytes(&self) -> u64 {
        let share = self.bounds.per_child.min(self.bounds.in_all) / SEGMENTS_PER_CHILD;
        (share / BLOCK_BYTES * BLOCK_BYTES).max(BLOCK_BYTES)
    }
}

/// Notes when a piece came. Where that fails, lines have the time of an earlier one.
fn note_time(folder: &Folder, id: StreamId, segment: &mut Segment, opened: &mut Opened, mark: TimeMark) {
    if mark.offset == segment.start {
        segment.first = mark;
        segment.last = mark;
        return;
    }
    let is_news =
        mark.at.saturating_sub(segment.last.at) >= TIMES_APART || mark.dropped > segment.last.dropped;
    if !is_news {
        return;
    }
    let name = id.times_name(segment.start);
    let marks: &[TimeMark] = if segment.times == 0 { &[segment.first, mark] } else { &[mark] };
    let file = match opened.times.take() {
        Some(file) => Ok(file),
        None if segment.times == 0 => folder.make_file(&name),
        None => folder.own_file(&name, OFlag::O_WRONLY),
    };
    let written = file.and_then(|file| {
        let length = times::write(&file, segment.times / RECORD_BYTES * RECORD_BYTES, marks)?;
        opened.times = Some(file);
        Ok(length)
    });
    match written {
        Ok(length) => {
            segment.times = length;
            segment.last = mark;
        }
        Err(error) => tracing::debug!(%error, file = name, "cannot note the time of output"),
    }
}

fn remove_files(folder: &Folder, id: StreamId, segment: &Segment) {
    let data = folder.remove(&id.segment_name(segment.start));
    let times = if segment.times > 0 { folder.remove(&id.times_name(segment.start)) } else { Ok(()) };
    if let Err(error) = data.and(times) {
        tracing::warn!(%error, output = %id, "cannot remove output that is not kept any more");
    }
}
