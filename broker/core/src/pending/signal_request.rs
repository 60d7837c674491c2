//! A `signal` that waits: for its children to be spawned, and then for the kernel's word about each.

use std::collections::BTreeSet;

use procbroker_protocol::request::{Scope, SignalParams};
use procbroker_protocol::{ChildId, Signal};

use crate::input::SignalOutcome;

/// A `signal` to several children, and how far it is with each of them.
#[derive(Debug)]
pub(crate) struct SignalRequest {
    signal: Signal,
    scope: Scope,
    children: Vec<ChildId>,
    /// Those that have no process so far.
    unspawned: BTreeSet<ChildId>,
    /// Those to which it was sent, and of which the kernel has not said what became of it.
    sent: BTreeSet<ChildId>,
    delivered: u32,
    /// The last child that was gone.
    gone: Option<ChildId>,
    /// The last child that the kernel protects from the broker.
    refused: Option<ChildId>,
}

/// What a `signal` is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignalVerdict {
    /// At least one of these children got it, or there was none that could have missed it.
    Delivered(Vec<ChildId>),
    /// None got it, and this one because the kernel protects it from the broker (kill(2)).
    Refused(ChildId),
    /// None got it, and this one was gone.
    Gone(ChildId),
}

impl SignalRequest {
    /// Makes a request for all of these `children`, which is sent to those at once that are `spawned`.
    pub(crate) fn new(
        params: &SignalParams,
        children: Vec<ChildId>,
        spawned: impl IntoIterator<Item = ChildId>,
        unspawned: impl IntoIterator<Item = ChildId>,
    ) -> Self {
        Self {
            signal: params.signal,
            scope: params.scope,
            children,
            unspawned: unspawned.into_iter().collect(),
            sent: spawned.into_iter().collect(),
            delivered: 0,
            gone: None,
            refused: None,
        }
    }

    /// Returns the signal, and to which processes of each child it goes.
    pub(crate) fn what(&self) -> (Signal, Scope) {
        (self.signal, self.scope)
    }

    /// Returns all the children that are meant.
    pub(super) fn children(&self) -> &[ChildId] {
        &self.children
    }

    /// Returns the children that have no process so far, in the order of their ids.
    pub(super) fn unspawned(&self) -> impl Iterator<Item = ChildId> + '_ {
        self.unspawned.iter().copied()
    }

    /// A child that had no process has one now, to which the signal is sent, or `takes_signals` no more.
    pub(super) fn spawned(&mut self, child: ChildId, takes_signals: bool) {
        self.unspawned.remove(&child);
        if takes_signals {
            self.sent.insert(child);
        } else {
            self.gone = Some(child);
        }
    }

    /// The kernel has spoken about a child. Nothing changes where it has before.
    pub(super) fn answered(&mut self, child: ChildId, outcome: SignalOutcome) {
        if !self.sent.remove(&child) {
            return;
        }
        match outcome {
            SignalOutcome::Delivered => self.delivered += 1,
            SignalOutcome::Gone => self.gone = Some(child),
            SignalOutcome::Refused => self.refused = Some(child),
        }
    }

    /// Returns what it is answered with, once nothing is outstanding.
    pub(super) fn verdict(&self) -> Option<SignalVerdict> {
        if !self.unspawned.is_empty() || !self.sent.is_empty() {
            return None;
        }
        Some(match (self.delivered, self.refused, self.gone) {
            (0, Some(refused), _) => SignalVerdict::Refused(refused),
            (0, None, Some(gone)) => SignalVerdict::Gone(gone),
            (_, _, _) => SignalVerdict::Delivered(self.children.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use procbroker_protocol::Target;
    use uuid::Uuid;

    fn child(number: u128) -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(number))
    }

    /// A signal to a child that has a process, and to one that has none yet.
    fn request() -> SignalRequest {
        let params = SignalParams { target: Target::All, signal: Signal::HUP, scope: Scope::Main };
        SignalRequest::new(&params, vec![child(1), child(2)], [child(1)], [child(2)])
    }

    #[test]
    fn a_signal_is_answered_when_the_kernel_has_spoken_about_every_child() {
        let mut signal = request();
        signal.answered(child(1), SignalOutcome::Delivered);
        assert_eq!(signal.verdict(), None);
        signal.spawned(child(2), true);
        assert_eq!(signal.verdict(), None);
        signal.answered(child(2), SignalOutcome::Gone);
        assert_eq!(signal.verdict(), Some(SignalVerdict::Delivered(vec![child(1), child(2)])));
    }

    #[test]
    fn a_refusal_weighs_more_than_that_another_child_was_gone() {
        let mut signal = request();
        signal.spawned(child(2), false);
        assert_eq!(signal.verdict(), None);
        signal.answered(child(1), SignalOutcome::Refused);
        assert_eq!(signal.verdict(), Some(SignalVerdict::Refused(child(1))));
        let mut signal = request();
        signal.spawned(child(2), false);
        signal.answered(child(1), SignalOutcome::Gone);
        assert_eq!(signal.verdict(), Some(SignalVerdict::Gone(child(1))));
    }

    #[test]
    fn the_kernel_speaks_once_about_each_child() {
        let mut signal = request();
        signal.answered(child(1), SignalOutcome::Refused);
        signal.answered(child(1), SignalOutcome::Delivered);
        signal.answered(child(2), SignalOutcome::Delivered);
        signal.spawned(child(2), false);
        assert_eq!(signal.verdict(), Some(SignalVerdict::Refused(child(1))));
    }
}
