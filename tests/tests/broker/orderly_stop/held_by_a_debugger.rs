//! A child whose end is not told, as a debugger has it: the broker exits at its deadline, and leaves nothing else behind.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::children::{pid_in, script, willing, with};
use crate::harness::{Fifo, Setup, is_root, tagged_processes};

/// Traces a process (`PTRACE_SEIZE`, ptrace(2)) and never asks for its end, which nobody else hears of therefore.
const HOLDS: &str = "
import ctypes, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long] * 4
if ptrace(0x4206, int(sys.argv[1]), 0, 0) != 0:
    sys.exit(f'cannot trace: {ctypes.get_errno()}')
print('held', flush=True)
sys.stdin.read()
";

struct Debugger(Child);

impl Debugger {
    fn of(child: &Value) -> Self {
        let mut debugger = Command::new("python3")
            .args(["-c", HOLDS, &child["pid"].to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(debugger.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(debugger)
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child with a daemon of which nothing says whose it is, where it has no control group: neither its session, nor its
/// environment, nor what it has open. It says `daemon PID`.
fn with_stray(hello: &Fifo) -> Value {
    let daemon = "echo daemon $$ >\"$1\"; exec -a \"$1\" sleep infinity";
    let apart = format!("env -i setsid --fork bash -c '{daemon}' daemon \"$1\" </dev/null >/dev/null 2>&1");
    script(hello, &format!("{apart}; exec sleep infinity"))
}

#[test]
fn what_others_have_left_does_not_outlive_a_broker_that_gives_up_on_a_child() {
    if !is_root() {
        return;
    }
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let mut broker = Setup::new().flags(flags).flags(["--shutdown-timeout", "2s"]).start();
        let mut hello = broker.fifo("hello");
        let mut client = broker.json();
        let held = client.create(with(willing(), &json!({"name": "held"})));
        let debugger = Debugger::of(&held);
        client.create(with(with_stray(&hello), &json!({"name": "other"})));
        let daemon = pid_in(&hello.line());
        broker.signal(Signal::SIGTERM);
        let ended = broker.ended();
        assert!(!daemon.is_alive(), "the daemon is left: {}", ended.log);
        assert_eq!(tagged_processes(broker.folder()), []);
        assert_eq!(ended.lines_with("shut down at the deadline").len(), 1, "{}", ended.log);
        drop(debugger);
    }
}
