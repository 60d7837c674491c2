//! The upgrade of a broker, which loses the connection that it was asked over.

use std::time::SystemTime;

use procbroker_client::protocol::ErrorKind;
use procbroker_client::protocol::status::{FailedUpgrade, Status};
use procbroker_client::{Error, Request, Response, Upgrade};
use tokio::join;
use uuid::Uuid;

use crate::fake::{Fake, Peer, failure, none, status};

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

/// The status of a broker whose upgrade has failed after it had agreed.
async fn tell_of_failure(peer: &mut Peer, instance: Uuid) {
    let at = SystemTime::UNIX_EPOCH.into();
    let failed_upgrade = Some(FailedUpgrade { at, message: "of another age".to_owned() });
    let status = Status { failed_upgrade, ..status(instance) };
    peer.answer_next(Ok(Response::Status(Box::new(status)))).await;
}

fn is_told_why(refused: Result<Upgrade, Error>) {
    match refused {
        Err(Error::Broker(error)) => assert!(error.message.contains("of another age"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_program_that_fails_late_and_is_undone_is_no_upgrade() {
    let fake = Fake::new();
    let broker = fake.broker();
    let instance = Uuid::new_v4();
    let (refused, ()) = join!(broker.upgrade(), async {
        let (mut peer, id) = asked(&fake, instance).await;
        peer.answer(id, Ok(Response::Upgraded)).await;
        drop(peer);
        tell_of_failure(&mut fake.accept().await, instance).await;
    });
    is_told_why(refused);
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_found_out_over_the_connection_that_stays() {
    let fake = Fake::new();
    let broker = fake.broker();
    let instance = Uuid::new_v4();
    let (refused, _peer) = join!(broker.upgrade(), async {
        let (mut peer, id) = asked(&fake, instance).await;
        peer.answer(id, Ok(Response::Upgraded)).await;
        tell_of_failure(&mut peer, instance).await;
        peer
    });
    is_told_why(refused);
}

#[tokio::test]
async fn a_broker_that_was_lost_and_started_again_is_no_upgrade() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (refused, ()) = join!(broker.upgrade(), async {
        drop(asked(&fake, Uuid::new_v4()).await);
        let other = Status { pid: 8, ..status(Uuid::new_v4()) };
        fake.accept().await.answer_next(Ok(Response::Status(Box::new(other)))).await;
    });
    match refused {
        Err(Error::Broker(error)) => {
            let said = "the broker was lost and started again, as process 8 instead of 7";
            assert!(error.message.contains(said), "{error}");
        }
        other => panic!("{other:?}"),
    }
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
