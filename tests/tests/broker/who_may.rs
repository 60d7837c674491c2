//! Promise 5: who may do what, by what the kernel says about the caller. All of it needs root, to be several users.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, OTHER_STRANGER, Process, STRANGER, Setup, TestBroker, is_root};

/// A broker as root, which both strangers may talk to.
fn open_broker() -> TestBroker {
    let (one, other) = (STRANGER.to_string(), OTHER_STRANGER.to_string());
    Setup::new().flags(["--socket-mode", "666", "--allow-user", &one, "--allow-user", &other]).start()
}

fn stranger(broker: &TestBroker, user: u32) -> JsonClient {
    JsonClient::as_user(broker.socket(), user, &[user])
}

/// The client is told that it may not, and that is all it gets.
fn is_turned_away(mut client: JsonClient) {
    client.send("status", json!({}));
    let answer = client.message().expect("a word before the end");
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]["kind"]),
        (&json!(3), &json!("permission_denied"))
    );
    assert!(client.message().is_none());
}

#[test]
fn only_those_who_are_allowed_are_served() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666"]).start();
    is_turned_away(stranger(&broker, STRANGER));
    broker.status();
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    stranger(&broker, STRANGER).ok("status", json!({}));
    is_turned_away(stranger(&broker, OTHER_STRANGER));
    // A user who is allowed is not a group that is.
    is_turned_away(JsonClient::as_user(broker.socket(), OTHER_STRANGER, &[STRANGER]));
}

#[test]
fn members_of_an_allowed_group_are_served() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-group", &STRANGER.to_string()]).start();
    JsonClient::as_user(broker.socket(), OTHER_STRANGER, &[STRANGER]).ok("status", json!({}));
    JsonClient::as_user(broker.socket(), OTHER_STRANGER, &[OTHER_STRANGER, STRANGER]).ok("status", json!({}));
    is_turned_away(JsonClient::as_user(broker.socket(), STRANGER, &[OTHER_STRANGER]));
}

#[test]
fn the_socket_is_closed_to_others_unless_it_is_opened() {
    if !is_root() {
        return;
    }
    let broker = TestBroker::start();
    assert_eq!(fs::metadata(broker.socket()).unwrap().permissions().mode() & 0o7777, 0o600);
    let mut client = stranger(&broker, STRANGER);
    assert!(client.message().is_none(), "the file's mode keeps it out");
}

#[test]
fn who_allows_others_and_keeps_the_socket_closed_is_warned() {
    let warnings = |flags: &[&str]| {
        let ended = Setup::new().flags(flags.iter().copied()).start().stop();
        ended.lines_with("--socket-mode 660").len()
    };
    assert_eq!(warnings(&["--allow-user", "1"]), 1);
    assert_eq!(warnings(&["--allow-group", "1", "--socket-mode", "644"]), 1);
    assert_eq!(warnings(&["--allow-user", "1", "--socket-mode", "602"]), 0);
    assert_eq!(warnings(&[]), 0);
}

#[test]
fn who_allows_others_than_those_of_the_sockets_group_is_warned() {
    let own = nix::unistd::getegid().to_string();
    let stranger = STRANGER.to_string();
    let warnings = |flags: &[&str]| {
        let ended = Setup::new().flags(["--socket-mode", "660"]).flags(flags.iter().copied()).start().stop();
        ended.lines_with("WARN").into_iter().filter(|line| line.contains("--allow-")).count()
    };
    assert_eq!(warnings(&["--allow-user", &stranger]), 1);
    assert_eq!(warnings(&["--allow-group", &stranger]), 1);
    assert_eq!(warnings(&["--allow-group", &own, "--socket-group", &own]), 0);
    assert_eq!(warnings(&[]), 0);
}

#[test]
fn a_child_runs_as_its_caller_with_its_groups() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER, OTHER_STRANGER]);
    let child = client.create(willing());
    assert_eq!(child["owner"], json!({"uid": STRANGER, "gid": STRANGER}));
    let process = Process::of(&child);
    assert_eq!(process.status("Uid"), vec![STRANGER.to_string(); 4]);
    assert_eq!(process.status("Gid"), vec![STRANGER.to_string(); 4]);
    assert_eq!(process.status("Groups"), [OTHER_STRANGER.to_string()]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(process.status(set), ["0000000000000000"], "{set}");
    }
}

