//! What a cleanup finds around it, and what becomes of one that goes wrong.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::children::{
    attentive, cleanup, pid_in, script, stubborn, telling_cleanup, willing, with,
};
use crate::harness::{Fifo, JsonClient, STRANGER, Setup, TestBroker, is_root};

/// Runs a child to its end, with this cleanup.
fn cleaned(client: &mut JsonClient, cleanup: &Value) -> Value {
    let child = client.create(with(json!({"command": ["true"]}), cleanup));
    client.ok("wait", json!({"target": child["id"]}))["child"].take()
}

/// A command as a cleanup.
fn command(words: &[&str]) -> Value {
    json!({"cleanup": {"command": words}})
}

#[test]
fn a_cleanup_knows_its_child_and_its_broker() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let tell = "echo \"$PROCBROKER_CHILD_ID ${PROCBROKER_CHILD_NAME--} $PROCBROKER_SOCKET $MINE\" >\"$1\"";
    let params = with(json!({"command": ["true"], "env": {"MINE": "value"}}), &cleanup(&pipe, tell));
    for name in [json!("one"), Value::Null] {
        let child = client.create(with(params.clone(), &json!({"name": name})));
        let (id, name) = (child["id"].as_str().unwrap(), name.as_str().unwrap_or("-"));
        assert_eq!(pipe.line(), format!("{id} {name} {} value", broker.socket().display()));
    }
}

#[test]
fn a_cleanup_has_the_folder_and_the_mask_of_its_child_and_not_its_limits() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let own = json!({"cwd": broker.folder(), "umask": "027", "rlimits": {"nofile": 77}});
    // Neither a pipe, of which the shell holds an end for a moment, nor a redirection that it has to restore.
    let tell = "exec >\"$1\"; pwd; umask; ulimit -n; ls -m /proc/$$/fd; exit";
    client.create(with(with(json!({"command": ["true"]}), &own), &cleanup(&pipe, tell)));
    let (soft, _hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(pipe.lines(4), [broker.folder().to_str().unwrap(), "0027", &soft.to_string(), "0, 1, 2"]);
}

#[test]
fn a_cleanup_runs_even_if_the_folder_of_its_child_is_gone() {
    let broker = TestBroker::start();
    let folder = broker.path("short-lived");
    fs::create_dir(&folder).unwrap();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let own = with(with(willing(), &json!({"cwd": folder})), &cleanup(&pipe, "pwd >\"$1\""));
    let child = client.create(own);
    fs::remove_dir(&folder).unwrap();
    let ended = &client.ok("destroy", json!({"target": child["id"]}))["children"][0];
    assert_eq!(pipe.line(), "/");
    assert_eq!((&ended["cleanup"]["ok"], &ended["cleanup"]["attempts"]), (&json!(true), &json!(1)));
}

#[test]
fn a_cleanup_runs_as_the_user_of_its_child() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    let tell = cleanup(&pipe, "echo $(id -u) $(id -G) >\"$1\"");
    client.create(with(json!({"command": ["true"]}), &tell));
    assert_eq!(pipe.line(), format!("{STRANGER} {STRANGER}"));
    // Root can name another user for both.
    broker.json().create(with(json!({"command": ["true"], "user": STRANGER.to_string()}), &tell));
    assert_eq!(pipe.line().split(' ').next(), Some(&*STRANGER.to_string()));
}

#[test]
fn a_cleanup_writes_to_the_output_of_its_child() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let says = json!({"command": ["sh", "-c", "echo out; echo err >&2"]});
    let cleanup = command(&["sh", "-c", "echo cleanup out; echo cleanup err >&2"]);
    let mut logs = |more: Value, stream: &str| {
        let child = client.create(with(with(says.clone(), &cleanup), &more));
        client.ok("wait", json!({"target": child["id"]}));
        client.ok("logs", json!({"target": child["id"], "stream": stream}))["text"].take()
    };
    assert_eq!(logs(json!({}), "stdout"), "out\nerr\ncleanup out\ncleanup err\n");
    assert_eq!(logs(json!({"stderr": "log"}), "stdout"), "out\ncleanup out\n");
    assert_eq!(logs(json!({"stderr": "log"}), "stderr"), "err\ncleanup err\n");
    // What a cleanup says is kept even where nobody wanted what the child said.
    assert_eq!(logs(json!({"stdout": "null"}), "stdout"), "cleanup out\ncleanup err\n");
}

#[test]
fn a_cleanup_that_takes_too_long_is_killed() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let member = "trap '' TERM; setsid --fork sh -c 'echo daemon $$ >\"$1\"; exec sleep infinity' sh \"$1\"; exec sleep infinity";
    let mut slow = cleanup(&pipe, member);
    slow["cleanup"]["timeout"] = json!("300ms");
    let ended = cleaned(&mut client, &slow);
    assert_eq!((&ended["state"], &ended["cleanup"]["ok"]), (&json!("ended"), &json!(false)), "{ended}");
    assert_eq!(ended["cleanup"]["exit"], json!({"signal": "SIGKILL"}));
    assert_eq!((&ended["cleanup"]["attempts"], &ended["exit"]["code"]), (&json!(1), &json!(0)));
    // The daemon may not have come to say anything.
    assert!(pipe.rest().iter().all(|line| !pid_in(line).is_alive()));
}

