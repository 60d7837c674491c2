//! Children that do not get to their programs: each holds its slot, and nothing else.
#![expect(unsafe_code, reason = "takes a lease, and asks for the errno of this thread")]

use std::os::fd::AsRawFd;

use super::*;
use crate::limits::SLOTS;
use crate::os::spawn::LaunchOutcome;

/// Launches a program, without waiting for it.
fn launch(launcher: &mut Launcher<u32>, of: u32, spec: SpawnSpec) -> Result<(), (u32, &'static str, Errno)> {
    launcher.launch(SpawnPlan::prepare(spec).unwrap(), of).map_err(|outcome| {
        let failure = outcome.result.unwrap_err();
        (outcome.of, failure.step_name(), failure.errno())
    })
}

/// The next launch that comes to an end.
fn next_outcome(launcher: &mut Launcher<u32>) -> LaunchOutcome<u32> {
    let mut outcomes = Vec::new();
    while outcomes.is_empty() {
        launcher.wait();
        launcher.take_outcomes(&mut outcomes);
    }
    assert_eq!(outcomes.len(), 1);
    outcomes.pop().unwrap()
}

/// A child that waits for its output to be let go.
fn at_lease(scene: &Scene) -> SpawnSpec {
    SpawnSpec { stdout: Output::Append(scene.path("leased")), ..scene.spec(&["/bin/true"]) }
}

#[test]
fn a_child_killed_before_its_program_is_told_from_one_that_has_it() {
    let scene = Scene::new();
    for way in every_way() {
        let leased = Leased::new(&scene.path("leased"));
        let mut launcher = Launcher::with_slots(way, 2).unwrap();
        launch(&mut launcher, 1, at_lease(&scene)).unwrap();
        assert!(!launcher.kill(|of| *of == 2), "there is no such child");
        launch(&mut launcher, 2, scene.spec(&["/bin/true"])).unwrap();
        let outcome = next_outcome(&mut launcher);
        assert_eq!(
            (outcome.of, outcome.was_killed),
            (2, false),
            "{way:?}: it does not wait for the other one"
        );
        assert_eq!(reap(&outcome.result.unwrap()), 0);
        assert_eq!(launcher.in_flight(), 1);
        assert!(launcher.kill(|of| *of == 1));
        let outcome = next_outcome(&mut launcher);
        assert!(outcome.was_killed, "nobody starts it in another way");
        assert_eq!(
            (outcome.of, outcome.result.unwrap_err()),
            (1, SpawnError::Killed { signal: libc::SIGKILL })
        );
        assert_eq!(launcher.in_flight(), 0);
        assert!(!launcher.kill(|_| true), "there is nothing to kill any more");
        assert_eq!(children_of_this_thread(), "");
        leased.let_go();
    }
}

#[test]
fn a_child_that_is_stopped_before_its_program_can_be_killed() {
    let scene = Scene::new();
    for way in every_way() {
        let leased = Leased::new(&scene.path("leased"));
        let mut launcher = Launcher::with_slots(way, 1).unwrap();
        launch(&mut launcher, 1, at_lease(&scene)).unwrap();
        let pid: i32 = children_of_this_thread().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        assert!(launcher.kill(|_| true));
        let failure = next_outcome(&mut launcher).result.unwrap_err();
        assert_eq!(failure, SpawnError::Killed { signal: libc::SIGKILL }, "{way:?}");
        assert_eq!(children_of_this_thread(), "");
        leased.let_go();
    }
}

#[test]
fn a_child_whose_program_is_held_by_a_lease_can_be_killed() {
    let scene = Scene::new();
    scene.write("program", "#!/bin/sh\n", "755");
    // Held until this is dropped, or for 45 s: the kernel signals the holder with SIGIO, which would end it.
    // SAFETY: it takes two integers.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    for way in every_way() {
        let held = fs::File::options().read(true).write(true).open(scene.path("program")).unwrap();
        // SAFETY: it takes integers only.
        if unsafe { libc::fcntl(held.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } != 0 {
            // Where the file system knows no leases, or somebody has a copy of the descriptor for the moment.
            return;
        }
        let mut launcher = Launcher::with_slots(way, 1).unwrap();
        launch(&mut launcher, 1, scene.spec(&[scene.path("program")])).unwrap();
        assert!(launcher.kill(|_| true));
        let failure = next_outcome(&mut launcher).result.unwrap_err();
        assert_eq!(failure, SpawnError::Killed { signal: libc::SIGKILL }, "{way:?}");
    }
}

