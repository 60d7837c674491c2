//! Children whose lives are bound to the connection, and what is asked about them when it was lost.

use std::sync::Arc;

use procbroker_client::protocol::request::ListParams;
use procbroker_client::protocol::response::Created;
use procbroker_client::protocol::{CreateParams, Fields};
use procbroker_client::{
    Broker, ChildInfo, ChildState, ErrorKind, Field, IfExists, Lifetime, Outcome, PartialChildren, Request,
    Response, Target,
};
use tokio::join;
use uuid::Uuid;

use crate::fake::{Fake, Peer, child, failure, got_of, none};

fn bound_child(name: &str) -> ChildInfo {
    ChildInfo { lifetime: Lifetime::Connection, ..child(name) }
}

fn answer_with(child: &ChildInfo) -> Result<Response, procbroker_client::protocol::Error> {
    let child = Arc::new(child.clone());
    Ok(Response::Created(Created { outcome: Outcome::Existing { same_spec: false }, child }))
}

/// Spawns what becomes this child; returns the id of the request.
async fn spawn(broker: &Broker, peer: &mut Peer, child: &ChildInfo) -> Uuid {
    let mut command = broker.command("true");
    command.name(child.name.as_ref().unwrap().as_str()).lifetime(child.lifetime);
    let (spawned, request) = join!(command.spawn(), peer.answer_next(answer_with(child)));
    spawned.unwrap();
    create(request).request_id.unwrap()
}

fn create(request: Request) -> CreateParams {
    match request {
        Request::Create(params) => *params,
        other => panic!("{other:?} instead of a create"),
    }
}

/// Answers the question which children live.
async fn tell_live(peer: &mut Peer, live: &[&ChildInfo]) {
    let fields: Fields = [Field::State].into_iter().collect();
    let live = live.iter().map(|child| Arc::new(ChildInfo::clone(child))).collect();
    let request = peer.answer_next(Ok(Response::PartialChildren(PartialChildren::new(fields, live)))).await;
    assert_eq!(request, Request::List(ListParams { fields: Some(fields), ..ListParams::default() }));
}

/// Answers a create that is to hold this child again, and can start nothing.
async fn hold_again(peer: &mut Peer, child: &ChildInfo, request_id: Uuid) {
    let params = create(peer.answer_next(answer_with(child)).await);
    assert_eq!((params.request_id, &params.name), (Some(request_id), &child.name));
    let if_exists = if child.name.is_some() { IfExists::Reuse } else { IfExists::Fail };
    assert_eq!((params.if_exists, params.no_wait), (if_exists, true));
    assert_eq!(params.limit.map(|limit| (limit.max, limit.wait)), Some((0, None)));
}

/// A client that holds this child, and the connection.
async fn holding(fake: &Fake, child: &ChildInfo) -> (Broker, Peer, Uuid) {
    let (connected, mut peer) = join!(Broker::at(fake.socket()), fake.accept());
    let broker = connected.unwrap();
    let request = spawn(&broker, &mut peer, child).await;
    (broker, peer, request)
}

#[tokio::test]
async fn holds_are_taken_again_without_any_call_at_each_loss_until_the_client_is_dropped() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (broker, mut peer, request) = holding(&fake, &child).await;
    for _ in 0..3 {
        drop(peer);
        peer = fake.accept().await;
        tell_live(&mut peer, &[&child]).await;
        hold_again(&mut peer, &child, request).await;
    }
    // What it has not read when it closes the connection would count as an error of that.
    let (gone, _) = join!(broker.destroy("b"), peer.answer_next(none()));
    gone.unwrap();
    drop(broker);
    assert_eq!(peer.try_next().await, None, "the last handle closes the connection");
}

#[tokio::test]
async fn holds_are_taken_again_when_there_is_a_broker_again() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (_broker, peer, request) = holding(&fake, &child).await;
    let folder = fake.stop();
    drop(peer);
    tokio::task::yield_now().await;
    let fake = Fake::again(folder);
    let mut peer = fake.accept().await;
    tell_live(&mut peer, &[&child]).await;
    hold_again(&mut peer, &child, request).await;
}

