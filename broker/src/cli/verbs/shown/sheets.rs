//! Sheets of one child and of the broker, with their golden text.

use super::*;

fn sheet_child() -> Response {
    let mut child = ended(
        running(1, Some("render-42"), &["python3", "render.py"]),
        ExitStatus::Code(3),
        ExitReason::Destroyed,
        false,
    );
    child.labels.insert("pool".to_owned(), "render".to_owned());
    child.lifetime = Lifetime::Ttl(Duration::from_secs(3600));
    child.cleanup = Some(Cleaned { ok: true, exit: Some(ExitStatus::Code(0)), attempts: 1 });
    Response::Child(Arc::new(child))
}

#[test]
fn get_shows_a_fact_a_line() {
    let expected = concat!(
        "id                01930000-0000-7000-8000-000000000001\n",
        "name              render-42\n",
        "state             ended\n",
        "command           python3 render.py\n",
        "labels            pool=render\n",
        "owner.uid         33\n",
        "owner.gid         34\n",
        "created_at        2026-11-23T14:43:20.000000Z (2h 46m ago)\n",
        "started_at        2026-11-23T17:17:55.000000Z (12m 5s ago)\n",
        "restarts          0\n",
        "lifetime          ttl:1h\n",
        "stop_order        0\n",
        "containment       subreaper\n",
        "exit              3\n",
        "exit.reason       destroyed\n",
        "exit.forced       false\n",
        "exit.steps        SIGTERM at 2026-11-23T17:29:10.000000Z\n",
        "exit.at           2026-11-23T17:29:20.000000Z (40s ago)\n",
        "cleanup.ok        true\n",
        "cleanup.exit      0\n",
        "cleanup.attempts  1\n",
    );
    assert_eq!(shown(GET, &sheet_child(), terminal(80)), expected);
}

#[test]
fn get_in_a_pipe_has_every_key_with_absent_ones_marked() {
    let alive = Response::Child(Arc::new(running(1, None, &["sleep", "60"])));
    let expected = concat!(
        "id\t01930000-0000-7000-8000-000000000001\n",
        "name\t-\n",
        "state\trunning\n",
        "status_text\t-\n",
        "pid\t4001\n",
        "command\tsleep 60\n",
        "labels\t-\n",
        "owner.uid\t33\n",
        "owner.gid\t34\n",
        "created_at\t2026-11-23T14:43:20.000000Z\n",
        "started_at\t2026-11-23T17:17:55.000000Z\n",
        "restarts\t0\n",
        "lifetime\tbroker\n",
        "stop_order\t0\n",
        "containment\tsubreaper\n",
        "exit\t-\n",
        "exit.reason\t-\n",
        "exit.forced\t-\n",
        "exit.steps\t-\n",
        "exit.at\t-\n",
        "exit.gave_up\t-\n",
        "exit.oom\t-\n",
        "cleanup.ok\t-\n",
        "cleanup.exit\t-\n",
        "cleanup.attempts\t-\n",
        "usage.cpu\t-\n",
        "usage.memory\t-\n",
        "usage.memory_peak\t-\n",
        "usage.processes\t-\n",
        "spec.user\t-\n",
        "spec.group\t-\n",
        "spec.groups\t-\n",
        "spec.cwd\t-\n",
        "spec.env\t-\n",
        "spec.env_clear\t-\n",
        "spec.umask\t-\n",
        "spec.stdout\t-\n",
        "spec.stderr\t-\n",
        "spec.log\t-\n",
        "spec.stop\t-\n",
        "spec.ready\t-\n",
        "spec.ready_timeout\t-\n",
        "spec.watchdog\t-\n",
        "spec.restart\t-\n",
        "spec.linger\t-\n",
        "spec.cleanup\t-\n",
        "spec.cleanup_timeout\t-\n",
        "spec.limit\t-\n",
        "spec.rlimits\t-\n",
        "spec.resources\t-\n",
    );
    assert_eq!(shown(GET, &alive, Style::Plain), expected);
    let keys = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&shown(GET, &sheet_child(), Style::Plain)), keys(expected));
}

fn status() -> Response {
    Response::Status(Box::new(Status {
        version: "0.1.0".to_owned(),
        protocol: ProtocolRange { lowest: 1, highest: 1 },
        pid: 7,
        instance: Uuid::from_u128(5),
        events_instance: Uuid::from_u128(4),
        started_at: at(0),
        shutting_down: false,
        failed_upgrade: Some(FailedUpgrade { at: at(1), message: "a reason".to_owned() }),
        children: ChildCounts { running: 2, ended: 1, ..ChildCounts::default() },
        connections: 3,
        facilities: Facilities { spawn: "clone3".to_owned(), pidfd: true, ..Facilities::default() },
        limits: Limits { shutdown_timeout: Duration::from_secs(30), ..Limits::default() },
    }))
}

/// Every member of an object that is not an object itself, by its path.
fn members(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                members(value, &path, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn status_shows_every_member_of_the_wire_object() {
    let text = shown(STATUS, &status(), Style::Plain);
    let mut shown_keys: Vec<_> =
        text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
    let object: serde_json::Value = serde_json::from_str(&shown(STATUS, &status(), Style::Json)).unwrap();
    let mut expected = Vec::new();
    members(&object, "", &mut expected);
    shown_keys.sort();
    expected.sort();
    assert_eq!(shown_keys, expected);
    let human = shown(STATUS, &status(), terminal(80));
    for line in ["children.running                 2\n", "limits.shutdown_timeout          30s\n"] {
        assert!(human.contains(line), "{line} is not in\n{human}");
    }
    assert!(human.contains("(2h 46m ago)"), "{human}");
}

#[test]
fn a_sheet_stands_below_its_keys_where_the_terminal_is_narrow() {
    let text = shown(GET, &sheet_child(), terminal(40));
    assert!(text.contains("\nname\n  render-42\n"), "{text}");
}
