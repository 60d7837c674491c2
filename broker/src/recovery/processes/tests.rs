use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus as ProcessStatus, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use procbroker_core::Incarnation;
use procbroker_protocol::{ExitStatus, Signal};
use uuid::Uuid;

use super::*;
use crate::os::process::alone;
use crate::os::process::identity::Birthmark;
use crate::os::process::variables::{CHILD_ID_VARIABLE, EXIT_REASON_VARIABLE};

/// A process that waits until its input ends, with these variables and nothing else in its environment.
fn start(variables: &[(&str, String)]) -> (Child, Pid) {
    let mut command = Command::new("/usr/bin/setsid");
    command.arg("cat").env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().cloned());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Its answer says that it executes its program.
    process.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let pid = Pid::new(process.id()).unwrap();
    (process, pid)
}

fn end(mut process: Child) -> ProcessStatus {
    drop(process.stdin.take());
    process.wait().unwrap()
}

fn run() -> Run {
    Run { child: ChildId::from_uuid(Uuid::new_v4()), incarnation: Incarnation::FIRST }
}

fn identity(pid: Pid) -> ProcessIdentity {
    ProcessIdentity::of(pid, pidfd::open(pid).unwrap().as_fd(), None).unwrap()
}

fn expected(run: Run, process: Option<ProcessIdentity>) -> Expected {
    let user = geteuid().as_raw();
    Expected { run, user, process, passed: None, launch: LaunchProgress::Possible, sought: Sought::Main }
}

fn recover_one(expected: Expected) -> Whereabouts {
    recover(vec![expected]).unwrap().remove(0).1
}

#[test]
fn a_process_is_found_until_it_is_reaped_and_its_status_by_who_holds_it() {
    let (run, (process, pid)) = (run(), start(&[]));
    let identity = identity(pid);
    let held = pidfd::open(pid).unwrap();
    let found = recover_one(expected(run, Some(identity)));
    // A child of this process, which stands for a broker that executed its program anew.
    assert!(
        matches!(&found, Whereabouts::Process { pid: found, kinship: Kinship::Own, .. } if *found == pid),
        "{found:?}"
    );
    pidfd::send(held.as_fd(), Signal::KILL).unwrap();
    assert!(pidfd::wait_for_end(held.as_fd(), Instant::now() + Duration::from_secs(60)));
    let zombie = recover_one(expected(run, Some(identity)));
    assert!(matches!(&zombie, Whereabouts::Process { pid: found, .. } if *found == pid), "{zombie:?}");
    assert_eq!(end(process).signal(), Some(libc::SIGKILL));
    let status = |found| match found {
        Whereabouts::Gone { status, .. } => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(recover_one(expected(run, Some(identity)))), ExitStatus::Unknown);
    let passed = Expected { passed: Some(held.into()), ..expected(run, Some(identity)) };
    let known = if pidfd::Abilities::probe().exit_status {
        ExitStatus::Signal(Signal::KILL)
    } else {
        ExitStatus::Unknown
    };
    assert_eq!(status(recover_one(passed)), known);
}

#[test]
fn a_pidfd_that_was_passed_for_a_process_that_is_not_on_record_is_believed() {
    let (run, (process, pid)) = (run(), start(&[]));
    let passed = || Expected { passed: Some(pidfd::open(pid).unwrap().into()), ..expected(run, None) };
    let (before, after) = (passed(), passed());
    assert!(matches!(recover_one(before), Whereabouts::Process { pid: found, .. } if found == pid));
    assert!(end(process).success());
    let known = if pidfd::Abilities::probe().exit_status { ExitStatus::Code(0) } else { ExitStatus::Unknown };
    assert!(matches!(recover_one(after), Whereabouts::Gone { pid: None, status, .. } if status == known));
}

#[test]
fn a_pidfd_that_was_passed_for_another_process_is_not_believed() {
    if !crate::os::process::identity::has_pidfs() {
        return;
    }
    let (run, (process, pid), (other, other_pid)) = (run(), start(&[]), start(&[]));
    let passed = Some(pidfd::open(other_pid).unwrap().into());
    let found = recover_one(Expected { passed, ..expected(run, Some(identity(pid))) });
    assert!(matches!(found, Whereabouts::Process { pid: found, .. } if found == pid));
    assert!(end(process).success() && end(other).success());
}

#[test]
fn a_process_of_another_boot_is_not_looked_for() {
    let (run, (process, pid)) = (run(), start(&[]));
    let elsewhere = ProcessIdentity { boot: BootId(Uuid::nil()), ..identity(pid) };
    assert!(matches!(recover_one(expected(run, Some(elsewhere))), Whereabouts::Rebooted));
    assert!(matches!(identity::find(run.child, &elsewhere), Ok(Lookup::OtherBoot)));
    assert!(end(process).success());
}