#[test]
fn no_two_children_share_a_slot() {
    let scene = Scene::new();
    let leased = Leased::new(&scene.path("leased"));
    let way = every_way().next().unwrap();
    let mut launcher = Launcher::with_slots(way, 1).unwrap();
    let count = u32::try_from(SLOTS).unwrap();
    for number in 0..count {
        launch(&mut launcher, number, at_lease(&scene)).unwrap();
    }
    assert_eq!(launcher.in_flight(), SLOTS);
    assert_eq!(launch(&mut launcher, count, at_lease(&scene)), Err((count, "clone", Errno::EAGAIN)));
    for number in 0..count {
        assert!(launcher.kill(|of| *of == number));
        let outcome = next_outcome(&mut launcher);
        assert_eq!((outcome.of, outcome.result.is_err()), (number, true));
    }
    assert_eq!(children_of_this_thread(), "");
    leased.let_go();
}

#[test]
fn a_child_that_takes_too_long_is_killed_once() {
    let scene = Scene::new();
    let leased = Leased::new(&scene.path("leased"));
    let mut launcher = Launcher::with_slots(every_way().next().unwrap(), 1).unwrap();
    assert_eq!(launcher.overdue_at(std::time::Duration::ZERO), None);
    launch(&mut launcher, 1, at_lease(&scene)).unwrap();
    let hour = std::time::Duration::from_secs(3600);
    assert!(launcher.overdue_at(hour).is_some() && launcher.kill_overdue(hour) == 0);
    assert_eq!(launcher.kill_overdue(std::time::Duration::ZERO), 1);
    assert_eq!(next_outcome(&mut launcher).result.unwrap_err(), SpawnError::Killed { signal: libc::SIGKILL });
    leased.let_go();
}

#[test]
fn a_child_does_not_touch_the_errno_of_the_thread_that_made_it() {
    let scene = Scene::new();
    for way in every_way() {
        let mut launcher = Launcher::with_slots(way, 1).unwrap();
        let missing = scene.spec(&["/missing"]);
        let plan = SpawnPlan::prepare(missing).unwrap();
        launcher.launch(plan, 1_u32).unwrap();
        Errno::set_raw(12_345);
        // Nothing is called meanwhile that could set it itself.
        let mut spins = 0_u64;
        while spins < 50_000_000 {
            spins = std::hint::black_box(spins) + 1;
        }
        assert_eq!(Errno::last_raw(), 12_345, "{way:?}");
        assert!(next_outcome(&mut launcher).result.is_err());
    }
}

/// Whether a process has the memory of this one (`kcmp(2)`).
fn has_this_memory(pid: nix::unistd::Pid) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: it takes integers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, libc::getpid(), pid.as_raw(), KCMP_VM, 0, 0) };
    order == 0
}

#[test]
fn a_child_that_the_kernel_may_kill_for_what_it_uses_has_no_memory_of_the_brokers() {
    let scene = Scene::new();
    let leased = Leased::new(&scene.path("leased"));
    for way in every_way() {
        for (number, bounding) in [Bounding::Free, Bounding::Bounded].into_iter().enumerate() {
            let mut launcher = Launcher::with_slots(way, 1).unwrap();
            let number = u32::try_from(number).unwrap();
            launch(&mut launcher, number, SpawnSpec { bounding, ..at_lease(&scene) }).unwrap();
            let pid = launcher.pid(|_| true).unwrap();
            let expected = way.method == CloneMethod::Clone3 && bounding == Bounding::Free;
            assert_eq!(has_this_memory(pid), expected, "{way:?} {bounding:?}");
            assert!(launcher.kill(|_| true));
            assert!(next_outcome(&mut launcher).result.is_err());
        }
    }
    leased.let_go();
}