#[test]
fn a_cleanup_that_fails_is_reported_and_not_repeated() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let ended = cleaned(&mut client, &cleanup(&pipe, "echo ran >\"$1\"; exit 3"));
    assert_eq!(ended["cleanup"], json!({"ok": false, "exit": {"code": 3}, "attempts": 1}));
    let ended = cleaned(&mut client, &command(&["/no/such/program"]));
    assert_eq!(ended["cleanup"], json!({"ok": false, "exit": null, "attempts": 1}));
    assert_eq!(ended["state"], "ended");
    assert_eq!(pipe.rest(), ["ran"]);
    drop(client);
    let mut broker = broker;
    let log = broker.stop().log;
    for reason in ["exit code 3", "/no/such/program", "ENOENT"] {
        assert!(log.contains(reason), "nothing about {reason} in {log}");
    }
}

fn leaves_a_daemon(flags: &[&str]) {
    let broker = Setup::new().flags(flags).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let daemon = "trap \"\" TERM; echo daemon $$ >\"$1\"; exec sleep infinity";
    // It ends when the daemon is there.
    let text = format!(
        "setsid --fork sh -c '{daemon}' daemon \"$1.inner\"; read line <\"$1.inner\"; echo \"$line\" >\"$1\""
    );
    let _inner = broker.fifo("pipe.inner");
    let ended = cleaned(&mut client, &cleanup(&pipe, &text));
    assert!(!pid_in(&pipe.line()).is_alive());
    assert_eq!(ended["cleanup"], json!({"ok": true, "exit": {"code": 0}, "attempts": 1}));
}

#[test]
fn what_a_cleanup_leaves_behind_is_killed() {
    leaves_a_daemon(&[]);
}

#[test]
fn what_a_cleanup_leaves_behind_is_killed_without_cgroups() {
    leaves_a_daemon(&["--containment", "subreaper"]);
}

#[test]
fn a_stop_order_is_over_when_its_cleanups_are() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    client.create(with(attentive(&pipe, "second", None), &json!({"stop_order": 2})));
    assert_eq!(pipe.line(), "second there");
    let first = cleanup(&pipe, "echo first cleaning >\"$1\"; echo first cleaned >\"$1\"");
    client.create(with(willing(), &with(first, &json!({"stop_order": 1}))));
    broker.stop();
    assert_eq!(pipe.rest(), ["first cleaning", "first cleaned", "second asked", "second ended"]);
}

/// A cleanup that ends at its second attempt only.
fn interrupted_once(pipe: &Fifo) -> Value {
    let text =
        "echo attempt $$ >\"$1\"; [ -e \"$1.second\" ] && exit 0; touch \"$1.second\"; exec sleep infinity";
    cleanup(pipe, text)
}

#[test]
fn a_cleanup_without_end_does_not_hold_up_the_stop_and_is_run_again_by_the_next_broker() {
    for flags in [&[], &["--containment", "subreaper"][..]] {
        let mut broker = Setup::new().flags(flags).flags(["--shutdown-timeout", "4s"]).start();
        let mut pipe = broker.fifo("pipe");
        let child =
            broker.json().create(with(with(willing(), &interrupted_once(&pipe)), &json!({"name": "one"})));
        // Exits with 0, as nothing is left. Without the deadline it would be never.
        let ended = broker.stop();
        assert!(!pid_in(&pipe.line()).is_alive());
        assert_eq!(ended.lines_with("cleanup").len(), 1, "{}", ended.log);
        broker.start_again();
        let ended = broker.json().ok("wait", json!({"target": child["id"]}))["child"].take();
        assert_eq!(ended["cleanup"], json!({"ok": true, "exit": {"code": 0}, "attempts": 2}));
        assert_eq!(
            (&ended["exit"]["reason"], &ended["exit"]["signal"]),
            (&json!("shutdown"), &json!("SIGTERM"))
        );
        assert_eq!(pipe.rest().len(), 1, "attempts of the next broker");
    }
}

#[test]
fn a_stop_in_a_hurry_still_runs_the_cleanups() {
    let mut broker = TestBroker::start();
    let (mut hello, mut pipe) = (broker.fifo("hello"), broker.fifo("pipe"));
    let patient = json!({"stop": [{"signal": "TERM", "grace": "1h"}]});
    broker.json().create(with(with(stubborn(&hello), &telling_cleanup(&pipe)), &patient));
    hello.line();
    broker.signal(Signal::SIGTERM);
    broker.says("STOPPING=1");
    broker.signal_that_counts_again(Signal::SIGTERM);
    broker.ended_in_order();
    assert_eq!(pipe.rest(), ["cleaned shutdown - SIGKILL"]);
}

#[test]
fn a_child_that_was_not_ready_in_time_is_cleaned_up_before_its_creator_is_told() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = script(&pipe, "exit 5");
    let child = with(with(child, &telling_cleanup(&pipe)), &json!({"ready": "notify"}));
    match client.call("create", child) {
        Err(refused) if refused.kind == "start_failed" => {
            assert_eq!(pipe.rest(), ["cleaned start_failed 5 -"]);
        }
        other => panic!("{other:?}"),
    }
}
