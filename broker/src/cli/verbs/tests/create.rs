//! What the flags of `create` mean.

use std::time::Duration;

use procbroker_protocol::Signal;
use procbroker_protocol::create::{CreateParams, IfExists, Lifetime, RestartPolicy, Rlimit, StopStep};

use super::{create, params, parse};
use crate::cli::command_status::CommandStatus;
use crate::cli::verbs::Verb;

#[test]
fn a_plain_create_is_the_default_request_in_ones_own_folder() {
    let params = create(&["create", "--", "sleep", "-1"]);
    assert!(params.request_id.is_some());
    let cwd = std::env::current_dir().unwrap().into_os_string().into_string().unwrap();
    let mut expected = CreateParams::new(vec!["sleep".to_owned(), "-1".to_owned()]);
    expected.cwd = Some(cwd);
    expected.request_id = params.request_id;
    assert_eq!(params, expected);
}

#[test]
fn two_runs_are_two_requests() {
    let first = create(&["create", "--", "true"]).request_id;
    assert_ne!(first, create(&["create", "--", "true"]).request_id);
}

#[test]
fn every_parameter_of_create_has_its_flag() {
    let arguments = [
        "create",
        "--name=render-42",
        "--if-exists=reuse",
        "--request-id=67e55044-10b1-426f-9247-bb680e5fe0c8",
        "--label=pool=render",
        "--label=empty=",
        "--no-wait",
        "--cwd=/srv",
        "--env=A=1=2",
        "--env-clear",
        "--umask=077",
        "--user=www-data",
        "--group=33",
        "--group=video",
        "--stdout=null",
        "--stderr=log",
        "--stop=SIGHUP:10s,TERM",
        "--stop=2:250ms",
        "--stop-order=-5",
        "--ready=notify",
        "--ready-timeout=5",
        "--restart=on-failure",
        "--restart-max=3",
        "--restart-window=10s",
        "--restart-backoff=1s",
        "--restart-backoff-max=1m",
        "--lifetime=ttl:1h",
        "--linger=2s",
        "--cleanup",
        "rm",
        "--cleanup",
        "-rf",
        "--cleanup",
        "/a b",
        "--cleanup-timeout=7s",
        "--limit=render=4",
        "--limit-wait=1500ms",
        "--watchdog=20s",
        "--rlimit=nofile=1024",
        "--rlimit=core=unlimited",
        "--resource=memory_max=1M",
        "--resource=cpu_weight=100",
        "--resource=cpu_max=50000 100000",
        "--resource=pids_max=64",
        "--resource=memory_high=512k",
        "--resource=io_weight=50",
        "--",
        "python3",
        "--flag",
    ];
    let expected = concat!(
        r#"{"command":["python3","--flag"],"name":"render-42","if_exists":"reuse","#,
        r#""request_id":"67e55044-10b1-426f-9247-bb680e5fe0c8","labels":{"empty":"","pool":"render"},"#,
        r#""cwd":"/srv","env":{"A":"1=2"},"env_clear":true,"umask":"077","user":"www-data","groups":[33,"video"],"#,
        r#""stdin":"null","stdout":"null","stderr":"log","stop":[{"signal":"SIGHUP","grace":10},"#,
        r#"{"signal":"SIGTERM","grace":10},{"signal":"SIGINT","grace":0.25}],"stop_order":-5,"ready":"notify","#,
        r#""ready_timeout":5,"no_wait":true,"restart":{"policy":"on-failure","max":3,"window":10,"backoff":1,"#,
        r#""backoff_max":60},"lifetime":{"ttl":3600},"linger":2,"cleanup":{"command":["rm","-rf","/a b"],"#,
        r#""timeout":7},"limit":{"key":"render","max":4,"wait":1.5},"rlimits":{"core":"unlimited","nofile":1024},"#,
        r#""resources":{"memory_max":1048576,"cpu_weight":100,"cpu_max":"50000 100000","pids_max":64,"#,
        r#""memory_high":524288,"io_weight":50},"watchdog":20}"#,
    );
    assert_eq!(params(&arguments), expected);
}

