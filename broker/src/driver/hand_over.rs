//! What the driver does when another program is to take over: nothing is lost, and everybody who waits is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use procbroker_core::{EventHistory, HandedOver, Input, UpgradeFailure};
use procbroker_protocol::{ChildId, Error, ErrorKind, Response};

use super::{Driver, Sources, now};
use crate::limits::FACTS_A_TURN;
use crate::os::journal::JournalError;

/// Why no other program has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stay {
    /// The core does not want it any more: the broker is to stop.
    CalledOff,
    /// It cannot be done.
    Failed(UpgradeFailure),
}

impl Driver {
    /// The events that were told of, for the program that takes over.
    #[must_use]
    pub fn event_history(&self) -> EventHistory {
        self.broker.event_history()
    }

    /// What the program that takes over is told of children beside what is on record.
    #[must_use]
    pub fn handed_over(&self) -> BTreeMap<ChildId, HandedOver> {
        self.broker.handed_over(now().instant)
    }

    /// Whether the connections have taken all of their answers, and none waits for the record.
    #[must_use]
    pub fn all_answers_are_out(&self) -> bool {
        self.durable_answers.is_empty()
            && self.handler.measuring == 0
            && self.handler.clients.all_answers_are_out()
    }

    /// Waits until everything is written that is to be on record so far, and lets the answers go that wait for it.
    ///
    /// # Errors
    /// When the disk refuses, or takes longer than that.
    pub fn complete_record(&mut self, patience: Duration) -> Result<(), JournalError> {
        let completed = self.handler.records.flush(patience);
        self.durable_answers.attempted(self.handler.records.attempted(), &mut self.handler.clients);
        completed
    }

    /// Whether another program is to take over, still.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.broker.is_handing_over()
    }

    /// Takes in what is there by now, without waiting for more. Nothing is reaped: what ends from now on is for the
    /// program that takes over.
    pub fn catch_up(&mut self, sources: &mut Sources) {
        self.chores.do_all(&mut self.handler);
        while let Ok(report) = sources.threads.try_recv() {
            self.take_report(report);
        }
        for _ in 0..FACTS_A_TURN {
            let Some(fact) = sources.facts.try_recv() else { break };
            self.fact(fact);
        }
        while let Some(stop) = sources.signals.stop() {
            self.take(stop);
        }
    }

    /// Tells those who asked that the other program takes over.
    pub fn say_farewell(&mut self) {
        for call in std::mem::take(&mut self.farewells) {
            self.handler.clients.answer(call, Ok(Response::Upgraded));
        }
    }

    /// No other program has taken over.
    pub fn stay(&mut self, stay: Stay) {
        let error = match &stay {
            Stay::CalledOff => {
                Error::new(ErrorKind::ShuttingDown, "not upgraded: the broker is shutting down")
            }
            Stay::Failed(UpgradeFailure { message }) => {
                let message = format!("not upgraded, and nothing has changed: {message}");
                Error::new(ErrorKind::Internal, message)
            }
        };
        for call in std::mem::take(&mut self.farewells) {
            self.handler.clients.answer(call, Err(error.clone()));
        }
        match stay {
            Stay::CalledOff => {}
            Stay::Failed(failure) => self.take(Input::HandOverFailed { failure }),
        }
    }
}
