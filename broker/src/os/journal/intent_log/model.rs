//! A broker that writes a log and a state file, in a model: with crashes at any moment, in the midst of a write too, full
//! disks and losses of power. With a [`Flaw`] it makes a known mistake, which has to be found.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use procbroker_core::Safety;
use procbroker_protocol::ChildId;

use super::*;
use crate::os::journal::{Change, StoredProgress};

/// A mistake that a broker could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// A half is written over before its entries are committed to the state file.
    CutBeforeTheFoldIsCommitted,
    /// The latest entry is replayed first.
    WrongOrder,
    /// Entries of another boot are replayed.
    EntriesOfAnotherBoot,
    /// The state file says to have what came while it was being written, such as that a child is forgotten.
    FoldOvertakesAForget,
    /// A write that failed is taken for one that succeeded.
    NoSpaceTakenForSuccess,
    /// A broker that was told that its log is full goes on writing to it at once.
    GapInTheLog,
    /// A log whose entries found no room in the state file is begun anew by the next broker.
    NewLogOverOneThatIsNeeded,
}

/// What is on record of each child.
type Rows = BTreeMap<ChildId, (String, Option<String>)>;

/// A disk that dies with the broker, or has no room.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    /// So many bytes are written until the end.
    left: Option<usize>,
    has_room: bool,
}

