//! Promise 2: nothing outlives an orderly stop, and it keeps within its deadline.

mod held_by_a_debugger;

use std::fs::File;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::children::{attentive, pid_in, stubborn, willing, with};
use crate::harness::{Ended, Fifo, JsonClient, Process, STRANGER, Setup, TestBroker, broker_group, is_root};

/// A stop that only the deadline, or somebody in a hurry, cuts short.
const PATIENT: &str = "1h";

fn patient() -> Value {
    json!({"stop": [{"signal": "SIGTERM", "grace": PATIENT}]})
}

/// The summary, and a line for each child that needed force.
fn says_how_it_went(ended: &Ended, children: usize, forced: usize) {
    let children = if children == 1 { "1 child".to_owned() } else { format!("{children} children") };
    let summary = format!("shut down: {children} ended, {forced} of them killed");
    assert_eq!(ended.lines_with(&summary).len(), 1, "the summary in {}", ended.log);
    assert_eq!(ended.lines_with("was killed").len(), forced, "lines for killed children in {}", ended.log);
}

mod heavy {
    use super::*;
    use crate::harness::children::{with_anonymous_daemon, with_daemon, with_stubborn_member};

    /// A thousand children of every kind, all of them stopped by one SIGTERM.
    fn a_thousand_are_stopped(flags: &[&str]) {
        const TIMEOUT: Duration = Duration::from_secs(45);
        let mut broker = Setup::new().flags(flags).flags(["--shutdown-timeout", "45s"]).start();
        let mut hello = broker.fifo("hello");
        let impatient = json!({"stop": [{"signal": "SIGTERM", "grace": 0.5}]});
        let (mut talkative, mut forced) = (0, 0);
        let mut clients: Vec<_> = (0..4).map(|_| broker.json()).collect();
        let mut asked = Vec::new();
        for number in 0..1000 {
            let (params, talks, needs_force) = match number % 20 {
                0 | 1 => (stubborn(&hello), true, true),
                2 | 3 => (with_stubborn_member(&hello), true, true),
                4 => (with_daemon(&hello), true, true),
                5 => (with_anonymous_daemon(&hello), true, false),
                _ => (willing(), false, false),
            };
            talkative += usize::from(talks);
            forced += usize::from(needs_force);
            let which = number % clients.len();
            let params = with(params, &with(impatient.clone(), &json!({"name": format!("child-{number}")})));
            asked.push((which, clients[which].send("create", params)));
        }
        for (which, id) in asked {
            let created = clients[which].answer(id).expect("a child");
            assert_eq!(created["outcome"], "created");
        }
        let there = hello.lines(talkative);
        assert_eq!(broker.status()["children"]["running"], 1000);
        let asked = Instant::now();
        let ended = broker.stop();
        assert!(asked.elapsed() < TIMEOUT, "it took {:?}", asked.elapsed());
        for line in there {
            assert!(!pid_in(&line).is_alive(), "{line} is left");
        }
        assert_eq!(ended.lines_with("shut down: 1000 children ended").len(), 1, "{}", last_lines(&ended));
        let killed = ended.lines_with("was killed");
        assert!(killed.len() >= forced, "{} lines for {forced} killed children", killed.len());
        for number in (0..1000).filter(|number| number % 20 < 5) {
            let name = format!("child=child-{number} ");
            assert_eq!(killed.iter().filter(|line| line.contains(&name)).count(), 1, "lines of {name}");
        }
    }

    /// A daemon for each child, out of reach of the signals to its group.
    fn a_thousand_daemons_are_stopped(flags: &[&str]) {
        let mut broker = Setup::new().flags(flags).flags(["--shutdown-timeout", "45s"]).start();
        let mut hello = broker.fifo("hello");
        let mut client = broker.json();
        let params = with(with_daemon(&hello), &json!({"stop": [{"signal": "SIGTERM", "grace": 0.5}]}));
        // The broker does not read on while too many of its answers are not read.
        for _ in 0..10 {
            let ids: Vec<u64> = (0..100).map(|_| client.send("create", params.clone())).collect();
            for id in ids {
                client.answer(id).expect("a child");
            }
        }
        let there = hello.lines(1000);
        let asked = Instant::now();
        let ended = broker.stop();
        assert!(asked.elapsed() < Duration::from_secs(45), "it took {:?}", asked.elapsed());
        assert!(there.iter().all(|line| !pid_in(line).is_alive()));
        assert_eq!(ended.lines_with("shut down: 1000 children ended").len(), 1, "{}", last_lines(&ended));
    }

    #[test]
    fn a_thousand_daemons_are_gone_when_the_broker_is() {
        a_thousand_daemons_are_stopped(&[]);
    }

    #[test]
    fn a_thousand_daemons_are_gone_when_the_broker_is_without_cgroups() {
        a_thousand_daemons_are_stopped(&["--containment", "subreaper"]);
    }

