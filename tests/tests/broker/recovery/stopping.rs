//! A stop or a cleanup that is under way when the broker is killed: the next one goes on with it.

use serde_json::{Value, json};

use super::{BOTH, signals, wait};
use crate::harness::children::{attentive, cleanup, pid_in, telling_cleanup, willing, with};
use crate::harness::{Fifo, Process, Record, Setup, TestBroker, await_death};

/// Ends at SIGKILL only, and says of each SIGTERM that it came.
const COUNTING: &str = "
import signal, sys
def say(word):
    with open(sys.argv[1], 'w') as pipe:
        pipe.write(word + '\\n')
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
say('there')
while True:
    signal.sigwait([signal.SIGTERM])
    say('asked')
";

fn counting(pipe: &Fifo) -> Value {
    json!({"command": ["python3", "-c", COUNTING, pipe.path()]})
}

/// When a step was taken, in seconds of its minute.
fn second(step: &Value) -> f64 {
    let at = step["at"].as_str().expect("a time");
    let minutes: f64 = at[14..16].parse().expect("minutes");
    let seconds: f64 = at[17..].trim_end_matches('Z').parse().expect("seconds");
    minutes.mul_add(60.0, seconds)
}

#[test]
fn a_stop_goes_on_after_a_crash_and_takes_no_more_than_its_time() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let mut pipe = broker.fifo("pipe");
        let mut client = broker.json();
        let stop = json!({"stop": [{"signal": "TERM", "grace": 8}]});
        let child = client.create(with(with(counting(&pipe), &telling_cleanup(&pipe)), &stop));
        assert_eq!(pipe.line(), "there");
        client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
        assert_eq!(pipe.line(), "asked");
        broker.recorded();
        broker.crash_and_start_again();
        let mut client = broker.json();
        assert_eq!(client.ok("get", json!({"target": child["id"]}))["child"]["state"], "stopping");
        let ended = wait(&mut client, &child);
        assert_eq!(signals(&ended), ["SIGTERM", "SIGKILL"]);
        assert_eq!((&ended["exit"]["reason"], &ended["exit"]["forced"]), (&json!("destroyed"), &json!(true)));
        let steps = &ended["exit"]["steps"];
        let took = (second(&steps[1]) - second(&steps[0])).rem_euclid(3600.0);
        // Twice the time if it began anew.
        assert!((7.99..15.9).contains(&took), "{took} seconds between {steps}");
        assert_eq!(pipe.rest(), ["cleaned destroyed - SIGKILL"], "SIGTERM was sent once");
    }
}

#[test]
fn a_stop_that_has_more_steps_takes_them_after_a_crash() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let steps = json!([{"signal": "TERM", "grace": 5}, {"signal": "WINCH", "grace": 0.1}, {"signal": "USR1", "grace": 300}]);
    let child = client.create(with(counting(&pipe), &json!({"stop": steps})));
    assert_eq!(pipe.line(), "there");
    client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
    assert_eq!(pipe.line(), "asked");
    broker.recorded();
    broker.crash_and_start_again();
    let ended = wait(&mut broker.json(), &child);
    assert_eq!(signals(&ended), ["SIGTERM", "SIGWINCH", "SIGUSR1"]);
    assert_eq!((&ended["exit"]["signal"], &ended["exit"]["forced"]), (&json!("SIGUSR1"), &json!(false)));
}

#[test]
fn a_child_that_ends_of_its_stop_without_a_broker_was_destroyed() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let (mut hello, mut go, mut pipe) = (broker.fifo("hello"), broker.fifo("go"), broker.fifo("pipe"));
        let mut client = broker.json();
        let more = with(telling_cleanup(&pipe), &json!({"stop": [{"signal": "TERM", "grace": 300}]}));
        let child = client.create(with(attentive(&hello, "child", Some(&go)), &more));
        assert_eq!(hello.line(), "child there");
        client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
        assert_eq!(hello.line(), "child asked");
        broker.recorded();
        broker.crash();
        go.say("end");
        assert_eq!(hello.line(), "child ended");
        broker.start_again();
        let ended = wait(&mut broker.json(), &child);
        assert_eq!(
            (&ended["exit"]["reason"], &ended["exit"]["forced"]),
            (&json!("destroyed"), &json!(false))
        );
        assert_eq!(signals(&ended), ["SIGTERM"]);
        let said = pipe.rest();
        assert!(["cleaned destroyed 3 -", "cleaned destroyed - -"].contains(&said[0].as_str()), "{said:?}");
        assert_eq!(said.len(), 1);
    }
}