#[test]
fn the_children_of_others_cannot_be_seen_or_touched() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let (mut one, mut other, mut root) =
        (stranger(&broker, STRANGER), stranger(&broker, OTHER_STRANGER), broker.json());
    let labels = json!({"name": "mine", "labels": {"pool": "p"}});
    let child = one.create(with(willing(), &labels));
    assert_eq!(other.ok("list", json!({"all": true}))["children"], json!([]));
    for target in [json!("mine"), child["id"].clone()] {
        let absent = other.refused("get", json!({"target": "no-such-child"}));
        for (method, params) in [
            ("get", json!({"target": target})),
            ("wait", json!({"target": target})),
            ("destroy", json!({"target": target})),
            ("signal", json!({"target": target, "signal": "KILL"})),
        ] {
            let refused = other.refused(method, params);
            assert_eq!(
                (refused.kind.as_str(), refused.code),
                ("not_found", absent.code),
                "{method}: {refused:?}"
            );
        }
    }
    for target in [json!({"all": true}), json!({"labels": {"pool": "p"}})] {
        assert_eq!(other.ok("destroy", json!({"target": target}))["children"], json!([]));
    }
    // Root sees and may do all.
    assert_eq!(root.ok("list", json!({}))["children"], json!([child]));
    assert_eq!(root.ok("destroy", json!({"target": "mine"}))["children"][0]["exit"]["reason"], "destroyed");
    assert_eq!(one.ok("get", json!({"target": child["id"]}))["child"]["state"], "ended");
}

#[test]
fn a_name_that_somebody_else_has_is_taken_and_tells_nothing() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let (mut one, mut other) = (stranger(&broker, STRANGER), stranger(&broker, OTHER_STRANGER));
    let child = one.create(json!({"command": ["sleep", "987654"], "name": "shared"}));
    for if_exists in ["fail", "reuse", "replace"] {
        let create = with(willing(), &json!({"name": "shared", "if_exists": if_exists}));
        let refused = other.refused("create", create);
        assert_eq!((refused.kind.as_str(), refused.code), ("name_taken", 1), "{if_exists}: {refused:?}");
        for secret in
            [child["id"].as_str().unwrap(), &child["pid"].to_string(), "987654", &STRANGER.to_string()]
        {
            assert!(!format!("{refused:?}").contains(secret), "{if_exists} tells {secret}: {refused:?}");
        }
    }
    assert_eq!(one.ok("get", json!({"target": "shared"}))["child"]["state"], "running");
}

#[test]
fn subordinate_users_of_an_account_are_members_of_no_group() {
    if !is_root() {
        return;
    }
    let group = OTHER_STRANGER;
    // What the broker reads is seen by nobody else.
    let table = format!("account:{STRANGER}:1\\nothers:4000000000:65536\\n");
    let script = format!(
        "printf '{table}' >\"$1.subuid\" && mount --bind \"$1.subuid\" /etc/subuid && rm \"$1.subuid\" && shift && exec \"$@\""
    );
    let open = |flags: &[&str]| {
        Setup::new().in_own_mounts(&script).flags(["--socket-mode", "666"]).flags(flags).start()
    };
    let broker = open(&["--allow-group", &group.to_string()]);
    JsonClient::as_user(broker.socket(), OTHER_STRANGER, &[group]).ok("status", json!({}));
    is_turned_away(JsonClient::as_user(broker.socket(), STRANGER, &[group]));
    let broker = open(&["--allow-group", &group.to_string(), "--allow-user", &STRANGER.to_string()]);
    JsonClient::as_user(broker.socket(), STRANGER, &[group]).ok("status", json!({}));
}

#[test]
fn only_root_may_name_another_user() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let mut client = stranger(&broker, STRANGER);
    for params in [
        json!({"user": OTHER_STRANGER}),
        json!({"user": 0}),
        json!({"user": "root"}),
        json!({"groups": [OTHER_STRANGER]}),
        json!({"groups": [0]}),
    ] {
        let refused = client.refused("create", with(willing(), &params));
        assert_eq!(refused.kind, "permission_denied", "{params}: {refused:?}");
    }
    assert_eq!(client.create(with(willing(), &json!({"user": STRANGER})))["owner"]["uid"], STRANGER);

    let mut root = broker.json();
    let child = root.create(with(willing(), &json!({"user": STRANGER, "groups": [OTHER_STRANGER]})));
    let process = Process::of(&child);
    assert_eq!(process.status("Uid"), vec![STRANGER.to_string(); 4]);
    assert_eq!(process.status("Groups"), [OTHER_STRANGER.to_string()]);
    let child = root.create(with(willing(), &json!({"user": "nobody"})));
    assert_eq!(Process::of(&child).status("Uid"), ["65534"; 4]);
}

