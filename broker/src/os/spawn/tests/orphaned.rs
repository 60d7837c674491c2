//! A broker that is killed in the middle of a spawn.

use std::process::{Command, Stdio};

use nix::unistd::mkfifo;

use super::*;
use crate::os::process::proc::children;
use procbroker_core::Pid as ProcessId;

/// The output of the child, for the process that is to be killed.
const FIFO: &str = "PROCBROKER_TEST_FIFO";

/// How that one spawns.
const METHOD: &str = "PROCBROKER_TEST_METHOD";

/// No test of its own: the broker that is killed.
#[test]
fn a_broker_that_is_killed() {
    let Some(fifo) = std::env::var_os(FIFO) else { return };
    let wanted = std::env::var(METHOD).unwrap();
    let way = every_way().find(|way| format!("{:?}", way.method) == wanted).unwrap();
    let scene = Scene::new();
    let _never =
        spawn(way, SpawnSpec { stdout: Output::Append(fifo.into()), ..scene.shell("echo executed") });
}

#[test]
fn a_child_whose_broker_was_killed_executes_nothing() {
    for method in [Method::Clone3, Method::Clone] {
        let scene = Scene::new();
        let fifo = scene.path("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let mut broker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "os::spawn::tests::orphaned::a_broker_that_is_killed"])
            .env(FIFO, &fifo)
            .env(METHOD, format!("{method:?}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = ProcessId::new(broker.id()).unwrap();
        // Its child waits at the fifo for somebody to read it, or will.
        while children(pid).is_empty() {
            std::thread::yield_now();
        }
        broker.kill().unwrap();
        broker.wait().unwrap();
        assert_eq!(fs::read_to_string(&fifo).unwrap(), "", "{method:?}");
    }
}
