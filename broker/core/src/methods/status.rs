//! `status`: the broker itself.

use procbroker_protocol::version::PROTOCOL;
use procbroker_protocol::{Response, Status};

use crate::broker::Broker;
use crate::ids::Call;
use crate::turn::Turn;

impl Broker {
    /// `status`: the broker itself.
    pub(crate) fn status(&mut self, call: Call, turn: &mut Turn<'_>) {
        let config = &self.config;
        let status = Status {
            version: config.version.clone(),
            protocol: PROTOCOL,
            pid: config.pid,
            instance: config.instance,
            events_instance: self.event_log.instance(),
            started_at: config.started_at,
            shutting_down: !self.is_serving(),
            failed_upgrade: self.upgrade.last_failure().cloned(),
            children: self.children.counts(),
            connections: self.connections.count(),
            facilities: config.facilities.clone(),
            limits: config.bounds.shown(config.shutdown_timeout),
        };
        self.answer(call, Ok(Response::Status(Box::new(status))), turn);
    }
}
