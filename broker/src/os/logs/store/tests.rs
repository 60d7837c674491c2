//! The files, written to through real pipes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use nix::unistd::{pipe, write};
use std::os::fd::{AsFd, OwnedFd};
use uuid::Uuid;

use super::*;

const USER: u32 = 7;
const OTHER: u32 = 8;
const BOUND: u64 = 16 * BLOCK_BYTES;

struct Scene {
    folder: tempfile::TempDir,
    store: OutputStore,
    transfer: Transfer,
    pipe: (OwnedFd, OwnedFd),
    now: u64,
}

fn stdout(number: u128) -> StreamId {
    StreamId { child: ChildId::from_uuid(Uuid::from_u128(number)), stream: LogStream::Stdout }
}

fn stderr(number: u128) -> StreamId {
    StreamId { stream: LogStream::Stderr, ..stdout(number) }
}

impl Scene {
    fn new() -> Self {
        Self::with(LogBounds { per_child: BOUND, in_all: 100 * BOUND })
    }

    fn with(bounds: LogBounds) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Self::open(&folder, bounds);
        Self { folder, store, transfer: Transfer::new().unwrap(), pipe: pipe().unwrap(), now: 1_000_000 }
    }

    fn open(folder: &tempfile::TempDir, bounds: LogBounds) -> OutputStore {
        OutputStore::new(Folder::open(folder.path().join("logs")).unwrap().0, bounds)
    }

    /// The next broker.
    fn reopened(mut self) -> Self {
        self.store = Self::open(&self.folder, self.store.bounds);
        assert_eq!(self.store.recover(|_| Some(USER)).unwrap(), 0);
        self
    }

    fn append_of(&mut self, user: u32, id: StreamId, bytes: &[u8]) -> usize {
        self.now += TIMES_APART;
        let mut all = 0;
        for piece in bytes.chunks(16 << 10) {
            write(&self.pipe.1, piece).unwrap();
            let length = self.transfer.peek(self.pipe.0.as_fd()).unwrap();
            let (kept, _) = self.store.append(id, user, &mut self.transfer, length, self.now);
            self.transfer.forget();
            self.transfer.consume(self.pipe.0.as_fd(), length);
            all += kept;
        }
        all
    }

    fn append(&mut self, id: StreamId, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(self.append_of(USER, id, bytes), bytes.len());
    }

    fn text(&self, id: StreamId) -> String {
        let kept = self.store.kept(id);
        let found = kept.read(kept.first_kept(), usize::MAX >> 1).unwrap();
        assert_eq!(found.at, kept.first_kept());
        String::from_utf8(found.bytes).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    /// What everything takes on the disk.
    fn room(&self) -> u64 {
        let files = fs::read_dir(self.path("")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
    }
}

fn numbered(lines: std::ops::Range<u32>) -> String {
    lines.map(|number| format!("line {number:08}\n")).collect::<Vec<_>>().concat()
}

#[test]
fn there_is_no_file_before_the_first_byte_and_then_it_is_the_brokers_alone() {
    let mut scene = Scene::new();
    assert_eq!(scene.store.kept(stdout(1)).end(), 0);
    assert_eq!(fs::read_dir(scene.path("")).unwrap().count(), 0);
    scene.append(stdout(1), "one\n");
    scene.append(stderr(1), "two\n");
    for id in [stdout(1), stderr(1)] {
        assert_eq!(fs::metadata(scene.path(&id.to_string())).unwrap().mode() & 0o7777, 0o600);
    }
    scene.store.rest(stdout(1));
    scene.append(stdout(1), "three\n");
    assert_eq!(
        (scene.text(stdout(1)), scene.text(stderr(1))),
        ("one\nthree\n".to_owned(), "two\n".to_owned())
    );
}

#[test]
fn both_streams_share_the_bound_and_the_oldest_goes_first() {
    let mut scene = Scene::new();
    scene.append(stdout(1), numbered(0..100));
    scene.append(stderr(1), numbered(0..3_000));
    scene.append(stdout(2), "other\n");
    for step in 0..200 {
        scene.append(stderr(1), numbered(3_000 + 100 * step..3_100 + 100 * step));
        assert!(scene.store.room_of(stdout(1).child) <= BOUND);
        assert!(scene.room() <= BOUND + BLOCK_BYTES, "{}", scene.room());
    }
    let kept = scene.text(stderr(1));
    // Files of so few blocks are kept with as many for their times.
    assert!(kept.len() as u64 > BOUND / 3, "{} bytes", kept.len());
    assert!(numbered(0..23_000).ends_with(&kept));
    let silent = scene.store.kept(stdout(1));
    assert_eq!((silent.first_kept(), silent.end()), (1_400, 1_400));
    assert_eq!(scene.text(stdout(2)), "other\n");
    // It goes on where it was.
    scene.append(stdout(1), "again\n");
    assert_eq!((scene.text(stdout(1)), scene.store.kept(stdout(1)).end()), ("again\n".to_owned(), 1_406));
}

#[test]
fn what_all_keep_is_bounded_and_a_flood_costs_nobody_elses_output() {
    let mut scene = Scene::with(LogBounds { per_child: BOUND, in_all: 2 * BOUND });
    scene.append_of(OTHER, stdout(1), b"of another user\n");
    for child in 2..8 {
        scene.append(stdout(child), numbered(0..4_000));
        assert!(scene.room() <= 2 * BOUND, "{}", scene.room());
    }
    assert_eq!(scene.text(stdout(1)), "of another user\n");
    assert_eq!(scene.text(stdout(2)), "");
    assert!(numbered(0..4_000).ends_with(&scene.text(stdout(7))) && !scene.text(stdout(7)).is_empty());
    for child in 1..8 {
        scene.store.remove(stdout(child).child);
    }
    assert_eq!((fs::read_dir(scene.path("")).unwrap().count(), scene.store.usage.in_all()), (0, 0));
}

#[test]
fn the_next_broker_finds_everything_as_it_was() {
    let mut scene = Scene::new();
    for step in 0..10 {
        scene.append(stdout(1), numbered(1_000 * step..1_000 * step + 1_000));
    }
    scene.append(stdout(2), "quiet\n");
    scene.store.count_dropped(stdout(1), USER, 5);
    scene.append(stdout(1), "end\n");
    let before = [1, 2].map(|child| (scene.text(stdout(child)), scene.store.kept(stdout(child))));
    let scene = scene.reopened();
    for (child, (text, kept)) in (1..).zip(before) {
        let found = scene.store.kept(stdout(child));
        assert_eq!(scene.text(stdout(child)), text);
        assert_eq!(
            (found.end, found.dropped, found.first_kept()),
            (kept.end, kept.dropped, kept.first_kept())
        );
        // The time of the only piece of a file is that of the file.
        let offsets = |kept: &KeptStream| -> Vec<u64> {
            kept.marks(kept.first_kept(), kept.end).unwrap().iter().map(|mark| mark.offset).collect()
        };
        assert_eq!(offsets(&found), offsets(&kept));
    }
    assert_eq!(scene.store.kept(stdout(1)).dropped(), 5);
    let mut scene = scene;
    scene.append(stdout(1), "more\n");
    assert!(scene.text(stdout(1)).ends_with("end\nmore\n"));
}

#[test]
fn output_of_nobody_goes_and_what_is_not_the_brokers_own_is_left_alone() {
    let mut scene = Scene::new();
    scene.append(stdout(1), "one\n");
    scene.append(stdout(2), "two\n");
    let linked = scene.path(&stdout(3).to_string());
    fs::write(scene.folder.path().join("secret"), "secret").unwrap();
    fs::hard_link(scene.folder.path().join("secret"), &linked).unwrap();
    symlink(scene.folder.path().join("secret"), scene.path(&stdout(4).to_string())).unwrap();
    fs::write(scene.path("notes.txt"), "").unwrap();
    scene.store = Scene::open(&scene.folder, scene.store.bounds);
    let known = [1, 3, 4].map(|number| stdout(number).child);
    assert_eq!(scene.store.recover(|child| known.contains(&child).then_some(USER)).unwrap(), 1);
    assert_eq!([1, 2, 3, 4].map(|number| scene.text(stdout(number))), ["one\n", "", "", ""]);
    assert!(scene.path("notes.txt").exists() && linked.exists());
    // Whoever asks for it is told what is wrong with it.
    for (number, flaw) in [(3, "has a second name"), (4, "is a link")] {
        let error = scene.store.kept(stdout(number)).check().unwrap_err().to_string();
        assert!(error.contains(flaw) && error.contains(&stdout(number).to_string()), "{error}");
    }
    // It is not written to either: a file of the broker's own takes its place.
    scene.append(stdout(3), "three\n");
    scene.append(stdout(4), "four\n");
    assert_eq!(fs::read(scene.folder.path().join("secret")).unwrap(), b"secret");
    assert_eq!([3, 4].map(|number| scene.text(stdout(number))), ["three\n", "four\n"]);
    for number in [3, 4] {
        scene.store.kept(stdout(number)).check().unwrap();
    }
}

#[test]
fn a_file_that_is_taken_away_or_changed_costs_no_more_than_itself() {
    let mut scene = Scene::new();
    scene.append(stdout(1), "one\n");
    scene.store.rest(stdout(1));
    fs::remove_file(scene.path(&stdout(1).to_string())).unwrap();
    scene.append(stdout(1), "two\n");
    assert_eq!(scene.text(stdout(1)), "two\n");
    scene.store.rest(stdout(1));
    let path = scene.path(&stdout(1).segment_name(4));
    fs::hard_link(&path, scene.path("second")).unwrap();
    assert_eq!(scene.append_of(USER, stdout(1), b"three\n"), 0);
}

#[test]
fn what_a_disk_does_not_take_is_told_with_the_file() {
    let mut scene = Scene::new();
    fs::remove_dir_all(scene.path("")).unwrap();
    write(&scene.pipe.1, b"one").unwrap();
    let length = scene.transfer.peek(scene.pipe.0.as_fd()).unwrap();
    let (kept, result) = scene.store.append(stdout(1), USER, &mut scene.transfer, length, 0);
    assert_eq!(kept, 0);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("cannot open") && error.contains(".out"), "{error}");
}

#[test]
fn a_folder_that_was_open_to_others_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(Folder::open(path.clone()).unwrap());
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
}
