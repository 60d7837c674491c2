//! What command lines mean, and which are refused.

use std::time::Duration;

use clap::CommandFactory;
use procbroker_core::Bounds;
use procbroker_protocol::create::{
    Account, CreateParams, IfExists, Lifetime, RestartPolicy, Rlimit, StopStep,
};
use procbroker_protocol::json_lines::objects::ParamsObject;
use procbroker_protocol::{Request, Signal};

use super::*;

fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
    CommandLine::read(std::iter::once(&"procbroker").chain(arguments).map(Into::into))
}

fn request(arguments: &[&str]) -> Request {
    match parse(arguments).unwrap().verb {
        Verb::Ask(question) => {
            let [request] = <[Request; 1]>::try_from(question.ask().requests().unwrap()).unwrap();
            request
        }
        other => panic!("{other:?}"),
    }
}

fn create(arguments: &[&str]) -> CreateParams {
    match request(arguments) {
        Request::Create(params) => *params,
        other => panic!("{other:?}"),
    }
}

fn params(arguments: &[&str]) -> String {
    serde_json::to_string(&ParamsObject(&request(arguments))).unwrap()
}

fn serve(arguments: &[&str]) -> ServeArguments {
    match parse(arguments).unwrap().verb {
        Verb::Serve(arguments) => *arguments,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_flag_has_one_clear_line_of_help() {
    let mut program = CommandLine::command();
    program.build();
    for verb in program.get_subcommands() {
        assert!(verb.get_about().is_some(), "{verb}");
        for argument in verb.get_arguments() {
            let help = argument.get_help().unwrap_or_else(|| panic!("{verb} {argument}")).to_string();
            assert!(
                !help.is_empty() && !help.contains('\n') && !help.ends_with('.'),
                "{verb} {argument}: {help}"
            );
        }
    }
}

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
fn a_command_line_that_makes_no_sense_is_refused() {
    let cases: [&[&str]; 38] = [
        &["create", "--inherit-env", "--env-clear", "--", "true"],
        &[],
        &["run"],
        &["create"],
        &["create", "--"],
        &["create", "sleep", "1"],
        &["create", "--name", "a b", "--", "true"],
        &["create", "--name", "67e55044-10b1-426f-9247-bb680e5fe0c8", "--", "true"],
        &["create", "--stop", "SIGFOO", "--", "true"],
        &["create", "--umask", "888", "--", "true"],
        &["create", "--cleanup-timeout", "1s", "--", "true"],
        &["create", "--restart-max", "1", "--", "true"],
        &["create", "--restart-window", "1s", "--", "true"],
        &["create", "--restart-backoff", "1s", "--", "true"],
        &["create", "--restart-backoff-max", "1s", "--", "true"],
        &["create", "--ready-interval", "1s", "--", "true"],
        &["create", "--lifetime", "for ever", "--", "true"],
        &["create", "--user", "", "--", "true"],
        &["destroy"],
        &["destroy", "a", "--all"],
        &["destroy", "--all", "--label=a=b"],
        &["get"],
        &["get", "a/b"],
        &["wait", "a", "--until", "later"],
        &["wait", "a", "--timeout", "-1"],
        &["signal"],
        &["signal", "--all", "--label=a=b", "HUP"],
        &["signal", "a", "-SIGFOO"],
        &["restart"],
        &["list", "--name", "["],
        &["list", "--quiet", "--json"],
        &["serve", "--max-children", "0"],
        &["serve", "--json"],
        &["serve", "--log-bytes", "4095"],
        &["serve", "--log-bytes", "16MB"],
        &["logs"],
        &["logs", "a", "--stream", "both"],
        &["logs", "a", "--tail", "-1"],
    ];
    for arguments in cases {
        let error = parse(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments:?}");
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
        assert_eq!(failure.status(), crate::cli::command_status::CommandStatus::Usage, "{arguments:?}");
        assert!(failure.to_string().starts_with(said), "{failure}");
    }
}

#[test]
fn a_key_that_comes_twice_is_a_usage_error() {
    for flag in ["--label=a=1", "--env=a=1", "--rlimit=nofile=1", "--resource=pids_max=1"] {
        let Verb::Ask(question) = parse(&["create", flag, flag, "--", "true"]).unwrap().verb else {
            panic!("{flag}")
        };
        let failure = question.ask().requests().unwrap_err();
        assert_eq!(failure.status(), crate::cli::command_status::CommandStatus::Usage, "{flag}");
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
        assert_eq!(failure.status(), crate::cli::command_status::CommandStatus::Usage, "{flag}");
        assert!(failure.to_string().ends_with(&format!("{flag} rm {flag} -rf {flag} /tmp/x")), "{failure}");
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
fn a_childs_exit_status_is_known_only_at_its_end() {
    let Verb::Ask(question) = parse(&["wait", "a", "--exit-code", "--until=ready"]).unwrap().verb else {
        panic!("no request")
    };
    let failure = question.ask().requests().unwrap_err();
    assert_eq!(failure.status(), crate::cli::command_status::CommandStatus::Usage);
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

#[test]
fn the_help_of_json_says_of_each_verb_what_it_prints() {
    let mut program = CommandLine::command();
    program.build();
    let help = |verb: &str| {
        let verb = program.find_subcommand(verb).unwrap();
        let flag = verb.get_arguments().find(|flag| flag.get_long() == Some("json")).unwrap();
        (flag.get_help().unwrap().to_string(), flag.get_long_help().unwrap().to_string())
    };
    let (short, long) = help("events");
    assert_eq!(short, "Print each event as it is on the wire, a line of JSON for each");
    assert!(long.starts_with(&short) && long.contains("`seq`, `at`, `kind`"), "{long}");
    assert!(!long.contains("result"), "{long}");
    assert!(help("list").1.contains("the JSON-RPC result"));
}

#[test]
fn the_socket_can_be_named_before_and_after_the_verb() {
    for arguments in [["--socket", "/a.sock", "list"], ["list", "--socket", "/a.sock"]] {
        assert_eq!(parse(&arguments).unwrap().socket, Some("/a.sock".into()));
    }
    assert_eq!(parse(&["serve", "--socket=/a.sock"]).unwrap().socket, Some("/a.sock".into()));
}

#[test]
fn serve_has_the_defaults_of_the_core() {
    let arguments = serve(&["serve"]);
    assert_eq!(arguments.bounds(), Bounds::default());
    assert_eq!(arguments.socket_mode, 0o600);
    assert_eq!(arguments.shutdown_timeout, procbroker_core::SHUTDOWN_TIMEOUT);
    assert_eq!(arguments.exit_when_idle, None);
    assert_eq!(arguments.log_bytes.bytes(), 16 << 20);
    assert_eq!((arguments.containment, arguments.leaf_group), (ContainmentChoice::Auto, false));
    assert_eq!(arguments.log, LogLevel::Info);
    assert_eq!((arguments.allow_user, arguments.allow_group), (Vec::new(), Vec::new()));
}

#[test]
fn every_flag_of_serve_arrives() {
    let arguments = serve(&[
        "serve",
        "--socket-mode=660",
        "--socket-group=www-data",
        "--state-dir=/state",
        "--runtime-dir=/runtime",
        "--log-bytes=500k",
        "--shutdown-timeout=1m",
        "--allow-user=www-data",
        "--allow-user=1000",
        "--allow-group=adm",
        "--exit-when-idle=5m",
        "--containment=subreaper",
        "--leaf-group",
        "--log=debug",
        "--max-children=1",
        "--max-children-per-user=2",
        "--max-connections=3",
        "--max-connections-per-user=4",
        "--max-pipelined=5",
        "--max-command-bytes=6",
        "--max-subscriptions=0",
        "--max-kept-bytes=7M",
        "--max-kept-bytes-per-user=6M",
        "--partial-message-timeout=8s",
        "--ended-max=0",
        "--ended-for=10s",
    ]);
    let www_data = || Account::Name("www-data".to_owned());
    assert_eq!(arguments.socket_mode, 0o660);
    assert_eq!(arguments.socket_group, Some(www_data()));
    assert_eq!(arguments.state_dir, Some("/state".into()));
    assert_eq!(arguments.runtime_dir, Some("/runtime".into()));
    assert_eq!(arguments.log_bytes.bytes(), 500 << 10);
    assert_eq!(arguments.shutdown_timeout, Duration::from_secs(60));
    assert_eq!(arguments.allow_user, [www_data(), Account::Id(1000)]);
    assert_eq!(arguments.allow_group, [Account::Name("adm".to_owned())]);
    assert_eq!(arguments.exit_when_idle, Some(Duration::from_secs(300)));
    assert_eq!((arguments.containment, arguments.leaf_group), (ContainmentChoice::Subreaper, true));
    assert_eq!(arguments.log, LogLevel::Debug);
    let bounds = Bounds {
        max_children: 1,
        max_children_per_user: 2,
        max_connections: 3,
        max_connections_per_user: 4,
        max_pipelined: 5,
        max_command_bytes: 6,
        max_subscriptions: 0,
        max_kept_bytes: 7 << 20,
        max_kept_bytes_per_user: 6 << 20,
        partial_message_timeout: Duration::from_secs(8),
        ended_kept: 0,
        ended_kept_for: Duration::from_secs(10),
    };
    assert_eq!(arguments.bounds(), bounds);
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

#[test]
fn what_one_user_may_have_follows_what_there_is_for_all() {
    let parts = |arguments: &[&str]| {
        let bounds = serve(&[&["serve"][..], arguments].concat()).bounds();
        (bounds.max_children_per_user, bounds.max_connections_per_user, bounds.max_kept_bytes_per_user)
    };
    assert_eq!(parts(&[]), (5_000, 2_048, 64 << 20));
    let lowered = ["--max-children=100", "--max-connections=1", "--max-kept-bytes=8M"];
    assert_eq!(parts(&lowered), (50, 1, 2 << 20));
    let set = ["--max-children=100", "--max-children-per-user=100", "--max-connections-per-user=7"];
    assert_eq!(parts(&set), (100, 7, 64 << 20));
}

#[test]
fn help_names_the_defaults_and_the_warning_for_brokers_of_others() {
    let mut program = CommandLine::command();
    let help = program.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        &format!("[default: {}]", Bounds::default().max_children),
        &format!("[default: {}]", Bounds::default().max_connections),
        "half of all unless set",
        "a quarter of all unless set",
        "[default: 30s]",
        "[default: 1h]",
        "[default: 16MiB]",
        "A broker that does not run as root starts them as its own user",
        "Examples:",
    ] {
        assert!(words.contains(text), "{text} is not in {help}");
    }
}

#[test]
fn no_line_of_the_help_is_wider_than_80_columns_in_a_pipe() {
    let mut program = CommandLine::command();
    program.build();
    let mut verbs: Vec<clap::Command> =
        program.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    verbs.push(program);
    for mut verb in verbs {
        for help in [verb.render_help().to_string(), verb.render_long_help().to_string()] {
            let wide = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{}", verb.get_name());
        }
    }
}

#[test]
fn the_example_for_kubernetes_has_command_lines_that_are_understood() {
    let manifest = include_str!("../../../kubernetes/sidecar.yml");
    let arguments = manifest.lines().filter_map(|line| line.trim().strip_prefix("args: "));
    let words = |list: &str| serde_json::from_str::<Vec<String>>(list).expect("a list in one line");
    let served: Vec<Vec<String>> = arguments.map(words).filter(|words| words[0] == "serve").collect();
    assert_eq!(served.len(), 1, "{served:?}");
    let words: Vec<&str> = served[0].iter().map(String::as_str).collect();
    let serving = serve(&words);
    assert_eq!(serving.metrics, Some("0.0.0.0:9464".parse().unwrap()));
    for probe in manifest.lines().filter_map(|line| line.split_once("{command: ")) {
        let words = words_of_probe(probe.1);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(matches!(parse(&words[1..]).unwrap().verb, Verb::Ask(ClientVerb::Status(_))), "{words:?}");
    }
}

/// The command of a probe, which a brace closes.
fn words_of_probe(text: &str) -> Vec<String> {
    serde_json::from_str(text.trim_end_matches('}')).expect("a list in one line")
}
