//! Which requests verbs make.

use procbroker_protocol::json_lines::objects::ParamsObject;

use super::{params, parse};
use crate::cli::command_status::CommandStatus;
use crate::cli::verbs::Verb;

#[test]
fn the_other_verbs_make_their_requests() {
    let cases: [(&[&str], &str); 28] = [
        (&["list", "--state", "running,backoff"], r#"{"labels":{},"all":false,"fields":null}"#),
        (&["list", "--state=running", "--state=ended"], r#"{"labels":{},"all":true,"fields":null}"#),
        (&["destroy", "a"], r#"{"target":"a","stop":null,"no_wait":false}"#),
        (
            &["destroy", "--label=a=b", "--label", "c=d", "--no-wait"],
            r#"{"target":{"labels":{"a":"b","c":"d"}},"stop":null,"no_wait":true}"#,
        ),
        (
            &["destroy", "--all", "--stop", "INT:1s,KILL:0"],
            r#"{"target":{"all":true},"stop":[{"signal":"SIGINT","grace":1},{"signal":"SIGKILL","grace":0}],"no_wait":false}"#,
        ),
        (&["stop", "a"], r#"{"target":"a","stop":null,"no_wait":false}"#),
        (&["rm", "a", "a"], r#"{"target":"a","stop":null,"no_wait":false}"#),
        (&["restart", "a"], r#"{"target":"a"}"#),
        (&["renew", "--label", "a=b"], r#"{"target":{"labels":{"a":"b"}}}"#),
        (&["ps", "-aq", "--name", "render-*"], r#"{"labels":{},"all":true,"fields":null}"#),
        (&["ls"], r#"{"labels":{},"all":false,"fields":null}"#),
        (&["inspect", "a"], r#"{"target":"a"}"#),
        (&["list"], r#"{"labels":{},"all":false,"fields":null}"#),
        (&["list", "--all", "--label=a=b"], r#"{"labels":{"a":"b"},"all":true,"fields":null}"#),
        (
            &["get", "67e55044-10b1-426f-9247-bb680e5fe0c8"],
            r#"{"target":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#,
        ),
        (&["wait", "a"], r#"{"target":"a","until":"ended","timeout":null}"#),
        (
            &["wait", "a", "--until", "ready", "--timeout=1m"],
            r#"{"target":"a","until":"ready","timeout":60}"#,
        ),
        (&["signal", "a", "hup"], r#"{"target":"a","signal":"SIGHUP","scope":"main"}"#),
        (
            &["signal", "--label=a=b", "--label", "c=d", "-HUP"],
            r#"{"target":{"labels":{"a":"b","c":"d"}},"signal":"SIGHUP","scope":"main"}"#,
        ),
        (&["signal", "--all", "USR1"], r#"{"target":{"all":true},"signal":"SIGUSR1","scope":"main"}"#),
        (&["signal", "a", "--scope", "all", "-9"], r#"{"target":"a","signal":"SIGKILL","scope":"all"}"#),
        (&["signal", "a", "-9"], r#"{"target":"a","signal":"SIGKILL","scope":"main"}"#),
        (&["signal", "a", "-HUP"], r#"{"target":"a","signal":"SIGHUP","scope":"main"}"#),
        (&["signal", "a", "9", "--scope=all"], r#"{"target":"a","signal":"SIGKILL","scope":"all"}"#),
        (&["signal", "--scope=group", "a", "USR1"], r#"{"target":"a","signal":"SIGUSR1","scope":"group"}"#),
        (&["status"], "{}"),
        (&["shutdown"], r#"{"timeout":null}"#),
        (&["shutdown", "--timeout", "250ms"], r#"{"timeout":0.25}"#),
    ];
    for (arguments, expected) in cases {
        assert_eq!(params(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn a_signal_goes_to_several_children_and_comes_after_them() {
    let asked = |arguments: &[&str]| {
        let Verb::Ask(question) = parse(&[&["signal"], arguments].concat()).unwrap().verb else {
            panic!("{arguments:?}")
        };
        question.ask().requests()
    };
    let requests = asked(&["a", "b", "--scope", "group", "a", "HUP"]).unwrap();
    let params: Vec<String> =
        requests.iter().map(|request| serde_json::to_string(&ParamsObject(request)).unwrap()).collect();
    let of = |target: &str| format!(r#"{{"target":"{target}","signal":"SIGHUP","scope":"group"}}"#);
    assert_eq!(params, ["a", "b"].map(of));
    for (arguments, said) in [
        (&["SIGHUP", "web"][..], "the signal comes after the children: procbroker signal web SIGHUP; see"),
        (&["-9", "a", "b"], "the signal comes after the children: procbroker signal a b 9; see"),
        (&["a"], "no signal is given; it comes after the children"),
        (&["HUP"], "no child is named; give some before the signal"),
        (
            &["a", "SIGFOO"],
            "invalid value \"SIGFOO\" for the signal: \"SIGFOO\" is not a signal; give a name",
        ),
        (&["a*", "HUP"], "invalid value \"a*\" for a target: \"a*\" is a pattern"),
        (&["--all", "a", "HUP"], "\"a\" is chosen already by --label or --all"),
        (&["--label=a=b", "web"], "invalid value \"web\" for the signal"),
        (&["--label=a=b", "--label=a=c", "HUP"], "\"a\" is given twice"),
    ] {
        let failure = asked(arguments).unwrap_err();
        assert_eq!(failure.status(), CommandStatus::Usage, "{arguments:?}");
        assert!(failure.to_string().starts_with(said), "{failure}");
    }
}

#[test]
fn several_targets_are_a_request_each() {
    let Verb::Ask(question) = parse(&["destroy", "a", "b", "a", "c", "--no-wait"]).unwrap().verb else {
        panic!("no request")
    };
    let requests = question.ask().requests().unwrap();
    let params: Vec<String> =
        requests.iter().map(|request| serde_json::to_string(&ParamsObject(request)).unwrap()).collect();
    let of = |target: &str| format!(r#"{{"target":"{target}","stop":null,"no_wait":true}}"#);
    assert_eq!(params, ["a", "b", "c"].map(of));
}

#[test]
fn an_exit_status_is_passed_on_of_one_child() {
    let Verb::Ask(question) = parse(&["wait", "a", "b", "--exit-code"]).unwrap().verb else {
        panic!("no request")
    };
    let failure = question.ask().requests().unwrap_err();
    assert_eq!(failure.status(), CommandStatus::Usage);
    assert!(failure.to_string().starts_with("--exit-code "), "{failure}");
    for arguments in
        [&["wait", "--label", "a=b", "--exit-code"][..], &["wait"], &["wait", "a", "--label", "a=b"]]
    {
        assert!(parse(arguments).is_err(), "{arguments:?}");
    }
    let Verb::Ask(question) = parse(&["wait", "a", "b", "a", "--timeout=1s"]).unwrap().verb else {
        panic!("no request")
    };
    let params: Vec<String> = question
        .ask()
        .requests()
        .unwrap()
        .iter()
        .map(|request| serde_json::to_string(&ParamsObject(request)).unwrap())
        .collect();
    let of = |target: &str| format!(r#"{{"target":"{target}","until":"ended","timeout":1}}"#);
    assert_eq!(params, ["a", "b"].map(of));
}

#[test]
fn json_can_be_asked_of_every_verb_that_asks_the_broker() {
    let cases: [&[&str]; 10] = [
        &["restart", "--json", "a"],
        &["renew", "--json", "a"],
        &["create", "--json", "--", "true"],
        &["destroy", "--json", "a"],
        &["list", "--json"],
        &["get", "--json", "a"],
        &["wait", "--json", "a"],
        &["signal", "--json", "a", "HUP"],
        &["status", "--json"],
        &["shutdown", "--json"],
    ];
    for arguments in cases {
        let Verb::Ask(question) = parse(arguments).unwrap().verb else { panic!("{arguments:?}") };
        assert!(question.ask().print().json, "{arguments:?}");
    }
}
