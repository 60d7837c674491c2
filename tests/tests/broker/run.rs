//! `procbroker run`: the broker and its main command, whose end is the broker's.

pub(crate) mod init;
mod next;
mod stop;
mod terminal;

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::children::willing;
use crate::harness::{Ended, Fifo, Setup, TestBroker, await_death, procbroker, tagged_processes};

/// Makes `PROGRAM serve FLAGS...` a `PROGRAM run FLAGS...`.
const RUN: &str = "program=$1; shift 2; exec \"$program\" run \"$@\"";

/// A main command that says every signal that it gets, and ends with 3 at SIGTERM: see `main.py`.
const TELLING: &str = include_str!("run/main.py");

/// A named pipe for a broker that is about to be started.
fn fifo(setup: &Setup, name: &str) -> Fifo {
    Fifo::make(setup.folder().join(name))
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// A broker with this main command.
fn running<W: AsRef<str>>(setup: Setup, flags: &[&str], main: impl IntoIterator<Item = W>) -> Setup {
    let main: Vec<String> = main.into_iter().map(|word| word.as_ref().to_owned()).collect();
    setup.through(["sh", "-c", RUN, "sh"]).flags(flags).flags(["--"]).flags(main)
}

/// The words of a shell script with the path of a pipe as its first argument.
fn script(pipe: &Fifo, script: &str) -> Vec<String> {
    ["sh", "-c", script, "sh", &text(pipe.path())].map(str::to_owned).to_vec()
}

/// The words of a child of the harness.
fn words(params: &Value) -> Vec<String> {
    let words = params["command"].as_array().expect("a command");
    words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// The words of the main command that says its signals; `ignoring` those that are not to end it.
fn telling(pipe: &Fifo, ignoring: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = ["python3", "-c", TELLING, &text(pipe.path())].map(str::to_owned).to_vec();
    words.extend(ignoring.iter().map(|signal| (*signal).to_owned()));
    words
}

/// A broker whose main command says its signals, and has said that it is there.
fn telling_broker(setup: Setup, flags: &[&str], ignoring: &[&str]) -> (TestBroker, Fifo) {
    let mut pipe = fifo(&setup, "pipe");
    let broker = running(setup, flags, telling(&pipe, ignoring)).start();
    assert_eq!(pipe.line(), "there");
    (broker, pipe)
}

/// The end of a broker with this exit status, of which nothing is left.
fn ends_with(broker: &mut TestBroker, code: i32) -> Ended {
    let ended = broker.ended();
    assert_eq!(tagged_processes(broker.folder()), [], "processes left behind");
    assert_eq!(ended.code(), Some(code), "{:?}: {}", ended.status, ended.log);
    assert!(!broker.socket().exists(), "the socket is left behind");
    ended
}

/// Runs it until it ends by itself.
fn run_to_its_end<W: AsRef<str>>(main: impl IntoIterator<Item = W>) -> Ended {
    // Whose folders everybody may search, for a program that is in none of them.
    let setup = running(Setup::new().env("PATH", "/usr/local/bin:/usr/bin:/bin"), &[], main);
    let ended = setup.refuses();
    assert_eq!(tagged_processes(setup.folder()), [], "processes left behind");
    ended
}

#[test]
fn the_exit_status_is_that_of_the_main_command() {
    let cases = [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ];
    for (script, code) in cases {
        let ended = run_to_its_end(["sh", "-c", script]);
        assert_eq!(ended.code(), Some(code), "{script}: {}", ended.log);
        assert_eq!(ended.lines_with("started child=main").len(), 1, "{}", ended.log);
        assert_eq!(ended.lines_with("ended child=main").len(), 1, "{}", ended.log);
        assert_eq!(ended.lines_with("0 children ended, 0 of them killed").len(), 1, "{}", ended.log);
    }
}

#[test]
fn one_that_cannot_be_started_has_the_exit_status_that_a_shell_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, "no program\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        text(&path)
    };
    let cases = [
        ("/no/such/program".to_owned(), 127),
        ("no-such-program-anywhere".to_owned(), 127),
        (file("not-executable", 0o644), 126),
        (file("no-program", 0o755), 126),
        (text(folder.path()), 126),
    ];
    for (program, code) in cases {
        let ended = run_to_its_end([&program]);
        assert_eq!(ended.code(), Some(code), "{program}: {}", ended.log);
        let told = ended.lines_with("not started");
        assert!(
            told.len() == 1 && told[0].contains("child=main") && told[0].contains(&program),
            "{}",
            ended.log
        );
    }
}

#[test]
fn its_end_alone_stops_the_children_and_then_the_broker() {
    let setup = Setup::new();
    let (mut hello, mut go) = (fifo(&setup, "hello"), fifo(&setup, "go"));
    let mut main = script(&hello, "echo there >\"$1\"; read line <\"$2\"; exit 9");
    main.push(text(go.path()));
    let mut broker = running(setup, &[], main).start();
    assert_eq!(hello.line(), "there");
    let mut client = broker.json();
    let child = client.create(willing());
    let waiting = client.send("wait", json!({"target": child["id"]}));
    // What is asked later on the same connection is answered when the broker knows of the former.
    client.ok("status", json!({}));
    go.say("end");
    let exit = client.answer(waiting).unwrap()["child"]["exit"].take();
    assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGTERM"), &json!("shutdown")));
    let ended = ends_with(&mut broker, 9);
    assert_eq!(ended.lines_with("shut down: 1 child ended, 0 of them killed").len(), 1, "{}", ended.log);
}

