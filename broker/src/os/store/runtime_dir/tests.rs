use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::captured_log::captured;
use crate::os::logs::pipes::PIPES_FOLDER;
use crate::os::process::variables::CHILD_ID_VARIABLE;

struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scratch.state()).unwrap();
        scratch
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.at("state")
    }

    fn open(&self, name: &str) -> Result<RuntimeDir, RuntimeDirError> {
        RuntimeDir::open(&RuntimeDirChoice::Usual(self.at(name)), &self.state())
    }
}

/// As a broker leaves it that is killed.
fn crash(runtime: RuntimeDir) {
    fs::write(runtime.path().join("left"), "").unwrap();
    drop(runtime);
}

#[test]
fn a_runtime_folder_is_closed_to_others_and_gone_when_nothing_is_left_in_it() {
    let scratch = Scratch::new();
    let runtime = scratch.open("s.d").unwrap();
    assert_eq!(fs::metadata(runtime.path()).unwrap().mode() & 0o7777, 0o700);
    let inner = runtime.subfolder("inner").unwrap();
    fs::write(inner.path().join("file"), "").unwrap();
    drop(runtime);
    assert!(inner.path().join("file").exists(), "what is left there stays");
    let runtime = scratch.open("s.d").unwrap();
    fs::remove_file(inner.path().join("file")).unwrap();
    drop(runtime);
    assert!(!scratch.at("s.d").exists());
    assert_eq!(fs::read_dir(scratch.state()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_was_there_before_stays_and_is_as_empty_as_it_was() {
    let scratch = Scratch::new();
    let given = || RuntimeDir::open(&RuntimeDirChoice::Given(scratch.at("given")), &scratch.state()).unwrap();
    fs::create_dir(scratch.at("given")).unwrap();
    fs::set_permissions(scratch.at("given"), Permissions::from_mode(0o700)).unwrap();
    let stays = || {
        assert_eq!(fs::read_dir(scratch.at("given")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(scratch.state()).unwrap().count(), 0);
    };
    drop(given());
    stays();
    // A crash in between changes nothing.
    crash(given());
    let runtime = given();
    fs::remove_file(runtime.path().join("left")).unwrap();
    drop(runtime);
    stays();
    fs::remove_dir(scratch.at("given")).unwrap();
    drop(given());
    assert!(!scratch.at("given").exists(), "this one the broker has made");
}

#[test]
fn a_broker_with_another_socket_goes_on_in_the_folder_of_the_one_before_it() {
    let scratch = Scratch::new();
    crash(scratch.open("s.d").unwrap());
    let runtime = scratch.open("other.d").unwrap();
    assert_eq!(runtime.path(), scratch.at("s.d"));
    fs::remove_file(runtime.path().join("left")).unwrap();
    drop(runtime);
    assert_eq!(scratch.open("other.d").unwrap().path(), scratch.at("other.d"));
}

#[test]
fn a_folder_that_is_gone_or_was_made_anew_is_not_taken_for_the_earlier_one() {
    let scratch = Scratch::new();
    crash(scratch.open("s.d").unwrap());
    fs::remove_dir_all(scratch.at("s.d")).unwrap();
    assert_eq!(scratch.open("other.d").unwrap().path(), scratch.at("other.d"));
    crash(scratch.open("s.d").unwrap());
    fs::write(scratch.at("s.d").join(OWNER), format!("{}\n/elsewhere", Uuid::new_v4())).unwrap();
    assert_eq!(scratch.open("other.d").unwrap().path(), scratch.at("other.d"));
}

#[test]
fn a_folder_of_another_broker_is_left_to_it_for_as_long_as_there_is_its_state() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.at("state2")).unwrap();
    crash(scratch.open("s.d").unwrap());
    let other = RuntimeDir::open(&RuntimeDirChoice::Usual(scratch.at("s.d")), &scratch.at("state2")).unwrap();
    let name = other.path().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("s.d-") && name.len() == 12, "{name}");
    drop(other);
    let given = || RuntimeDir::open(&RuntimeDirChoice::Given(scratch.at("s.d")), &scratch.at("state2"));
    let error = given().unwrap_err().to_string();
    assert!(error.contains("/state; give another one with --runtime-dir"), "{error}");
    assert!(scratch.at("s.d/left").exists());
    fs::remove_dir_all(scratch.state()).unwrap();
    let taken = given().unwrap();
    assert!(!taken.path().join("left").exists(), "what nobody knows any more is gone");
}

#[test]
fn what_a_broker_with_another_state_folder_has_left_is_told_of_with_the_way_back_to_it() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.at("state2")).unwrap();
    let path = scratch.at("s.d");
    let living = scratch.open("s.d").unwrap();
    let output = living.subfolder(PIPES_FOLDER).unwrap();
    let child = Uuid::now_v7();
    fs::write(output.path().join(format!("{child}.out")), "").unwrap();
    let opened = || {
        captured(|| {
            drop(RuntimeDir::open(&RuntimeDirChoice::Usual(path.clone()), &scratch.at("state2")).unwrap());
        })
    };
    assert_eq!(opened(), "", "its broker lives");
    drop(living);
    let way_back = format!("start it with --state-dir {} to go on with them", scratch.state().display());
    let said = opened();
    assert!(said.contains("WARN") && said.contains(&way_back) && !said.contains("which lives"), "{said}");
    let mut survivor = marked(child);
    let said = opened();
    survivor.kill().unwrap();
    let pid = survivor.id();
    survivor.wait().unwrap();
    assert!(
        said.contains(&format!("such as process {pid}, which lives")) && said.contains(&way_back),
        "{said}"
    );
    // That one goes on with it, and leaves nothing to tell of.
    let found = scratch.open("s.d").unwrap();
    assert_eq!(found.path(), path);
    fs::remove_dir_all(output.path()).unwrap();
    drop(found);
    assert_eq!(opened(), "");
}

