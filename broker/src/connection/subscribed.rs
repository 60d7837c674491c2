//! What a client gets beside its answers: events, and what children write, each at its own pace.

use procbroker_core::Input;
use procbroker_protocol::{Error, Notification, Response};
use tokio::sync::mpsc;

use super::Connection;
use super::codec;
use crate::feed::Fed;
use crate::limits::WRITE_BYTES_BEFORE_READING;
use crate::messages::{Fact, Paced};
use crate::turns;

impl Connection {
    /// Sends what is still to come of the client's subscriptions; none when the client has gone.
    pub(super) async fn finish_subscriptions(&mut self) -> Option<()> {
        if let Some(mut feed) = self.feed.take() {
            while let Ok(fed) = feed.try_recv() {
                match fed {
                    // Nobody answers any more: what is left comes last.
                    Fed::Unread => {}
                    fed @ (Fed::Events { .. } | Fed::Last(_)) => self.take_fed(fed).await,
                }
                self.make_room().await?;
            }
        }
        for notification in self.last_events.take().into_iter().flatten() {
            self.notify(&notification);
            self.make_room().await?;
            turns::pause_if_over().await;
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

    /// Takes what is said about events, after the answers: one of those may be to the subscription itself.
    pub(super) async fn collect_events(&mut self) {
        while self.may_encode() && !turns::is_over() {
            let Some(Ok(fed)) = self.feed.as_mut().map(mpsc::Receiver::try_recv) else { return };
            self.take_fed(fed).await;
        }
    }

    /// Asks for events, or encodes them. There is room for some.
    pub(super) async fn take_fed(&mut self, fed: Fed) {
        match fed {
            Fed::Unread => {
                let wanted = Input::EventsWanted { connection: self.context.id };
                // A driver that has gone has left what is not read.
                let _ = self.context.facts.send(Fact::Input(wanted)).await;
            }
            Fed::Events { notifications, load } => {
                for notification in &notifications {
                    self.notify(notification);
                }
                drop(load);
            }
            Fed::Last(unread) => self.last_events = Some(unread),
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
