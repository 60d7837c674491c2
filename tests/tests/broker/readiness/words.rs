//! What children have said of themselves, and what hangs on a time, goes on over an upgrade and a crash of the broker.

use std::time::Instant;

use serde_json::{Value, json};

use super::{python, wait};
use crate::harness::children::with;
use crate::harness::{PATIENCE, TestBroker};

/// How another broker comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Upgrade,
    Crash,
}

impl Change {
    const ALL: [Self; 2] = [Self::Upgrade, Self::Crash];

    fn happens_to(self, broker: &mut TestBroker) {
        match self {
            Self::Upgrade => {
                let said = broker.run(&["upgrade"]);
                assert_eq!(said.status, 0, "{said:?}");
                // The queue of what an owner does not read is short, and the broker waits for room in it.
                broker.says("READY=1");
            }
            Self::Crash => {
                broker.recorded();
                broker.crash_and_start_again();
            }
        }
    }

    /// Lets it happen again and again, more often than the child's time is over, until the child has ended.
    fn happens_until_it_ends(self, broker: &mut TestBroker, child: &Value) -> Value {
        let began = Instant::now();
        loop {
            self.happens_to(broker);
            let found = broker.json().got(&child["id"]);
            if found["state"] == "ended" {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "its time begins anew each time: {found}");
        }
    }
}

/// The child of this name as soon as it says this of itself.
fn saying(broker: &TestBroker, name: &str, text: &str) -> Value {
    let began = Instant::now();
    loop {
        let child = broker.json().got(&json!(name));
        if child["status_text"] == text {
            return child;
        }
        assert!(began.elapsed() < PATIENCE, "it never says {text:?}: {child}");
    }
}

#[test]
fn one_that_has_said_that_it_ends_is_watched_no_more() {
    for change in Change::ALL {
        let mut broker = TestBroker::start();
        let (pipe, mut go) = (broker.fifo("pipe"), broker.fifo("go"));
        // It takes longer than its watchdog would wait.
        let text = format!(
            "import time
tell('READY=1\\nSTOPPING=1\\nSTATUS=leaving')
open('{}').readline()
time.sleep(0.6)
sys.exit(0)",
            go.path().display()
        );
        let params = with(python(&pipe, &text), &json!({"name": "a", "watchdog": 0.2}));
        let child = broker.json().create(params);
        saying(&broker, "a", "leaving");
        change.happens_to(&mut broker);
        // What it says of itself changes too often to be on record.
        let kept = match change {
            Change::Upgrade => json!("leaving"),
            Change::Crash => Value::Null,
        };
        assert_eq!(broker.json().got(&child["id"])["status_text"], kept, "{change:?}");
        go.say("on");
        let ended = wait(&mut broker.json(), &child);
        let exit = &ended["exit"];
        assert_eq!((&exit["code"], &exit["reason"]), (&json!(0), &json!("exited")), "{change:?}: {ended}");
    }
}

#[test]
fn the_time_of_a_watchdog_goes_on_over_upgrades() {
    let mut broker = TestBroker::start();
    let pipes = ["first", "second"].map(|name| broker.fifo(name));
    let watched = |pipe: usize, seconds: u32| {
        with(python(&pipes[pipe], "tell('READY=1')"), &json!({"watchdog": seconds}))
    };
    let first = broker.json().create(watched(0, 4));
    // Half of its time is over then.
    let timer = broker.json().create(json!({"command": ["sleep", "2"]}));
    wait(&mut broker.json(), &timer);
    Change::Upgrade.happens_to(&mut broker);
    // It has more time than is left to the first, and less than that had from the start.
    let second = broker.json().create(watched(1, 3));
    let ended = [&first, &second].map(|child| wait(&mut broker.json(), child)["exit"].take());
    assert_eq!(ended.each_ref().map(|exit| &exit["reason"]), ["watchdog", "watchdog"]);
    let [first, second] = ended.each_ref().map(|exit| exit["at"].as_str().unwrap());
    assert!(first < second, "the time of the first has begun anew: {first}, {second}");
}

#[test]
fn one_that_hangs_is_found_hanging_after_a_crash() {
    let mut broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let params = with(python(&pipe, "tell('READY=1')"), &json!({"watchdog": 1}));
    let child = broker.json().create(params);
    Change::Crash.happens_to(&mut broker);
    assert_eq!(wait(&mut broker.json(), &child)["exit"]["reason"], "watchdog");
}

#[test]
fn one_that_lingers_goes_on_with_that() {
    for change in Change::ALL {
        let mut broker = TestBroker::start();
        let mut holder = broker.json();
        let params = json!({"command": ["sleep", "infinity"], "lifetime": "connection", "linger": 2});
        let child = holder.create(params);
        drop(holder);
        // Who asks is one connection.
        let began = Instant::now();
        while broker.status()["connections"] != 1 {
            assert!(began.elapsed() < PATIENCE, "the connection that held it is not closed");
        }
        let ended = change.happens_until_it_ends(&mut broker, &child);
        assert_eq!(ended["exit"]["reason"], "owner_gone", "{change:?}");
    }
}

#[test]
fn no_word_makes_another_process_the_main_one_or_a_state_of_its_own() {
    let mut broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("go"));
    let text = format!(
        "import signal, time
other = os.fork()
while other == 0: signal.pause()
tell('READY=1')
lines = open('{}')
for line in iter(lines.readline, ''):
    tell(f'MAINPID={{other}}\\nRELOADING=1\\nMONOTONIC_USEC={{time.monotonic_ns() // 1000}}\\nSTATUS={{line.strip()}}')
    open(sys.argv[1], 'w').write('told\\n')",
        go.path().display()
    );
    let created = broker.json().create(with(python(&pipe, &text), &json!({"name": "a"})));
    for (word, change) in [("first", None), ("second", Some(Change::Upgrade)), ("third", Some(Change::Crash))]
    {
        if let Some(change) = change {
            change.happens_to(&mut broker);
        }
        go.say(word);
        assert_eq!(pipe.line(), "told");
        let child = saying(&broker, "a", word);
        assert_eq!((&child["state"], &child["pid"]), (&json!("running"), &created["pid"]), "{child}");
    }
    broker.stop();
}
