//! What users of other tools type without a thought: aliases, short flags, several names, a child's exit status.

use std::fs;

use serde_json::json;

use super::{DONE, FAILED, NOT_FOUND, TIMED_OUT, USAGE, failed, on_a_terminal};
use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, TestBroker, procbroker};

/// Starts children of these names.
fn named(broker: &TestBroker, names: &[&str]) {
    for name in names {
        broker.json().create(with(willing(), &json!({"name": name})));
    }
}

#[test]
fn verbs_have_the_names_that_other_tools_give_them() {
    let broker = TestBroker::start();
    named(&broker, &["one", "two"]);
    let list = broker.run(&["list"]).out;
    for alias in ["ls", "ps"] {
        assert_eq!(broker.run(&[alias]).out, list);
    }
    let facts = |verb| {
        let out = broker.run(&[verb, "one"]).out;
        out.lines().filter(|line| !line.starts_with("usage.")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(facts("inspect"), facts("get"));
    assert_eq!(broker.run(&["stop", "one"]).status, DONE);
    assert_eq!(broker.run(&["rm", "two"]).status, DONE);
    assert_eq!(broker.run(&["ls"]).out, "");
}

#[test]
fn a_verb_of_another_meaning_leads_to_the_right_one() {
    let broker = TestBroker::start();
    for (verb, instead) in [
        ("kill", "procbroker destroy TARGET"),
        ("kill", "procbroker signal TARGET SIGNAL"),
        ("start", "procbroker create -- COMMAND"),
        ("remove", "procbroker destroy TARGET"),
        ("delete", "procbroker destroy TARGET"),
        ("exec", "procbroker create -- COMMAND"),
    ] {
        failed(&broker.run(&[verb, "one"]), USAGE, instead);
    }
    failed(&broker.run(&["run", "sleep", "1"]), USAGE, "the whole command to start comes after '--'");
    assert_eq!(broker.run(&["help", "list"]).out, broker.run(&["list", "--help"]).out);
    assert_eq!(broker.run(&["help"]).out, broker.run(&["--help"]).out);
}

#[test]
fn destroy_takes_several_and_goes_on_where_one_is_missing() {
    let broker = TestBroker::start();
    named(&broker, &["a", "b", "c", "d"]);
    let said = broker.run(&["destroy", "a", "b"]);
    assert_eq!((said.status, said.out.lines().count(), said.err.as_str()), (DONE, 2, ""), "{said:?}");
    let said = broker.run(&["destroy", "c", "nobody", "d"]);
    assert_eq!((said.status, said.out.lines().count()), (NOT_FOUND, 2), "{said:?}");
    assert!(said.err.contains("nobody") && said.err.lines().count() == 1, "{said:?}");
    assert_eq!(broker.run(&["list"]).out, "");
    named(&broker, &["e"]);
    let said = broker.run(&["destroy", "--json", "nobody", "e", "none"]);
    assert_eq!((said.status, said.out.lines().count()), (NOT_FOUND, 1), "{said:?}");
    assert_eq!(said.json()["children"][0]["name"], "e");
    let errors: Vec<serde_json::Value> =
        said.err.lines().map(|line| serde_json::from_str(line).expect("an error object a line")).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error["data"]["kind"] == "not_found"), "{errors:?}");
    let said = broker.run(&["destroy", "nope1", "nope2"]);
    assert_eq!((said.status, said.out.as_str(), said.err.lines().count()), (NOT_FOUND, "", 2), "{said:?}");
    assert!(said.err.contains("nope1") && said.err.contains("nope2"), "{said:?}");
}

#[test]
fn a_socket_that_no_path_leads_to_is_a_usage_error_with_the_length() {
    let broker = TestBroker::start();
    for bytes in [108, 109] {
        let socket = format!("/{}", "x".repeat(bytes - 1));
        let said = broker.run(&["--socket", &socket, "list"]);
        failed(&said, USAGE, &format!("the path has {bytes} bytes"));
    }
}

