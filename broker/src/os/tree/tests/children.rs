use std::time::Duration;

use procbroker_core::{Input, Members, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ExitStatus, Signal};

use super::scene::{Scene, Way, kill, lives};
use super::{left, status};
use crate::os::process::alone;

/// A daemon that leaves its session and its parent, and says its pid.
const DAEMON: &str = "(setsid sh -c 'echo $$ > $fifo; exec sleep 1000' &)";

/// The same without an environment.
const BARE_DAEMON: &str = "(env -i setsid sh -c 'echo $$ > $0; exec env -i sleep 1000' $fifo &)";

const WAYS: [(Way, &str); 3] = [(Way::Cgroup, "cgroup"), (Way::List, "list"), (Way::Scan, "scan")];

/// Runs a test in each way, each time in a process of its own.
fn each_way(test: &str, run: impl Fn(&mut Scene, Way)) {
    let chosen = std::env::var("PROCBROKER_TEST_WAY").ok();
    for (way, name) in WAYS {
        if chosen.is_none() {
            alone::here_with(module_path!(), test, &[("PROCBROKER_TEST_WAY", name)]);
        } else if chosen.as_deref() == Some(name) {
            alone::forked(|| {
                let Some(mut scene) = Scene::new(way) else { return };
                run(&mut scene, way);
                scene.close();
            });
        }
    }
}

#[test]
fn a_child_that_leaves_nothing_is_over_at_once() {
    each_way("a_child_that_leaves_nothing_is_over_at_once", |scene, way| {
        let run = scene.start("exit 3");
        scene.until(|inputs| left(inputs, run).is_some());
        let expected = Input::Exited { run, status: ExitStatus::Code(3), members: Members::Nothing };
        assert_eq!(scene.inputs, [expected], "{way:?}");
        scene.containment().release(run);
    });
}

#[test]
fn orphans_of_one_child_are_passed_over_for_another_and_told_of_for_their_own() {
    each_way("orphans_of_one_child_are_passed_over_for_another_and_told_of_for_their_own", |scene, way| {
        let mut ear = scene.ear();
        let [(first, of_first), (second, of_second)] = [(); 2].map(|()| {
            let run = scene.start(&format!("{DAEMON}; exit 0"));
            let daemon = ear.pid();
            scene.until(|inputs| left(inputs, run) == Some(Members::Outside));
            (run, daemon)
        });
        kill(of_first);
        scene.until(|inputs| left(inputs, first) == Some(Members::Nothing));
        let third = scene.start("exit 0");
        scene.until(|inputs| left(inputs, third) == Some(Members::Nothing));
        assert_eq!(left(&scene.inputs, second), Some(Members::Outside), "{way:?}");
        assert!(lives(of_second));
        scene.containment().kill(second);
        scene.until(|inputs| left(inputs, second) == Some(Members::Nothing));
        assert!(!lives(of_second), "{way:?}");
        for run in [first, second, third] {
            scene.containment().release(run);
        }
    });
}

#[test]
fn what_a_child_leaves_in_its_group_is_reported_until_a_signal_to_the_group_ends_it() {
    let test = "what_a_child_leaves_in_its_group_is_reported_until_a_signal_to_the_group_ends_it";
    each_way(test, |scene, _| {
        let mut ear = scene.ear();
        let run = scene.start("sleep 1000 & echo $! > $fifo; exit 4");
        let sleeper = ear.pid();
        scene.until(|inputs| left(inputs, run) == Some(Members::Group));
        assert_eq!(status(&scene.inputs, run), Some(ExitStatus::Code(4)));
        assert!(lives(sleeper));
        let answer = scene.containment().signal(run, Signal::TERM, Scope::Group, None);
        let expected = Input::Signalled { run, call: None, outcome: SignalOutcome::Delivered };
        assert_eq!(answer, Some(expected));
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
        assert!(!lives(sleeper));
    });
}

#[test]
fn a_daemon_is_outside_of_its_childs_group_and_a_kill_reaches_it() {
    each_way("a_daemon_is_outside_of_its_childs_group_and_a_kill_reaches_it", |scene, _| {
        let mut ear = scene.ear();
        let run = scene.start(DAEMON);
        let daemon = ear.pid();
        scene.until(|inputs| left(inputs, run) == Some(Members::Outside));
        assert!(lives(daemon));
        scene.containment().kill(run);
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
        assert!(!lives(daemon));
    });
}

#[test]
fn a_daemon_without_an_environment_is_found_by_its_cgroup() {
    each_way("a_daemon_without_an_environment_is_found_by_its_cgroup", |scene, way| {
        let mut ear = scene.ear();
        let run = scene.start(BARE_DAEMON);
        let daemon = ear.pid();
        scene.until(|inputs| left(inputs, run).is_some());
        match way {
            Way::Cgroup => {
                assert_eq!(left(&scene.inputs, run), Some(Members::Outside));
                scene.containment().kill(run);
                scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
                assert!(!lives(daemon));
            }
            // Nothing tells whose it is, so that the sweep ends it.
            Way::List | Way::Scan => assert!(lives(daemon)),
        }
    });
}

#[test]
fn a_kill_ends_the_main_process_and_all_that_descends_from_it() {
    each_way("a_kill_ends_the_main_process_and_all_that_descends_from_it", |scene, _| {
        let mut ear = scene.ear();
        let script = "trap '' TERM; setsid sh -c 'env -i sh -c \"echo \\$\\$ > $fifo; sleep 1000\"; true' & \
                      (setsid sh -c 'echo $$ > $fifo; exec sleep 1000' &) ; wait; sleep 1000";
        let run = scene.start(script);
        let processes = [ear.pid(), ear.pid()];
        scene.containment().kill(run);
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
        assert_eq!(status(&scene.inputs, run), Some(ExitStatus::Signal(Signal::KILL)));
        for pid in processes {
            assert!(!lives(pid));
        }
    });
}