#[test]
fn a_signal_needs_what_kill_would_ask_of_its_caller() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let mut hello = broker.fifo("hello");
    // A program that is root's whoever executes it, and says when it is.
    let program = broker.path("set-user-id");
    fs::copy("/usr/bin/perl", &program).expect("perl(1)");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let (mut client, mut root) = (stranger(&broker, STRANGER), broker.json());
    let say = "open(F, '>', $ARGV[0]); print F \"$>\\n\"; close F; sleep while 1";
    let elevated = |command: Vec<&str>| with(json!({"command": command}), &json!({"name": "elevated"}));
    let (program, path) = (program.to_str().unwrap(), hello.path().to_str().unwrap().to_owned());
    let child = client.create(elevated(vec![program, "-U", "-e", say, &path]));
    assert_eq!(hello.line(), "0", "it has root's rights, unless the folder forbids that");
    let users = Process::of(&child).status("Uid");
    // Its real user is the caller, and kill(2) asks for that, or for the saved one.
    assert_eq!(users[..3], [STRANGER.to_string(), "0".to_owned(), "0".to_owned()]);
    client.ok("signal", json!({"target": "elevated", "signal": "CONT", "scope": "all"}));
    client.ok("destroy", json!({"target": "elevated"}));

    // One that has become root wholly.
    let become_root = format!("$< = 0; $( = 0; {say}");
    let child = client.create(elevated(vec![program, "-U", "-e", &become_root, &path]));
    assert_eq!(hello.line(), "0");
    assert_eq!(Process::of(&child).status("Uid"), ["0"; 4]);
    for scope in ["main", "group", "all"] {
        for signal in ["KILL", "CONT"] {
            let refused =
                client.refused("signal", json!({"target": "elevated", "signal": signal, "scope": scope}));
            assert_eq!(refused.kind, "permission_denied", "{scope}: {refused:?}");
        }
    }
    assert!(Process::of(&child).is_alive());
    // Root may, and so may the broker itself, which is what a destroy is.
    root.ok("signal", json!({"target": "elevated", "signal": "CONT", "scope": "group"}));
    let ended = client.ok("destroy", json!({"target": "elevated"}));
    assert_eq!(ended["children"][0]["exit"]["reason"], "destroyed");
    // As with kill(2), what may be signalled is, and the rest is passed over.
    let both = "\"$1\" -U -e \"$2\" \"$3\" & exec sleep infinity";
    let command = ["sh", "-c", both, "sh", program, &become_root, &path];
    let mixed = json!({"command": command, "name": "mixed"});
    let child = client.create(mixed);
    assert_eq!(hello.line(), "0");
    client.ok("signal", json!({"target": "mixed", "signal": "KILL", "scope": "group"}));
    let ended = client.ok("wait", json!({"target": child["id"]}))["child"].take();
    assert_eq!(ended["exit"]["signal"], "SIGKILL");
}

#[test]
fn only_root_and_the_brokers_user_may_write_to_the_brokers_own_output() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let mut client = stranger(&broker, STRANGER);
    for params in [json!({"stdout": "inherit"}), json!({"stderr": "inherit"})] {
        let refused = client.refused("create", with(willing(), &params));
        assert_eq!(refused.kind, "permission_denied", "{refused:?}");
        broker.json().create(with(willing(), &params));
    }
}

#[test]
fn a_child_has_all_groups_of_its_caller() {
    if !is_root() {
        return;
    }
    let broker = open_broker();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER, OTHER_STRANGER, 64_077]);
    // A file can be closed to a group.
    for groups in [json!([]), json!([OTHER_STRANGER]), json!([STRANGER])] {
        let refused = client.refused("create", with(willing(), &json!({"groups": groups})));
        assert_eq!(refused.kind, "permission_denied", "{groups}: {refused:?}");
    }
    let own = json!({"groups": [64_077, OTHER_STRANGER]});
    let groups = Process::of(&client.create(with(willing(), &own))).status("Groups");
    assert_eq!(groups, [OTHER_STRANGER.to_string(), "64077".to_owned()]);
}

#[test]
fn only_root_and_the_brokers_user_may_end_the_broker() {
    if !is_root() {
        return;
    }
    let mut broker = open_broker();
    let mut client = stranger(&broker, STRANGER);
    let refused = client.refused("shutdown", json!({}));
    assert_eq!(refused.kind, "permission_denied", "{refused:?}");
    assert_eq!(client.ok("status", json!({}))["shutting_down"], false);
    assert_ne!(client.refused("upgrade", json!({})).kind, "internal");
    drop(client);
    broker.json().ok("shutdown", json!({}));
    broker.ended_in_order();
}