#[test]
fn list_can_be_narrowed_to_names_and_ids_alone() {
    let broker = TestBroker::start();
    named(&broker, &["render-1", "render-2", "mail"]);
    broker.json().create(willing());
    let names = |arguments: &[&str]| -> Vec<String> {
        let out = broker.run(arguments).out;
        out.lines().map(|line| line.split('\t').nth(1).expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&["list", "--name", "render-*"]), ["render-1", "render-2"]);
    assert_eq!(names(&["list", "--name", "render-[2-9]"]), ["render-2"]);
    assert_eq!(names(&["list", "--name", "mail"]), ["mail"]);
    assert_eq!(names(&["list", "--name", "render"]), Vec::<String>::new());
    let json = broker.run(&["list", "--json", "--name", "m???"]).json();
    assert_eq!(json["children"].as_array().unwrap().len(), 1);
    let all = broker.json().ok("list", json!({}));
    let ids: Vec<&str> =
        all["children"].as_array().unwrap().iter().map(|child| child["id"].as_str().unwrap()).collect();
    assert_eq!(broker.run(&["list", "-q"]).out.lines().collect::<Vec<_>>(), ids);
    assert_eq!(broker.run(&["ps", "-aq", "--name", "mail"]).out.lines().count(), 1);
    failed(&broker.run(&["list", "--name", "["]), USAGE, "--name");
    assert_eq!(names(&["list", "--state", "running", "--name", "m*"]), ["mail"]);
    assert_eq!(names(&["list", "--state", "starting,ended"]), Vec::<String>::new());
    broker.run(&["destroy", "mail"]);
    assert_eq!(names(&["list", "--state", "ended"]), ["mail"]);
    let json = broker.run(&["list", "--json", "--state", "stopping,ended"]).json();
    assert_eq!(json["children"].as_array().unwrap().len(), 1);
}

#[test]
fn wait_passes_on_the_exit_status_of_the_child() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (name, command, status) in
        [("code", "exit 42", 42), ("killed", "kill -KILL $$", 137), ("fine", "exit 0", DONE)]
    {
        let child =
            client.ok("create", json!({"name": name, "command": ["sh", "-c", command], "no_wait": true}));
        let id = child["child"]["id"].as_str().unwrap();
        for until in ["ended", "ready"] {
            let said = broker.run(&["wait", "--exit-code", "--until", until, id]);
            assert_eq!(
                (said.status, said.out.lines().count(), said.err.as_str()),
                (status, 1, ""),
                "{said:?}"
            );
        }
    }
    named(&broker, &["alive"]);
    failed(&broker.run(&["wait", "alive", "--exit-code", "--timeout", "1ms"]), TIMED_OUT, "alive");
    assert_eq!(broker.run(&["wait", "alive", "--exit-code", "--until", "ready"]).status, 0);
}

#[test]
fn wait_waits_for_all_that_are_named() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (name, code) in [("one", "0"), ("two", "3")] {
        client.ok(
            "create",
            json!({"name": name, "command": ["sh", "-c", format!("exit {code}")], "no_wait": true}),
        );
    }
    named(&broker, &["alive"]);
    let said = broker.run(&["wait", "one", "two", "one"]);
    let ends: Vec<_> = said.out.lines().map(|line| line.split('\t').nth(6).unwrap().to_owned()).collect();
    assert_eq!(
        (said.status, ends, said.err.as_str()),
        (DONE, vec!["0".to_owned(), "3".to_owned()], ""),
        "{said:?}"
    );
    let json = broker.run(&["wait", "--json", "two", "one"]).json();
    assert_eq!((&json["children"][0]["name"], &json["children"][1]["name"]), (&json!("two"), &json!("one")));
    assert_eq!(broker.run(&["wait", "--json", "one"]).json()["child"]["name"], "one");
    // Whoever does not end in time is told of, and so is whoever is not there; the others are shown.
    let said = broker.run(&["wait", "one", "alive", "nobody", "--timeout", "1ms"]);
    assert_eq!(
        (said.status, said.out.lines().count(), said.err.lines().count()),
        (TIMED_OUT, 1, 2),
        "{said:?}"
    );
    assert!(said.err.contains("alive") && said.err.contains("nobody"), "{said:?}");
    let json = broker.run(&["wait", "one", "nobody", "--json"]);
    assert_eq!((json.status, json.json()["children"].as_array().unwrap().len()), (NOT_FOUND, 1), "{json:?}");
    failed(&broker.run(&["wait", "one", "two", "--exit-code"]), USAGE, "--exit-code passes on");
}

