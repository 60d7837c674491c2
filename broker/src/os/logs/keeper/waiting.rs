//! Those who are told what is kept of a stream, now or as soon as there is more.

use tokio::sync::oneshot;

use super::Keeper;
use crate::os::logs::order::When;
use crate::os::logs::output::KeptStream;
use crate::os::logs::stream::StreamId;

/// Somebody who is told what is kept.
#[derive(Debug)]
pub(super) struct Waiting {
    /// When so much has been moved, at the latest.
    pub(super) moved: u64,
    /// Whether an empty pipe is enough.
    pub(super) patience: Patience,
    pub(super) answer: oneshot::Sender<KeptStream>,
}

/// What an empty pipe means to somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    UntilItIsEmpty,
    UntilThereIsMore,
}

impl Keeper {
    pub(super) fn show(&mut self, id: StreamId, when: When, answer: oneshot::Sender<KeptStream>) {
        let tokens = self.work.children.get(&id.child);
        let token = tokens
            .into_iter()
            .flatten()
            .copied()
            .rfind(|token| self.work.pipes.get(token).is_some_and(|pipe| pipe.id == id));
        let Some((token, pipe)) = token.and_then(|token| Some((token, self.work.pipes.get_mut(&token)?)))
        else {
            let kept = self.store.kept(id);
            match when {
                // Nothing has come yet, and perhaps the pipe is still to come.
                When::MoreThan(0) if kept.end() == 0 => {
                    let waiting = Waiting { moved: 1, patience: Patience::UntilThereIsMore, answer };
                    self.work.quiet.entry(id).or_default().push(waiting);
                }
                // What has been moved went through a pipe that is gone by now, so nothing more comes. Who has gone
                // needs no answer.
                When::Now | When::MoreThan(_) => drop(answer.send(kept)),
            }
            return;
        };
        let waiting = match when {
            When::Now => {
                let moved = pipe.moved.saturating_add(pipe.capacity(&self.pipe_use));
                Waiting { moved, patience: Patience::UntilItIsEmpty, answer }
            }
            When::MoreThan(moved) => {
                let moved = moved.saturating_add(1);
                Waiting { moved, patience: Patience::UntilThereIsMore, answer }
            }
        };
        pipe.waiting.retain(|waiting| !waiting.answer.is_closed());
        pipe.waiting.push(waiting);
        self.make_ready(token);
    }
}