    fn last_lines(ended: &Ended) -> String {
        ended.log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// More groups than the broker removes itself: it holds nobody up with them, and they are gone all the same.
    #[test]
    fn the_groups_of_many_children_are_removed_after_the_stop() {
        let mut broker = TestBroker::start();
        let mut client = broker.json();
        let children: Vec<Value> = (0..200).map(|_| client.create(willing())).collect();
        let pid = children[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
        let Some(folder) = broker_group(pid) else {
            return eprintln!("skipped: children have no control groups here");
        };
        let lock = File::open(&folder).expect("the folder of groups");
        broker.stop();
        // Whoever removes them holds the lock until it is done.
        let _done = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock of the folder");
        assert!(!folder.exists(), "{} is left", folder.display());
    }

    #[test]
    fn no_process_outlives_a_stop_of_a_thousand_children() {
        a_thousand_are_stopped(&[]);
    }

    #[test]
    fn no_process_outlives_a_stop_of_a_thousand_children_without_cgroups() {
        a_thousand_are_stopped(&["--containment", "subreaper"]);
    }
}

#[test]
fn a_broker_without_children_stops_at_once() {
    let ended = TestBroker::start().stop();
    says_how_it_went(&ended, 0, 0);
}

#[test]
fn every_signal_that_asks_for_an_end_stops_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut broker = TestBroker::start();
        broker.json().create(willing());
        broker.signal(signal);
        says_how_it_went(&broker.ended_in_order(), 1, 0);
    }
}

/// A child that says `WORD asked`, and does not end before it is told to; it has said that it is there.
fn asked_and_told(client: &mut JsonClient, word: &str, order: i32, pipe: &mut Fifo, go: &Fifo) -> Value {
    let more = with(patient(), &json!({"name": word, "stop_order": order}));
    let child = client.create(with(attentive(pipe, word, Some(go)), &more));
    assert_eq!(pipe.line(), format!("{word} there"));
    child
}

#[test]
fn a_lower_order_is_stopped_entirely_before_the_next_begins() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", PATIENT]).start();
    let mut order = broker.fifo("order");
    let mut go = Vec::new();
    let mut client = broker.json();
    for (word, number) in [("last", 7), ("first", -2), ("middle", 0), ("second", -2)] {
        go.push(broker.fifo(word));
        asked_and_told(&mut client, word, number, &mut order, &go[go.len() - 1]);
    }
    broker.signal(Signal::SIGTERM);
    let mut both = order.lines(2);
    both.sort();
    assert_eq!(both, ["first asked", "second asked"], "equal orders together");
    go[1].say("end");
    assert_eq!(order.line(), "first ended");
    // One of two has ended: nobody else is asked yet.
    for (name, state) in [("middle", "running"), ("last", "running"), ("second", "stopping")] {
        assert_eq!(client.ok("get", json!({"target": name}))["child"]["state"], state, "{name}");
    }
    go[3].say("end");
    assert_eq!(order.lines(2), ["second ended", "middle asked"]);
    assert_eq!(client.ok("get", json!({"target": "last"}))["child"]["state"], "running");
    go[2].say("end");
    assert_eq!(order.lines(2), ["middle ended", "last asked"]);
    go[0].say("end");
    assert_eq!(order.line(), "last ended");
    says_how_it_went(&broker.ended_in_order(), 4, 0);
    assert_eq!(order.rest(), [""; 0]);
}

#[test]
fn all_orders_share_one_deadline() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", "1s"]).start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    for order in 0..20 {
        client.create(with(with(stubborn(&hello), &patient()), &json!({"stop_order": order})));
        hello.line();
    }
    let asked = Instant::now();
    let ended = broker.stop();
    // Were it one for each it would take 20 seconds.
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    says_how_it_went(&ended, 20, 20);
}

#[test]
fn a_second_signal_kills_what_is_left() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut broker = Setup::new().flags(["--shutdown-timeout", PATIENT]).start();
        let mut hello = broker.fifo("hello");
        let mut client = broker.json();
        client.create(with(stubborn(&hello), &patient()));
        client.create(with(stubborn(&hello), &with(patient(), &json!({"stop_order": 1}))));
        hello.lines(2);
        broker.signal(Signal::SIGTERM);
        broker.says("STOPPING=1");
        broker.signal_that_counts_again(second);
        let ended = broker.ended_in_order();
        says_how_it_went(&ended, 2, 2);
        assert_eq!(ended.lines_with("told again to stop").len(), 1, "{}", ended.log);
    }
}