#[test]
fn the_folder_is_found_again_when_the_note_of_it_was_lost() {
    let scratch = Scratch::new();
    crash(scratch.open("s.d").unwrap());
    fs::remove_file(scratch.state().join(NOTE)).unwrap();
    let runtime = scratch.open("s.d").unwrap();
    assert!(runtime.path().join("left").exists());
}

#[test]
fn a_folder_that_others_made_or_can_change_is_refused_with_the_way_out() {
    let scratch = Scratch::new();
    let refused = |name: &str| {
        let error = scratch.open(name).unwrap_err().to_string();
        assert!(error.contains(&scratch.at(name).display().to_string()), "{error}");
        assert!(error.contains("--runtime-dir"), "{error}");
        error
    };
    fs::create_dir(scratch.at("open")).unwrap();
    fs::set_permissions(scratch.at("open"), Permissions::from_mode(0o755)).unwrap();
    symlink(scratch.state(), scratch.at("link")).unwrap();
    fs::write(scratch.at("file"), "").unwrap();
    fs::create_dir(scratch.at("used")).unwrap();
    fs::set_permissions(scratch.at("used"), Permissions::from_mode(0o700)).unwrap();
    fs::write(scratch.at("used/thing"), "").unwrap();
    for name in ["open", "link", "file"] {
        assert!(refused(name).contains("is not to be trusted"), "{name}");
    }
    assert!(refused("used").contains("thing is in it"));
    if nix::unistd::geteuid().is_root() {
        fs::create_dir(scratch.at("others")).unwrap();
        fs::set_permissions(scratch.at("others"), Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(scratch.at("others"), Some(65_534), None).unwrap();
        assert!(refused("others").contains("belongs to another user"));
    }
}

#[test]
fn notes_are_read_as_they_were_written_and_nothing_else_is() {
    let note = Note { key: Uuid::from_u128(7), path: "/a\nb".into() };
    let scratch = Scratch::new();
    let folder = OwnFolder::open(&scratch.state()).unwrap();
    note.write(&folder, "note").unwrap();
    assert_eq!(Note::read(&folder, "note").unwrap(), Some(note));
    for damaged in [&b""[..], b"x", &[b'0'; 36], &[0xff; 60]] {
        assert_eq!(Note::parse(damaged), None);
    }
}

/// A process with the mark of a child.
fn marked(child: Uuid) -> std::process::Child {
    let mut sleep = std::process::Command::new("sleep");
    sleep.arg("infinity").env(CHILD_ID_VARIABLE, child.to_string()).spawn().unwrap()
}

#[test]
fn a_folder_whose_state_is_gone_is_cleared_when_neither_its_broker_nor_a_child_of_it_lives() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.at("state2")).unwrap();
    let claimed = |wanted: fn(PathBuf) -> RuntimeDirChoice| {
        RuntimeDir::open(&wanted(scratch.at("s.d")), &scratch.at("state2"))
    };
    let living = scratch.open("s.d").unwrap();
    let output = living.subfolder(PIPES_FOLDER).unwrap();
    let child = Uuid::now_v7();
    fs::write(output.path().join(format!("{child}.out")), "").unwrap();
    fs::remove_dir_all(scratch.state()).unwrap();
    // Its broker lives.
    let error = claimed(RuntimeDirChoice::Given).unwrap_err();
    assert!(matches!(error, RuntimeDirError::Taken { .. }), "{error}");
    let other = claimed(RuntimeDirChoice::Usual).unwrap();
    assert_ne!(other.path(), scratch.at("s.d"));
    drop((other, living));
    // A child of it does.
    let mut survivor = marked(child);
    for wanted in [RuntimeDirChoice::Given, RuntimeDirChoice::Usual] {
        let error = claimed(wanted).unwrap_err().to_string();
        let words = [scratch.at("s.d").display().to_string(), scratch.state().display().to_string()];
        for words in
            words.into_iter().chain([format!("process {}", survivor.id()), "--runtime-dir".to_owned()])
        {
            assert!(error.contains(&words), "no {words} in {error}");
        }
    }
    assert!(output.path().join(format!("{child}.out")).exists());
    survivor.kill().unwrap();
    survivor.wait().unwrap();
    let taken = claimed(RuntimeDirChoice::Usual).unwrap();
    assert_eq!(taken.path(), scratch.at("s.d"));
    assert!(!output.path().exists(), "what nobody knows any more is gone");
}
