//! The log: who has asked for what, and who was refused, for people and for programs.

use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{Ended, JsonClient, OTHER_STRANGER, STRANGER, Setup, is_root};

/// The lines of a log in JSON that are about who has asked for what.
fn audited(ended: &Ended) -> Vec<Value> {
    let lines = ended
        .log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line| line["target"] == "audit").collect()
}

/// The only line about this method and this child.
fn line<'a>(lines: &'a [Value], method: &str, child: &str) -> &'a Value {
    let found: Vec<&Value> =
        lines.iter().filter(|line| line["method"] == method && line["child"] == child).collect();
    assert_eq!(found.len(), 1, "{method} of {child}: {lines:#?}");
    found[0]
}

#[test]
fn whoever_changes_something_is_named_in_the_log() {
    let mut broker = Setup::new().flags(["--log-format", "json"]).start();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let mut client = broker.json();
    let child = client.create(with(willing(), &json!({"name": "one"})));
    client.ok("list", json!({}));
    client.refused("create", with(willing(), &json!({"name": "one"})));
    client.ok("signal", json!({"target": "one", "signal": "CONT"}));
    client.ok("destroy", json!({"target": child["id"]}));
    client.refused("destroy", json!({"target": "nobody"}));
    drop(client);
    let lines = audited(&broker.stop());
    let created: Vec<&Value> = lines.iter().filter(|line| line["method"] == "create").collect();
    assert_eq!(created.len(), 2, "{lines:#?}");
    assert_eq!(
        (&created[0]["child"], &created[0]["id"], &created[0]["outcome"]),
        (&json!("one"), &child["id"], &json!("created"))
    );
    assert_eq!(created[1]["kind"], "name_taken");
    assert_eq!(line(&lines, "signal", "one")["signal"], "SIGCONT");
    line(&lines, "destroy", child["id"].as_str().unwrap());
    let missing: Vec<&Value> = lines.iter().filter(|line| line["child"] == "nobody").collect();
    assert_eq!((missing.len(), &missing[1]["kind"]), (2, &json!("not_found")), "{lines:#?}");
    let caller = (&json!(uid), &json!(gid), &json!(std::process::id()));
    for line in &lines {
        assert_eq!((&line["uid"], &line["gid"], &line["pid"]), caller, "{line}");
        assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
        assert_ne!(line["method"], "list");
    }
}

#[test]
fn whoever_is_refused_is_named_in_the_log() {
    if !is_root() {
        return;
    }
    let mut broker = Setup::new()
        .flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string(), "--log-format", "json"])
        .start();
    JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]).refused("shutdown", json!({}));
    let mut other = JsonClient::as_user(broker.socket(), OTHER_STRANGER, &[OTHER_STRANGER]);
    other.send("list", json!({}));
    other.message().expect("a word before the end");
    drop(other);
    let lines = audited(&broker.stop());
    let refused: Vec<(&Value, &Value)> = lines
        .iter()
        .filter(|line| line["kind"] == "permission_denied")
        .map(|line| (&line["method"], &line["uid"]))
        .collect();
    assert_eq!(refused, [(&json!("shutdown"), &json!(STRANGER)), (&Value::Null, &json!(OTHER_STRANGER))]);
}

#[test]
fn requests_are_in_the_log_when_it_is_asked_for_them() {
    let mut broker = Setup::new().flags(["--log", "debug"]).start();
    let mut client = broker.json();
    client.ok("list", json!({}));
    client.refused("get", json!({"target": "nobody"}));
    drop(client);
    let ended = broker.stop();
    assert_eq!(ended.lines_with("method=\"list\"").len(), 1, "{}", ended.log);
    assert_eq!(ended.lines_with("kind=\"not_found\"").len(), 1, "{}", ended.log);
}