#[test]
fn a_second_destroy_after_a_crash_joins_the_stop() {
    let mut broker = TestBroker::start();
    let (mut hello, mut go) = (broker.fifo("hello"), broker.fifo("go"));
    let mut client = broker.json();
    let stop = json!({"stop": [{"signal": "TERM", "grace": 300}]});
    let child = client.create(with(attentive(&hello, "child", Some(&go)), &stop));
    hello.line();
    client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
    assert_eq!(hello.line(), "child asked");
    broker.recorded();
    broker.crash_and_start_again();
    let mut client = broker.json();
    let joined = client.send("destroy", json!({"target": child["id"]}));
    client.ok("status", json!({}));
    go.say("end");
    let ended = client.answer(joined).unwrap()["children"][0].take();
    assert_eq!((signals(&ended), &ended["exit"]["code"]), (vec!["SIGTERM"], &json!(3)));
}

#[test]
fn a_cleanup_that_a_crash_interrupts_is_run_again() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let (mut pipe, _go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
        let mut client = broker.json();
        // The first two attempts wait for ever.
        let text = "echo attempt $$ >\"$1\"; echo x >>\"$1.count\"; \
                    [ $(wc -l <\"$1.count\") -ge 3 ] || read word <\"$1.go\"";
        let child = client.create(with(willing(), &cleanup(&pipe, text)));
        client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
        for _ in 0..2 {
            let attempt = pid_in(&pipe.line());
            broker.crash();
            assert!(attempt.is_alive());
            broker.start_again();
            assert_eq!(attempt_of(&broker, &child, attempt), json!(null));
        }
        let ended = wait(&mut broker.json(), &child);
        assert_eq!(ended["cleanup"], json!({"ok": true, "exit": {"code": 0}, "attempts": 3}));
        assert_eq!(
            (&ended["exit"]["signal"], &ended["exit"]["reason"]),
            (&json!("SIGTERM"), &json!("destroyed"))
        );
        assert_eq!(pipe.rest().len(), 1);
    }
}

/// The interrupted attempt is ended before the next begins, so that two never work at the same time.
fn attempt_of(broker: &TestBroker, child: &Value, attempt: Process) -> Value {
    let shown = broker.json().ok("get", json!({"target": child["id"]}))["child"].take();
    assert!(["cleaning", "ended"].contains(&shown["state"].as_str().unwrap()), "{shown}");
    await_death(attempt);
    shown["pid"].clone()
}

#[test]
fn a_cleanup_that_ended_without_a_broker_is_run_again() {
    let mut broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let mut client = broker.json();
    let text = "echo attempt $$ >\"$1\"; read word <\"$1.go\"; echo $word >\"$1\"";
    let child = client.create(with(willing(), &cleanup(&pipe, text)));
    client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
    let attempt = pid_in(&pipe.line());
    broker.crash();
    go.say("alone");
    assert_eq!(pipe.line(), "alone");
    await_death(attempt);
    broker.start_again();
    pid_in(&pipe.line());
    go.say("watched");
    assert_eq!(pipe.line(), "watched");
    let ended = wait(&mut broker.json(), &child);
    assert_eq!((&ended["cleanup"]["ok"], &ended["cleanup"]["attempts"]), (&json!(true), &json!(2)));
}

#[test]
fn a_shutdown_that_is_killed_is_finished_by_the_next() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let mut pipe = broker.fifo("pipe");
        let stop = json!({"stop": [{"signal": "TERM", "grace": 8}]});
        let child = broker.json().create(with(counting(&pipe), &stop));
        let other = broker.json().create(with(willing(), &json!({"stop_order": 5})));
        assert_eq!(pipe.line(), "there");
        broker.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(pipe.line(), "asked");
        let stopping = "SELECT 1 FROM progress WHERE text LIKE '%Stopping%'";
        Record::of(&broker).await_none(&format!("SELECT 1 WHERE NOT EXISTS ({stopping})"));
        broker.crash_and_start_again();
        let ended = wait(&mut broker.json(), &child);
        assert_eq!(
            (&ended["exit"]["reason"], &ended["exit"]["signal"]),
            (&json!("shutdown"), &json!("SIGKILL"))
        );
        // What the shutdown had not come to goes on.
        assert_eq!(broker.json().got(&other["id"]), other);
    }
}
