//! The Rust client, in the binary encoding, against a real broker.

mod holds;

use std::collections::BTreeSet;
use std::time::Duration;

use procbroker_client::blocking::Broker;
use procbroker_client::{
    ChildState, Error, ErrorKind, ExitReason, ExitStatus, IfExists, Outcome, Ready, Select,
};

use crate::harness::{Process, STRANGER, Setup, TestBroker, is_root};

fn connect(broker: &TestBroker) -> Broker {
    Broker::at(broker.socket()).expect("a connection to the broker")
}

fn kind(error: &Error) -> &ErrorKind {
    error.kind().unwrap_or_else(|| panic!("not the broker's answer: {error}"))
}

#[test]
fn a_child_lives_from_spawn_to_destroy() {
    let broker = TestBroker::start();
    let client = connect(&broker);
    let child = client.command("sleep").arg("infinity").name("one").label("pool", "p").spawn().unwrap();
    assert_eq!(child.outcome, Outcome::Created);
    assert_eq!(child.info().state, ChildState::Running);
    assert_eq!(Process::executing(child.pid().unwrap().into()).arguments(), ["sleep", "infinity"]);
    assert_eq!(child.wait_ready().unwrap().id, child.id());
    assert!(child.wait_timeout(Duration::from_millis(1)).unwrap().is_none());
    assert_eq!(client.get("one").unwrap().id(), child.id());
    assert_eq!(client.list(&Select::live().label("pool", "p")).unwrap().len(), 1);
    child.signal("SIGCONT").unwrap();
    let ended = child.destroy().unwrap();
    let exit = ended.exit.as_ref().unwrap();
    assert_eq!(exit.reason, ExitReason::Destroyed);
    assert!(matches!(exit.status, ExitStatus::Signal(signal) if signal.to_string() == "SIGTERM"));
    assert_eq!(child.wait().unwrap(), ended);
    assert!(client.list(&Select::live()).unwrap().is_empty());
}

#[test]
fn a_child_is_signalled_waited_for_and_read_by_its_name() {
    let broker = TestBroker::start();
    let client = connect(&broker);
    let script = "trap 'echo hung up; exit 3' HUP; echo at work; sleep infinity & wait";
    let child = client.command("sh").args(["-c", script]).name("one").ready(Ready::log("at work")).spawn();
    let child = child.unwrap();
    assert!(client.wait_timeout("one", Duration::from_millis(1)).unwrap().is_none());
    assert_eq!(client.signal("one", "HUP").unwrap()[0].id, child.id());
    let ended = client.wait("one").unwrap();
    assert_eq!((ended.id, ended.exit.as_ref().unwrap().status), (child.id(), ExitStatus::Code(3)));
    assert_eq!(client.logs("one").unwrap().text, "at work\nhung up\n");
    assert_eq!(child.logs().unwrap().text, "at work\nhung up\n");
    assert_eq!(kind(&client.signal("one", "HUP").unwrap_err()), &ErrorKind::NotFound);
    assert_eq!(kind(&client.wait("nobody").unwrap_err()), &ErrorKind::NotFound);
}

#[test]
fn one_connection_is_shared_by_threads_and_a_name_still_has_one_child() {
    let broker = TestBroker::start();
    let client = connect(&broker);
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                let child =
                    client.command("sleep").arg("infinity").name("one").if_exists(IfExists::Reuse).spawn();
                let child = child.unwrap();
                (child.id(), child.outcome)
            })
        })
        .collect();
    let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(answers.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(answers.iter().filter(|(_, outcome)| *outcome == Outcome::Created).count(), 1);
    assert_eq!(client.status().unwrap().connections, 1);
}

#[test]
fn a_long_wait_blocks_no_other_call_of_the_same_connection() {
    let broker = TestBroker::start();
    let client = connect(&broker);
    let child = client.command("sleep").arg("infinity").spawn().unwrap();
    let waiting = {
        let child = child.clone();
        std::thread::spawn(move || child.wait().unwrap())
    };
    for _ in 0..100 {
        client.status().unwrap();
    }
    let ended = child.destroy().unwrap();
    assert_eq!(waiting.join().unwrap(), ended);
}

#[test]
fn errors_are_told_apart_by_type() {
    let broker = TestBroker::start();
    let client = connect(&broker);
    client.command("sleep").arg("infinity").name("one").spawn().unwrap();
    let taken = client.command("true").name("one").spawn().unwrap_err();
    assert!(matches!(kind(&taken), ErrorKind::NameTaken(Some(_))));
    assert_eq!(kind(&client.get("nobody").unwrap_err()), &ErrorKind::NotFound);
    let failed = client.command("/no/such/program").spawn().unwrap_err();
    assert!(
        matches!(kind(&failed), ErrorKind::SpawnFailed(failure) if failure.errno_name == "ENOENT" && failure.step == "exec")
    );
    assert!(matches!(client.command("true").name("no spaces").spawn(), Err(Error::Invalid(_))));
    assert!(matches!(Broker::at(broker.path("nowhere")), Err(Error::NotThere { .. })));
}

#[test]
fn a_client_survives_a_broker_that_is_replaced() {
    let setup = Setup::new();
    let (socket, state) = (setup.folder().join("run/broker.sock"), setup.folder().join("state"));
    let mut first = setup.start();
    let client = connect(&first);
    let instance = client.status().unwrap().instance;
    first.stop();
    let second = Setup::new()
        .choosing_places(socket.clone())
        .flags(["--socket".as_ref(), socket.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .start();
    assert_ne!(client.status().unwrap().instance, instance);
    let child = client.command("sleep").arg("infinity").spawn().unwrap();
    assert_eq!(Process(child.pid().unwrap().into()).status("PPid"), [second.pid().to_string()]);
}

#[test]
fn a_refused_client_learns_why() {
    let broker = Setup::new().flags(["--max-connections-per-user", "1"]).start();
    let mut admitted = broker.json();
    admitted.ok("status", serde_json::json!({}));
    let refused = Broker::at(broker.socket()).expect_err("no second connection");
    assert!(
        matches!(&refused, Error::Refused { error, .. } if error.kind == ErrorKind::Overloaded),
        "{refused:?}"
    );
    drop(admitted);
    if is_root() {
        let broker = Setup::new().user(STRANGER).start();
        // Root is welcome at everybody's.
        connect(&broker).status().unwrap();
    }
}

#[test]
fn a_shutdown_is_reported_to_the_client() {
    let mut broker = TestBroker::start();
    // After the end it is not to look for another broker for long; but so long may a busy machine take to connect.
    let builder = procbroker_client::Broker::builder().socket(broker.socket());
    let client = Broker::with(builder.connect_timeout(Duration::from_secs(5))).unwrap();
    client.command("sleep").arg("infinity").spawn().unwrap();
    let report = client.shutdown(None).unwrap();
    assert_eq!((report.children.len(), report.forced), (1, 0));
    broker.ended_in_order();
    assert!(client.status().is_err());
}
