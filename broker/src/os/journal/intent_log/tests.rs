use std::fs;

use procbroker_core::{Pid, Safety};
use procbroker_protocol::ChildId;

use super::model::{Flaw, explore};
use super::replay::Damage;
use super::*;
use crate::os::journal::{Change, StoredProgress};
use crate::os::process::identity::{Birthmark, ProcessIdentity};

const KEY: Uuid = Uuid::from_u128(1);
const BOOT: BootId = BootId(Uuid::from_u128(2));
const SEEDS: u64 = 3_000;

fn entry(number: u128, change: Change) -> Entry {
    let safety = if number.is_multiple_of(2) { Safety::Power } else { Safety::Process };
    Entry { child: ChildId::from_uuid(Uuid::from_u128(number)), change, safety, receipt: None }
}

fn process(birthmark: Birthmark, cgroup: Option<u64>) -> ProcessIdentity {
    ProcessIdentity { pid: Pid::new(42).unwrap(), birthmark, boot: BootId(Uuid::from_u128(8)), cgroup }
}

fn entries() -> Vec<Entry> {
    let progress = |process| Change::Progress(StoredProgress { text: "on \u{e4}".to_owned(), process });
    vec![
        entry(1, Change::Intent("x".repeat(1_000))),
        entry(2, progress(None)),
        entry(3, progress(Some(process(Birthmark::Inode(u64::MAX), None)))),
        entry(4, progress(Some(process(Birthmark::StartTicks(7), Some(u64::MAX))))),
        entry(5, Change::Remove),
        entry(6, Change::Intent(String::new())),
    ]
}

struct Scene {
    _scratch: tempfile::TempDir,
    place: Place,
    log: IntentLog,
    mark: FoldMark,
}

impl Scene {
    /// A log with all kinds of entries.
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let folder = OwnFolder::open(scratch.path()).unwrap();
        let place = Place::new(&folder, (scratch.path().join("state.db"), KEY), BOOT).unwrap();
        assert_eq!(place.read(Position(0)).unwrap(), []);
        let (log, mark) = place.create(Position(0)).unwrap().unwrap();
        let mut scene = Self { _scratch: scratch, place, log, mark };
        for (entry, number) in entries().iter().zip(1..) {
            assert!(matches!(scene.log.append(Position(number), entry, Position(0)), Append::Safe));
        }
        scene
    }

    /// What is said of the log with other bytes in it.
    fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<Entry>, JournalError> {
        let path = self.place.path();
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        change(&mut changed);
        fs::write(&path, changed).unwrap();
        let read = self.place.read(Position(0));
        fs::write(&path, whole).unwrap();
        read
    }
}

#[test]
fn what_was_written_is_read_again_from_where_the_state_file_ends() {
    let mut scene = Scene::new();
    for folded in 0..=6 {
        let read = scene.place.read(Position(folded)).unwrap();
        assert_eq!(read, entries()[usize::try_from(folded).unwrap()..]);
    }
    scene.mark.note(Position(6));
    assert_eq!(scene.place.read(Position(9)).unwrap(), []);
    scene.place.remove();
    assert_eq!(scene.place.read(Position(0)).unwrap(), []);
}

#[test]
fn a_log_that_is_gone_on_with_keeps_what_is_not_in_the_state_file_and_writes_after_it() {
    let mut scene = Scene::new();
    let mut expected = entries();
    let large = entry(8, Change::Intent("x".repeat(300_000)));
    let mut number = 6;
    // Into the second half, and then until that is full too.
    let reasons = [11, u64::MAX].map(|until| {
        (scene.log, scene.mark) = scene.place.resume(Position(0)).unwrap();
        loop {
            match scene.log.append(Position(number + 1), &large, Position(0)) {
                Append::Safe | Append::Pressing => expected.push(large.clone()),
                other => return Some(other),
            }
            number += 1;
            assert_eq!(scene.place.read(Position(0)).unwrap(), expected);
            if number >= until {
                return None;
            }
        }
    });
    assert!(matches!(reasons, [None, Some(Append::Full)]), "{reasons:?}");
    assert_eq!(number, 6 + 3 + 3);
    // What is in the state file by then is written over.
    (scene.log, scene.mark) = scene.place.resume(Position(9)).unwrap();
    assert!(matches!(scene.log.append(Position(13), &large, Position(9)), Append::Safe));
    assert_eq!(scene.place.read(Position(9)).unwrap().len(), 4);
}

#[test]
fn an_entry_that_was_torn_before_it_was_answered_is_none() {
    let scene = Scene::new();
    let mut bytes = Vec::new();
    scene.log.seal.encode(7, &entries()[0], &mut bytes).unwrap();
    let start = usize::try_from(HEADER_BYTES + scene.log.halves[0].used).unwrap();
    for length in (0..bytes.len() - 2 * form::ALIGNMENT).step_by(37) {
        let torn = |log: &mut Vec<u8>| log[start..start + length].copy_from_slice(&bytes[..length]);
        assert_eq!(scene.with(torn).unwrap(), entries(), "{length}");
    }
}