#[tokio::test]
async fn a_call_is_made_after_the_holds_are_taken_again() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (broker, peer, request) = holding(&fake, &child).await;
    drop(peer);
    let (got, ()) = join!(broker.get("b"), async {
        let mut peer = fake.accept().await;
        tell_live(&mut peer, &[&child]).await;
        hold_again(&mut peer, &child, request).await;
        assert!(matches!(peer.answer_next(got_of(bound_child("b"))).await, Request::Get(_)));
    });
    got.unwrap();
}

#[tokio::test]
async fn a_child_that_lives_no_more_is_not_asked_for_again() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (broker, peer, _) = holding(&fake, &child).await;
    drop(peer);
    tell_live(&mut fake.accept().await, &[]).await;
    // Nothing is held any more: this connection is made for the call alone.
    let (gone, request) = join!(broker.destroy("b"), async { fake.accept().await.answer_next(none()).await });
    gone.unwrap();
    assert!(matches!(request, Request::Destroy(_)), "{request:?}");
}

#[tokio::test]
async fn what_has_ended_or_is_bound_to_no_connection_is_not_held_again() {
    let fake = Fake::new();
    let held = bound_child("a");
    let (broker, mut peer, _) = holding(&fake, &held).await;
    let ended = ChildInfo { state: ChildState::Ended, pid: None, ..held };
    let (destroyed, _) =
        join!(broker.destroy("a"), peer.answer_next(Ok(Response::Children(vec![Arc::new(ended)]))));
    destroyed.unwrap();
    spawn(&broker, &mut peer, &child("c")).await;
    drop(peer);
    let (gone, request) = join!(broker.destroy("b"), async { fake.accept().await.answer_next(none()).await });
    gone.unwrap();
    let Request::Destroy(params) = request else { panic!("{request:?}") };
    assert_eq!(params.target, Target::Name("b".parse().unwrap()));
}

#[tokio::test]
async fn a_child_between_two_runs_is_held_again_when_it_runs() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (_broker, peer, request) = holding(&fake, &child).await;
    drop(peer);
    let mut peer = fake.accept().await;
    let stopping = ChildInfo { state: ChildState::Stopping, ..child.clone() };
    tell_live(&mut peer, &[&stopping]).await;
    tell_live(&mut peer, &[&stopping]).await;
    tell_live(&mut peer, &[&child]).await;
    hold_again(&mut peer, &child, request).await;
}

#[tokio::test]
async fn a_hold_that_a_busy_broker_refuses_is_asked_for_again() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (_broker, peer, request) = holding(&fake, &child).await;
    drop(peer);
    let mut peer = fake.accept().await;
    tell_live(&mut peer, &[&child]).await;
    peer.answer_next(failure(ErrorKind::Overloaded)).await;
    tell_live(&mut peer, &[&child]).await;
    hold_again(&mut peer, &child, request).await;
}

#[tokio::test]
async fn a_hold_that_brings_the_broker_down_is_given_up() {
    let fake = Fake::new();
    let child = bound_child("a");
    let (broker, mut peer, _) = holding(&fake, &child).await;
    for _ in 0..6 {
        drop(peer);
        peer = fake.accept().await;
        tell_live(&mut peer, &[&child]).await;
        create(peer.next().await.1);
    }
    drop(peer);
    let (gone, request) = join!(broker.destroy("b"), async { fake.accept().await.answer_next(none()).await });
    gone.unwrap();
    assert!(matches!(request, Request::Destroy(_)), "{request:?}");
}

#[tokio::test]
async fn of_many_children_that_ended_unnoticed_none_is_remembered() {
    let fake = Fake::new();
    let last = bound_child("last");
    let (broker, mut peer, _) = holding(&fake, &bound_child("a")).await;
    for _ in 0..62 {
        spawn(&broker, &mut peer, &bound_child("a")).await;
    }
    let request = spawn(&broker, &mut peer, &last).await;
    // There are sixty-four now.
    tell_live(&mut peer, &[&last]).await;
    drop(peer);
    let mut peer = fake.accept().await;
    tell_live(&mut peer, &[&last]).await;
    hold_again(&mut peer, &last, request).await;
}
