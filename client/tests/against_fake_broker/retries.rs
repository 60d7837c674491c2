//! What happens to a call whose connection is lost.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use procbroker_client::protocol::request::{DestroyParams, ManyParams, Until, WaitParams};
use procbroker_client::protocol::{ErrorKind, Exit, ExitReason, ExitStatus, Field, Method, PartialChildren};
use procbroker_client::{
    Broker, Child, ChildId, ChildInfo, ChildState, Error, Outcome, Request, Response, Select, Target,
};
use tokio::join;
use uuid::Uuid;

use crate::fake::{Fake, Peer, child, child_of, created, failure, got_of, none};

/// Long enough for a first connection on a busy machine, and short enough to wait for it to pass.
const SHORT: Duration = Duration::from_secs(2);

/// A child's handle, and the connection that it was got over.
async fn child_at(fake: &Fake) -> (Child, Peer) {
    let broker = fake.broker();
    let (child, peer) = join!(broker.get("a"), async {
        let mut peer = fake.accept().await;
        peer.answer_next(got_of(child("a"))).await;
        peer
    });
    (child.unwrap(), peer)
}

/// Accepts a connection, reads its first request and closes it.
async fn lose_one(fake: &Fake) -> Request {
    fake.accept().await.next().await.1
}

fn request_id(request: Request) -> Option<Uuid> {
    match request {
        Request::Create(params) => params.request_id,
        other => panic!("{other:?} instead of a create"),
    }
}

#[tokio::test]
async fn a_create_is_sent_again_under_the_same_id() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (spawned, (first, second)) = join!(broker.command("true").name("a").spawn(), async {
        let first = lose_one(&fake).await;
        (first, fake.accept().await.answer_next(created("a")).await)
    });
    let spawned = spawned.unwrap();
    assert_eq!((spawned.outcome, spawned.name().unwrap().as_str()), (Outcome::Created, "a"));
    assert_eq!(first, second);
    assert!(request_id(first).is_some());
}

#[tokio::test]
async fn each_create_has_an_id_of_its_own_unless_one_is_given() {
    let fake = Fake::new();
    let broker = fake.broker();
    let given = Uuid::new_v4();
    let client = async {
        let mut command = broker.command("true");
        command.spawn().await.unwrap();
        command.spawn().await.unwrap();
        command.request_id(given).spawn().await.unwrap();
    };
    let ((), ids) = join!(client, async {
        let mut peer = fake.accept().await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(request_id(peer.answer_next(created("a")).await).unwrap());
        }
        ids
    });
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[2], given);
}

#[tokio::test]
async fn a_signal_is_never_sent_twice() {
    let fake = Fake::new();
    let (child, mut peer) = child_at(&fake).await;
    let (signalled, ()) = join!(child.signal("HUP"), async {
        assert_eq!(peer.next().await.1.method(), Method::Signal);
        drop(peer);
    });
    let error = signalled.unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { method: Method::Signal }), "{error:?}");
    assert!(error.to_string().contains("during signal; whether it was carried out is not known"), "{error}");
    let (_, request) = join!(child.wait(), async {
        let mut peer = fake.accept().await;
        peer.answer_next(Ok(Response::Child(Arc::clone(child.info())))).await
    });
    assert_eq!(request.method(), Method::Wait, "the signal was sent again");
}

#[tokio::test]
async fn a_signal_that_was_not_sent_is_sent_on_the_next_connection() {
    let fake = Fake::new();
    let (child, peer) = child_at(&fake).await;
    drop(peer);
    let (signalled, request) =
        join!(child.signal("HUP"), async { fake.accept().await.answer_next(none()).await });
    signalled.unwrap();
    assert_eq!(request.method(), Method::Signal);
}

#[tokio::test]
async fn a_shutdown_is_never_sent_twice() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (shut_down, _) = join!(broker.shutdown(None), lose_one(&fake));
    assert!(matches!(shut_down, Err(Error::ConnectionLost { method: Method::Shutdown })));
}