#[test]
fn a_relative_folder_is_taken_from_where_the_command_runs() {
    let here = std::env::current_dir().unwrap();
    let cwd = create(&["create", "--cwd", "sub", "--", "true"]).cwd.unwrap();
    assert_eq!(std::path::Path::new(&cwd), here.join("sub"));
}

#[test]
fn what_shows_that_a_child_is_ready_has_its_flags() {
    let ready = |arguments: &[&str]| {
        let ready = create(&[&["create"], arguments, &["--", "true"]].concat()).ready;
        serde_json::to_string(&ready).unwrap()
    };
    assert_eq!(ready(&[]), r#""spawn""#);
    assert_eq!(ready(&["--ready=tcp:localhost:80"]), r#"{"tcp":"127.0.0.1:80","interval":0.1}"#);
    let unix = ["--ready=unix:/run/web", "--ready-interval=5s"];
    assert_eq!(ready(&unix), r#"{"unix":"/run/web","interval":5}"#);
    let command = ["--ready-command", "test", "--ready-command", "-f", "--ready-command", "/a b"];
    assert_eq!(ready(&command), r#"{"command":["test","-f","/a b"],"interval":0.1}"#);
    let command = ["--ready-command", "true", "--ready-interval=5s"];
    assert_eq!(ready(&command), r#"{"command":["true"],"interval":5}"#);
}

#[test]
fn each_word_means_its_value() {
    assert_eq!(create(&["create", "--if-exists=replace", "--", "true"]).if_exists, IfExists::Replace);
    assert_eq!(create(&["create", "--restart=always", "--", "true"]).restart.policy, RestartPolicy::Always);
    assert_eq!(create(&["create", "--lifetime=pid:7", "--", "true"]).lifetime, Lifetime::Pid(7));
    let rlimits = create(&["create", "--rlimit=core=0", "--", "true"]).rlimits;
    assert_eq!(rlimits.get("core"), Some(&Rlimit::Value(0)));
}

#[test]
fn a_key_that_comes_twice_is_a_usage_error() {
    for flag in ["--label=a=1", "--env=a=1", "--rlimit=nofile=1", "--resource=pids_max=1"] {
        let Verb::Ask(question) = parse(&["create", flag, flag, "--", "true"]).unwrap().verb else {
            panic!("{flag}")
        };
        let failure = question.ask().requests().unwrap_err();
        assert_eq!(failure.status(), CommandStatus::Usage, "{flag}");
        assert!(failure.to_string().contains("given twice"), "{failure}");
    }
}

#[test]
fn a_command_that_is_one_word_of_several_is_a_usage_error() {
    for flag in ["--cleanup", "--ready-command"] {
        let Verb::Ask(question) = parse(&["create", flag, "rm -rf /tmp/x", "--", "true"]).unwrap().verb
        else {
            panic!("{flag}")
        };
        let failure = question.ask().requests().unwrap_err();
        assert_eq!(failure.status(), CommandStatus::Usage, "{flag}");
        assert!(failure.to_string().ends_with(&format!("{flag} rm {flag} -rf {flag} /tmp/x")), "{failure}");
    }
}

#[test]
fn a_stop_keeps_its_order() {
    let expected = [(Signal::HUP, 10), (Signal::TERM, 5), (Signal::INT, 10)]
        .map(|(signal, seconds)| StopStep { signal, grace: Duration::from_secs(seconds) });
    let list = create(&["create", "--stop", "SIGHUP:10s,SIGTERM:5s,SIGINT", "--", "true"]).stop;
    let repeated =
        create(&["create", "--stop=SIGHUP:10s", "--stop=SIGTERM:5s", "--stop=SIGINT", "--", "true"]).stop;
    assert_eq!((list.as_slice(), repeated.as_slice()), (&expected[..], &expected[..]));
}
