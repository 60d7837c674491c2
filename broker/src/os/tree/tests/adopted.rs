//! Children of an earlier broker that was killed, in both containments.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use procbroker_core::{Incarnation, Input, Members, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, ExitStatus, Signal};

use super::previous_broker::{Left, PreviousBroker};
use super::scene::{Scene, Way, kill, lives};
use super::{left, status};
use crate::os::process::alone;
use crate::os::process::identity::{Birthmark, ProcessIdentity};
use crate::os::process::pidfd::{self, Abilities};
use crate::os::process::proc::{ProcessStat, start_ticks};
use crate::os::process::variables::CHILD_ID_VARIABLE;
use crate::os::process::whereabouts::Whereabouts;
use crate::recovery::processes::recover;

/// A daemon that leaves its session and its parent, and says its pid.
const DAEMON: &str = "(setsid sh -c 'echo $$ > $fifo; exec sleep 1000' &)";

/// The same without an environment.
const BARE_DAEMON: &str = "(env -i setsid sh -c 'echo $$ > $0; exec env -i sleep 1000' $fifo &)";

/// Waits for a signal, and ends with a status.
const WILLING: &str = "trap 'exit 7' TERM; echo $$ > $fifo; while :; do sleep 0.01; done";

const WAYS: [(Way, &str); 2] = [(Way::Cgroup, "cgroup"), (Way::List, "list")];

/// Runs a test in each way, each time in a process of its own.
fn each_way(test: &str, run: impl Fn(PreviousBroker, Way)) {
    let chosen = std::env::var("PROCBROKER_TEST_WAY").ok();
    for (way, name) in WAYS {
        if chosen.is_none() {
            alone::here_with(module_path!(), test, &[("PROCBROKER_TEST_WAY", name)]);
        } else if chosen.as_deref() == Some(name) {
            alone::forked(|| {
                if let Some(previous) = PreviousBroker::new(way) {
                    run(previous, way);
                }
            });
        }
    }
}

#[test]
fn the_end_of_a_recovered_child_is_told_with_its_status_though_nobody_reaps_it() {
    each_way(
        "the_end_of_a_recovered_child_is_told_with_its_status_though_nobody_reaps_it",
        |mut earlier, way| {
            let mut ear = earlier.ear();
            let child = earlier.start("trap 'exit 7' TERM; echo $$ > $fifo; while :; do sleep 0.01; done");
            assert_eq!(ear.pid(), child.pid);
            earlier.crash();
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            assert!(scene.adopt_all(vec![child.expected()]).is_empty());
            assert_eq!(scene.containment().identity(child.run), Some(child.identity));
            let answer = scene.containment().signal(child.run, Signal::TERM, Scope::Main, None);
            let delivered = SignalOutcome::Delivered;
            assert_eq!(answer, Some(Input::Signalled { run: child.run, call: None, outcome: delivered }));
            scene.until(|inputs| left(inputs, child.run).is_some());
            let expected =
                Input::Exited { run: child.run, status: ExitStatus::Code(7), members: Members::Nothing };
            assert_eq!(scene.inputs, [expected]);
            assert!(!lives(child.pid));
            scene.containment().release(child.run);
            scene.close();
        },
    );
}

#[test]
fn the_status_of_a_child_that_ended_while_no_broker_ran_is_known_to_who_held_it() {
    each_way(
        "the_status_of_a_child_that_ended_while_no_broker_ran_is_known_to_who_held_it",
        |mut earlier, way| {
            let [held, not_held] = [(), ()].map(|()| earlier.start("exec sleep 1000"));
            let pidfd = pidfd::open(held.pid).unwrap();
            earlier.crash();
            for child in [held, not_held] {
                let pidfd = pidfd::open(child.pid).unwrap();
                pidfd::send(pidfd.as_fd(), Signal::KILL).unwrap();
                assert!(pidfd::wait_for_end(
                    pidfd.as_fd(),
                    std::time::Instant::now() + super::scene::PATIENCE
                ));
            }
            earlier.reap();
            let mut of_held = held.expected();
            of_held.passed = Some(pidfd.into());
            let told = |recovered: &Whereabouts| match recovered {
                Whereabouts::Gone { status, .. } => *status,
                other => panic!("{other:?}"),
            };
            let recovered = recover(vec![of_held, not_held.expected()]).unwrap();
            if Abilities::probe().exit_status {
                assert_eq!(told(&recovered[0].1), ExitStatus::Signal(Signal::KILL));
            }
            assert_eq!(told(&recovered[1].1), ExitStatus::Unknown);
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            let survey = scene.containment().adopt_all(&recovered);
            assert_eq!(survey, [(held.run, Members::Nothing), (not_held.run, Members::Nothing)].into());
            scene.close();
        },
    );
}

