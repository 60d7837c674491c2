//! A broker that is killed in the middle of a spawn.

use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::os::process::pidfd;
use crate::os::process::proc::children;
use procbroker_core::Pid as ProcessId;

/// The output of the child, for the process that is to be killed.
const OUTPUT: &str = "PROCBROKER_TEST_OUTPUT";

/// How that one spawns.
const METHOD: &str = "PROCBROKER_TEST_METHOD";

/// No test of its own: the broker that is killed.
#[test]
fn a_broker_that_is_killed() {
    let Some(output) = std::env::var_os(OUTPUT) else { return };
    let wanted = std::env::var(METHOD).unwrap();
    let way = every_way().find(|way| format!("{:?}", way.method) == wanted).unwrap();
    let scene = Scene::new();
    let _never =
        spawn(way, SpawnSpec { stdout: Output::Append(output.into()), ..scene.shell("echo executed") });
}

#[test]
fn a_child_whose_broker_was_killed_executes_nothing() {
    for method in [CloneMethod::Clone3, CloneMethod::Clone] {
        let scene = Scene::new();
        let leased = Leased::new(&scene.path("leased"));
        let mut broker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "os::spawn::tests::orphaned::a_broker_that_is_killed"])
            .env(OUTPUT, scene.path("leased"))
            .env(METHOD, format!("{method:?}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = ProcessId::new(broker.id()).unwrap();
        // Its child waits for its output, or will.
        let child = loop {
            if let Some(child) = children(pid).first() {
                break *child;
            }
            std::thread::yield_now();
        };
        let child = pidfd::open(child).unwrap();
        broker.kill().unwrap();
        broker.wait().unwrap();
        leased.let_go();
        let mut ended = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        while poll(&mut ended, PollTimeout::NONE) == Err(Errno::EINTR) {}
        assert_eq!(fs::read_to_string(scene.path("leased")).unwrap(), "", "{method:?}");
    }
}
