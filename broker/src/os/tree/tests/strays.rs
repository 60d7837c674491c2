#![expect(unsafe_code, reason = "clones a sibling, which no safe wrapper does")]

use std::collections::HashMap;
use std::os::fd::AsFd;

use procbroker_core::{Incarnation, Input, Members, Pid, Run};
use procbroker_protocol::{ChildId, ExitStatus};
use uuid::Uuid;

use super::left;
use super::scene::{Scene, Way, kill, lives};
use crate::os::process::alone;
use crate::os::process::reaper::{Backlog, Reaped, Reaper};
use crate::os::process::subreaper::Inheritance;
use crate::os::spawn::tests::Starter;
use crate::os::spawn::{
    BaseEnvironment, Bounding, Credentials, ErrorOutput, LaunchName, Output, Restraint, SpawnFacilities,
    SpawnPlan, SpawnSpec, Spawned, StdinSource,
};

/// Has the test below start a sibling of its own process.
const ROLE: &str = "PROCBROKER_TEST_SIBLING";

/// Not a test of its own: the program of a child that has its parent, the broker, get another child.
#[test]
fn a_child_starts_a_sibling() {
    let Some(kind) = std::env::var_os(ROLE) else { return };
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork does; the new process only makes system calls until it executes a program.
    if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
        let script = c"echo $$ > $fifo; exec sleep 1000";
        let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), script.as_ptr(), std::ptr::null()];
        // SAFETY: all are strings that end with a NUL, and the list ends with a null pointer.
        unsafe {
            if kind == "outside" {
                libc::setsid();
            }
            libc::execv(c"/bin/sh".as_ptr(), arguments.as_ptr());
            libc::_exit(1);
        }
    }
}