#[test]
fn the_status_of_a_zombie_that_was_found_is_told_before_and_after_it_is_reaped() {
    each_way(
        "the_status_of_a_zombie_that_was_found_is_told_before_and_after_it_is_reaped",
        |mut earlier, way| {
            let children = [(), ()].map(|()| earlier.start("exec sleep 1000"));
            earlier.crash();
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            let [zombie, reaped] = children;
            kill(zombie.pid);
            scene.adopt_all(children.map(|child| child.expected()).into());
            scene.until(|inputs| left(inputs, zombie.run) == Some(Members::Nothing));
            let killed = ExitStatus::Signal(Signal::KILL);
            assert_eq!(status(&scene.inputs, zombie.run), Some(killed));
            let pidfd = pidfd::open(reaped.pid).unwrap();
            kill(reaped.pid);
            assert!(pidfd::wait_for_end(pidfd.as_fd(), std::time::Instant::now() + super::scene::PATIENCE));
            earlier.reap();
            scene.until(|inputs| left(inputs, reaped.run) == Some(Members::Nothing));
            let known = if Abilities::probe().exit_status { killed } else { ExitStatus::Unknown };
            assert_eq!(status(&scene.inputs, reaped.run), Some(known));
            scene.close();
        },
    );
}

#[test]
fn what_a_recovered_child_leaves_behind_is_reported_until_it_is_killed() {
    each_way("what_a_recovered_child_leaves_behind_is_reported_until_it_is_killed", |mut earlier, way| {
        let mut ear = earlier.ear();
        let child = earlier.start(&format!("{DAEMON}; exec sleep 1000"));
        let daemon = ear.pid();
        earlier.crash();
        let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
        scene.adopt_all(vec![child.expected()]);
        scene.containment().signal(child.run, Signal::KILL, Scope::Main, None);
        scene.until(|inputs| left(inputs, child.run) == Some(Members::Outside));
        assert!(lives(daemon));
        scene.containment().kill(child.run);
        scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
        assert!(!lives(daemon));
        scene.close();
    });
}

#[test]
fn a_kill_of_a_recovered_child_ends_all_of_it_though_it_left_the_session_and_the_environment() {
    each_way(
        "a_kill_of_a_recovered_child_ends_all_of_it_though_it_left_the_session_and_the_environment",
        |mut earlier, way| {
            let mut ear = earlier.ear();
            let script = "trap '' TERM; setsid env -i sh -c 'echo $$ > $0; sleep 1000; true' $fifo & \
                          (setsid sh -c 'echo $$ > $fifo; exec sleep 1000' &) ; sleep 1000 & wait; sleep 1000";
            let child = earlier.start(script);
            let processes = [ear.pid(), ear.pid()];
            let innocent = earlier.start("exec sleep 1000");
            earlier.crash();
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            scene.adopt_all(vec![child.expected(), innocent.expected()]);
            scene.containment().kill(child.run);
            scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
            assert_eq!(status(&scene.inputs, child.run), Some(ExitStatus::Signal(Signal::KILL)));
            assert!(processes.iter().all(|&pid| !lives(pid)) && lives(innocent.pid));
            scene.containment().kill(innocent.run);
            scene.until(|inputs| left(inputs, innocent.run) == Some(Members::Nothing));
            scene.close();
        },
    );
}