impl Disk for Memory {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        let whole = bytes.len();
        let count = if inner.has_room { inner.left.map_or(whole, |left| left.min(whole)) } else { whole / 2 };
        // A kill does not come in the midst of a page (`generic_perform_write` in the kernel's `mm/filemap.c`); the marks
        // rely on that.
        let is_mark = offset < HEADER_BYTES;
        let count = if is_mark && count < whole { 0 } else { count };
        let start = usize::try_from(offset).unwrap();
        let end = inner.bytes.len().max(start + count);
        inner.bytes.resize(end, 0);
        inner.bytes[start..start + count].copy_from_slice(&bytes[..count]);
        let is_over = inner.left.is_some_and(|left| left < whole);
        inner.left = inner.left.map(|left| if is_over { 0 } else { left - count });
        if count == whole { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

const KEY: Uuid = Uuid::from_u128(0xabc);
const HALF: u64 = 400;
const CHILDREN: u64 = 4;

/// The state file.
#[derive(Clone, Default)]
struct StateFile {
    folded: u64,
    rows: Rows,
}

/// A transaction that has begun.
struct Fold {
    up_to: u64,
}

struct Broker {
    log: IntentLog<Memory>,
    mark: FoldMark<Memory>,
    settled: u64,
    fold: Option<Fold>,
    /// Entries that are answered when the state file has them.
    waiting: Vec<u64>,
}

struct World {
    flaw: Flaw,
    dice: fastrand::Rng,
    memory: Memory,
    boot: BootId,
    submitted: Vec<Entry>,
    /// Numbers of entries that somebody was told of.
    answered: u64,
    file: StateFile,
    synced: StateFile,
}

/// Runs a world, and says what is wrong in it, if anything is.
pub(super) fn explore(flaw: Flaw, seed: u64) -> Result<(), String> {
    let mut world = World {
        flaw,
        dice: fastrand::Rng::with_seed(seed),
        memory: Memory::default(),
        boot: BootId(Uuid::from_u128(1)),
        submitted: Vec::new(),
        answered: 0,
        file: StateFile::default(),
        synced: StateFile::default(),
    };
    for _ in 0..4 {
        world.live();
        world.recover()?;
    }
    Ok(())
}

impl World {
    fn start(&mut self) -> Broker {
        let seal = Seal::new(KEY, self.boot);
        let last = self.file.folded;
        if last < self.count() && self.flaw != Flaw::NewLogOverOneThatIsNeeded {
            let mut inner = self.memory.0.borrow_mut();
            (inner.left, inner.has_room) = (None, true);
            let (disk, mark) =
                (self.memory.clone(), FoldMark { disk: self.memory.clone(), seal: seal.clone() });
            let log = IntentLog::resumed(disk, seal, &inner.bytes, last, HALF);
            return Broker { log, mark, settled: last, fold: None, waiting: Vec::new() };
        }
        let mut bytes = form::header(KEY, self.boot);
        bytes.resize(usize::try_from(HEADER_BYTES + 2 * HALF).unwrap(), 0);
        *self.memory.0.borrow_mut() = Inner { bytes, left: None, has_room: true };
        let mut disk = self.memory.clone();
        for mark in [Watermark::Answered, Watermark::Folded] {
            disk.write_at(&seal.mark(last), mark.offset()).unwrap();
        }
        let mark = FoldMark { disk: self.memory.clone(), seal: seal.clone() };
        let log = IntentLog::sized(disk, seal, last, HALF);
        Broker { log, mark, settled: last, fold: None, waiting: Vec::new() }
    }

    /// Lives until it has done what it does, or until the disk ends in the midst of a write.
    fn live(&mut self) {
        let mut broker = self.start();
        if self.dice.bool() {
            self.memory.0.borrow_mut().left = Some(self.dice.usize(..3_000));
        }
        for _ in 0..self.dice.usize(..120) {
            if self.memory.0.borrow().left == Some(0) {
                return;
            }
            let has_room = self.dice.u8(..) > 12;
            self.memory.0.borrow_mut().has_room = has_room;
            match self.dice.u8(..10) {
                0..6 => self.submit(&mut broker),
                6 | 7 => broker.fold = broker.fold.take().or(Some(Fold { up_to: self.count() })),
                8 => self.commit(&mut broker),
                _ => self.synced = self.file.clone(),
            }
        }
    }

    fn count(&self) -> u64 {
        u64::try_from(self.submitted.len()).unwrap()
    }

    fn submit(&mut self, broker: &mut Broker) {
        let number = self.count() + 1;
        let child = ChildId::from_uuid(Uuid::from_u128(self.dice.u64(..CHILDREN).into()));
        let text = format!("{number} {}", "x".repeat(self.dice.usize(..40)));
        let change = match self.dice.u8(..3) {
            0 => Change::Intent(text),
            1 => Change::Progress(StoredProgress { text, process: None }),
            _ => Change::Remove,
        };
        let entry = Entry { child, change, safety: Safety::Process, receipt: None };
        let settled = match (self.flaw, &broker.fold) {
            (Flaw::CutBeforeTheFoldIsCommitted, Some(fold)) => fold.up_to,
            (Flaw::GapInTheLog, _) => number,
            _ => broker.settled,
        };
        let appended = broker.log.append(Position(number), &entry, Position(settled));
        self.submitted.push(entry);
        // Nothing is told by a broker that died in that moment.
        if self.memory.0.borrow().left == Some(0) {
            return;
        }
        match appended {
            Append::Safe | Append::Pressing => self.answered = number,
            Append::Failed(_) if self.flaw == Flaw::NoSpaceTakenForSuccess => self.answered = number,
            Append::Full | Append::Failed(_) => broker.waiting.push(number),
        }
    }

    /// The transaction ends, and later everybody hears of it, unless a crash comes between.
    fn commit(&mut self, broker: &mut Broker) {
        let Some(Fold { up_to }) = broker.fold.take() else { return };
        let from = usize::try_from(self.file.folded).unwrap();
        for entry in &self.submitted[from..usize::try_from(up_to).unwrap()] {
            apply(&mut self.file.rows, entry);
        }
        let told = if self.flaw == Flaw::FoldOvertakesAForget { self.count() } else { up_to };
        self.file.folded = told;
        if self.dice.u8(..4) == 0 {
            self.memory.0.borrow_mut().left = Some(0);
            return;
        }
        broker.mark.note(Position(told));
        if self.memory.0.borrow().left == Some(0) {
            return;
        }
        broker.settled = told;
        let last = broker.waiting.iter().filter(|number| **number <= told).max();
        self.answered = self.answered.max(last.copied().unwrap_or_default());
        broker.waiting.retain(|number| *number > told);
    }

    fn recover(&mut self) -> Result<(), String> {
        let log = self.memory.0.borrow().bytes.clone();
        let boot = self.boot;
        let has_power = self.dice.u8(..4) > 0;
        if !has_power {
            self.boot = BootId(Uuid::from_u128(self.boot.0.as_u128() + 1));
            self.file = self.synced.clone();
            self.answered = self.file.folded;
        }
        let reads_as = if self.flaw == Flaw::EntriesOfAnotherBoot { boot } else { self.boot };
        let mut entries = match replay::read(&log, KEY, reads_as, self.file.folded) {
            Ok(Left::Entries(entries)) => entries,
            Ok(Left::OtherBoot) if !has_power => Vec::new(),
            other => return Err(format!("{other:?}")),
        };
        let known = self.file.folded + u64::try_from(entries.len()).unwrap();
        if self.flaw == Flaw::WrongOrder {
            entries.reverse();
        }
        let mut rows = self.file.rows.clone();
        for entry in &entries {
            apply(&mut rows, entry);
        }
        if known < self.answered || known > self.count() {
            return Err(format!("{known} are known, and {} were answered", self.answered));
        }
        if !has_power && !entries.is_empty() {
            return Err("what was lost with the power has come back".to_owned());
        }
        self.submitted.truncate(usize::try_from(known).unwrap());
        let mut expected = Rows::new();
        self.submitted.iter().for_each(|entry| apply(&mut expected, entry));
        if rows != expected {
            return Err(format!("{rows:?} instead of {expected:?}"));
        }
        self.answered = known;
        let has_room = self.dice.u8(..3) > 0;
        if has_room {
            self.file = StateFile { folded: known, rows };
            self.synced = self.file.clone();
        }
        Ok(())
    }
}

fn apply(rows: &mut Rows, entry: &Entry) {
    match &entry.change {
        Change::Intent(text) => drop(rows.insert(entry.child, (text.clone(), None))),
        Change::Progress(progress) => {
            if let Some(row) = rows.get_mut(&entry.child) {
                row.1 = Some(progress.text.clone());
            }
        }
        Change::Remove => drop(rows.remove(&entry.child)),
    }
}
