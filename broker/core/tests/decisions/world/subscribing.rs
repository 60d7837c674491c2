//! Short forms for the tests of events and logs.

use std::sync::Arc;

use procbroker_core::{Call, ConnectionId, Effect, Input};
use procbroker_protocol::event::Notification;
use procbroker_protocol::request::{EventsParams, LogsParams};
use procbroker_protocol::response::Subscribed;
use procbroker_protocol::{Event, EventKind, Request, Response, Target};

use super::World;

pub(crate) fn events(since: Option<u64>) -> Request {
    Request::Events(EventsParams { since, ..EventsParams::default() })
}

pub(crate) fn events_of(key: &str, value: &str) -> Request {
    Request::Events(EventsParams { since: None, labels: [(key.to_owned(), value.to_owned())].into() })
}

pub(crate) fn logs(target: Target) -> LogsParams {
    LogsParams {
        target,
        stream: procbroker_protocol::request::LogStream::Stdout,
        tail: None,
        follow: false,
        since: None,
        timestamps: false,
        position: None,
    }
}

pub(crate) fn follow(target: Target) -> Request {
    Request::Logs(LogsParams { follow: true, ..logs(target) })
}

impl World {
    pub(crate) fn subscribed(&self, call: Call) -> Subscribed {
        match self.answer(call) {
            Ok(Response::Subscribed(subscribed)) => subscribed,
            other => panic!("a subscription was answered with {other:?}"),
        }
    }

    /// Subscribes to what is kept since, and to what comes.
    pub(crate) fn subscribe(&mut self, client: ConnectionId, since: Option<u64>) -> Subscribed {
        let call = self.call(client, events(since));
        self.subscribed(call)
    }

    /// Takes the orders so far, and has this client read all that there is for it.
    pub(crate) fn published(&mut self, client: ConnectionId) -> Vec<Notification> {
        let mut all = Vec::new();
        let mut has_more = true;
        while has_more {
            self.give(Input::EventsWanted { connection: client });
            has_more = false;
            for order in self.take() {
                match order {
                    Effect::Publish { connection, notifications } if connection == client => {
                        all.extend(notifications);
                    }
                    Effect::Unread { connection } if connection == client => has_more = true,
                    _ => {}
                }
            }
        }
        let unread = self.unread().into_iter().filter(|(connection, _)| *connection == client);
        all.extend(unread.flat_map(|(_, unread)| unread));
        all
    }

    /// Takes the orders so far, and the events among them that this client is told of.
    pub(crate) fn told(&mut self, client: ConnectionId) -> Vec<Arc<Event>> {
        let event = |notification| match notification {
            Notification::Event { event, .. } => event,
            other => panic!("told {other:?}"),
        };
        self.published(client).into_iter().map(event).collect()
    }

    /// The same, by their kinds.
    pub(crate) fn kinds(&mut self, client: ConnectionId) -> Vec<EventKind> {
        self.told(client).iter().map(|event| event.kind).collect()
    }

    /// The kinds of all events that are kept.
    pub(crate) fn kinds_kept(&mut self, client: ConnectionId) -> Vec<EventKind> {
        self.take();
        self.subscribe(client, Some(1));
        self.kinds(client)
    }
}
