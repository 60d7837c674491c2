//! What the flags of `serve` mean.

use std::time::Duration;

use procbroker_core::{Bounds, SPAWNS_IN_FLIGHT_MAX};
use procbroker_protocol::create::Account;

use super::{parse, serve};
use crate::cli::verbs::{ClientVerb, ContainmentChoice, LogLevel, Verb};

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
        max_spawns_in_flight: SPAWNS_IN_FLIGHT_MAX,
        max_command_bytes: 6,
        max_subscriptions: 0,
        max_kept_bytes: 7 << 20,
        max_kept_bytes_per_user: 6 << 20,
        partial_message_timeout: Duration::from_secs(8),
        ended_kept: 0,
        ended_kept_for: Duration::from_secs(10),
        events_kept: Bounds::default().events_kept,
    };
    assert_eq!(arguments.bounds(), bounds);
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
fn the_example_for_kubernetes_has_command_lines_that_are_understood() {
    let manifest = include_str!("../../../../kubernetes/sidecar.yml");
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