#[test]
fn wait_by_labels_waits_for_those_that_live_when_it_is_called() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let mut create = |name: &str, params| {
        client.create(with(params, &json!({"name": name, "labels": {"pool": "p"}})));
    };
    create("one", willing());
    create("two", willing());
    let said = broker.run(&["wait", "--label", "pool=p", "--timeout", "1ms"]);
    assert_eq!((said.status, said.out.as_str(), said.err.lines().count()), (TIMED_OUT, "", 2), "{said:?}");
    let mut wait = broker.verb(&["wait", "--label", "pool=p"]);
    let waiting = std::thread::spawn(move || crate::harness::Said::by(&mut wait));
    // It has asked who they are once the broker keeps a wait of it.
    while broker.json().ok("metrics", json!({}))["text"].as_str().unwrap().contains("{what=\"requests\"} 0\n")
    {
        std::thread::yield_now();
    }
    assert_eq!(broker.run(&["destroy", "one", "two"]).status, DONE);
    let said = waiting.join().unwrap();
    assert_eq!((said.status, said.out.lines().count(), said.err.as_str()), (DONE, 2, ""), "{said:?}");
    let said = broker.run(&["wait", "--label", "pool=p"]);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (DONE, "", ""), "{said:?}");
    let said = broker.run(&["wait", "--label", "pool=p", "--json"]);
    assert_eq!((said.status, said.json()), (DONE, json!({"children": []})), "{said:?}");
}

#[test]
fn a_list_tells_what_children_use_and_why_they_ended_in_columns_at_the_end() {
    let broker = TestBroker::start();
    named(&broker, &["one", "two"]);
    assert_eq!(broker.run(&["destroy", "two"]).status, DONE);
    let columns = |arguments: &[&str]| -> Vec<Vec<String>> {
        let out = broker.run(arguments).out;
        out.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    };
    let all = columns(&["ps", "-a"]);
    assert_eq!(all.iter().map(|line| line[8].as_str()).collect::<Vec<_>>(), ["-", "destroyed"]);
    let used = columns(&["list", "--usage", "--name", "one"]);
    assert_eq!((used.len(), used[0].len()), (1, 11), "{used:?}");
    assert!(used[0][9].parse::<f64>().is_ok() && used[0][10].parse::<u64>().is_ok(), "{used:?}");
    let json = broker.run(&["list", "--usage", "--json"]).json();
    assert!(json["children"][0]["usage"]["memory"].is_u64(), "{json}");
    let whole = broker.run(&["list", "--json"]).json();
    let mut without = json["children"][0].clone();
    without.as_object_mut().unwrap().remove("usage");
    assert_eq!(without, whole["children"][0]);
    let cpu = columns(&["get", "one"]).into_iter().find(|line| line[0] == "usage.cpu").unwrap();
    assert!(cpu[1].parse::<f64>().is_ok(), "{cpu:?}");
    failed(&broker.run(&["list", "--usage", "--quiet"]), USAGE, "--quiet");
}

#[test]
fn create_in_a_pipe_warns_of_a_child_from_another_specification() {
    let broker = TestBroker::start();
    let create = |seconds: &str| {
        broker.run(&["create", "--name", "one", "--if-exists", "reuse", "--", "sleep", seconds])
    };
    let first = create("1000");
    assert_eq!((create("1000").err.as_str(), &create("1000").out), ("", &first.out));
    let said = create("2000");
    assert_eq!((said.status, &said.out), (DONE, &first.out), "{said:?}");
    assert!(
        said.err.contains("was created from another specification") && said.err.lines().count() == 1,
        "{said:?}"
    );
}

#[test]
fn a_signal_can_be_written_as_kill_takes_it() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (name, signal, died_of) in [("a", "-9", "SIGKILL"), ("b", "-HUP", "SIGHUP"), ("c", "int", "SIGINT")] {
        named(&broker, &[name]);
        assert_eq!(broker.run(&["signal", name, signal]).status, DONE);
        let exit = client.ok("wait", json!({"target": name}))["child"]["exit"].take();
        assert_eq!(exit["signal"], died_of);
    }
}

#[test]
fn events_from_a_number_that_is_yet_to_come_are_an_error_that_names_the_next() {
    let broker = TestBroker::start();
    named(&broker, &["one"]);
    failed(&broker.run(&["events", "--since", "1000"]), USAGE, "number 4");
}

#[test]
fn completions_know_children_and_signals() {
    let broker = TestBroker::start();
    named(&broker, &["one", "two"]);
    let child = broker.json().create(willing());
    broker.run(&["destroy", "two"]);
    let words = |what: &str| -> Vec<String> {
        broker.run(&["complete", what]).out.lines().map(str::to_owned).collect()
    };
    let id = child["id"].as_str().unwrap();
    assert_eq!(words("children"), ["one", id]);
    assert_eq!(words("all-children"), ["one", "two", id]);
    let both = words("children-and-signals");
    assert!(
        both.starts_with(&["one".to_owned(), id.to_owned()]) && both.contains(&"HUP".to_owned()),
        "{both:?}"
    );
    // Nobody who types is to read errors.
    let nowhere = broker.path("nowhere");
    let said = broker.run(&["complete", "children", "--socket", nowhere.to_str().unwrap()]);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (DONE, "", ""));
}

