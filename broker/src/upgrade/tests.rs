//! The manifest, by an exec of this very test; and what other programs say when they are asked.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use procbroker_core::{EventHistory, HandedOver, Pid, UserRange};
use procbroker_protocol::{ChildId, Signal, Timestamp};
use uuid::Uuid;

use super::check::{check_disk, check_within};
use super::manifest::{InheritedDescriptors, Manifest, unpack};
use super::*;
use crate::flagged_accounts::FlaggedAccounts;
use crate::metrics::Counters;
use crate::os::host::nofile::Nofile;
use crate::os::host::own_folder::OwnFolder;
use crate::os::process::signal_mask::HeldBack;
use crate::os::process::variables::MANIFEST_VARIABLE;
use crate::os::process::{alone, pidfd};

const NOFILE: Nofile = Nofile { soft: 77, hard: 777 };
const CHILD: u128 = 0x0123;
/// Says to the program after the exec where the scene is.
const FOLDER_VARIABLE: &str = "PROCBROKER_TEST_FOLDER";

fn is_closed_at_exec(descriptor: BorrowedFd<'_>) -> bool {
    fcntl(descriptor, FcntlArg::F_GETFD).unwrap() & FdFlag::FD_CLOEXEC.bits() != 0
}

/// Handover of which each has a meaning that can be tried.
struct Scene {
    folder: PathBuf,
    listener: UnixListener,
    lock: File,
    state_lock: File,
    folders: [File; 2],
    process: File,
    output: File,
}

impl Scene {
    fn new(folder: PathBuf) -> Self {
        let file = |name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
            File::open(folder.join(name)).unwrap()
        };
        Self {
            listener: UnixListener::bind(folder.join("sock")).unwrap(),
            lock: file("lock", "the lock"),
            state_lock: file("state", "the state"),
            folders: ["state folder", "runtime folder"].map(|name| file(name, name)),
            process: file("process", "the process"),
            output: file("output", "the output"),
            folder,
        }
    }

    fn handover(&self) -> Handover<'_> {
        Handover {
            listeners: vec![self.listener.as_fd()],
            socket: Some((&self.folder, self.lock.as_fd())),
            state_lock: self.state_lock.as_fd(),
            state_folder: (&self.folder, self.folders[0].as_fd()),
            runtime_folder: (&self.folder, self.folders[1].as_fd()),
            cgroup_folder: None,
            processes: vec![(ChildId::from_uuid(Uuid::from_u128(CHILD)), self.process.as_fd())],
            outputs: vec![self.output.as_fd()],
            nofile: NOFILE,
            kept: None,
            events: events(),
            children: children(),
            counters: counters(),
            accounts: Some(accounts()),
            beginning: beginning(),
        }
    }
}

fn children() -> BTreeMap<ChildId, HandedOver> {
    let told = HandedOver {
        status_text: Some("well".to_owned()),
        watchdog_left: Some(Duration::from_millis(7)),
        cleanup_attempts: Some(2),
        cleanup_until: Some(procbroker_core::Instant::from_nanos(9)),
    };
    [(ChildId::from_uuid(Uuid::from_u128(CHILD)), told)].into()
}

fn accounts() -> FlaggedAccounts {
    let subordinates = vec![UserRange { first: 100_000, count: 65_536 }];
    FlaggedAccounts { allow_users: vec![7, 8], allow_groups: Vec::new(), subordinates, socket_group: Some(9) }
}

fn beginning() -> Beginning {
    Beginning { instance: Uuid::from_u128(CHILD), at: Timestamp::from_micros(7) }
}

fn events() -> EventHistory {
    EventHistory { instance: Uuid::from_u128(CHILD), next: 1, kept: Vec::new(), dropped: BTreeMap::new() }
}

fn counters() -> Counters {
    let observed = serde_json::json!({"bounds": [], "counts": [5], "sum": {"secs": 1, "nanos": 2}});
    let totals = serde_json::json!({
        "creates": {"created": 3, "existing": 0, "replaced": 0},
        "create_failures": {"name_taken": 2},
        "restarts": 0,
        "forced_stops": 1,
        "cleanups": {"ok": 0, "failed": 4},
        "connections_refused": 0,
    });
    let counted = serde_json::json!({"totals": totals, "stops": observed});
    let all = serde_json::json!({"counted": counted, "turns": observed, "log_dropped_bytes": 7, "children_log_dropped_lines": 8});
    serde_json::from_value(all).unwrap()
}

