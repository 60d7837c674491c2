//! Bounds on what children use: set where the machine has them, and refused with what is missing where it has not.
//!
//! What bounds do is shown under a real systemd, where there are control groups to do it with: `systemd/resources`.

use serde_json::json;

use crate::harness::TestBroker;
use crate::harness::children::{willing, with};

/// Each bound, with its controller.
const BOUNDS: [(&str, &str, u64); 5] = [
    ("memory_max", "memory", 1 << 28),
    ("memory_high", "memory", 1 << 27),
    ("cpu_weight", "cpu", 50),
    ("cpu_max", "cpu", 1),
    ("pids_max", "pids", 32),
];

#[test]
fn a_bound_is_set_where_status_has_its_controller_and_refused_with_why_where_not() {
    let broker = TestBroker::start();
    let controllers = broker.status()["facilities"]["controllers"].as_str().unwrap().to_owned();
    let is_there = |wanted: &str| controllers.split(' ').any(|controller| controller == wanted);
    let why = controllers.strip_prefix("none: ");
    let mut client = broker.json();
    for (bound, controller, value) in BOUNDS {
        let params = with(willing(), &json!({"resources": {bound: value}}));
        if why.is_none() && is_there(controller) {
            client.create(params);
            continue;
        }
        let refused = client.refused("create", params);
        assert_eq!((refused.kind.as_str(), refused.code), ("unsupported", 10), "{refused:?}");
        let message = &refused.message;
        assert!(message.contains(bound) && message.contains(controller), "{message}");
        // Status tells why the first of them is missing.
        assert!(bound != "memory_max" || why.is_none_or(|why| message.contains(why)), "{message}");
    }
    if why.is_some() {
        assert_eq!(client.ok("list", json!({"all": true}))["children"], json!([]));
    }
    // No bounds need nothing.
    client.create(with(willing(), &json!({"resources": {"memory_max": "max", "cpu_max": null}})));
}

#[test]
fn what_is_no_bound_is_refused_with_its_name() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (bound, value) in [
        ("memory_max", json!(0)),
        ("memory_max", json!("512MB")),
        ("cpu_weight", json!(10_001)),
        ("cpu_max", json!("half")),
        ("cpu_max", json!(0.001)),
        ("pids_max", json!(0)),
        ("io_weight", json!(0)),
        ("memory", json!(1)),
    ] {
        let refused = client.refused("create", with(willing(), &json!({"resources": {bound: value}})));
        assert_eq!(refused.kind, "invalid_params", "{bound} {value}: {refused:?}");
        assert!(refused.message.contains(bound), "{value}: {}", refused.message);
    }
}
