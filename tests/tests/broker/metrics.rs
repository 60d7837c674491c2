//! Metrics: what is counted while children come and go, as Prometheus fetches it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{stubborn, willing, with};
use crate::harness::{Setup, TestBroker};

/// An address of this machine that no other test listens at: all of 127.0.0.0/8 is its own.
fn own_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 | high, middle, low), 9464).into()
}

fn serving_at(address: SocketAddr) -> TestBroker {
    Setup::new().flags(["--metrics", &address.to_string()]).start()
}

/// Sends this and reads the whole answer: its first line, and what comes after the headers.
fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("metrics are served");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("headers and a body");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn fetched(address: SocketAddr) -> String {
    let (status, body) = http(address, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    body
}

/// The value of a sample.
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("procbroker_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn what_happens_to_children_is_counted_and_fetched() {
    let address = own_address();
    let broker = serving_at(address);
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "one"})));
    client.ok("create", with(willing(), &json!({"name": "one", "if_exists": "reuse"})));
    client.refused("create", with(willing(), &json!({"name": "one"})));
    client.refused("create", json!({"command": ["/no/such/program"]}));
    client.create(with(stubborn(&hello), &json!({"name": "two", "cleanup": {"command": ["true"]}})));
    hello.line();
    client.ok("destroy", json!({"target": "two", "stop": [{"signal": "TERM", "grace": "10ms"}]}));
    let said = client.create(json!({"command": ["echo", "hello"]}));
    client.ok("wait", json!({"target": said["id"]}));
    let policy = json!({"policy": "on-failure", "max": 0});
    let given_up = client.create(json!({"command": ["false"], "restart": policy}));
    client.ok("wait", json!({"target": given_up["id"]}));
    // Whoever has read its output finds it counted.
    client.ok("logs", json!({"target": said["id"]}));
    let text = fetched(address);
    for (name, value) in [
        ("children{state=\"running\"}", 1.0),
        ("children{state=\"ended\"}", 3.0),
        ("restarts_given_up_total", 1.0),
        ("creates_total{outcome=\"created\"}", 4.0),
        ("creates_total{outcome=\"existing\"}", 1.0),
        ("create_failures_total{kind=\"name_taken\"}", 1.0),
        ("create_failures_total{kind=\"spawn_failed\"}", 1.0),
        ("forced_stops_total", 1.0),
        ("stop_duration_seconds_count", 1.0),
        ("cleanups_total{result=\"ok\"}", 1.0),
        ("connections", 1.0),
        ("kept_bytes{what=\"output\"}", 4096.0),
        ("log_dropped_bytes_total", 0.0),
        ("children_log_dropped_lines_total", 0.0),
    ] {
        assert!((sample(&text, name) - value).abs() < 1e-9, "{name} is not {value}: {text}");
    }
    let said = broker.run(&["metrics"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!((sample(&said.out, "connections") - 2.0).abs() < 1e-9, "{said:?}");
    assert_eq!(
        broker.run(&["metrics", "--json"]).json()["text"].as_str().unwrap().lines().next(),
        text.lines().next()
    );
    assert!(sample(&text, "stop_duration_seconds_sum") >= 0.01, "{text}");
    assert!(sample(&text, "turn_duration_seconds_count") > 10.0, "{text}");
    checked_by_promtool(&text);
}

#[test]
fn counters_go_on_through_an_upgrade() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    client.refused("create", json!({"command": ["/no/such/program"]}));
    let child = client.create(with(stubborn(&hello), &json!({"cleanup": {"command": ["true"]}})));
    hello.line();
    client.ok("destroy", json!({"target": child["id"], "stop": [{"signal": "TERM", "grace": "10ms"}]}));
    let turns = |text: &str| sample(text, "turn_duration_seconds_count");
    let before = broker.run(&["metrics"]).out;
    assert_eq!(broker.run(&["upgrade"]).status, 0);
    broker.json().create(willing());
    let after = broker.run(&["metrics"]).out;
    for (name, value) in [
        ("creates_total{outcome=\"created\"}", 2.0),
        ("create_failures_total{kind=\"spawn_failed\"}", 1.0),
        ("forced_stops_total", 1.0),
        ("stop_duration_seconds_count", 1.0),
        ("cleanups_total{result=\"ok\"}", 1.0),
    ] {
        assert!((sample(&after, name) - value).abs() < 1e-9, "{name} is not {value}: {after}");
    }
    let stops = "stop_duration_seconds_sum";
    assert!((sample(&after, stops) - sample(&before, stops)).abs() < 1e-9, "{after}");
    assert!(turns(&after) > turns(&before), "{after}");
}

/// Has Prometheus's own tool say whether names, types and values are as they should be.
fn checked_by_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        return eprintln!("skipped: promtool is not installed (Debian's package is prometheus)");
    };
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Runs promtool on the files of the project, where it is installed.
fn promtool(arguments: &[&str]) {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder");
    match Command::new("promtool").args(arguments).current_dir(project).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => eprintln!("skipped: promtool is not installed (Debian's package is prometheus)"),
    }
}

#[test]
fn the_example_alerts_fire_when_they_should() {
    promtool(&["check", "rules", "broker/metrics/alerts.yml"]);
    promtool(&["test", "rules", "tests/metrics/alerts.yml"]);
}

#[test]
fn the_example_dashboard_shows_only_what_there_is() {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder");
    let text = std::fs::read_to_string(project.join("broker/metrics/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let broker = TestBroker::start();
    broker.json().create(willing());
    let metrics = broker.run(&["metrics"]).out;
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("queries"));
    let mut shown = 0;
    for query in queries {
        let expression = query["expr"].as_str().expect("a query");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in expression.split(|c| !word(c)).filter(|name| name.starts_with("procbroker_")) {
            assert!(
                metrics.contains(&format!("{name} ")) || metrics.contains(&format!("{name}{{")),
                "{name}"
            );
            shown += 1;
        }
    }
    assert!(shown > 8, "{shown} metrics are shown");
}

#[test]
fn nobody_who_fetches_metrics_holds_up_anybody() {
    let address = own_address();
    let broker = serving_at(address);
    // They say nothing, or only half of it.
    let mut silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    silent[0].write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
    broker.json().create(willing());
    assert!((sample(&fetched(address), "children{state=\"running\"}") - 1.0).abs() < 1e-9);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("{\"jsonrpc\":\"2.0\"}\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        assert_eq!(http(address, request).0, status, "{request:?}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n", "a".repeat(16 << 10));
    assert_eq!(http(address, &long).0, "HTTP/1.1 431 Request Header Fields Too Large");
}

#[test]
fn an_address_that_is_not_to_be_had_is_said_at_the_start() {
    let address = own_address();
    let _taken = std::net::TcpListener::bind(address).unwrap();
    let ended = Setup::new().flags(["--metrics", &address.to_string()]).refuses();
    assert_eq!(ended.lines_with(&format!("cannot serve metrics at {address}")).len(), 1, "{}", ended.log);
}