#[tokio::test]
async fn a_restart_that_is_lost_is_waited_for_if_it_has_begun_and_not_made_twice() {
    let now = SystemTime::now();
    let later = (now + Duration::from_secs(60)).into();
    let born = ChildInfo { created_at: (now - Duration::from_secs(60)).into(), ..child("one") };
    let (name, id) = (Target::Name("one".parse().unwrap()), Target::Id(born.id));
    for (state, started_at, has_begun) in [
        (ChildState::Running, Some(born.created_at), false),
        (ChildState::Stopping, Some(born.created_at), true),
        (ChildState::Backoff, None, true),
        (ChildState::Starting, Some(later), true),
        (ChildState::Running, Some(later), true),
    ] {
        for target in [&name, &id] {
            let fake = Fake::new();
            let broker = fake.broker();
            let one = ChildInfo { state, started_at, ..born.clone() };
            let since = ChildInfo { created_at: later, ..child("one") };
            let (restarted, request) = join!(broker.restart(target), async {
                lose_one(&fake).await;
                let mut peer = fake.accept().await;
                peer.answer_next(partly(vec![one.clone(), since])).await;
                let found = Arc::new(one.clone());
                let answer = if has_begun { Response::Child(found) } else { Response::Children(vec![found]) };
                peer.answer_next(Ok(answer)).await
            });
            assert_eq!(restarted.unwrap(), [Arc::new(one)]);
            let expected = if has_begun {
                Request::Wait(WaitParams { target: id.clone(), until: Until::Ready, timeout: None })
            } else {
                Request::Restart(ManyParams { target: id.clone() })
            };
            assert_eq!(request, expected);
        }
    }
}