#[test]
fn damage_anywhere_before_the_last_answer_is_an_error_with_file_and_way_out() {
    let scene = Scene::new();
    let used = usize::try_from(HEADER_BYTES + scene.log.halves[0].used).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let error = scene.with(change).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, JournalError::Log { .. }), "{said}");
        assert!(said.contains(&scene.place.path().display().to_string()) && said.contains("move"), "{said}");
    };
    for start in [0, 512, 1_024, 4_096, 4_096 + 512] {
        refused(&|log| log[start..start + 512].fill(0));
    }
    refused(&|log| log[4_096..].fill(0));
    refused(&|log| log.truncate(used - 8));
    refused(&Vec::clear);
    refused(&|log| log.fill(b'x'));
    for place in (4_096..used).step_by(29) {
        let flipped = scene.with(|log| log[place] ^= 0x10);
        // What fills an entry up to its end is nothing.
        assert!(flipped.is_err() || flipped.unwrap() == entries(), "{place}");
    }
}

#[test]
fn a_state_file_that_shows_less_than_was_written_to_it_is_an_error() {
    let mut scene = Scene::new();
    let long = entry(1, Change::Intent("x".repeat(60_000)));
    for number in 7..60 {
        let settled = Position(number - 1);
        assert!(matches!(
            scene.log.append(Position(number), &long, settled),
            Append::Safe | Append::Pressing
        ));
        scene.mark.note(settled);
    }
    assert_eq!(scene.place.read(Position(58)).unwrap().len(), 1);
    let error = scene.place.read(Position(2)).unwrap_err().to_string();
    assert!(error.contains("entry 3 is neither there nor in the state file"), "{error}");
}

#[test]
fn a_log_of_another_boot_is_nothing_and_one_of_another_state_file_is_told_from_one_without_entries() {
    let scene = Scene::new();
    let bytes = fs::read(scene.place.path()).unwrap();
    let read = |key, boot| replay::read(&bytes, key, boot, 0);
    assert_eq!(read(KEY, BOOT), Ok(Left::Entries(entries())));
    assert_eq!(read(KEY, BootId(KEY)), Ok(Left::OtherBoot));
    assert_eq!(read(Uuid::from_u128(9), BOOT), Ok(Left::OtherState));
    assert_eq!(read(Uuid::from_u128(9), BootId(KEY)), Ok(Left::OtherBoot));
    // None is there any more, and some were.
    for last in [0, 6] {
        let (_, _) = scene.place.create(Position(last)).unwrap().unwrap();
        let bytes = fs::read(scene.place.path()).unwrap();
        let other = replay::read(&bytes, Uuid::from_u128(9), BOOT, 0);
        assert_eq!(other, Ok(if last == 0 { Left::Unused } else { Left::OtherState }));
    }
    // A header alone makes no entries of this boot of those that were written in another one.
    let mut forged = bytes.clone();
    let header = form::header(KEY, BootId(KEY));
    forged[..header.len()].copy_from_slice(&header);
    assert_eq!(replay::read(&forged, KEY, BootId(KEY), 0), Err(Damage::Marks));
}

#[test]
fn an_entry_for_which_there_is_no_room_closes_the_log_until_everything_is_in_the_state_file() {
    let mut scene = Scene::new();
    let huge = entry(1, Change::Intent("x".repeat(2 << 20)));
    let small = entry(3, Change::Remove);
    let mut append = |number, entry, settled| scene.log.append(Position(number), entry, Position(settled));
    assert!(matches!(append(7, &huge, 0), Append::Full));
    assert!(matches!(append(8, &small, 6), Append::Full));
    assert!(matches!(append(9, &small, 7), Append::Full));
    assert!(matches!(append(10, &small, 9), Append::Safe));
    let mut number = 11;
    let large = entry(1, Change::Intent("x".repeat(100_000)));
    let mut pressing = 0;
    loop {
        match append(number, &large, 10) {
            Append::Safe => {}
            Append::Pressing => pressing += 1,
            Append::Full => break,
            Append::Failed(error) => panic!("{error}"),
        }
        number += 1;
    }
    assert_eq!(
        (number, pressing),
        (11 + 10 + 10, 2),
        "both halves are used, and each calls for the state file once"
    );
    assert_eq!(scene.place.read(Position(10)).unwrap().len(), 20);
}

#[test]
fn every_answered_entry_survives_a_crash_at_any_moment() {
    for seed in 0..SEEDS {
        explore(Flaw::None, seed).unwrap_or_else(|finding| panic!("seed {seed}: {finding}"));
    }
}

#[test]
fn known_mistakes_of_a_log_are_found() {
    for flaw in [
        Flaw::CutBeforeTheFoldIsCommitted,
        Flaw::WrongOrder,
        Flaw::EntriesOfAnotherBoot,
        Flaw::FoldOvertakesAForget,
        Flaw::NoSpaceTakenForSuccess,
        Flaw::GapInTheLog,
        Flaw::NewLogOverOneThatIsNeeded,
    ] {
        assert!((0..SEEDS).any(|seed| explore(flaw, seed).is_err()), "{flaw:?}");
    }
}
