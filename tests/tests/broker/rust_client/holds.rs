//! Children whose lives are bound to the connection of a client, which is lost with the broker and made again.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procbroker_client::protocol::CreateParams;
use procbroker_client::protocol::create::Limit;
use procbroker_client::{
    Broker, ChildInfo, ChildState, Created, ErrorKind, ExitReason, IfExists, Lifetime, Outcome, Request,
    Response, Select, blocking,
};
use serde_json::json;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{connect, kind};
use crate::harness::{JsonClient, Process, Setup, TestBroker, adopt_orphans, await_death};

/// A child whose holder does not come back: its end tells that the time is over that holders have after a loss.
struct Witness {
    _holder: JsonClient,
}

impl Witness {
    fn of(broker: &TestBroker) -> Self {
        let mut holder = broker.json();
        let child = json!({"command": ["sleep", "infinity"], "name": "witness", "lifetime": "connection"});
        holder.create(child);
        Self { _holder: holder }
    }

    fn await_end(broker: &TestBroker) {
        let ended = broker.json().ok("wait", json!({"target": "witness"}));
        assert_eq!(ended["child"]["exit"]["reason"], "owner_gone", "{ended}");
    }
}

async fn held(client: &Broker, name: &str) -> Created {
    let mut command = client.command("sleep");
    command.arg("infinity").name(name).if_exists(IfExists::Reuse).lifetime(Lifetime::Connection);
    command.spawn().await.unwrap()
}

/// Asserts that a child is what it was, as another client sees it.
fn is_untouched(broker: &TestBroker, child: &ChildInfo) {
    let found = connect(broker).get(child.id).unwrap();
    assert_eq!((found.info().state, found.pid()), (ChildState::Running, child.pid), "{found:?}");
}

fn reason_of_the_end(broker: &TestBroker, child: &ChildInfo) -> ExitReason {
    connect(broker).get(child.id).unwrap().wait().unwrap().exit.as_ref().unwrap().reason
}

/// Loses the connection of a client that makes no request any more, and asserts that its children live on, the one that it
/// has created and the one that it has reused, until it is dropped.
async fn outlives(broker: TestBroker, lose: impl FnOnce(&mut TestBroker) + Send + 'static) {
    let client = Broker::at(broker.socket()).await.unwrap();
    let other = Broker::at(broker.socket()).await.unwrap();
    let theirs = held(&other, "reused").await;
    let children = [held(&client, "created").await, held(&client, "reused").await];
    assert_eq!(children[1].outcome, Outcome::Existing { same_spec: true });
    assert_eq!(children[1].id(), theirs.id());
    let known = children.each_ref().map(|child| child.info().clone());
    drop((children, theirs, other));
    let beside = spawn_blocking(move || {
        let mut broker = broker;
        let witness = Witness::of(&broker);
        broker.recorded();
        lose(&mut broker);
        drop(witness);
        Witness::await_end(&broker);
        for child in &known {
            is_untouched(&broker, child);
        }
        (broker, known)
    });
    let (broker, known) = beside.await.unwrap();
    drop(client);
    let end = spawn_blocking(move || known.each_ref().map(|child| reason_of_the_end(&broker, child)));
    assert_eq!(end.await.unwrap(), [ExitReason::OwnerGone; 2]);
}

#[tokio::test]
async fn a_held_child_outlives_a_crash_with_a_client_that_asks_for_nothing() {
    outlives(TestBroker::start(), TestBroker::crash_and_start_again).await;
}

#[tokio::test]
async fn a_held_child_outlives_an_upgrade_with_a_client_that_asks_for_nothing() {
    let upgrade = |broker: &mut TestBroker| {
        let said = broker.run(&["upgrade"]);
        assert_eq!(said.status, 0, "{said:?}");
        broker.says("READY=1");
    };
    outlives(TestBroker::start(), upgrade).await;
}

#[test]
fn a_blocking_client_holds_its_children_again_with_its_next_request() {
    let mut broker = TestBroker::start();
    let client = connect(&broker);
    let child = client.command("sleep").arg("infinity").lifetime(Lifetime::Connection).spawn().unwrap();
    let witness = Witness::of(&broker);
    broker.recorded();
    broker.crash_and_start_again();
    drop(witness);
    client.status().unwrap();
    Witness::await_end(&broker);
    is_untouched(&broker, child.info());
    let known = child.info().clone();
    drop((child, client));
    assert_eq!(reason_of_the_end(&broker, &known), ExitReason::OwnerGone);
}

#[test]
fn a_held_child_that_ended_without_a_broker_is_not_started_again() {
    adopt_orphans();
    for flags in [&[][..], &["--ended-max", "0"]] {
        let mut broker = Setup::new().flags(flags).start();
        let client = connect(&broker);
        let [gone, live] = ["gone", "live"].map(|name| {
            client.command("sleep").arg("infinity").name(name).lifetime(Lifetime::Connection).spawn().unwrap()
        });
        broker.recorded();
        broker.crash();
        let pid = gone.pid().unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        await_death(Process(pid.into()));
        broker.start_again();
        // The holds are taken again before this is asked, whether or not the broker has taken note of the end by then.
        match client.wait("gone") {
            Ok(ended) => assert_eq!(ended.id, gone.id()),
            Err(error) => assert_eq!(kind(&error), &ErrorKind::NotFound),
        }
        client.status().unwrap();
        let left = client.list(&Select::live()).unwrap();
        assert_eq!(left.iter().map(blocking::Child::id).collect::<Vec<_>>(), [live.id()]);
        assert_eq!(left[0].pid(), live.pid());
    }
}

#[test]
fn a_create_that_leaves_no_place_is_answered_with_what_is_there_and_starts_nothing() {
    let broker = TestBroker::start();
    let client = connect(&broker);
    let create = |request_id: Uuid, name: &str| {
        let params = CreateParams {
            name: Some(name.parse().unwrap()),
            request_id: Some(request_id),
            if_exists: IfExists::Reuse,
            limit: Some(Limit { key: "none".to_owned(), max: 0, wait: None }),
            no_wait: true,
            ..CreateParams::new(vec!["false".to_owned()])
        };
        client.call(Request::Create(Box::new(params)))
    };
    let request = Uuid::new_v4();
    let child = client.command("sleep").arg("infinity").name("one").request_id(request).spawn().unwrap();
    for (request, name) in [(request, "another"), (Uuid::new_v4(), "one")] {
        match create(request, name).unwrap() {
            Response::Created(created) => assert_eq!(created.child.id, child.id()),
            other => panic!("{other:?}"),
        }
    }
    let refused = create(Uuid::new_v4(), "another").unwrap_err();
    assert_eq!(kind(&refused), &ErrorKind::LimitExceeded);
    assert_eq!(client.list(&Select::all()).unwrap().len(), 1);
}