#[test]
fn a_daemon_without_an_environment_of_a_child_that_is_gone_is_found_by_its_cgroup() {
    each_way(
        "a_daemon_without_an_environment_of_a_child_that_is_gone_is_found_by_its_cgroup",
        |mut earlier, way| {
            let mut ear = earlier.ear();
            // The shell goes on when what has started the daemon has ended: until then that is in the group.
            let child = earlier.start(&format!("{BARE_DAEMON}; echo main > $fifo; exec sleep 1000"));
            let mut said = [ear.line(), ear.line()];
            said.sort();
            assert_eq!(said[1], "main");
            let daemon = Pid::new(said[0].parse().unwrap()).unwrap();
            earlier.crash();
            kill(child.pid);
            earlier.until_reaped(child.pid);
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            let survey = scene.adopt_all(vec![child.expected()]);
            match way {
                Way::Cgroup => {
                    assert_eq!(survey, [(child.run, Members::Outside)].into());
                    scene.containment().kill(child.run);
                    scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
                    assert!(!lives(daemon));
                }
                // Nothing tells whose it is.
                Way::List | Way::Scan => {
                    assert_eq!(survey, [(child.run, Members::Nothing)].into());
                    assert!(lives(daemon));
                }
            }
            scene.close();
        },
    );
}

#[test]
fn the_group_of_a_child_that_is_gone_gets_its_signals_and_its_end_is_reported() {
    each_way(
        "the_group_of_a_child_that_is_gone_gets_its_signals_and_its_end_is_reported",
        |mut earlier, way| {
            let mut ear = earlier.ear();
            // The other process of the group is there when the daemon's pid is told.
            let child = earlier.start(&format!("sleep 1000 & {DAEMON}; exec sleep 1000"));
            let daemon = ear.pid();
            earlier.crash();
            kill(child.pid);
            earlier.until_reaped(child.pid);
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            let survey = scene.adopt_all(vec![child.expected()]);
            assert_eq!(survey, [(child.run, Members::Group)].into());
            assert_eq!(scene.containment().signal(child.run, Signal::TERM, Scope::Group, None), None);
            scene.until(|inputs| left(inputs, child.run) == Some(Members::Outside));
            let outcome = SignalOutcome::Delivered;
            assert!(scene.inputs.contains(&Input::Signalled { run: child.run, call: None, outcome }));
            // Nobody tells the broker of this end but the process itself.
            kill(daemon);
            scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
            scene.close();
        },
    );
}

#[test]
fn a_signal_to_all_of_a_recovered_child_reaches_its_daemons_too() {
    each_way("a_signal_to_all_of_a_recovered_child_reaches_its_daemons_too", |mut earlier, way| {
        let mut ear = earlier.ear();
        let wait = WILLING.replace('$', "\\$");
        let child = earlier.start(&format!("(setsid sh -c \"{wait}\" &); {WILLING}"));
        let both = [ear.pid(), ear.pid()];
        earlier.crash();
        let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
        scene.adopt_all(vec![child.expected()]);
        assert_eq!(scene.containment().signal(child.run, Signal::TERM, Scope::All, None), None);
        scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
        assert_eq!(status(&scene.inputs, child.run), Some(ExitStatus::Code(7)));
        assert!(both.iter().all(|&pid| !lives(pid)));
        scene.close();
    });
}

#[test]
fn a_process_that_has_the_number_of_a_child_now_is_never_touched() {
    each_way("a_process_that_has_the_number_of_a_child_now_is_never_touched", |mut earlier, way| {
        let mut child = earlier.start("exec sleep 1000");
        let innocent = earlier.innocent();
        earlier.crash();
        kill(child.pid);
        earlier.until_reaped(child.pid);
        child.identity.pid = innocent;
        let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
        let survey = scene.adopt_all(vec![child.expected()]);
        assert_eq!(survey, [(child.run, Members::Nothing)].into());
        for scope in [Scope::Main, Scope::Group, Scope::All] {
            let answer = scene.containment().signal(child.run, Signal::KILL, scope, None);
            scene.inputs.extend(answer);
        }
        scene.containment().kill(child.run);
        let gone = Input::Signalled { run: child.run, call: None, outcome: SignalOutcome::Gone };
        scene.until(|inputs| inputs.iter().filter(|&input| *input == gone).count() == 3);
        scene.close();
        assert!(lives(innocent));
    });
}

