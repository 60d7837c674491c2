//! The thread with real children that write.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use procbroker_protocol::ChildId;
use uuid::Uuid;

use super::*;
use crate::os::logs::{Continuation, read};

const BOUND: u64 = 1 << 20;

fn child() -> ChildId {
    ChildId::from_uuid(Uuid::from_u128(1))
}

/// Writes lines of eight digits, from 1 to `last`, as a child does: to its own end of the file.
fn count_to(last: u32, logs: &Logs) {
    let file = File::options().append(true).create(true).open(logs.stdout(child())).unwrap();
    let mut command = Command::new("seq");
    command.args(["-f", "%08.0f", "1", &last.to_string()]).stdout(Stdio::from(file));
    assert!(command.status().unwrap().success());
}

fn held(logs: &Logs) -> u64 {
    fs::metadata(logs.stdout(child())).unwrap().blocks() * 512
}

#[test]
fn a_child_that_writes_fifty_times_the_bound_leaves_the_bound_with_its_last_lines_intact() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().join("logs")).unwrap();
    let (tell, looks) = mpsc::channel();
    let trimmer = LogTrimmer::start_telling(&logs, BOUND, move |look| {
        assert!(look.failure.is_none(), "{look:?}");
        let _ = tell.send(());
    })
    .unwrap();
    let last = 6_000_000;
    count_to(last, &logs);
    while held(&logs) > BOUND + 8192 {
        looks.recv().unwrap();
    }
    let length = fs::metadata(logs.stdout(child())).unwrap().len();
    assert_eq!(length, u64::from(last) * 9);
    assert!(held(&logs) >= BOUND, "{}", held(&logs));
    let excerpt = read(&logs.stdout(child()), None, Continuation::Nothing, 64 << 20).unwrap();
    assert!(excerpt.truncated);
    let numbers: Vec<u32> = excerpt.text.lines().map(|line| line.parse().unwrap()).collect();
    let first = *numbers.first().unwrap();
    assert!(numbers.len() as u64 * 9 > BOUND - 9, "{}", numbers.len());
    assert!(numbers.iter().copied().eq(first..=last), "lines are missing after {first}");
    drop(trimmer);
}

#[test]
fn what_is_over_the_bound_already_is_trimmed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().join("logs")).unwrap();
    fs::write(logs.stderr(child()), vec![b'x'; 3 << 20]).unwrap();
    let (tell, looks) = mpsc::channel();
    let _trimmer = LogTrimmer::start_telling(&logs, BOUND, move |_| {
        let _ = tell.send(());
    })
    .unwrap();
    looks.recv().unwrap();
    let held = fs::metadata(logs.stderr(child())).unwrap().blocks() * 512;
    assert!(held <= BOUND + 8192, "{held}");
}

#[test]
fn the_thread_ends_when_its_owner_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().join("logs")).unwrap();
    let (tell, looks) = mpsc::channel();
    let trimmer = LogTrimmer::start_telling(&logs, BOUND, move |_| {
        let _ = tell.send(());
    })
    .unwrap();
    looks.recv().unwrap();
    drop(trimmer);
    // The channel closes with the thread.
    while looks.recv().is_ok() {}
}

#[test]
fn appending_while_the_beginning_is_released_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().join("logs")).unwrap();
    let mut sizes = Sizes::new(logs.folder().to_owned(), 64 << 10);
    let last = 2_000_000;
    let file = File::options().append(true).create(true).open(logs.stdout(child())).unwrap();
    let mut writer = Command::new("seq");
    writer.args(["-f", "%08.0f", "1", &last.to_string()]).stdout(Stdio::from(file));
    let mut writer = writer.spawn().unwrap();
    while writer.try_wait().unwrap().is_none() {
        assert!(sizes.look(Instant::now()).failure.is_none());
    }
    sizes.look(Instant::now());
    let excerpt = read(&logs.stdout(child()), None, Continuation::Nothing, 64 << 20).unwrap();
    let numbers: Vec<u32> = excerpt.text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(*numbers.first().unwrap()..=last), "lines are missing");
    let mut all = Vec::new();
    File::open(logs.stdout(child())).unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), last as usize * 9);
    assert!(held(&logs) <= (64 << 10) + 8192);
}
