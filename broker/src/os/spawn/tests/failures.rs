//! Each step that can fail says so, and leaves no process.
#![expect(unsafe_code, reason = "installs a signal handler")]

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::resource::getrlimit;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Gid, Uid};

use super::*;
use crate::os::spawn::{Resource, ResourceLimit, Step};

#[test]
fn a_program_that_cannot_be_executed_is_named_with_its_errno() {
    let scene = Scene::new();
    scene.write("plain", "text", "644");
    scene.write("nonsense", "no program", "755");
    scene.write("orphan", "#!/missing/interpreter\n", "755");
    for way in every_way() {
        let exec = |name| refusal(way, scene.spec(&[scene.path(name)]));
        assert_eq!(exec("missing"), ("exec", Errno::ENOENT));
        assert_eq!(exec("plain"), ("exec", Errno::EACCES));
        assert_eq!(exec("plain/program"), ("exec", Errno::ENOTDIR));
        assert_eq!(exec("nonsense"), ("exec", Errno::ENOEXEC));
        assert_eq!(exec("orphan"), ("exec", Errno::ENOENT));
        assert_eq!(refusal(way, scene.spec(&["no-such-program-anywhere"])), ("exec", Errno::ENOENT));
    }
}

#[test]
fn an_environment_over_the_kernels_limit_is_refused() {
    let scene = Scene::new();
    for way in every_way() {
        let mut spec = scene.spec(&["/bin/true"]);
        // MAX_ARG_STRLEN is 32 pages.
        spec.env.push(("LONG".into(), "x".repeat(32 * 65_536).into()));
        assert_eq!(refusal(way, spec), ("exec", Errno::E2BIG));
    }
}

#[test]
fn a_forbidden_program_on_the_path_counts_only_if_no_other_is_found() {
    let scene = Scene::new();
    for folder in ["first", "second"] {
        fs::create_dir(scene.path(folder)).unwrap();
    }
    scene.write("first/tool", "#!/bin/sh\nexit 3", "644");
    for way in every_way() {
        let spec = || {
            let mut spec = scene.spec(&["tool"]);
            let path =
                ["first", "second", "third"].map(|name| scene.path(name).to_string_lossy().into_owned());
            spec.env = vec![("PATH".into(), path.join(":").into())];
            spec
        };
        assert_eq!(refusal(way, spec()), ("exec", Errno::EACCES));
        scene.write("second/tool", "#!/bin/sh\nexit 4", "755");
        assert_eq!(run(way, spec()), 4);
        fs::remove_file(scene.path("second/tool")).unwrap();
    }
}

#[test]
fn a_working_directory_that_cannot_be_entered_is_refused() {
    let scene = Scene::new();
    scene.write("file", "", "644");
    for way in every_way() {
        let enter = |name| refusal(way, SpawnSpec { cwd: scene.path(name), ..scene.spec(&["/bin/true"]) });
        assert_eq!(enter("missing"), ("cwd", Errno::ENOENT));
        assert_eq!(enter("file"), ("cwd", Errno::ENOTDIR));
    }
}

#[test]
fn an_output_file_that_cannot_be_opened_is_refused() {
    let scene = Scene::new();
    symlink(scene.path("target"), scene.path("link")).unwrap();
    for way in every_way() {
        let stdout = |name| {
            let stdout = Output::Append(scene.path(name));
            refusal(way, SpawnSpec { stdout, ..scene.spec(&["/bin/true"]) })
        };
        assert_eq!(stdout("missing/out"), ("stdout", Errno::ENOENT));
        assert_eq!(stdout("link"), ("stdout", Errno::ELOOP));
        let stderr = ErrorOutput::Own(Output::Append(scene.path("missing/err")));
        let spec = SpawnSpec { stderr, ..scene.spec(&["/bin/true"]) };
        assert_eq!(refusal(way, spec), ("stderr", Errno::ENOENT));
    }
    assert!(!scene.path("target").exists());
}

