//! How a broker with a main command stops: that first, with its failsafe, and then the children, all in one time.

use std::time::{Duration, Instant};

use super::*;
use crate::harness::children::{attentive, pid_in, stubborn, telling_cleanup, with};

#[test]
fn every_signal_that_asks_for_an_end_stops_it_by_its_own_steps() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (mut broker, mut pipe) = telling_broker(Setup::new(), &[], &[]);
        broker.signal(signal);
        assert_eq!(pipe.line(), "SIGTERM");
        ends_with(&mut broker, 3);
        assert_eq!(pipe.rest(), [""; 0]);
    }
}

#[test]
fn a_graceful_stop_that_hangs_has_its_failsafe() {
    let flags = ["--main-stop", "SIGWINCH:100ms,SIGTERM:1h", "--shutdown-timeout", "2h"];
    let (mut broker, mut pipe) = telling_broker(Setup::new(), &flags, &[]);
    broker.signal(Signal::SIGTERM);
    let mut got = pipe.lines(2);
    got.sort();
    assert_eq!(got, ["SIGTERM", "SIGWINCH"]);
    let ended = ends_with(&mut broker, 3);
    assert_eq!(ended.lines_with("was killed").len(), 0, "{}", ended.log);
}

#[test]
fn one_that_ignores_every_step_is_killed() {
    let flags = ["--main-stop", "WINCH:100ms", "--main-stop", "TERM:100ms"];
    let (mut broker, _pipe) = telling_broker(Setup::new(), &flags, &["SIGTERM"]);
    broker.signal(Signal::SIGTERM);
    let ended = ends_with(&mut broker, 128 + 9);
    let killed = ended.lines_with("was killed");
    assert_eq!(killed.len(), 1, "{}", ended.log);
    assert!(
        killed[0].contains("child=main") && killed[0].contains("SIGWINCH,SIGTERM,SIGKILL"),
        "{}",
        killed[0]
    );
    assert_eq!(ended.lines_with("shut down: 0 children ended, 0 of them killed").len(), 1, "{}", ended.log);
}

#[test]
fn children_are_stopped_after_it_and_cleaned_up_and_creates_are_refused_from_the_start() {
    let setup = Setup::new();
    let mut order = fifo(&setup, "order");
    let (mut main_go, mut child_go) = (fifo(&setup, "main-go"), fifo(&setup, "child-go"));
    let main = words(&attentive(&order, "main", Some(&main_go)));
    let flags = ["--main-stop", "TERM:1h", "--shutdown-timeout", "1h"];
    let mut broker = running(setup, &flags, main).start();
    assert_eq!(order.line(), "main there");
    let mut client = broker.json();
    let child = with(attentive(&order, "child", Some(&child_go)), &telling_cleanup(&order));
    let patient = json!({"name": "one", "stop_order": -9, "stop": [{"signal": "TERM", "grace": "1h"}]});
    client.create(with(child, &patient));
    assert_eq!(order.line(), "child there");

    broker.signal(Signal::SIGTERM);
    assert_eq!(order.line(), "main asked");
    assert_eq!(client.refused("create", willing()).kind, "shutting_down");
    assert_eq!(client.ok("get", json!({"target": "one"}))["child"]["state"], "running");
    main_go.say("end");
    assert_eq!(order.lines(2), ["main ended", "child asked"]);
    child_go.say("end");
    assert_eq!(order.lines(2), ["child ended", "cleaned shutdown 3 -"]);
    let ended = ends_with(&mut broker, 3);
    assert_eq!(ended.lines_with("shut down: 1 child ended, 0 of them killed").len(), 1, "{}", ended.log);
}

#[test]
fn it_and_the_children_share_one_deadline() {
    let setup = Setup::new();
    let mut hello = fifo(&setup, "hello");
    let flags = ["--main-stop", "TERM:1h", "--shutdown-timeout", "2s"];
    let mut broker = running(setup, &flags, words(&stubborn(&hello))).start();
    hello.line();
    let mut client = broker.json();
    for order in 0..9 {
        let patient = json!({"stop_order": order, "stop": [{"signal": "TERM", "grace": "1h"}]});
        client.create(with(stubborn(&hello), &patient));
        hello.line();
    }
    let asked = Instant::now();
    broker.signal(Signal::SIGTERM);
    let ended = ends_with(&mut broker, 128 + 9);
    // Were it one for each it would take 20 seconds.
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    assert_eq!(ended.lines_with("was killed").len(), 10, "{}", ended.log);
    assert_eq!(ended.lines_with("shut down: 9 children ended, 9 of them killed").len(), 1, "{}", ended.log);
}

#[test]
fn a_second_signal_kills_it_and_the_children() {
    let setup = Setup::new();
    let mut hello = fifo(&setup, "hello");
    let flags = ["--main-stop", "TERM:1h", "--shutdown-timeout", "1h"];
    let mut broker = running(setup, &flags, words(&stubborn(&hello))).start();
    hello.line();
    broker.json().create(with(stubborn(&hello), &json!({"stop": [{"signal": "TERM", "grace": "1h"}]})));
    hello.line();
    broker.signal(Signal::SIGTERM);
    broker.says("STOPPING=1");
    broker.signal_that_counts_again(Signal::SIGINT);
    let ended = ends_with(&mut broker, 128 + 9);
    assert_eq!(ended.lines_with("told again to stop").len(), 1, "{}", ended.log);
}

#[test]
fn daemons_that_it_has_made_are_gone_before_children_are_stopped() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let setup = Setup::new();
        let (mut hello, mut go) = (fifo(&setup, "hello"), fifo(&setup, "go"));
        let daemon = "trap \"\" TERM HUP; echo daemon $$ >\"$1\"; exec sleep infinity";
        let of_main = format!("setsid --fork sh -c '{daemon}' daemon \"$1\"; read line <\"$2\"; exit 5");
        let mut main = script(&hello, &of_main);
        main.push(text(go.path()));
        let flags = [flags, &["--main-stop", "TERM:100ms"]].concat();
        let mut broker = running(setup, &flags, main).start();
        let daemon = pid_in(&hello.line());
        assert!(daemon.is_alive());
        broker.json().create(attentive(&hello, "child", None));
        assert_eq!(hello.line(), "child there");
        go.say("end");
        assert_eq!(hello.line(), "child asked");
        assert!(!daemon.is_alive(), "{flags:?}");
        ends_with(&mut broker, 5);
    }
}