#[test]
fn a_kill_of_one_child_leaves_the_others_alone() {
    each_way("a_kill_of_one_child_leaves_the_others_alone", |scene, _| {
        let mut ear = scene.ear();
        let (one, of_one) = (scene.start(DAEMON), ear.pid());
        let (other, of_other) = (scene.start(&format!("{DAEMON}; exec sleep 1000")), ear.pid());
        scene.until(|inputs| left(inputs, one) == Some(Members::Outside));
        scene.containment().kill(one);
        scene.until(|inputs| left(inputs, one) == Some(Members::Nothing));
        assert!(!lives(of_one) && lives(of_other));
        assert_eq!(status(&scene.inputs, other), None);
        scene.containment().kill(other);
        scene.until(|inputs| left(inputs, other) == Some(Members::Nothing));
        assert!(!lives(of_other));
    });
}

#[test]
fn a_signal_to_all_reaches_the_main_process_and_its_daemons_once() {
    each_way("a_signal_to_all_reaches_the_main_process_and_its_daemons_once", |scene, _| {
        let mut ear = scene.ear();
        let wait = "trap 'echo got > $fifo; exit' USR1; echo $$ > $fifo; while :; do sleep 0.01; done";
        let run = scene.start(&format!("(setsid sh -c \"{}\" &); {wait}", wait.replace('$', "\\$")));
        let _both = [ear.pid(), ear.pid()];
        // The loops' `sleep` gets the signal as well: it is of the child too.
        let signal = "USR1".parse().unwrap();
        assert_eq!(scene.containment().signal(run, signal, Scope::All, None), None);
        assert_eq!([ear.line(), ear.line()], ["got", "got"]);
        let expected = Input::Signalled { run, call: None, outcome: SignalOutcome::Delivered };
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing) && inputs.contains(&expected));
    });
}

#[test]
fn an_end_within_the_group_is_reported_while_something_outside_goes_on() {
    each_way("an_end_within_the_group_is_reported_while_something_outside_goes_on", |scene, _| {
        let mut ear = scene.ear();
        let run = scene.start(&format!("{DAEMON}; sleep 1000 & echo $! > $fifo; exit 0"));
        let pids = [ear.pid(), ear.pid()];
        scene.until(|inputs| left(inputs, run) == Some(Members::Group));
        assert!(pids.iter().all(|&pid| lives(pid)));
        scene.containment().signal(run, Signal::KILL, Scope::Group, None).unwrap();
        scene.until(|inputs| left(inputs, run) == Some(Members::Outside));
        let answer = scene.containment().signal(run, Signal::TERM, Scope::Group, None);
        let gone = Input::Signalled { run, call: None, outcome: SignalOutcome::Gone };
        // Where the kernel signals no group by pidfd, the worker has to look for it.
        scene.inputs.extend(answer);
        scene.until(|inputs| inputs.contains(&gone));
        let daemon = pids.into_iter().find(|&pid| lives(pid)).unwrap();
        kill(daemon);
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
    });
}

#[test]
fn no_signal_reaches_a_main_process_that_was_reaped() {
    each_way("no_signal_reaches_a_main_process_that_was_reaped", |scene, _| {
        let run = scene.start("exit 0");
        scene.until(|inputs| left(inputs, run).is_some());
        let gone = Input::Signalled { run, call: None, outcome: SignalOutcome::Gone };
        assert_eq!(scene.containment().signal(run, Signal::KILL, Scope::Main, None), Some(gone.clone()));
        let answer = scene.containment().signal(run, Signal::KILL, Scope::All, None);
        assert_eq!(answer, None);
        scene.until(|inputs| inputs.contains(&gone));
        scene.containment().release(run);
        assert_eq!(scene.containment().signal(run, Signal::KILL, Scope::All, None), Some(gone));
    });
}

#[test]
fn a_daemon_that_nothing_tells_is_known_by_its_parent_from_the_first_stop_signal_on() {
    let test = "a_daemon_that_nothing_tells_is_known_by_its_parent_from_the_first_stop_signal_on";
    each_way(test, |scene, _| {
        let mut ear = scene.ear();
        let run = scene.start("env -i setsid sh -c 'echo $$ > $0; exec env -i sleep 1000' $fifo & wait");
        let daemon = ear.pid();
        scene.containment().signal(run, Signal::TERM, Scope::Group, None);
        scene.until(|inputs| left(inputs, run) == Some(Members::Outside));
        scene.containment().kill(run);
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
        assert!(!lives(daemon));
    });
}

#[test]
fn what_a_child_and_its_descendants_use_is_found_out_while_it_lives() {
    each_way("what_a_child_and_its_descendants_use_is_found_out_while_it_lives", |scene, way| {
        let mut ear = scene.ear();
        let run = scene.start("sh -c 'echo $$ > $fifo; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo > $fifo; exec sleep 1000' & wait");
        ear.pid();
        ear.line();
        let used = scene.containment().meter(&[run]).read();
        let usage = used[&run.child];
        assert_eq!(usage.processes, Some(2), "{way:?}");
        assert!(usage.memory.unwrap() > 100_000, "{usage:?}");
        assert!(usage.cpu.unwrap() > Duration::ZERO, "{usage:?}");
        scene.containment().kill(run);
        scene.until(|inputs| left(inputs, run).is_some());
        assert!(scene.containment().meter(&[run]).read().is_empty(), "it has ended");
        scene.containment().release(run);
    });
}