#[test]
fn bash_completes_the_names_of_children() {
    let broker = TestBroker::start();
    named(&broker, &["render-1", "render-2", "mail"]);
    let script = format!(
        "eval \"$({program} completions bash)\"
         COMP_WORDS=({program} rm mail render); COMP_CWORD=3; COMP_LINE=\"${{COMP_WORDS[*]}}\"; COMP_POINT=${{#COMP_LINE}}
         _procbroker_or_ask {program} render mail; echo \"${{COMPREPLY[*]}}\"
         COMP_WORDS=({program} signal mail WIN); COMP_CWORD=3; COMP_LINE=\"${{COMP_WORDS[*]}}\"; COMP_POINT=${{#COMP_LINE}}
         _procbroker_or_ask {program} WIN mail; echo \"${{COMPREPLY[*]}}\"
         COMP_WORDS=({program} can); COMP_CWORD=1; COMP_LINE=\"${{COMP_WORDS[*]}}\"; COMP_POINT=${{#COMP_LINE}}
         _procbroker_or_ask {program} can {program}; echo \"${{COMPREPLY[*]}}\"",
        program = crate::harness::procbroker().display(),
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", &script]).env("PROCBROKER_SOCKET", broker.socket());
    let said = crate::harness::Said::by(&mut bash);
    assert_eq!(said.out, "render-1 render-2\nWINCH\n\n", "{said:?}");
}

/// A line less its escape sequences, each of which ends with a letter.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    first
        + &parts
            .map(|part| part.split_once(char::is_alphabetic).map_or("", |(_, text)| text))
            .collect::<String>()
}

#[test]
fn no_line_of_a_list_is_broken_on_a_terminal_of_80_columns() {
    let broker = TestBroker::start();
    let long = "n".repeat(43);
    broker.json().create(json!({"name": long, "command": ["sleep", "infinity"]}));
    broker
        .json()
        .create(json!({"command": ["sh", "-c", "exec sleep infinity # 東京タワー東京タワー東京タワー"]}));
    for columns in [80, 40] {
        let said = on_a_terminal(&broker, columns, "ls");
        assert_eq!(said.status, DONE, "{said:?}");
        let lines: Vec<String> =
            said.out.lines().map(|line| without_colours(line.trim_end_matches('\r'))).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= columns), "{}", said.out);
        assert_eq!(lines.iter().any(|line| line.starts_with("NAME")), columns == 80, "{}", said.out);
    }
}

#[test]
fn a_child_can_have_the_environment_of_the_command_instead_of_the_brokers() {
    let broker = TestBroker::start();
    let create = |name: &str, flags: &[&str]| {
        let arguments = [&["create", "--name", name], flags, &["--", "sleep", "infinity"]].concat();
        let mut verb = broker.verb(&arguments);
        verb.env("ONLY_HERE", "x y").env("NOTIFY_SOCKET", "/of/this/process").env("LISTEN_FDS", "1");
        let said = crate::harness::Said::by(&mut verb);
        assert_eq!(said.status, DONE, "{said:?}");
        let child = broker.json().ok("get", json!({"target": name}))["child"].take();
        crate::harness::Process::of(&child).environment()
    };
    let inherited = create("one", &["--inherit-env", "--env", "MORE=1"]);
    assert_eq!((inherited["ONLY_HERE"].as_str(), inherited["MORE"].as_str()), ("x y", "1"));
    assert_eq!(inherited["PROCBROKER_SOCKET"].as_str(), broker.socket().to_str().unwrap());
    assert!(!inherited.contains_key("LISTEN_FDS"), "{inherited:?}");
    assert!(inherited.get("NOTIFY_SOCKET").is_none_or(|socket| socket != "/of/this/process"));
    assert!(!create("two", &[]).contains_key("ONLY_HERE"));
}

