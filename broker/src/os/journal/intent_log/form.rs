//! The form of the log: a header, two marks, and entries one after the other, each signed with its number.

use std::io;

use crc32fast::Hasher;
use procbroker_core::{Pid, Safety};
use procbroker_protocol::ChildId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::os::journal::entry::{Change, Entry, StoredProgress};
use crate::os::process::identity::{Birthmark, BootId, ProcessIdentity};

/// Bytes before the entries: the header and the marks, each in a part of its own.
pub(super) const HEADER_BYTES: u64 = 4096;

/// What a log begins with; the last byte is the version of its form.
const FILE_MAGIC: [u8; 8] = *b"PBRKLOG\x01";

/// What an entry begins with: no text has such bytes in it.
const ENTRY_MAGIC: [u8; 4] = [0xff, b'P', b'B', 0xfe];

/// An entry's magic, length, signature and number.
const ENTRY_HEADER_BYTES: usize = 20;

/// Entries begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// Bytes of the header.
const FILE_HEADER_BYTES: usize = 44;

/// Bytes of a mark: a number, and its signature.
const MARK_BYTES: usize = 12;

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watermark {
    /// So far the entries have been answered.
    Answered,
    /// So far they are in the state file.
    Folded,
}

impl Watermark {
    pub(super) fn offset(self) -> u64 {
        match self {
            Self::Answered => 512,
            Self::Folded => 1024,
        }
    }
}

/// Signs what belongs to one state file and one run of the kernel: nothing else is taken for an entry.
#[derive(Clone, Debug)]
pub(super) struct Seal(Hasher);

/// An entry, as it is written.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    child: [u8; 16],
    /// Whether it is to outlive the machine.
    power: bool,
    #[serde(borrow)]
    change: WrittenChange<'a>,
}

