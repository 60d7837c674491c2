//! `restart`: stops the present run of children by their own steps, and starts the next one at once.
//!
//! It answers when every new run is ready, or its child has ended all the same. Where one child was named and its program cannot be
//! executed any more, the answer is that error; among many, that child is shown as what it has become. One that is in a pause before a restart is
//! started at once; one that is being started anyway is waited for. A child that is on its way to its end is not kept from it.

use std::collections::BTreeMap;

use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{ChildId, Error, ErrorKind, Response, Target};

use crate::attempt::shutting_down;
use crate::broker::Broker;
use crate::child::{Child, Next, RestartWish};
use crate::ids::Call;
use crate::pending::{Meant, WaitsFor};
use crate::turn::Turn;

impl Broker {
    /// `restart`: all the children that are meant at once.
    pub(crate) fn restart(&mut self, call: Call, params: &ManyParams, turn: &mut Turn<'_>) {
        let target = &params.target;
        let children = match self.resolve(call.connection, target, Child::is_live) {
            Ok(_) if !self.is_serving() => return self.answer(call, Err(shutting_down()), turn),
            Ok(children) => children,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let mut left = BTreeMap::new();
        for id in children {
            match self.wish_restart(id, turn) {
                RestartWish::Granted { restarts } => drop(left.insert(id, restarts)),
                RestartWish::TooLate => match target {
                    Target::Id(_) | Target::Name(_) => {
                        return self.answer(call, Err(too_late(&self.children.title(id))), turn);
                    }
                    // Of many, it is not among those that can be meant.
                    Target::Labels(_) | Target::All => {}
                },
            }
        }
        let children: Vec<ChildId> = left.keys().copied().collect();
        left.retain(|id, restarts| {
            self.children.get(*id).is_some_and(|child| !child.is_restarted(*restarts))
        });
        if left.is_empty() {
            return self.promise(call, Ok(Response::Children(self.children.views(&children))), turn);
        }
        let meant = match target {
            Target::Id(_) | Target::Name(_) => Meant::TheOne,
            Target::Labels(_) | Target::All => Meant::WhatMatches,
        };
        self.wait_for(call, WaitsFor::Restart { children, left, meant }, None);
    }

    /// Answers every restart that waits for this child alone: its program cannot be executed.
    pub(crate) fn fail_restart(&mut self, id: ChildId, error: &Error, turn: &mut Turn<'_>) {
        for ticket in self.pending.watchers_by(id, WaitsFor::is_restart_of_one).0 {
            self.answer_pending(ticket, Err(error.clone()), turn);
        }
    }

    fn wish_restart(&mut self, id: ChildId, turn: &mut Turn<'_>) -> RestartWish {
        let mut wish = RestartWish::TooLate;
        self.with_child(id, turn, |child, orders| {
            wish = child.restart(orders);
            Next::Changed
        });
        wish
    }
}

fn too_late(title: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("the child {title} has ended, or is on its way to its end; create it anew instead"),
    )
}