fn text_of(descriptor: impl AsFd) -> String {
    let mut text = String::new();
    File::from(descriptor.as_fd().try_clone_to_owned().unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_is_handed_over_is_what_comes_out() {
    let test = "what_is_handed_over_is_what_comes_out";
    if std::env::var_os(MANIFEST_VARIABLE).is_some() {
        return check_inherited();
    }
    if !alone::here(module_path!(), test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap().keep();
    let scene = Scene::new(folder.clone());
    let _waiting = UnixStream::connect(folder.join("sock")).unwrap();
    // Whoever executes itself takes its whole environment along: this names the folder to the next program.
    let program = Program {
        path: "/usr/bin/env".into(),
        arguments: ["env", &format!("{FOLDER_VARIABLE}={}", folder.display())]
            .into_iter()
            .map(OsString::from)
            .chain([std::env::current_exe().unwrap().into_os_string()])
            .chain(std::env::args_os().skip(1))
            .collect(),
    };
    let held_back = HeldBack::begin().unwrap();
    let error = program.execute(&scene.handover(), &held_back);
    panic!("{error}");
}

/// In the next program of the same process.
fn check_inherited() {
    let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE).unwrap());
    let Inherited {
        mut listeners,
        socket,
        state_lock,
        state_folder,
        runtime_folder,
        cgroup_folder,
        mut processes,
        mut outputs,
        nofile,
        kept,
        events: told,
        handed_over,
        counters: counted,
        accounts: found,
        beginning: begun,
    } = Predecessor::of_this_process().unwrap().take_over().unwrap();
    assert_eq!((told, found, begun), (Some(events()), Some(accounts()), Some(beginning())));
    assert_eq!((handed_over, counted), (children(), Some(counters())));
    for (passed, text) in [(state_folder, "state folder"), (runtime_folder, "runtime folder")] {
        let (path, file) = passed.unwrap();
        assert_eq!((path, text_of(file).as_str()), (folder.clone(), text));
    }
    let (path, lock) = socket.unwrap();
    for descriptor in [&listeners[0], &lock, &state_lock] {
        assert!(is_closed_at_exec(descriptor.as_fd()));
    }
    assert_eq!((path, nofile), (folder.clone(), NOFILE));
    assert!(cgroup_folder.is_none() && kept.is_none() && listeners.len() == 1 && processes.len() == 1);
    assert_eq!((text_of(lock), text_of(state_lock)), ("the lock".to_owned(), "the state".to_owned()));
    let process = processes.remove(&ChildId::from_uuid(Uuid::from_u128(CHILD))).unwrap();
    assert_eq!(text_of(process), "the process");
    assert_eq!((text_of(outputs.remove(0)), outputs.len()), ("the output".to_owned(), 0));
    // The one that connected before the exec.
    UnixListener::from(listeners.remove(0)).accept().unwrap();
    // They are held back until this program is ready.
    let blocked = SigSet::thread_get_mask().unwrap();
    assert!(blocked.contains(nix::sys::signal::Signal::SIGTERM));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_exec_that_fails_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path().to_owned());
    let before = SigSet::thread_get_mask().unwrap();
    for (path, expected) in
        [(folder.path().join("missing"), Errno::ENOENT), (folder.path().to_owned(), Errno::EACCES)]
    {
        let program = Program { path, arguments: vec!["procbroker".into()] };
        let held_back = HeldBack::begin().unwrap();
        let error = program.execute(&scene.handover(), &held_back);
        assert!(matches!(error, UpgradeError::Execute { errno, .. } if errno == expected), "{error}");
        drop(held_back);
        for descriptor in scene.handover().descriptors() {
            assert!(is_closed_at_exec(descriptor), "{}", descriptor.as_raw_fd());
        }
    }
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
}

/// What a program finds that was given this text as its manifest.
fn unpacked(test: &str, manifest: &str) -> Option<UpgradeError> {
    if !alone::here(module_path!(), test) {
        return None;
    }
    let mut file = File::from(memfd_create(c"manifest", MFdFlags::empty()).unwrap());
    file.write_all(manifest.as_bytes()).unwrap();
    let number = std::os::fd::IntoRawFd::into_raw_fd(file);
    Some(unpack(number, &mut InheritedDescriptors::default()).unwrap_err())
}