#[test]
fn a_limit_above_the_brokers_own_is_refused_even_to_root() {
    if !alone("failures::a_limit_above_the_brokers_own_is_refused_even_to_root") {
        return;
    }
    let scene = Scene::new();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 5000).unwrap();
    let with = |soft, hard| {
        let rlimits = vec![ResourceLimit { resource: Resource::from_name("core").unwrap(), soft, hard }];
        SpawnSpec { rlimits, ..scene.spec(&["/bin/true"]) }
    };
    // Before there is a process that the kernel might allow to raise it.
    let unprepared = SpawnPlan::prepare(with(5001, 5001)).unwrap_err();
    assert_eq!(unprepared, SpawnError::refused(Step::Rlimits, Errno::EPERM));
    for way in every_way() {
        assert_eq!(refusal(way, with(5001, 5001)), ("rlimits", Errno::EPERM));
        assert_eq!(refusal(way, with(8, u64::MAX)), ("rlimits", Errno::EPERM));
        assert_eq!(refusal(way, with(9, 8)), ("rlimits", Errno::EINVAL));
        assert_eq!(run(way, with(5000, 5000)), 0);
    }
}

#[test]
fn ids_that_the_broker_may_not_take_on_are_refused() {
    let scene = Scene::new();
    for way in every_way() {
        let credentials = if is_root() {
            // One more than the kernel takes (NGROUPS_MAX).
            Credentials::Become {
                uid: 65_534.into(),
                gid: 65_534.into(),
                groups: vec![Gid::from_raw(1); 65_537],
            }
        } else {
            Credentials::Become { uid: Uid::from_raw(0), gid: Gid::from_raw(0), groups: Vec::new() }
        };
        let expected = if is_root() { Errno::EINVAL } else { Errno::EPERM };
        let spec = SpawnSpec { credentials, ..scene.spec(&["/bin/true"]) };
        assert_eq!(refusal(way, spec), ("groups", expected));
    }
}

#[test]
fn a_child_killed_before_its_program_is_told_from_one_that_has_it() {
    let scene = Scene::new();
    for way in every_way() {
        let leased = Leased::new(&scene.path("leased"));
        let spec = SpawnSpec { stdout: Output::Append(scene.path("leased")), ..scene.spec(&["/bin/true"]) };
        let mut launcher = Launcher::with_slots(way, 1).unwrap();
        assert_eq!(launcher.kill_overdue(Duration::ZERO), 0, "there is nothing to kill yet");
        assert!(launcher.launch(SpawnPlan::prepare(spec).unwrap(), ()).is_ok());
        assert_eq!(launcher.overdue(Duration::from_hours(1)).count(), 0);
        assert_eq!(launcher.overdue(Duration::ZERO).count(), 1);
        assert_eq!(launcher.kill_overdue(Duration::ZERO), 1);
        assert_eq!(next_result(&mut launcher), Err(SpawnError::Killed { signal: libc::SIGKILL }), "{way:?}");
        assert_eq!(children_of_this_thread(), "");
        assert_eq!(launcher.kill_overdue(Duration::ZERO), 0, "there is nothing to kill any more");
        leased.let_go();
    }
}

#[test]
fn only_the_child_that_is_meant_is_killed() {
    let scene = Scene::new();
    for way in every_way() {
        let leased = Leased::new(&scene.path("leased"));
        let spec = SpawnSpec { stdout: Output::Append(scene.path("leased")), ..scene.spec(&["/bin/true"]) };
        let mut launcher = Launcher::with_slots(way, 1).unwrap();
        assert!(launcher.launch(SpawnPlan::prepare(spec).unwrap(), "one").is_ok());
        assert!(!launcher.kill(|of| *of == "another"));
        assert!(launcher.kill(|of| *of == "one"));
        assert_eq!(next_result(&mut launcher), Err(SpawnError::Killed { signal: libc::SIGKILL }), "{way:?}");
        assert!(!launcher.kill(|_| true), "there is nothing to kill any more");
        leased.let_go();
    }
}

#[test]
fn a_child_within_its_time_is_not_killed() {
    let scene = Scene::new();
    for way in every_way() {
        let leased = Leased::new(&scene.path("leased"));
        let spec = SpawnSpec { stdout: Output::Append(scene.path("leased")), ..scene.spec(&["/bin/true"]) };
        let mut launcher = Launcher::with_slots(way, 1).unwrap();
        assert!(launcher.launch(SpawnPlan::prepare(spec).unwrap(), ()).is_ok());
        assert_eq!(launcher.kill_overdue(Duration::from_hours(1)), 0);
        leased.let_go();
        assert_eq!(next_result(&mut launcher), Ok(0), "{way:?}");
    }
}