#[test]
fn a_broker_that_is_not_root_runs_children_as_itself_and_obeys_its_user_and_root() {
    if !is_root() {
        return;
    }
    let other = OTHER_STRANGER.to_string();
    let mut broker =
        Setup::new().user(STRANGER).flags(["--socket-mode", "666", "--allow-user", &other]).start();
    let (mut own, mut guest, mut root) =
        (stranger(&broker, STRANGER), stranger(&broker, OTHER_STRANGER), broker.json());
    for client in [&mut own, &mut guest, &mut root] {
        let child = client.create(willing());
        assert_eq!(Process::of(&child).status("Uid"), vec![STRANGER.to_string(); 4]);
    }
    // A child is its creator's all the same.
    assert_eq!(guest.ok("list", json!({}))["children"].as_array().unwrap().len(), 1);
    assert_eq!(own.ok("list", json!({}))["children"].as_array().unwrap().len(), 3);
    assert_eq!(root.ok("list", json!({}))["children"].as_array().unwrap().len(), 3);
    assert_eq!(guest.refused("shutdown", json!({})).kind, "permission_denied");
    for user in [0, OTHER_STRANGER] {
        let refused = root.refused("create", with(willing(), &json!({"user": user})));
        assert!(["permission_denied", "spawn_failed"].contains(&refused.kind.as_str()), "{refused:?}");
    }
    is_turned_away(stranger(&broker, 64_003));
    own.ok("shutdown", json!({}));
    drop((own, guest));
    broker.ended_in_order();
}

#[test]
fn root_gets_in_and_creates_when_others_have_all_that_they_may() {
    if !is_root() {
        return;
    }
    let (one, other) = (STRANGER.to_string(), OTHER_STRANGER.to_string());
    let mut broker = Setup::new()
        .flags(["--socket-mode", "666", "--allow-user", &one, "--allow-user", &other])
        .flags(["--max-children", "4", "--max-connections", "4"])
        .start();
    let (mut greedy, mut second) = (stranger(&broker, STRANGER), stranger(&broker, STRANGER));
    let mut third = stranger(&broker, OTHER_STRANGER);
    for client in [&mut greedy, &mut second, &mut third] {
        client.create(willing());
    }
    assert_eq!(third.refused("create", willing()).kind, "limit_exceeded");
    let mut fourth = stranger(&broker, OTHER_STRANGER);
    fourth.send("status", json!({}));
    assert_eq!(fourth.message().unwrap()["error"]["data"]["kind"], "overloaded");
    let mut root = broker.json();
    root.create(willing());
    root.ok("shutdown", json!({}));
    drop((greedy, second, third));
    broker.ended_in_order();
}

#[test]
fn a_name_means_ones_own_ended_child_when_another_user_has_it() {
    if !is_root() {
        return;
    }
    let (one, other) = (STRANGER.to_string(), OTHER_STRANGER.to_string());
    let broker =
        Setup::new().flags(["--socket-mode", "666", "--allow-user", &one, "--allow-user", &other]).start();
    let (mut own, mut another) = (stranger(&broker, STRANGER), stranger(&broker, OTHER_STRANGER));
    let named = with(willing(), &json!({"name": "x"}));
    let child = own.create(named.clone());
    own.ok("destroy", json!({"target": "x"}));
    let holder = another.create(named);
    for method in ["get", "wait"] {
        assert_eq!(own.ok(method, json!({"target": "x"}))["child"]["id"], child["id"], "{method}");
    }
    assert_eq!(own.ok("destroy", json!({"target": "x"}))["children"][0]["id"], child["id"]);
    own.ok("logs", json!({"target": "x"}));
    assert_eq!(broker.json().ok("get", json!({"target": "x"}))["child"]["id"], holder["id"]);
}

#[test]
fn one_users_bounds_are_not_anothers() {
    if !is_root() {
        return;
    }
    let (one, other) = (STRANGER.to_string(), OTHER_STRANGER.to_string());
    let broker = Setup::new()
        .flags(["--socket-mode", "666", "--allow-user", &one, "--allow-user", &other])
        .flags(["--max-children-per-user", "1", "--max-connections-per-user", "1"])
        .start();
    let (mut greedy, mut modest) = (stranger(&broker, STRANGER), stranger(&broker, OTHER_STRANGER));
    greedy.create(willing());
    assert_eq!(greedy.refused("create", willing()).kind, "limit_exceeded");
    let mut second = stranger(&broker, STRANGER);
    second.send("status", json!({}));
    assert_eq!(second.message().unwrap()["error"]["data"]["kind"], "overloaded");
    modest.create(willing());
}