#[derive(Serialize, Deserialize)]
enum WrittenChange<'a> {
    Intent(&'a str),
    Progress(&'a str, Option<WrittenProcess>),
    Remove,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WrittenProcess {
    pid: u32,
    birthmark: WrittenBirthmark,
    boot: [u8; 16],
    cgroup: Option<u64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum WrittenBirthmark {
    Inode(u64),
    StartTicks(u64),
}

/// The header of a log.
pub(super) fn header(key: Uuid, boot: BootId) -> Vec<u8> {
    let mut bytes = [&FILE_MAGIC[..], key.as_bytes(), boot.0.as_bytes()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Whose log it is: the key of its state file, and the boot; none if there is no whole header.
pub(super) fn read_header(bytes: &[u8]) -> Option<(Uuid, BootId)> {
    let (signed, signature) = bytes.get(..FILE_HEADER_BYTES)?.split_at_checked(FILE_HEADER_BYTES - 4)?;
    let is_whole = signature == crc32fast::hash(signed).to_le_bytes() && signed.starts_with(&FILE_MAGIC);
    let uuid = |from: usize| Uuid::from_slice(signed.get(from..from + 16)?).ok();
    is_whole.then_some((uuid(8)?, BootId(uuid(24)?)))
}

impl Seal {
    pub(super) fn new(key: Uuid, boot: BootId) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(key.as_bytes());
        hasher.update(boot.0.as_bytes());
        Self(hasher)
    }

    fn sign(&self, number: u64, bytes: &[u8]) -> [u8; 4] {
        let mut hasher = self.0.clone();
        hasher.update(&number.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    }

    /// A mark at this number.
    pub(super) fn mark(&self, number: u64) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let (value, signature) = bytes.split_at_mut(8);
        value.copy_from_slice(&number.to_le_bytes());
        signature.copy_from_slice(&self.sign(number, b"mark"));
        bytes
    }

    /// The number of a mark; none if it is not whole.
    pub(super) fn read_mark(&self, log: &[u8], mark: Watermark) -> Option<u64> {
        let start = usize::try_from(mark.offset()).ok()?;
        let (value, signature) = log.get(start..start.checked_add(MARK_BYTES)?)?.split_at_checked(8)?;
        let number = u64::from_le_bytes(value.try_into().ok()?);
        (signature == self.sign(number, b"mark")).then_some(number)
    }

    /// Puts an entry into a buffer, in the place of whatever is there.
    pub(super) fn encode(&self, number: u64, entry: &Entry, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.resize(ENTRY_HEADER_BYTES, 0);
        bincode::serde::encode_into_std_write(written(entry), buffer, bincode::config::standard())
            .map_err(io::Error::other)?;
        let (header, body) = buffer.split_at_mut(ENTRY_HEADER_BYTES);
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let signature = self.sign(number, body);
        let fields = [&ENTRY_MAGIC[..], &length.to_le_bytes(), &signature, &number.to_le_bytes()].concat();
        header.copy_from_slice(&fields);
        buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
        Ok(())
    }

    /// The entry at the beginning of these bytes, with its number and its length; none if there is no whole one.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<(u64, Entry, usize)> {
        let rest = bytes.strip_prefix(&ENTRY_MAGIC)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (signature, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let number = u64::from_le_bytes(*number);
        let body = rest.get(..length)?;
        if *signature != self.sign(number, body) {
            return None;
        }
        Some((
            number,
            decode_body(body)?,
            length.checked_add(ENTRY_HEADER_BYTES)?.next_multiple_of(ALIGNMENT),
        ))
    }
}

/// What is in a whole entry, after its header.
pub(super) fn decode_body(body: &[u8]) -> Option<Entry> {
    let config = bincode::config::standard();
    let (written, read) = bincode::serde::borrow_decode_from_slice::<Written<'_>, _>(body, config).ok()?;
    (read == body.len()).then(|| entry(&written)).flatten()
}

fn written(entry: &Entry) -> Written<'_> {
    let power = match entry.safety {
        Safety::Process => false,
        Safety::Power => true,
    };
    let change = match &entry.change {
        Change::Intent(text) => WrittenChange::Intent(text),
        Change::Progress(StoredProgress { text, process }) => {
            let process = process.map(|process| WrittenProcess {
                pid: process.pid.get(),
                birthmark: match process.birthmark {
                    Birthmark::Inode(inode) => WrittenBirthmark::Inode(inode),
                    Birthmark::StartTicks(ticks) => WrittenBirthmark::StartTicks(ticks),
                },
                boot: *process.boot.0.as_bytes(),
                cgroup: process.cgroup,
            });
            WrittenChange::Progress(text, process)
        }
        Change::Remove => WrittenChange::Remove,
    };
    Written { child: *entry.child.as_uuid().as_bytes(), power, change }
}

/// None if it cannot have been written.
fn entry(written: &Written<'_>) -> Option<Entry> {
    let change = match written.change {
        WrittenChange::Intent(text) => Change::Intent(text.to_owned()),
        WrittenChange::Progress(text, process) => {
            let process = process.map(|process| {
                let birthmark = match process.birthmark {
                    WrittenBirthmark::Inode(inode) => Birthmark::Inode(inode),
                    WrittenBirthmark::StartTicks(ticks) => Birthmark::StartTicks(ticks),
                };
                let boot = BootId(Uuid::from_bytes(process.boot));
                Some(ProcessIdentity { pid: Pid::new(process.pid)?, birthmark, boot, cgroup: process.cgroup })
            });
            let process = match process {
                Some(None) => return None,
                Some(Some(process)) => Some(process),
                None => None,
            };
            Change::Progress(StoredProgress { text: text.to_owned(), process })
        }
        WrittenChange::Remove => Change::Remove,
    };
    let child = ChildId::from_uuid(Uuid::from_bytes(written.child));
    let safety = if written.power { Safety::Power } else { Safety::Process };
    Some(Entry { child, change, safety, receipt: None })
}