/// The exit status of the one child that is on its way, or why there is none.
fn next_result<T>(launcher: &mut Launcher<T>) -> Result<i32, SpawnError> {
    let mut outcomes = Vec::new();
    while outcomes.is_empty() {
        launcher.wait();
        launcher.take_outcomes(&mut outcomes);
    }
    outcomes.pop().unwrap().result.map(|spawned| reap(&spawned))
}

static CHILD_SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_child_signal(_signal: libc::c_int) {
    CHILD_SIGNALS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn only_a_child_that_has_its_program_signals_its_end() {
    if !alone("failures::only_a_child_that_has_its_program_signals_its_end") {
        return;
    }
    // Of several threads another one could run the handler, and later than this one asks.
    crate::os::process::alone::forked(count_child_signals);
}

fn count_child_signals() {
    let count = SigAction::new(SigHandler::Handler(count_child_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only adds to an atomic integer.
    unsafe { sigaction(Signal::SIGCHLD, &count) }.unwrap();
    let scene = Scene::new();
    for (index, way) in every_way().enumerate() {
        refusal(way, scene.spec(&["/missing"]));
        SpawnFacilities::probe().unwrap();
        assert_eq!(CHILD_SIGNALS.load(Ordering::SeqCst), index, "{way:?}");
        let spawned = spawn(way, scene.spec(&["/bin/true"])).unwrap();
        // As the broker's reaper finds it, whichever child it is.
        let status = waitid(Id::All, WaitPidFlag::WEXITED).unwrap();
        assert_eq!(status, WaitStatus::Exited(spawned.pid, 0));
        assert_eq!(CHILD_SIGNALS.load(Ordering::SeqCst), index + 1, "{way:?}");
    }
}

#[test]
fn want_of_descriptors_is_a_failed_clone_and_leaks_none() {
    if !alone("failures::want_of_descriptors_is_a_failed_clone_and_leaks_none") {
        return;
    }
    let scene = Scene::new();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    for way in every_way() {
        let plan = || SpawnPlan::prepare(scene.spec(&["/bin/true"])).unwrap();
        let mut starter = Starter::new(way);
        let before = open();
        let (soft, hard) = getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        let limit =
            |soft| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard);
        limit(0).unwrap();
        let failure = starter.spawn(plan()).unwrap_err();
        limit(soft).unwrap();
        assert_eq!((failure.step_name(), failure.errno()), ("clone", Errno::EMFILE), "{way:?}");
        for _ in 0..100 {
            starter.spawn(SpawnPlan::prepare(scene.spec(&["/missing"])).unwrap()).unwrap_err();
            assert_eq!(reap(&starter.spawn(plan()).unwrap()), 0);
        }
        assert_eq!(open(), before, "{way:?}");
        assert_eq!(children_of_this_thread(), "");
    }
}

#[test]
fn every_step_has_a_name_and_a_discriminant_of_its_own() {
    for (index, step) in Step::ALL.into_iter().enumerate() {
        assert_eq!(step as usize, index + 1);
        assert_eq!(Step::from_discriminant(step as u32), Some(step));
        assert_eq!(Step::ALL.into_iter().filter(|other| other.name() == step.name()).count(), 1);
    }
    assert_eq!(Step::from_discriminant(0), None);
    assert_eq!(Step::from_discriminant(99), None);
}

#[test]
fn a_failure_says_what_was_attempted() {
    let failure = SpawnError::refused(Step::Cwd, Errno::ENOENT);
    assert_eq!(
        failure.to_string(),
        "could not change to the working directory: ENOENT: No such file or directory"
    );
    let killed = SpawnError::Killed { signal: 9 };
    assert_eq!(killed.to_string(), "the process was killed by signal 9 before its program began");
    assert_eq!((killed.step_name(), killed.errno()), ("killed", Errno::ECANCELED));
}
