//! Children that cannot be started: the error says which step failed and why, and nothing is left of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{STRANGER, Setup, TestBroker, is_root};

/// What fails, in which step and with which error.
fn fails(broker: &TestBroker, params: Value, step: &str, errno_name: &str) {
    let mut client = broker.json();
    let shown = params.to_string();
    let refused = client.refused("create", with(params, &json!({"name": "doomed"})));
    assert_eq!((refused.kind.as_str(), refused.code), ("spawn_failed", 5), "{shown}: {refused:?}");
    assert_eq!(
        (&refused.data["step"], &refused.data["errno_name"]),
        (&json!(step), &json!(errno_name)),
        "{shown}: {refused:?}"
    );
    assert!(refused.data["errno"].as_i64().is_some_and(|errno| errno > 0), "{refused:?}");
    // It holds no name, and the broker is well.
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
    let next = client.create(with(willing(), &json!({"name": "doomed"})));
    client.ok("destroy", json!({"target": next["id"]}));
}

#[test]
fn a_program_that_is_not_there() {
    let broker = TestBroker::start();
    fails(&broker, json!({"command": ["no-such-program"]}), "exec", "ENOENT");
    fails(&broker, json!({"command": ["/no/such/program"]}), "exec", "ENOENT");
    fails(&broker, json!({"command": ["./no-such-program"]}), "exec", "ENOENT");
}

#[test]
fn a_relative_program_that_is_not_there_is_refused_with_the_folder_that_it_was_looked_for_in() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (params, folder) in [
        (json!({"command": ["./no-such-program"]}), "/".to_owned()),
        (json!({"command": ["bin/none"], "cwd": "/usr"}), "/usr".to_owned()),
    ] {
        let refused = client.refused("create", params);
        let said = format!("it was looked for in the folder {folder:?}, which cwd sets");
        assert!(refused.message.contains(&said), "{refused:?}");
    }
    let said = broker.run(&["create", "--cwd", "/usr", "--", "./no-such-program"]);
    assert!(said.err.contains("in the folder \"/usr\", which --cwd sets"), "{said:?}");
    let said = broker.run(&["create", "--cwd", "/none", "--", "./no-such-program"]);
    assert!(said.err.contains("the folder \"/none\" does not exist"), "{said:?}");
}

#[test]
fn a_program_that_cannot_be_executed() {
    let broker = TestBroker::start();
    let plain = broker.path("plain");
    fs::write(&plain, "no program").unwrap();
    fails(&broker, json!({"command": [plain]}), "exec", "EACCES");
    fails(&broker, json!({"command": [broker.folder()]}), "exec", "EACCES");
    // It may be executed, and is nothing that could be.
    fs::set_permissions(&plain, Permissions::from_mode(0o755)).unwrap();
    fails(&broker, json!({"command": [plain]}), "exec", "ENOEXEC");
    let script = broker.path("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    fails(&broker, json!({"command": [script]}), "exec", "ENOENT");
}

#[test]
fn a_working_directory_that_is_none() {
    let broker = TestBroker::start();
    fails(&broker, with(willing(), &json!({"cwd": "/no/such/folder"})), "cwd", "ENOENT");
    fails(&broker, with(willing(), &json!({"cwd": broker.path("log")})), "cwd", "ENOTDIR");
}

#[test]
fn a_resource_limit_above_the_brokers_own() {
    let broker = TestBroker::start();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    fails(&broker, with(willing(), &json!({"rlimits": {"nofile": hard + 1}})), "rlimits", "EPERM");
}

#[test]
fn a_user_or_group_that_does_not_exist() {
    let broker = TestBroker::start();
    fails(&broker, with(willing(), &json!({"user": "no-such-user"})), "user", "ENOENT");
    fails(&broker, with(willing(), &json!({"groups": ["no-such-group"]})), "groups", "ENOENT");
}

#[test]
fn a_command_line_over_the_bound() {
    let broker = Setup::new().flags(["--max-command-bytes", "1000"]).start();
    let mut client = broker.json();
    let refused = client.refused("create", json!({"command": ["echo", "x".repeat(1000)]}));
    assert_eq!(refused.kind, "limit_exceeded");
    assert!(refused.message.contains("--max-command-bytes"), "{refused:?}");
    let refused = client.refused("create", json!({"command": ["true"], "env": {"A": "x".repeat(1000)}}));
    assert_eq!(refused.kind, "limit_exceeded");
    client.create(json!({"command": ["true"], "env": {"A": "x".repeat(900)}}));
}

#[test]
fn a_command_line_that_the_kernel_does_not_take() {
    let broker = TestBroker::start();
    // One argument may have 128 KiB (MAX_ARG_STRLEN, execve(2)).
    fails(&broker, json!({"command": ["true", "x".repeat(200_000)]}), "exec", "E2BIG");
}

#[test]
fn one_child_too_many_in_all_or_for_its_user() {
    for flags in
        [&["--max-children", "2", "--max-children-per-user", "2"][..], &["--max-children-per-user", "2"]]
    {
        let broker = Setup::new().flags(flags).start();
        let mut client = broker.json();
        let first = client.create(willing());
        client.create(willing());
        let refused = client.refused("create", willing());
        assert_eq!(refused.kind, "limit_exceeded", "{flags:?}: {refused:?}");
        client.ok("destroy", json!({"target": first["id"]}));
        client.create(willing());
    }
}

#[test]
fn a_folder_that_the_child_may_not_enter() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    let closed = broker.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    // The child's own user is asked for, not the broker's.
    fails(&broker, with(willing(), &json!({"cwd": closed, "user": STRANGER})), "cwd", "EACCES");
}

#[test]
fn a_child_that_fails_later_has_been_created() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["false"]}));
    let ended = client.ok("wait", json!({"target": child["id"]}));
    assert_eq!(ended["child"]["exit"]["code"], 1);
    assert_eq!(ended["child"]["owner"]["uid"], geteuid().as_raw());
}