#[test]
fn logs_tell_on_a_terminal_of_a_standard_error_of_its_own() {
    let broker = TestBroker::start();
    let script = "echo to out; echo to err >&2; exec sleep infinity";
    for (name, stderr) in [("two", "log"), ("one", "stdout")] {
        broker.json().create(json!({
            "name": name, "stderr": stderr, "command": ["sh", "-c", script], "ready": {"log": "to out"},
        }));
    }
    let hint = "its standard error has a log of its own; '--stream stderr' shows that";
    let said = on_a_terminal(&broker, 80, "logs two");
    assert!(said.out.contains("to out") && said.out.contains(hint), "{said:?}");
    for arguments in ["logs one", "logs two --stream stdout"] {
        let said = on_a_terminal(&broker, 80, arguments);
        assert!(said.out.contains("to out") && !said.out.contains(hint), "{said:?}");
    }
    let said = broker.run(&["logs", "two"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("to out\n", ""), "{said:?}");
}

#[test]
fn children_are_restarted_one_after_the_other_until_one_fails() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for name in ["one", "two"] {
        client.create(with(willing(), &json!({"name": name, "labels": {"pool": "web"}})));
    }
    let said = broker.run(&["restart", "--label", "pool=web", "--in-turn", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let restarts: Vec<_> =
        answer["children"].as_array().unwrap().iter().map(|child| &child["restarts"]).collect();
    assert_eq!(restarts, [1, 1]);
    let said = broker.run(&["restart", "one", "nobody", "two", "--in-turn"]);
    assert_eq!(said.status, NOT_FOUND, "{said:?}");
    for (name, restarts) in [("one", 2), ("two", 1)] {
        assert_eq!(client.ok("get", json!({"target": name}))["child"]["restarts"], restarts, "{name}");
    }
    let said = broker.run(&["restart", "--label", "pool=none", "--in-turn"]);
    assert_eq!((said.status, said.out.as_str()), (0, ""), "{said:?}");
}

#[test]
fn a_child_that_has_ended_before_its_turn_ends_no_restart_of_the_others() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    // Its second run ends the next one.
    let script = "test -e \"$0\" && \"$1\" destroy two; : >\"$0\"; echo up; exec sleep infinity";
    client.create(json!({
        "name": "one", "labels": {"pool": "web"}, "ready": {"log": "up"},
        "command": ["sh", "-c", script, broker.path("first run"), procbroker()],
    }));
    for name in ["two", "three"] {
        client.create(with(willing(), &json!({"name": name, "labels": {"pool": "web"}})));
    }
    let said = broker.run(&["restart", "--label", "pool=web", "--in-turn", "--json"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
    let restarted: Vec<_> =
        said.json()["children"].as_array().unwrap().iter().map(|child| child["name"].clone()).collect();
    assert_eq!(restarted, ["one", "three"]);
}

#[test]
fn a_restarted_child_that_does_not_come_back_is_a_failure_and_the_last_in_turn() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let path = broker.path("may start");
    let script = "test -e \"$0\" || exit 5; echo up; exec sleep infinity";
    let create = |client: &mut JsonClient| {
        fs::write(&path, "").unwrap();
        for name in ["one", "two", "three"] {
            client.create(json!({
                "name": name, "labels": {"pool": "web"}, "command": ["sh", "-c", script, path],
                "ready": {"log": "up"},
            }));
        }
        fs::remove_file(&path).unwrap();
    };
    let state = |client: &mut JsonClient, name: &str| {
        let child = client.ok("get", json!({"target": name}))["child"].clone();
        (child["state"].as_str().unwrap().to_owned(), child["restarts"].as_u64().unwrap())
    };
    create(&mut client);
    let said = broker.run(&["restart", "one"]);
    let line = "procbroker: one has not come back: ended, exit code 5 (start_failed)\n";
    assert_eq!((said.status, said.err.as_str()), (FAILED, line), "{said:?}");
    assert!(said.out.contains("one\tended"), "{said:?}");
    let said = broker.run(&["restart", "two", "three", "--in-turn"]);
    let line = "procbroker: two has not come back: ended, exit code 5 (start_failed)\n";
    assert_eq!((said.status, said.err.as_str()), (FAILED, line), "{said:?}");
    assert_eq!(state(&mut client, "two"), ("ended".to_owned(), 1));
    assert_eq!(state(&mut client, "three"), ("running".to_owned(), 0));
    client.ok("destroy", json!({"target": "three"}));
    create(&mut client);
    let said = broker.run(&["restart", "--label", "pool=web", "--in-turn", "--json"]);
    assert_eq!((said.status, said.json()["children"].as_array().unwrap().len()), (FAILED, 1), "{said:?}");
    for (name, expected) in [("one", ("ended", 1)), ("two", ("running", 0)), ("three", ("running", 0))] {
        assert_eq!(state(&mut client, name), (expected.0.to_owned(), expected.1), "{name}");
    }
}

#[test]
fn restart_and_renew_reach_the_broker() {
    let broker = TestBroker::start();
    for verb in ["restart", "renew"] {
        let said = broker.run(&[verb, "nobody"]);
        assert!([FAILED, NOT_FOUND].contains(&said.status) && !said.err.is_empty(), "{said:?}");
    }
}