#[test]
fn a_parcel_of_another_form_is_refused() {
    let manifest = Manifest { format: FORMAT + 1, state_lock: 9, ..Manifest::default() };
    let text = serde_json::to_string(&manifest).unwrap();
    if let Some(error) = unpacked("a_parcel_of_another_form_is_refused", &text) {
        assert!(matches!(error, UpgradeError::Format(format) if format == FORMAT + 1), "{error}");
    }
}

#[test]
fn a_parcel_that_names_a_descriptor_twice_is_refused() {
    let manifest = Manifest { format: FORMAT, state_lock: 9, listeners: vec![9], ..Manifest::default() };
    let text = serde_json::to_string(&manifest).unwrap();
    if let Some(error) = unpacked("a_parcel_that_names_a_descriptor_twice_is_refused", &text) {
        assert!(matches!(error, UpgradeError::Unpack(_)), "{error}");
    }
}

#[test]
fn a_parcel_that_is_none_is_refused() {
    if let Some(error) = unpacked("a_parcel_that_is_none_is_refused", "no manifest") {
        assert!(matches!(error, UpgradeError::Unpack(_)), "{error}");
    }
}

#[test]
fn a_parcel_for_another_process_is_left_alone() {
    if alone::here_with(
        module_path!(),
        "a_parcel_for_another_process_is_left_alone",
        &[(MANIFEST_VARIABLE, "1:3")],
    ) {
        assert!(Predecessor::of_this_process().is_none());
    }
}

/// Asks a shell script.
fn asked(script: &str, patience: Duration) -> Result<(), CheckError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let program = Program { path, arguments: vec!["procbroker".into(), "serve".into(), "--flag".into()] };
    loop {
        match check_within(&program, Path::new("/state.db"), patience) {
            // Another test of this process forked while the script was open for writing.
            Err(CheckError::Start { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
            result => return result,
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_program_that_promises_is_taken_at_its_word() {
    let question = format!("can-take-over --form {FORMAT} --record /state.db -- serve --flag");
    asked(&format!("test \"$*\" = '{question}' && echo '{}'", promise()), LONG).unwrap();
}

#[test]
fn a_program_that_says_no_or_nothing_is_quoted() {
    let answer = |script| match asked(script, LONG) {
        Err(CheckError::Refused { answer, .. }) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer("echo yes; echo 'procbroker: no' >&2; exit 1"), "no");
    assert_eq!(answer("echo something else"), "something else");
    assert_eq!(answer("exit 0"), "it said nothing; is it a procbroker?");
    assert!(answer("yes x").starts_with('x'));
}

#[test]
fn a_program_that_hangs_is_killed_with_what_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    // Nothing can be in the time that it gets: it is over at once.
    let script = format!("sleep 1000 & echo $! >{}; wait", pids.display());
    let error = asked(&script, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, CheckError::Silent { .. }), "{error}");
    // It may have come to make the file, and no further.
    let Some(pid) = fs::read_to_string(&pids).ok().filter(|pid| pid.ends_with('\n')) else { return };
    let _ended = Ended(pid.trim().parse().ok().and_then(Pid::new).and_then(|pid| pidfd::open(pid).ok()));
    let stat = format!("/proc/{}/stat", pid.trim());
    // It is dead; whoever inherits it may not have reaped it yet.
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    let began = std::time::Instant::now();
    while !is_gone() {
        assert!(began.elapsed() < LONG, "{stat}");
        std::thread::yield_now();
    }
}

#[test]
fn a_record_beside_which_nothing_can_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("state.db");
    check_disk(&record).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let record = folder.path().join("gone/state.db");
    let program = Program { path: "/bin/true".into(), arguments: Vec::new() };
    let runtime = OwnFolder::open(folder.path()).unwrap();
    let error = check(&program, &record, &runtime).unwrap_err();
    assert!(
        matches!(&error, CheckError::Disk { .. }) && error.to_string().contains(record.to_str().unwrap())
    );
}

/// Ends a process that the program under test should have ended.
struct Ended(Option<OwnedFd>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            let _gone = pidfd::send(pidfd.as_fd(), Signal::KILL);
        }
    }
}

#[test]
fn a_program_that_is_missing_is_named() {
    let program = Program { path: "/nonexistent/procbroker".into(), arguments: Vec::new() };
    let error = check_within(&program, Path::new("/state.db"), LONG).unwrap_err();
    assert!(
        matches!(&error, CheckError::Start { .. }) && error.to_string().contains("/nonexistent/procbroker")
    );
}
