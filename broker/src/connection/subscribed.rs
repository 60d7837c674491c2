//! What a client gets beside its answers: events, and what children write, each at its own pace.

use procbroker_protocol::{Error, Notification, Response};

use super::Connection;
use super::codec;
use crate::feed::FeedReader;
use crate::limits::WRITE_BYTES_BEFORE_READING;
use crate::messages::Paced;
use crate::turns;

impl Connection {
    /// Sends what is still to come of the client's subscriptions; none when the client has gone.
    pub(super) async fn finish_subscriptions(&mut self) -> Option<()> {
        let mut feed = self.feed.take();
        while let Some(notification) = feed.as_mut().and_then(FeedReader::try_next) {
            self.notify(&notification);
            self.make_room().await?;
        }
        let Some(mut paced) = self.paced.take() else { return Some(()) };
        while let Some(piece) = paced.recv().await {
            self.encode_paced(Some(piece)).await;
            self.make_room().await?;
        }
        Some(())
    }

    /// Writes until there is room for more.
    async fn make_room(&mut self) -> Option<()> {
        while self.unwritten.len() >= WRITE_BYTES_BEFORE_READING {
            self.write().ok()?;
            if self.unwritten.len() >= WRITE_BYTES_BEFORE_READING {
                self.socket.writable().await.ok()?;
            }
        }
        Some(())
    }

    /// Encodes the events that are there, after the answers: one of those may be to the subscription itself.
    pub(super) fn collect_events(&mut self) {
        while self.may_encode() && !turns::is_over() {
            let next = self.feed.as_mut().and_then(FeedReader::try_next);
            let Some(notification) = next else { return };
            self.notify(&notification);
        }
    }

    pub(super) fn notify(&mut self, notification: &Notification) {
        if let Notification::Log { subscription, ended: true, .. } = notification {
            self.subscriptions.remove(subscription);
        }
        self.lend_buffer();
        codec::encode_notification(&self.codec, notification, &mut self.unwritten);
    }

    pub(super) async fn encode_paced(&mut self, paced: Option<Paced>) {
        match paced {
            Some(Paced::Answer { number, result, load }) => self.encode_answer(number, result, load).await,
            Some(Paced::Notification { notification, load }) => {
                self.notify(&notification);
                drop(load);
            }
            None => self.paced = None,
        }
    }
}

/// The subscription that an answer speaks of.
pub(super) fn subscription(result: &Result<Response, Error>) -> Option<u64> {
    match result {
        Ok(Response::Subscribed(subscribed)) => Some(subscribed.subscription),
        Ok(Response::Logs(logs)) => logs.subscription,
        Ok(
            Response::Created(_)
            | Response::Children(_)
            | Response::Child(_)
            | Response::Got(_)
            | Response::Metrics(_)
            | Response::Status(_)
            | Response::ShutDown(_)
            | Response::Upgraded
            | Response::PartialChildren(_),
        )
        | Err(_) => None,
    }
}
