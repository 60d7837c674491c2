//! What was answered holds, though the broker is killed as soon as the answer is there.

use serde_json::{Value, json};

use super::{BOTH, destroy, list, wait};
use crate::harness::children::{willing, with};
use crate::harness::{Setup, TestBroker};

/// As many crashes as show it nearly for sure: without the wait for the record most of them undo the answer.
const CRASHES: u32 = 10;

fn get(broker: &TestBroker, child: &Value) -> Value {
    broker.json().ok("get", json!({"target": child["id"]}))["child"].take()
}

#[test]
fn a_destroy_that_was_answered_is_not_undone_by_a_crash() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        for _ in 0..CRASHES {
            let mut client = broker.json();
            let child = client.create(willing());
            let destroyed = destroy(&mut client, &child);
            broker.crash_and_start_again();
            assert_eq!(get(&broker, &child), destroyed);
        }
    }
}

#[test]
fn a_destroy_that_nobody_waits_for_is_not_forgotten_in_a_crash() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        for _ in 0..CRASHES {
            let mut client = broker.json();
            // The signal does nothing to it.
            let child = client.create(with(willing(), &json!({"stop": [{"signal": "WINCH", "grace": 300}]})));
            client.ok("destroy", json!({"target": child["id"], "no_wait": true}));
            broker.crash_and_start_again();
            assert_eq!(get(&broker, &child)["state"], "stopping");
            let mut client = broker.json();
            client.ok("signal", json!({"target": child["id"], "signal": "KILL"}));
            assert_eq!(wait(&mut client, &child)["exit"]["reason"], "destroyed");
        }
    }
}

#[test]
fn a_create_that_was_answered_with_an_error_leaves_nothing_for_the_next_broker() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        for stdout in ["log", "null"].repeat(5) {
            let params = json!({"command": ["/no/such/program"], "name": "one", "stdout": stdout});
            assert_eq!(broker.json().refused("create", params).kind, "spawn_failed");
            broker.crash_and_start_again();
            assert_eq!(list(&broker, true), Vec::<Value>::new(), "{stdout}");
        }
    }
}