#[test]
fn two_signals_at_once_are_one() {
    // As terminals and launchers send them.
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut broker = TestBroker::start();
        let (mut hello, mut go) = (broker.fifo("hello"), broker.fifo("go"));
        broker.json().create(attentive(&hello, "ended", Some(&go)));
        hello.line();
        broker.signal(Signal::SIGINT);
        broker.signal(second);
        broker.says("STOPPING=1");
        go.say("go");
        let ended = broker.ended_in_order();
        says_how_it_went(&ended, 1, 0);
    }
}

#[test]
fn a_quit_is_an_orderly_stop() {
    let mut broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    broker.json().create(attentive(&hello, "ended", None));
    hello.line();
    broker.signal(Signal::SIGQUIT);
    says_how_it_went(&broker.ended_in_order(), 1, 0);
}

#[test]
fn signals_that_mean_nothing_to_a_broker_end_neither_it_nor_its_children() {
    let mut broker = TestBroker::start();
    let child = broker.json().create(willing());
    for signal in [Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGPIPE, Signal::SIGUSR1] {
        broker.signal(signal);
        assert_eq!(broker.status()["shutting_down"], false);
    }
    let meanings = Process::of(&child);
    for set in ["SigIgn", "SigBlk", "SigCgt"] {
        assert_eq!(meanings.status(set), ["0000000000000000"], "{set}");
    }
    let ended = broker.stop();
    says_how_it_went(&ended, 1, 0);
    assert_eq!(ended.lines_with("means nothing to a broker").len(), 2, "{}", ended.log);
}

#[test]
fn a_hangup_or_an_interrupt_that_was_ignored_at_the_start_stays_so() {
    // As nohup(1) and the background of a script have it.
    let ignoring = ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"];
    let mut broker = Setup::new().through(ignoring).start();
    let child = broker.json().create(willing());
    broker.signal(Signal::SIGHUP);
    broker.signal(Signal::SIGINT);
    assert_eq!(broker.status()["shutting_down"], false);
    // Nor after it has executed its program anew.
    assert_eq!(broker.run(&["upgrade"]).status, 0);
    broker.signal(Signal::SIGHUP);
    broker.signal(Signal::SIGINT);
    assert_eq!(broker.status()["shutting_down"], false);
    // A child is told of its own all the same.
    assert_eq!(Process::of(&child).status("SigIgn"), ["0000000000000000"]);
    broker.stop();
}

#[test]
fn a_broker_that_was_started_with_the_ends_of_children_ignored_is_told_of_them_all_the_same() {
    // As launchers have it that care for no child of theirs, such as a daemon in Perl.
    let mut broker = Setup::new().through(["env", "--ignore-signal=CHLD"]).start();
    let mut client = broker.json();
    let by_itself = client.create(json!({"command": ["sh", "-c", "exit 7"]}));
    let exit = client.ok("wait", json!({"target": by_itself["id"]}))["child"]["exit"].take();
    assert_eq!((&exit["code"], &exit["reason"]), (&json!(7), &json!("exited")), "{exit}");
    let child = client.create(willing());
    assert_eq!(Process::of(&child).status("SigIgn"), ["0000000000000000"]);
    let exit = client.ok("destroy", json!({"target": child["id"]}))["children"][0]["exit"].take();
    assert_eq!((&exit["signal"], &exit["forced"]), (&json!("SIGTERM"), &json!(false)), "{exit}");
    broker.stop();
}

#[test]
fn a_hangup_does_not_hurry_a_stop() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", PATIENT]).start();
    let mut order = broker.fifo("order");
    let mut go = broker.fifo("go");
    asked_and_told(&mut broker.json(), "one", 0, &mut order, &go);
    broker.signal(Signal::SIGTERM);
    assert_eq!(order.line(), "one asked");
    broker.signal(Signal::SIGHUP);
    // The broker has seen the signal when it answers twice after it: facts and signals share one loop.
    assert_eq!(broker.status()["shutting_down"], true);
    assert_eq!(broker.status()["children"]["stopping"], 1);
    go.say("end");
    assert_eq!(order.line(), "one ended");
    says_how_it_went(&broker.ended_in_order(), 1, 0);
}

#[test]
fn while_it_stops_creates_are_refused_and_all_else_is_answered() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", PATIENT]).start();
    let mut order = broker.fifo("order");
    let mut go = broker.fifo("go");
    let mut client = broker.json();
    let child = asked_and_told(&mut client, "one", 0, &mut order, &go);
    let waiting = client.send("wait", json!({"target": "one"}));
    broker.signal(Signal::SIGTERM);
    assert_eq!(order.line(), "one asked");

    for connection in [&mut client, &mut broker.json()] {
        for create in [willing(), with(willing(), &json!({"name": "one", "if_exists": "reuse"}))] {
            let refused = connection.refused("create", create);
            assert_eq!((refused.kind.as_str(), refused.code), ("shutting_down", 7), "{refused:?}");
        }
        assert_eq!(connection.ok("status", json!({}))["shutting_down"], true);
        assert_eq!(connection.ok("list", json!({}))["children"][0]["id"], child["id"]);
        assert_eq!(connection.ok("get", json!({"target": "one"}))["child"]["state"], "stopping");
        connection.ok("signal", json!({"target": "one", "signal": "CONT"}));
    }
    let destroying = client.send("destroy", json!({"target": "one"}));
    go.say("end");
    let exit = client.answer(waiting).unwrap()["child"]["exit"].take();
    assert_eq!((&exit["code"], &exit["reason"]), (&json!(3), &json!("shutdown")), "{exit}");
    assert_eq!(client.answer(destroying).unwrap()["children"][0]["state"], "ended");
    assert!(client.message().is_none());
    says_how_it_went(&broker.ended_in_order(), 1, 0);
}