#[test]
fn a_number_that_was_given_away_means_nobody() {
    let (run, (process, pid)) = (run(), start(&[]));
    for birthmark in [Birthmark::Inode(1), Birthmark::StartTicks(1)] {
        let recycled = ProcessIdentity { birthmark, ..identity(pid) };
        assert!(matches!(recover_one(expected(run, Some(recycled))), Whereabouts::Gone { .. }));
    }
    assert!(end(process).success());
}

#[test]
fn a_child_that_cannot_have_been_started_is_not_searched_for() {
    let run = run();
    let (process, pid) = start(&[(CHILD_ID_VARIABLE, run.child.to_string())]);
    let found = recover_one(expected(run, None));
    assert!(matches!(&found, Whereabouts::Process { pid: found, .. } if *found == pid), "{found:?}");
    let never = Expected { launch: LaunchProgress::RuledOut, ..expected(run, None) };
    assert!(matches!(recover_one(never), Whereabouts::NeverStarted));
    assert!(end(process).success());
    let status = ExitStatus::Unknown;
    assert!(
        matches!(recover_one(expected(run, None)), Whereabouts::Gone { status: known, .. } if known == status)
    );
}

#[test]
fn the_process_of_a_cleanup_that_is_not_on_record_is_not_taken_for_the_main_one() {
    let run = run();
    let variables = [(CHILD_ID_VARIABLE, run.child.to_string()), (EXIT_REASON_VARIABLE, "exited".to_owned())];
    let (process, pid) = start(&variables);
    let is_remains = |expected| {
        matches!(recover_one(expected), Whereabouts::Gone { pid: None, status: ExitStatus::Unknown, .. })
    };
    let passed = || Expected { passed: Some(pidfd::open(pid).unwrap().into()), ..expected(run, None) };
    assert!(is_remains(expected(run, None)) && is_remains(passed()));
    for expected in [expected(run, None), passed()] {
        let found = recover_one(Expected { sought: Sought::Cleanup, ..expected });
        assert!(matches!(&found, Whereabouts::Process { pid: found, .. } if *found == pid), "{found:?}");
    }
    // The main one is found beside what it has started, however that was made up.
    let (main, main_pid) = start(&variables[..1]);
    let found = recover_one(expected(run, None));
    assert!(matches!(&found, Whereabouts::Process { pid: found, .. } if *found == main_pid), "{found:?}");
    assert!(end(process).success() && end(main).success());
}

#[test]
fn a_process_with_the_mark_that_leads_no_session_is_not_the_main_one() {
    let run = run();
    let mut command = Command::new("/bin/cat");
    command.env(CHILD_ID_VARIABLE, run.child.to_string()).process_group(0);
    let process = command.stdin(Stdio::piped()).spawn().unwrap();
    assert!(matches!(recover_one(expected(run, None)), Whereabouts::Gone { pid: None, .. }));
    assert!(end(process).success());
}

#[test]
fn want_of_descriptors_is_an_error_and_nobody_is_taken_for_gone() {
    if !alone::here(module_path!(), "want_of_descriptors_is_an_error_and_nobody_is_taken_for_gone") {
        return;
    }
    let (run, (process, pid)) = (run(), start(&[]));
    let identity = identity(pid);
    let mut taken = Vec::new();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    let on_record = recover(vec![expected(run, Some(identity))]);
    let lost = recover(vec![expected(run, None)]);
    drop(taken);
    let message = on_record.unwrap_err().to_string();
    assert!(message.contains(&pid.to_string()) && message.contains("ulimit -n"), "{message}");
    let message = lost.unwrap_err().to_string();
    assert!(message.contains("/proc") && message.contains("ulimit -n"), "{message}");
    assert!(end(process).success());
}

#[test]
fn a_process_that_another_user_calls_so_is_not_on_the_way_to_a_childs_program() {
    if !geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    let run = Run { child: ChildId::from_uuid(Uuid::now_v7()), incarnation: Incarnation::FIRST };
    // A program is called as its file is.
    let id = run.child.as_uuid().simple().to_string();
    let path = scratch.path().join(format!("pb-{}", &id[20..]));
    symlink("/bin/cat", &path).unwrap();
    let mut command = Command::new(&path);
    let mut process =
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).uid(65_534).spawn().unwrap();
    let found =
        |user| recover_one(Expected { user, launch: LaunchProgress::Underway, ..expected(run, None) });
    let others = found(65_533);
    assert!(matches!(others, Whereabouts::NeverStarted), "{others:?}");
    let own = found(65_534);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(matches!(own, Whereabouts::Unexecuted { .. }), "{own:?}");
}