#[tokio::test]
async fn a_restart_of_one_that_has_ended_meanwhile_is_told_so() {
    let fake = Fake::new();
    let broker = fake.broker();
    let now = SystemTime::now();
    let born = ChildInfo { created_at: (now - Duration::from_secs(60)).into(), ..child("one") };
    let (restarted, _) = join!(broker.restart("one"), async {
        lose_one(&fake).await;
        let mut peer = fake.accept().await;
        peer.answer_next(partly(vec![ended(born, now)])).await;
        peer.answer_next(failure(ErrorKind::NotFound)).await
    });
    assert!(restarted.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_restart_of_many_that_is_lost_is_of_those_who_live_and_were_there() {
    let fake = Fake::new();
    let broker = fake.broker();
    let now = SystemTime::now();
    let later = now + Duration::from_secs(60);
    let born = |name| ChildInfo { created_at: (now - Duration::from_secs(60)).into(), ..child(name) };
    let [gone, one, two] = ["gone", "one", "two"].map(born);
    let since = ChildInfo { created_at: later.into(), ..child("since") };
    let (restarted, request) = join!(broker.restart(Select::live().label("pool", "x")), async {
        lose_one(&fake).await;
        let mut peer = fake.accept().await;
        peer.answer_next(partly(vec![ended(gone, later), one.clone(), two, since])).await;
        let request = peer.answer_next(Ok(Response::Children(vec![Arc::new(one.clone())]))).await;
        peer.answer_next(failure(ErrorKind::NotFound)).await;
        request
    });
    assert_eq!(request, Request::Restart(ManyParams { target: Target::Id(one.id) }));
    assert_eq!(restarted.unwrap(), [Arc::new(one)]);
}

#[tokio::test]
async fn a_wait_goes_on_with_the_time_that_is_left() {
    let fake = Fake::new();
    let (child, mut peer) = child_at(&fake).await;
    let hour = Duration::from_secs(3600);
    let timeout_of = |request: Request| match request {
        Request::Wait(params) => params.timeout.unwrap(),
        other => panic!("{other:?} instead of a wait"),
    };
    let (waited, (first, second)) = join!(child.wait_timeout(hour), async {
        let (_, first) = peer.next().await;
        drop(peer);
        let second = fake.accept().await.answer_next(failure(ErrorKind::Timeout(None))).await;
        (timeout_of(first), timeout_of(second))
    });
    assert_eq!(waited.unwrap(), None);
    assert!(second < first && first <= hour, "{first:?}, then {second:?}");
}

#[tokio::test]
async fn a_create_waits_for_a_place_with_the_time_that_is_left() {
    let fake = Fake::new();
    let broker = fake.broker();
    let hour = Duration::from_secs(3600);
    let wait_of = |request: Request| match request {
        Request::Create(params) => {
            let limit = params.limit.unwrap();
            assert_eq!((limit.key.as_str(), limit.max), ("render", 4));
            (limit.wait.unwrap(), params.request_id.unwrap())
        }
        other => panic!("{other:?} instead of a create"),
    };
    let mut command = broker.command("true");
    let (spawned, (first, second)) = join!(command.limit_and_wait("render", 4, hour).spawn(), async {
        let first = lose_one(&fake).await;
        let second = fake.accept().await.answer_next(created("a")).await;
        (wait_of(first), wait_of(second))
    });
    assert_eq!(spawned.unwrap().outcome, Outcome::Created);
    assert_eq!(first.1, second.1);
    assert!(second.0 < first.0 && first.0 <= hour, "{first:?}, then {second:?}");
    // The next one of the same command has all of it again.
    let (spawned, third) = join!(command.spawn(), async { lose_and_answer(&fake).await });
    spawned.unwrap();
    let (wait, _) = wait_of(third);
    assert!(wait > second.0 && wait <= hour, "{wait:?} after {second:?}");
}

/// Reads the first request of a connection, and the same once more over another one, which is answered.
async fn lose_and_answer(fake: &Fake) -> Request {
    let first = lose_one(fake).await;
    fake.accept().await.answer_next(created("a")).await;
    first
}

#[tokio::test]
async fn a_destroyed_child_that_is_forgotten_meanwhile_is_gone() {
    let fake = Fake::new();
    let (child, mut peer) = child_at(&fake).await;
    let (destroyed, ()) = join!(child.destroy(), async {
        peer.next().await;
        drop(peer);
        fake.accept().await.answer_next(failure(ErrorKind::NotFound)).await;
    });
    let destroyed = destroyed.unwrap();
    assert_eq!((destroyed.id, destroyed.state, destroyed.pid), (child.id(), ChildState::Ended, None));
}

#[tokio::test]
async fn to_destroy_what_was_never_there_is_an_error() {
    let fake = Fake::new();
    let (child, mut peer) = child_at(&fake).await;
    let (destroyed, _) = join!(child.destroy(), peer.answer_next(failure(ErrorKind::NotFound)));
    assert!(destroyed.unwrap_err().is_not_found());
}

/// Destroys by name over a connection that is lost, with these children there afterwards; returns what is
/// destroyed then.
async fn destroyed_after_loss(children: impl FnOnce() -> Vec<Arc<procbroker_client::ChildInfo>>) -> Target {
    let fake = Fake::new();
    let broker = fake.broker();
    let (destroyed, request) = join!(broker.destroy("job"), async {
        lose_one(&fake).await;
        let mut peer = fake.accept().await;
        let children = children().iter().map(|child| ChildInfo::clone(child)).collect();
        let question = peer.answer_next(partly(children)).await;
        assert!(matches!(&question, Request::List(params) if params.all), "{question:?}");
        peer.answer_next(none()).await
    });
    assert!(destroyed.unwrap().is_empty());
    match request {
        Request::Destroy(params) => params.target,
        other => panic!("{other:?} instead of a destroy"),
    }
}

#[tokio::test]
async fn a_destroy_by_name_never_hits_a_child_that_took_the_name_since() {
    let before = SystemTime::now();
    let older = child_of("job", (before - Duration::from_secs(60)).into());
    let meant = child_of("job", (before - Duration::from_secs(1)).into());
    let other = child_of("other", before.into());
    let id = meant.id;
    let target = destroyed_after_loss(move || {
        vec![older, meant, other, child_of("job", (SystemTime::now() + Duration::from_secs(1)).into())]
    })
    .await;
    assert_eq!(target, Target::Id(id));
}

/// Children as they are listed for a call that is sent again.
fn partly(children: Vec<ChildInfo>) -> Result<Response, procbroker_client::protocol::Error> {
    let fields =
        [Field::Name, Field::State, Field::CreatedAt, Field::StartedAt, Field::Exit].into_iter().collect();
    Ok(Response::PartialChildren(PartialChildren::new(fields, children.into_iter().map(Arc::new).collect())))
}

fn ended(child: ChildInfo, at: SystemTime) -> ChildInfo {
    let exit = Exit::new(ExitStatus::Code(0), ExitReason::Destroyed, at.into());
    ChildInfo { state: ChildState::Ended, pid: None, exit: Some(exit), ..child }
}

/// The one child that a request is for, and whether it answers before the child is stopped.
fn destroyed(request: &Request) -> (ChildId, bool) {
    match request {
        Request::Destroy(DestroyParams { target: Target::Id(id), no_wait, .. }) => (*id, *no_wait),
        other => panic!("{other:?} instead of a destroy by id"),
    }
}

#[tokio::test]
async fn a_destroy_of_many_that_is_sent_again_spares_those_created_since() {
    let now = SystemTime::now();
    let (minute, later) = (Duration::from_secs(60), (now + Duration::from_secs(60)).into());
    let born = |name| ChildInfo { created_at: (now - minute).into(), ..child(name) };
    let labels = Target::Labels([("pool".to_owned(), "x".to_owned())].into());
    for which in [labels, Target::All] {
        let (alive, gone) = (born("alive"), born("gone"));
        let just_ended = ended(born("just-ended"), now + minute);
        let long_ended = ended(born("long-ended"), now - minute);
        let since = ChildInfo { created_at: later, ..child("since") };
        let [one, two, three] = [alive.id, just_ended.id, gone.id];
        let listed = partly(vec![alive.clone(), just_ended.clone(), long_ended, gone, since]);
        let fake = Fake::new();
        let broker = fake.broker();
        let (answer, asked) = join!(broker.destroy(which.clone()), async {
            lose_one(&fake).await;
            let mut peer = fake.accept().await;
            let question = peer.answer_next(listed).await;
            assert!(matches!(&question, Request::List(params) if params.all), "{question:?}");
            let mut asked = Vec::new();
            for child in [&alive, &just_ended, &alive] {
                let child = Ok(Response::Children(vec![Arc::new(child.clone())]));
                asked.push(destroyed(&peer.answer_next(child).await));
            }
            for child in [&alive, &just_ended] {
                let child = Ok(Response::Children(vec![Arc::new(ended(child.clone(), now))]));
                asked.push(destroyed(&peer.answer_next(child).await));
            }
            asked.push(destroyed(&peer.answer_next(failure(ErrorKind::NotFound)).await));
            asked
        });
        // Every stop is begun before the first is waited for.
        assert_eq!(
            asked,
            [(one, true), (two, true), (three, true), (one, false), (two, false), (three, false)]
        );
        let answer = answer.unwrap();
        assert_eq!(answer.iter().map(|child| child.id).collect::<Vec<_>>(), [one, two]);
        assert!(answer.iter().all(|child| child.state == ChildState::Ended));
    }
}

#[tokio::test]
async fn a_destroy_of_many_that_loses_another_connection_goes_on_with_the_same() {
    let fake = Fake::new();
    let broker = fake.broker();
    let one = ChildInfo { created_at: (SystemTime::now() - Duration::from_secs(60)).into(), ..child("one") };
    let params = DestroyParams { target: Target::All, stop: None, no_wait: true };
    let (answer, asked) = join!(broker.call(Request::Destroy(params)), async {
        lose_one(&fake).await;
        let mut peer = fake.accept().await;
        peer.answer_next(partly(vec![one.clone()])).await;
        peer.next().await;
        drop(peer);
        let mut peer = fake.accept().await;
        peer.answer_next(partly(vec![one.clone()])).await;
        destroyed(&peer.answer_next(Ok(Response::Children(vec![Arc::new(one.clone())]))).await)
    });
    assert_eq!(asked, (one.id, true));
    assert_eq!(answer.unwrap(), Response::Children(vec![Arc::new(one)]));
}

#[tokio::test]
async fn a_renewal_of_many_that_is_sent_again_is_of_those_who_live_and_were_there() {
    let fake = Fake::new();
    let broker = fake.broker();
    let now = SystemTime::now();
    let alive = ChildInfo { created_at: now.into(), ..child("alive") };
    let gone = ended(ChildInfo { created_at: now.into(), ..child("gone") }, now + Duration::from_secs(60));
    let since = ChildInfo { created_at: (now + Duration::from_secs(60)).into(), ..child("since") };
    let (renewed, request) = join!(broker.renew(Select::live().label("pool", "x")), async {
        lose_one(&fake).await;
        let mut peer = fake.accept().await;
        peer.answer_next(partly(vec![gone, alive.clone(), since])).await;
        peer.answer_next(Ok(Response::Children(vec![Arc::new(alive.clone())]))).await
    });
    assert_eq!(renewed.unwrap().len(), 1);
    let params = ManyParams { target: Target::Id(alive.id) };
    assert_eq!(request, Request::Renew(params));
}

#[tokio::test]
async fn a_destroy_of_a_name_that_nobody_held_goes_by_the_name_still() {
    let target = destroyed_after_loss(Vec::new).await;
    assert_eq!(target, Target::Name("job".parse().unwrap()));
}

#[tokio::test]
async fn a_request_that_ends_every_connection_is_given_up() {
    let fake = Fake::new();
    let broker = fake.broker();
    let live = Select::live();
    let client = async {
        let outcome = broker.list(&live).await;
        drop(broker);
        outcome
    };
    let server = async {
        for _ in 0..6 {
            lose_one(&fake).await;
        }
        tokio::select! {
            biased;
            _ = lose_one(&fake) => panic!("it was sent once more"),
            () = std::future::ready(()) => {}
        }
    };
    let (list, ()) = join!(client, server);
    assert!(matches!(list, Err(Error::ConnectionLost { method: Method::List })));
}

#[tokio::test]
async fn a_broker_that_is_restarted_is_found_again() {
    let fake = Fake::new();
    let (child, peer) = child_at(&fake).await;
    let folder = fake.stop();
    drop(peer);
    let (waited, ()) = join!(child.wait(), async {
        let fake = Fake::again(folder);
        fake.accept().await.answer_next(Ok(Response::Child(Arc::clone(child.info())))).await;
    });
    assert_eq!(waited.unwrap().id, child.id());
}

#[tokio::test]
async fn a_broker_that_does_not_come_back_is_given_up() {
    let fake = Fake::new();
    let builder = Broker::builder().socket(fake.socket()).connect_timeout(SHORT);
    let (broker, peer) = join!(builder.connect(), fake.accept());
    let broker = broker.unwrap();
    let folder = fake.stop();
    drop(peer);
    let error = broker.status().await.unwrap_err();
    assert!(matches!(error, Error::NotThere { .. }), "{error:?}");
    drop(folder);
}

#[test]
fn a_connection_does_not_outlive_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime();
    let fake = server.block_on(async { Fake::new() });
    let broker = fake.broker();
    let call = |answer| {
        let playing = server.spawn(answer);
        let list = std::thread::scope(|scope| {
            let list = scope.spawn(|| runtime().block_on(broker.list(&Select::live())));
            server.block_on(playing).unwrap();
            list.join().unwrap()
        });
        assert!(list.unwrap().is_empty());
    };
    let fake = Arc::new(fake);
    for _ in 0..2 {
        let fake = Arc::clone(&fake);
        call(async move {
            fake.accept().await.answer_next(none()).await;
        });
    }
}