#[test]
fn a_create_that_waits_for_its_name_is_refused_when_the_broker_stops() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", PATIENT]).start();
    let mut order = broker.fifo("order");
    let mut go = broker.fifo("go");
    let mut client = broker.json();
    asked_and_told(&mut client, "one", 0, &mut order, &go);
    let replacing = client.send("create", with(willing(), &json!({"name": "one", "if_exists": "replace"})));
    assert_eq!(order.line(), "one asked");
    broker.signal(Signal::SIGTERM);
    assert_eq!(client.answer(replacing).unwrap_err().kind, "shutting_down");
    go.say("end");
    assert_eq!(order.line(), "one ended");
    broker.ended_in_order();
}

#[test]
fn a_shutdown_is_answered_with_what_happened_to_each() {
    let mut broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let (mut client, mut other) = (broker.json(), broker.json());
    client.create(with(willing(), &json!({"name": "willing"})));
    client.create(with(
        stubborn(&hello),
        &json!({"name": "stubborn", "stop": [{"signal": "TERM", "grace": 0.1}]}),
    ));
    hello.line();
    // Ended before, so it is no part of it.
    let before = client.create(json!({"command": ["true"]}));
    client.ok("wait", json!({"target": before["id"]}));
    let (one, two) = (client.send("shutdown", json!({})), other.send("shutdown", json!({"timeout": "1h"})));
    let report = client.answer(one).unwrap();
    assert_eq!(other.answer(two).unwrap(), report);
    let ends: Vec<_> = report["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| {
            (
                child["name"].as_str(),
                child["state"].as_str(),
                child["exit"]["reason"].as_str(),
                child["exit"]["forced"].as_bool(),
            )
        })
        .collect();
    let end = |name, forced| (Some(name), Some("ended"), Some("shutdown"), Some(forced));
    assert_eq!(ends, [end("willing", false), end("stubborn", true)]);
    assert_eq!(report["forced"], 1);
    assert!(report["took"].as_f64().unwrap() >= 0.1, "{report}");
    assert!(client.message().is_none(), "closed after the report");
    says_how_it_went(&broker.ended_in_order(), 2, 1);
}

#[test]
fn a_shutdown_keeps_within_the_time_that_it_asks_for() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", PATIENT]).start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    client.create(with(stubborn(&hello), &patient()));
    hello.line();
    // The alternative is an hour.
    assert_eq!(client.ok("shutdown", json!({"timeout": "500ms"}))["forced"], 1);
    says_how_it_went(&broker.ended_in_order(), 1, 1);
}

#[test]
fn the_services_owner_is_told_of_the_stop_and_its_time() {
    let mut broker = Setup::new().flags(["--shutdown-timeout", "45s"]).start();
    broker.signal(Signal::SIGTERM);
    broker.says("STOPPING=1");
    broker.ended_in_order();
    let mut broker = Setup::new().flags(["--shutdown-timeout", "45s"]).start();
    broker.signal(Signal::SIGTERM);
    broker.says("EXTEND_TIMEOUT_USEC=");
    broker.ended_in_order();
}

#[test]
fn no_user_waits_for_another_in_an_orderly_stop() {
    if !is_root() {
        return;
    }
    let flags =
        ["--shutdown-timeout", PATIENT, "--socket-mode", "666", "--allow-user", &STRANGER.to_string()];
    let mut broker = Setup::new().flags(flags).start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let stays = client.create(with(stubborn(&hello), &patient()));
    hello.line();
    let mut stranger = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    let goes = stranger.create(with(willing(), &json!({"stop_order": 5})));
    broker.signal(Signal::SIGTERM);
    let ended = stranger.ok("wait", json!({"target": goes["id"]}));
    assert_eq!(ended["child"]["exit"]["reason"], "shutdown", "{ended}");
    assert_eq!(client.ok("get", json!({"target": stays["id"]}))["child"]["state"], "stopping");
    broker.signal_that_counts_again(Signal::SIGTERM);
    says_how_it_went(&broker.ended_in_order(), 2, 1);
}