#[test]
fn a_child_that_ends_does_not_end_the_broker() {
    let (mut broker, mut pipe) = telling_broker(Setup::new(), &[], &[]);
    let mut client = broker.json();
    let child = client.create(json!({"command": ["true"]}));
    client.ok("wait", json!({"target": child["id"]}));
    assert_eq!(broker.status()["shutting_down"], false);
    broker.signal(Signal::SIGTERM);
    assert_eq!(pipe.line(), "SIGTERM");
    ends_with(&mut broker, 3);
}

#[test]
fn other_signals_are_passed_on_to_it() {
    let (mut broker, mut pipe) = telling_broker(Setup::new(), &[], &[]);
    let instance = broker.status()["instance"].take();
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGQUIT, Signal::SIGUSR2] {
        broker.signal(signal);
        assert_eq!(pipe.line(), signal.as_str());
    }
    // SIGUSR2 means no upgrade here.
    assert_eq!(broker.status()["instance"], instance);
    broker.signal(Signal::SIGTERM);
    assert_eq!(pipe.line(), "SIGTERM");
    ends_with(&mut broker, 3);
    assert_eq!(pipe.rest(), [""; 0]);
}

#[test]
fn it_starts_in_the_surroundings_of_the_broker_and_with_a_way_to_it() {
    let setup = Setup::new().env("OF_THE_BROKER", "kept").through([
        "sh",
        "-c",
        "umask 027; cd /usr; exec \"$@\"",
        "sh",
    ]);
    let mut pipe = fifo(&setup, "pipe");
    let told = "echo $(pwd) $(umask) $OF_THE_BROKER ${NOTIFY_SOCKET-none} $PROCBROKER_SOCKET >\"$1\"";
    let mut main =
        script(&pipe, &format!("{told}; \"$2\" create --name of-main -- sleep infinity; echo $? >\"$1\""));
    main[2].push_str("; exec sleep infinity");
    main.push(text(procbroker()));
    let mut broker = running(setup, &[], main).start();
    assert_eq!(pipe.line(), format!("/usr 0027 kept none {}", broker.socket().display()));
    assert_eq!(pipe.line(), "0");
    let mut client = broker.json();
    assert_eq!(client.ok("get", json!({"target": "of-main"}))["child"]["state"], "running");
    broker.signal(Signal::SIGTERM);
    ends_with(&mut broker, 128 + 15);
}

#[test]
fn nobody_sees_it() {
    let (mut broker, _pipe) = telling_broker(Setup::new(), &[], &[]);
    let mut client = broker.json();
    assert_eq!(client.ok("list", json!({"all": true}))["children"], json!([]));
    assert_eq!(
        client.ok("signal", json!({"target": {"all": true}, "signal": "KILL"}))["children"],
        json!([])
    );
    assert_eq!(client.ok("destroy", json!({"target": {"all": true}}))["children"], json!([]));
    assert_eq!(client.refused("get", json!({"target": "main"})).kind, "not_found");
    let counts = broker.status()["children"].take();
    assert!(counts.as_object().unwrap().values().all(|count| count == 0), "{counts}");
    let subscribed = client.ok("events", json!({"since": 1}));
    assert_eq!(subscribed["next"], 1);
    broker.signal(Signal::SIGTERM);
    ends_with(&mut broker, 3);
}

#[test]
fn what_it_says_and_what_the_broker_logs_are_kept_apart() {
    let mut broker =
        running(Setup::new(), &[], ["sh", "-c", "echo said; echo complained >&2; echo said again"]).start();
    let ended = ends_with(&mut broker, 0);
    let mut said = String::new();
    broker.stdout().read_to_string(&mut said).unwrap();
    assert_eq!(said, "said\nsaid again\n");
    assert_eq!(ended.log.lines().filter(|line| *line == "complained").count(), 1, "{}", ended.log);
    assert_eq!(ended.lines_with("ready").len(), 1, "{}", ended.log);
}

#[test]
fn orphans_of_it_are_reaped() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let setup = Setup::new();
        let mut pipe = fifo(&setup, "pipe");
        let main = script(
            &pipe,
            "for i in 1 2 3 4 5; do (sh -c 'echo $$ >\"$1\"' sh \"$1\" &); done; exec sleep infinity",
        );
        let mut broker = running(setup, flags, main).start();
        for line in pipe.lines(5) {
            let orphan = crate::harness::children::pid_in(&line);
            await_death(orphan);
            gone(orphan.0);
        }
        broker.signal(Signal::SIGTERM);
        ends_with(&mut broker, 128 + 15);
    }
}

/// Waits until a process has been reaped, or its number belongs to another by now.
fn gone(pid: i64) {
    let began = std::time::Instant::now();
    let zombie = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    };
    while zombie() {
        assert!(began.elapsed() < crate::harness::PATIENCE, "{pid} is not reaped");
        std::thread::yield_now();
    }
}
