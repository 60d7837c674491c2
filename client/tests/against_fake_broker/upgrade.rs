//! The upgrade of a broker, which loses the connection that it was asked over.

use procbroker_client::protocol::ErrorKind;
use procbroker_client::{Error, Request, Response};
use tokio::join;
use uuid::Uuid;

use crate::fake::{Fake, Peer, failure, none};

/// A connection over which a client has asked for the upgrade of this instance. What it is answered is still to come.
async fn asked(fake: &Fake, instance: Uuid) -> (Peer, u64) {
    let mut peer = fake.accept().await;
    peer.answer_status(instance).await;
    let (id, request) = peer.next().await;
    assert!(matches!(request, Request::Upgrade(_)), "{request:?} instead of upgrade");
    (peer, id)
}

#[tokio::test]
async fn an_upgrade_is_over_when_another_instance_answers() {
    let fake = Fake::new();
    let broker = fake.broker();
    let [before, after] = [Uuid::new_v4(), Uuid::new_v4()];
    let client = async {
        let upgrade = broker.upgrade().await.unwrap();
        // The same handle goes on with the other program.
        assert!(broker.destroy("x").await.unwrap().is_empty());
        upgrade
    };
    let server = async {
        let (mut peer, id) = asked(&fake, before).await;
        peer.answer(id, Ok(Response::Upgraded)).await;
        drop(peer);
        let mut peer = fake.accept().await;
        peer.answer_status(after).await;
        peer.answer_next(none()).await
    };
    let (upgrade, request) = join!(client, server);
    assert_eq!((upgrade.before.instance, upgrade.after.instance), (before, after));
    assert!(matches!(request, Request::Destroy(_)), "{request:?}");
}

#[tokio::test]
async fn an_upgrade_whose_answer_is_lost_with_the_program_is_one_still() {
    let fake = Fake::new();
    let broker = fake.broker();
    let [before, after] = [Uuid::new_v4(), Uuid::new_v4()];
    let (upgrade, ()) = join!(broker.upgrade(), async {
        drop(asked(&fake, before).await);
        fake.accept().await.answer_status(after).await;
    });
    assert_eq!(upgrade.unwrap().after.instance, after);
}

#[tokio::test]
async fn an_upgrade_is_asked_for_once_and_waited_for_over_every_connection() {
    let fake = Fake::new();
    let broker = fake.broker();
    let [before, after] = [Uuid::new_v4(), Uuid::new_v4()];
    let client = async {
        let upgrade = broker.upgrade().await;
        drop(broker);
        upgrade
    };
    let (upgrade, ()) = join!(client, async {
        drop(asked(&fake, before).await);
        // The connection was lost for another reason: the broker that was asked is still at it.
        let mut same = fake.accept().await;
        same.answer_status(before).await;
        drop(same);
        let mut other = fake.accept().await;
        other.answer_status(after).await;
        assert_eq!(other.try_next().await, None, "nothing is asked a second time");
    });
    assert_eq!(upgrade.unwrap().after.instance, after);
}

#[tokio::test]
async fn a_broker_that_stays_as_it_is_says_why() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (refused, _peer) = join!(broker.upgrade(), async {
        let (mut peer, id) = asked(&fake, Uuid::new_v4()).await;
        peer.answer(id, failure(ErrorKind::PermissionDenied)).await;
        peer
    });
    match refused {
        Err(Error::Broker(error)) => assert_eq!(error.kind, ErrorKind::PermissionDenied),
        other => panic!("{other:?}"),
    }
}