#[test]
fn a_start_time_alone_takes_no_other_process_for_a_child() {
    each_way("a_start_time_alone_takes_no_other_process_for_a_child", |mut earlier, _| {
        let mut ear = earlier.ear();
        let [child, other] = [(), ()].map(|()| earlier.start("echo > $fifo; while :; do sleep 1000; done"));
        // As long as it executes its program, nobody can tell its mark.
        assert_eq!([ear.line(), ear.line()], ["", ""]);
        let ticks = |pid| start_ticks(pid).unwrap();
        let found = |run, pid, ticks| {
            let mut expected = child.expected();
            let identity = expected.process.as_mut().unwrap();
            (identity.pid, identity.birthmark, expected.run) = (pid, Birthmark::StartTicks(ticks), run);
            match recover(vec![expected]).unwrap().remove(0).1 {
                Whereabouts::Process { pid, .. } => Some(pid),
                Whereabouts::Gone { .. } => None,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(found(child.run, child.pid, ticks(child.pid)), Some(child.pid));
        assert_eq!(found(child.run, child.pid, ticks(child.pid) + 1), None);
        // The mark of another child.
        assert_eq!(found(child.run, other.pid, ticks(other.pid)), None);
        earlier.crash();
    });
}

#[test]
fn a_child_that_is_not_on_record_is_found_by_its_mark_and_not_taken_for_its_daemon() {
    each_way(
        "a_child_that_is_not_on_record_is_found_by_its_mark_and_not_taken_for_its_daemon",
        |mut earlier, way| {
            let mut ear = earlier.ear();
            let child = earlier.start(&format!("{DAEMON}; exec sleep 1000"));
            let daemon = ear.pid();
            earlier.crash();
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            assert!(scene.adopt_all(vec![child.not_on_record()]).is_empty());
            assert_eq!(scene.containment().identity(child.run), Some(child.identity));
            scene.containment().kill(child.run);
            scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
            assert_eq!(status(&scene.inputs, child.run), Some(ExitStatus::Signal(Signal::KILL)));
            assert!(!lives(daemon));
            scene.close();
        },
    );
}

#[test]
fn the_sweep_ends_what_is_left_of_recovered_children() {
    each_way("the_sweep_ends_what_is_left_of_recovered_children", |mut earlier, way| {
        let mut ear = earlier.ear();
        let child = earlier.start(&format!("{DAEMON}; exec sleep 1000"));
        let daemon = ear.pid();
        earlier.crash();
        let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
        scene.adopt_all(vec![child.expected()]);
        scene.containment().signal(child.run, Signal::KILL, Scope::Main, None);
        scene.until(|inputs| left(inputs, child.run) == Some(Members::Outside));
        scene.containment().release(child.run);
        assert!(lives(daemon));
        assert_eq!(scene.sweep(), 0);
        assert!(!lives(daemon));
        scene.close();
    });
}

#[test]
fn a_recovered_child_that_lives_is_ended_by_the_sweep_too() {
    each_way("a_recovered_child_that_lives_is_ended_by_the_sweep_too", |mut earlier, way| {
        let child = earlier.start("trap '' TERM HUP; while :; do sleep 1000; done");
        let unknown = earlier.start("exec sleep 1000");
        earlier.crash();
        let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
        scene.adopt_all(vec![child.expected()]);
        assert_eq!(scene.sweep(), 0);
        assert!(!lives(child.pid));
        // Nobody knows of this one, but that the broker's folder is its cgroup's.
        assert_eq!(lives(unknown.pid), way != Way::Cgroup);
        scene.close();
    });
}

#[test]
fn a_broker_that_goes_on_with_the_cgroups_of_another_gives_no_number_again() {
    each_way(
        "a_broker_that_goes_on_with_the_cgroups_of_another_gives_no_number_again",
        |mut earlier, way| {
            let children = [(), ()].map(|()| earlier.start("exec sleep 1000"));
            let [child, gone] = children;
            earlier.crash();
            kill(gone.pid);
            earlier.until_reaped(gone.pid);
            let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
            let path = earlier.previous_folder().map(|previous| previous.path);
            assert_eq!(scene.containment().cgroup_folder(), path.as_deref());
            scene.adopt_all(children.map(|child| child.expected()).into());
            assert_eq!(scene.containment().group_number(child.run), child.identity.cgroup);
            assert_eq!(scene.containment().group_number(gone.run), None);
            let new: Vec<_> = (0..64).map(|_| scene.start("exec sleep 1000")).collect();
            for run in new {
                let number = scene.containment().group_number(run);
                assert_eq!(number.is_some(), way == Way::Cgroup);
                assert!(way != Way::Cgroup || children.iter().all(|child| child.identity.cgroup != number));
                scene.containment().kill(run);
                scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
                scene.containment().release(run);
            }
            scene.close();
        },
    );
}

#[test]
fn a_group_that_two_have_on_record_is_that_of_the_one_that_lives_in_it() {
    each_way("a_group_that_two_have_on_record_is_that_of_the_one_that_lives_in_it", |mut earlier, way| {
        let [mut gone, living] = [(), ()].map(|()| earlier.start("exec sleep 1000"));
        earlier.crash();
        kill(gone.pid);
        earlier.until_reaped(gone.pid);
        gone.identity.cgroup = living.identity.cgroup;
        let mut scene = Scene::after(way, earlier.previous_folder()).unwrap();
        let survey = scene.adopt_all(vec![gone.expected(), living.expected()]);
        assert_eq!(survey, [(gone.run, Members::Nothing)].into());
        assert_eq!(scene.containment().group_number(living.run), living.identity.cgroup);
        assert_eq!(scene.containment().group_number(gone.run), None);
        scene.close();
    });
}

#[test]
fn children_of_a_broker_that_executed_itself_anew_are_reaped_as_its_own() {
    let test = "children_of_a_broker_that_executed_itself_anew_are_reaped_as_its_own";
    alone::on_main_thread(module_path!(), test, || {
        // Started on the main thread, as all children of a process are that of after it has executed a program.
        let runs = [(); 64].map(|()| started_here("read x; exit 5"));
        let mut scene = Scene::new(Way::List).unwrap();
        let mut ear = scene.ear();
        let fifo = scene.fifo();
        let leaving = started_here(&format!("export fifo={fifo}; {DAEMON}; exit 6"));
        let daemon = ear.pid();
        let expected = runs.iter().chain([&leaving]).map(|(left, _)| left.expected()).collect();
        assert!(scene.adopt_all(expected).is_empty());
        scene.until(|inputs| left(inputs, leaving.0.run) == Some(Members::Outside));
        for (child, input) in runs {
            assert_eq!(status(&scene.inputs, child.run), None);
            drop(input);
            scene.until(|inputs| left(inputs, child.run) == Some(Members::Nothing));
            assert_eq!(status(&scene.inputs, child.run), Some(ExitStatus::Code(5)));
            assert_eq!(ProcessStat::read(child.pid), None);
            scene.containment().release(child.run);
        }
        scene.containment().kill(leaving.0.run);
        scene.until(|inputs| left(inputs, leaving.0.run) == Some(Members::Nothing));
        assert!(!lives(daemon));
        scene.close();
    });
}

/// A child of the main thread that runs a script, and its input.
fn started_here(script: &str) -> (Left, std::process::ChildStdin) {
    let child = ChildId::from_uuid(uuid::Uuid::new_v4());
    let mut command = Command::new("/usr/bin/setsid");
    let command = command.args(["sh", "-c", script]).env(CHILD_ID_VARIABLE, child.to_string());
    #[expect(clippy::zombie_processes, reason = "the reaper under test reaps it")]
    let process = command.stdin(Stdio::piped()).spawn().unwrap();
    let pid = Pid::new(process.id()).unwrap();
    let identity = ProcessIdentity::of(pid, pidfd::open(pid).unwrap().as_fd(), None).unwrap();
    (Left { run: Run { child, incarnation: Incarnation::FIRST }, pid, identity }, process.stdin.unwrap())
}
