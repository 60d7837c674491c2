//! What the program that takes over has and has not, and what it gives to children.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use super::{replaceable, upgrade};
use crate::harness::children::{willing, with};
use crate::harness::{Process, Setup, TestBroker, procbroker_in};

/// What a child finds around it, except what is its own.
fn found_by_a_child(broker: &TestBroker) -> (BTreeMap<String, String>, Vec<u32>, Vec<Vec<String>>, String) {
    let child = broker.json().create(willing());
    let process = Process::of(&child);
    let mut environment = process.environment();
    assert!(environment.remove("PROCBROKER_CHILD_ID").is_some());
    let descriptors = process.descriptors().into_keys().collect();
    let signals = ["SigBlk", "SigIgn", "SigCgt"].map(|set| process.status(set)).to_vec();
    let (soft, hard) = process.limit("Max open files");
    (environment, descriptors, signals, format!("{soft} {hard}"))
}

#[test]
fn children_find_the_same_around_them() {
    let broker = replaceable().start();
    let before = found_by_a_child(&broker);
    assert_eq!(before.1, [0, 1, 2]);
    upgrade(&broker);
    upgrade(&broker);
    let after = found_by_a_child(&broker);
    assert_eq!(after, before);
    assert!(!after.0.keys().any(|name| name.contains("PROCBROKER_MANIFEST")), "{after:?}");
}

#[test]
fn no_thread_but_the_drivers_takes_signals() {
    let broker = replaceable().start();
    upgrade(&broker);
    let mut client = broker.json();
    let creates: Vec<u64> = (0..100).map(|_| client.send("create", willing())).collect();
    for create in creates {
        client.answer(create).unwrap();
    }
    let mut others = 0;
    for entry in fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap() {
        let path = entry.unwrap().path();
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let Some(blocked) = status.lines().find_map(|line| line.strip_prefix("SigBlk:")) else { continue };
        let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
        if fs::read_to_string(path.join("comm")).unwrap_or_default().trim() == "driver" {
            // SIGCHLD alone, which it reads from a descriptor.
            assert_eq!(blocked, 1 << 16, "the driver's thread");
        } else {
            // SIGHUP, SIGINT, SIGUSR2, SIGTERM and SIGCHLD.
            let meant = [1, 2, 12, 15, 17].iter().fold(0, |set, signal| set | 1 << (signal - 1));
            assert_eq!(blocked & meant, meant, "{status}");
            others += 1;
        }
    }
    assert!(others > 3, "{others}");
}

/// Its descriptors, threads and control groups.
fn size(broker: &TestBroker) -> [usize; 3] {
    let count = |path: String| fs::read_dir(path).map_or(0, Iterator::count);
    let pid = broker.pid();
    let groups = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().find_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        (target.file_name()? == format!("procbroker.{pid}").as_str()).then_some(target)
    });
    let groups = groups.map_or(0, |folder| count(folder.display().to_string()));
    [count(format!("/proc/{pid}/fd")), count(format!("/proc/{pid}/task")), groups]
}

#[test]
fn many_in_a_row_leave_nothing_behind() {
    let broker = replaceable().start();
    for _ in 0..10 {
        broker.json().create(willing());
    }
    upgrade(&broker);
    let first = size(&broker);
    for _ in 0..20 {
        upgrade(&broker);
    }
    let last = size(&broker);
    // Spare groups, with a descriptor each, and threads that come and go: of one for each upgrade there would be 20.
    for (first, last) in first.iter().zip(last) {
        assert!(last <= first + 35, "{first} {last}");
    }
    let [descriptors, threads, _] = last;
    // 64 of them are those of the slots in which children are started.
    assert!(descriptors <= 164 && threads <= 20, "{last:?}");
}

#[test]
fn a_socket_that_was_passed_goes_on_to_be_served() {
    const PASS: &str = "
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='a')
os.execv(sys.argv[2], sys.argv[2:3] + sys.argv[4:])
";
    let setup = Setup::new();
    let (program, socket) = (procbroker_in(setup.folder()), setup.folder().join("run/broker.sock"));
    let words = ["python3".as_ref(), "-c".as_ref(), PASS.as_ref(), socket.as_os_str(), program.as_os_str()];
    let broker = setup.through(words).start();
    assert_eq!(broker.status()["facilities"]["activation"], "systemd");
    let child = broker.json().create(with(willing(), &json!({"name": "a"})));
    for _ in 0..2 {
        upgrade(&broker);
        assert_eq!(broker.status()["facilities"]["activation"], "systemd");
        assert_eq!(broker.json().got(&json!("a")), child);
    }
    // The broker leaves it to whoever made it.
    assert_eq!(broker.run(&["shutdown"]).status, 0);
    fs::remove_file(&socket).unwrap();
    let mut broker = broker;
    broker.ended_in_order();
}