fn start_sibling(scene: &mut Scene, kind: &str) -> Run {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let (_crate, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::a_child_starts_a_sibling");
    scene.start_command(&[exe, "--exact".to_owned(), test], &[(ROLE, kind)])
}

#[test]
fn a_sibling_that_a_child_started_in_its_group_is_the_childs() {
    alone::on_main_thread(
        module_path!(),
        "a_sibling_that_a_child_started_in_its_group_is_the_childs",
        || {
            let mut scene = Scene::new(Way::List).unwrap();
            let mut ear = scene.ear();
            let run = start_sibling(&mut scene, "inside");
            let sibling = ear.pid();
            scene.until(|inputs| left(inputs, run) == Some(Members::Group));
            scene.containment().kill(run);
            scene.until_gone(sibling);
            scene.close();
        },
    );
}

#[test]
fn a_sibling_in_a_session_of_its_own_is_found_by_its_cgroup() {
    alone::on_main_thread(module_path!(), "a_sibling_in_a_session_of_its_own_is_found_by_its_cgroup", || {
        let Some(mut scene) = Scene::new(Way::Cgroup) else { return };
        let mut ear = scene.ear();
        let run = start_sibling(&mut scene, "outside");
        let sibling = ear.pid();
        scene.until(|inputs| left(inputs, run) == Some(Members::Outside));
        scene.containment().kill(run);
        scene.until_gone(sibling);
        scene.close();
    });
}

#[test]
fn a_sibling_that_nothing_tells_is_swept() {
    alone::on_main_thread(module_path!(), "a_sibling_that_nothing_tells_is_swept", || {
        let mut scene = Scene::new(Way::List).unwrap();
        let mut ear = scene.ear();
        let run = start_sibling(&mut scene, "outside");
        let sibling = ear.pid();
        scene.until(|inputs| left(inputs, run).is_some());
        assert!(lives(sibling));
        assert_eq!(scene.sweep(), 0);
        assert!(!lives(sibling));
        scene.close();
    });
}

#[test]
fn a_tree_that_grows_while_it_is_swept_is_swept() {
    alone::on_main_thread(module_path!(), "a_tree_that_grows_while_it_is_swept_is_swept", || {
        let mut scene = Scene::new(Way::List).unwrap();
        let mut ear = scene.ear();
        let grow = "env -i setsid sh -c 'echo > $0; while :; do (env -i setsid sleep 1000 &); done' $fifo";
        let run = scene.start(&format!("({grow} &)"));
        ear.line();
        scene.until(|inputs| left(inputs, run).is_some());
        assert_eq!(scene.sweep(), 0);
        scene.close();
    });
}

/// A walk passes over a child that lives, as far as it is known, as it can pass over what a changing list leaves out.
#[test]
fn what_the_walk_of_a_sweep_passes_over_is_swept_too() {
    alone::on_main_thread(module_path!(), "what_the_walk_of_a_sweep_passes_over_is_swept_too", || {
        let mut scene = Scene::new(Way::List).unwrap();
        let run = scene.start("trap '' TERM HUP; while :; do sleep 1000; done");
        assert_eq!(scene.sweep(), 0);
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
        scene.close();
    });
}

#[test]
fn an_orphan_is_reaped_whoever_it_belonged_to() {
    alone::on_main_thread(module_path!(), "an_orphan_is_reaped_whoever_it_belonged_to", || {
        let mut scene = Scene::new(Way::List).unwrap();
        let mut ear = scene.ear();
        let run = scene.start("(env -i setsid sh -c 'echo $$ > $0; exec env -i sleep 1000' $fifo &)");
        let orphan = ear.pid();
        scene.until(|inputs| left(inputs, run) == Some(Members::Nothing));
        assert_eq!(scene.own(), [orphan]);
        kill(orphan);
        scene.until_gone(orphan);
        assert_eq!(scene.own(), []);
        assert!(scene.inputs.iter().all(|input| matches!(input, Input::Exited { .. })));
        scene.close();
    });
}

/// A reaper without a containment, and four threads that spawn.
mod heavy {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    use super::*;

    const THREADS: u128 = 4;
    const CHILDREN_PER_THREAD: u128 = 600;

    fn plan(code: u128) -> SpawnPlan {
        SpawnPlan::prepare(SpawnSpec {
            name: LaunchName::NOBODY,
            command: ["/bin/sh".into(), "-c".into(), format!("exit {code}").into()].into(),
            env: Vec::new(),
            inherited: BaseEnvironment::default(),
            own_pid: None,
            cwd: "/".into(),
            umask: nix::sys::stat::Mode::empty(),
            credentials: Credentials::Unchanged,
            restraint: Restraint::default(),
            rlimits: Vec::new(),
            stdin: StdinSource::Null,
            stdout: Output::Null,
            stderr: ErrorOutput::Stdout,
            cgroup: None,
            bounding: Bounding::Free,
        })
        .unwrap()
    }

    fn code(number: u128) -> u128 {
        number % 251
    }

    #[test]
    fn no_status_is_lost_or_swapped_among_thousands_of_short_children() {
        alone::on_main_thread(
            module_path!(),
            "no_status_is_lost_or_swapped_among_thousands_of_short_children",
            || {
                let mut reaper = Reaper::new(&Inheritance::begin().unwrap()).unwrap();
                let facilities = SpawnFacilities::probe().unwrap();
                let (report, spawned) = channel();
                let (end, all_done) = channel::<()>();
                let all_done = Arc::new(Mutex::new(all_done));
                for thread in 0..THREADS {
                    let (report, all_done) = (report.clone(), Arc::clone(&all_done));
                    std::thread::spawn(move || {
                        let mut starter = Starter::new(facilities);
                        for number in thread * CHILDREN_PER_THREAD..(thread + 1) * CHILDREN_PER_THREAD {
                            report.send((number, starter.spawn(plan(code(number))).unwrap())).unwrap();
                        }
                        // The children of a thread that has ended would be the main thread's.
                        let _ended = all_done.lock().unwrap().recv();
                    });
                }
                drop(report);
                let (mut held, mut batch, mut statuses) = (HashMap::new(), Vec::new(), HashMap::new());
                let all = usize::try_from(THREADS * CHILDREN_PER_THREAD).unwrap();
                while statuses.len() < all {
                    for (number, Spawned { pid, pidfd }) in spawned.try_iter() {
                        let run = Run {
                            child: ChildId::from_uuid(Uuid::from_u128(number)),
                            incarnation: Incarnation::FIRST,
                        };
                        reaper.watch(run, Pid::new(pid.as_raw().cast_unsigned()).unwrap(), pidfd.as_fd());
                        held.insert(run, pidfd);
                    }
                    // Never more than are really on their way, and never a moment's rest: this is the worst case.
                    while reaper.reap(all - held.len() - statuses.len(), &mut batch) == Backlog::More {}
                    for one in batch.drain(..) {
                        let Reaped::Child { run, status, .. } = one else { panic!("{one:?} was nobody's") };
                        held.remove(&run).unwrap();
                        let before = statuses.insert(run.child.as_uuid().as_u128(), status);
                        assert_eq!(before, None);
                    }
                }
                drop(end);
                assert_eq!(reaper.watched(), 0);
                for (number, status) in statuses {
                    assert_eq!(status, ExitStatus::Code(i32::try_from(code(number)).unwrap()));
                }
            },
        );
    }
}
