//! Messages out of form, from the broker and to it.

use std::time::Duration;

use procbroker_client::protocol::binary::NO_ID;
use procbroker_client::protocol::limits::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use procbroker_client::protocol::request::EventsParams;
use procbroker_client::protocol::{ErrorKind, Method};
use procbroker_client::{Broker, Error, Invalid, Request, Response, Select};
use tokio::io::AsyncWriteExt;
use tokio::join;

use crate::fake::{Fake, failure, none};

/// Makes a call that the broker answers with these bytes, and one on the connection after it.
async fn answered_with(bytes: &[u8]) -> Error {
    let fake = Fake::new();
    let broker = fake.broker();
    let live = Select::live();
    let (list, ()) = join!(broker.list(&live), async {
        let mut peer = fake.accept().await;
        peer.next().await;
        peer.stream.write_all(bytes).await.unwrap();
        assert_eq!(peer.try_next().await, None, "the connection is closed");
    });
    let (after, _) = join!(broker.list(&live), async { fake.accept().await.answer_next(none()).await });
    assert!(after.unwrap().is_empty());
    list.unwrap_err()
}

#[tokio::test]
async fn an_answer_over_the_cap_ends_the_connection() {
    let length = u32::try_from(ANSWER_BYTES_MAX + 1).unwrap();
    let error = answered_with(&[&length.to_le_bytes()[..], &[0; 64]].concat()).await;
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert!(error.to_string().contains("67108865 bytes"), "{error}");
}

#[tokio::test]
async fn an_answer_out_of_form_ends_the_connection() {
    let error = answered_with(&[2, 0, 0, 0, 9, 9]).await;
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_to_no_request_ends_the_connection() {
    let mut bytes = Vec::new();
    let answer = failure(ErrorKind::InvalidRequest);
    procbroker_client::protocol::binary::encode_answer(Some(NO_ID), &answer, &mut bytes);
    let error = answered_with(&bytes).await;
    assert!(
        error.to_string().ends_with("could not read what this program sent: the test says so"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (status, _) = join!(broker.status(), async { fake.accept().await.answer_next(none()).await });
    let error = status.unwrap_err();
    assert_eq!(error.to_string(), "the broker's answer makes no sense: it answered status with children");
}

#[tokio::test]
async fn a_request_over_the_cap_is_not_sent() {
    let fake = Fake::new();
    let broker = fake.broker();
    let large = Select::live().label("k", "v".repeat(REQUEST_BYTES_MAX));
    let live = Select::live();
    let client = async { (broker.list(&large).await, broker.list(&live).await) };
    let ((too_large, fits), _) = join!(client, async { fake.accept().await.answer_next(none()).await });
    assert!(matches!(too_large.unwrap_err(), Error::Encode(_)));
    assert!(fits.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_out_of_form_here_is_told_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::builder().socket(folder.path().join("s")).lazy();
    let name = broker.command("true").name("a b").spawn().await.unwrap_err();
    assert!(matches!(name, Error::Invalid(Invalid::Name(_))), "{name:?}");
    let labels = broker.destroy(Select::live()).await.unwrap_err();
    assert!(matches!(labels, Error::Invalid(Invalid::EmptyLabels)), "{labels:?}");
    let events = broker.call(Request::Events(EventsParams::default())).await.unwrap_err();
    assert!(
        matches!(events, Error::Invalid(Invalid::Subscription { method: Method::Events, .. })),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_the_connection_goes_on() {
    let fake = Fake::new();
    let after = Duration::from_millis(20);
    let broker = Broker::builder().socket(fake.socket()).call_timeout(after).lazy();
    let (first, mut peer) = join!(broker.status(), async {
        let mut peer = fake.accept().await;
        peer.next().await;
        peer
    });
    let error = first.unwrap_err();
    assert!(error.is_timeout() && matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!(error.to_string(), "status took longer than 20ms");
    let live = Select::live();
    let (list, _) = join!(broker.list(&live), peer.answer_next(Ok(Response::Children(Vec::new()))));
    assert!(list.unwrap().is_empty());
}
