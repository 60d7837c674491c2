//! What clients were told of children, on which they may rely: it holds even if the broker dies at once.

use procbroker_core::Safety;
use procbroker_protocol::create::Ready;
use procbroker_protocol::{
    Child, ChildId, ChildState, Cleaned, Error, ErrorKind, Exit, ExitReason, Request, Response,
};

use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::track::{Start, Track};

/// What was told of one child, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// That it is there, and what that is to outlive.
    pub known: Option<Safety>,
    /// That its create has failed.
    pub failed: bool,
    /// That it is stopped, and why.
    pub stopped: Option<ExitReason>,
    /// That it has ended, how, and what that is to outlive.
    pub ended: Option<(Safety, End)>,
    /// Until when it lives at the least, because it was renewed.
    pub lives_until: Option<u64>,
    /// That it is ready, after so many restarts.
    pub ready: Option<u32>,
}

/// How a child has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How it ended itself.
    pub exit: Exit,
    /// What became of its cleanup.
    pub cleanup: Option<Cleaned>,
}

/// One thing that an answer tells of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is there.
    Known,
    /// Its create has failed.
    Failed,
    /// It is being stopped.
    Stopped(ExitReason),
    /// It has ended.
    Ended(End),
    /// It lives until then at the least.
    Renewed(u64),
    /// It is ready, after so many restarts.
    Ready(u32),
}

impl Told {
    /// Takes down one thing more, and what it is to outlive.
    pub fn hear(&mut self, word: &Word, safety: Safety) {
        match word {
            Word::Known => self.known = Some(safety),
            Word::Failed => self.failed = true,
            Word::Stopped(reason) => self.stopped = Some(*reason),
            Word::Ready(restarts) => self.ready = self.ready.max(Some(*restarts)),
            Word::Renewed(until) => self.lives_until = self.lives_until.max(Some(*until)),
            Word::Ended(end) => {
                self.known = self.known.or(Some(Safety::Process));
                self.ended = Some((safety, end.clone()));
            }
        }
    }

    /// The machine has died: what was to outlive the broker only is not promised any more.
    pub fn weaken(&mut self) {
        let outlives = |safety: &Safety| *safety == Safety::Power;
        *self = Self {
            known: self.known.filter(outlives),
            ended: self.ended.take().filter(|(safety, _)| outlives(safety)),
            ..Self::default()
        };
    }
}

impl Ledger {
    /// What an answer tells of children, on which its client may rely.
    #[must_use]
    pub fn words(&self, asked: &Asked, result: &Result<Response, Error>) -> Vec<(ChildId, Word)> {
        if asked.refusal.is_some() {
            return Vec::new();
        }
        match (&asked.request, result) {
            (Request::Create(_), Ok(Response::Created(created))) => {
                let known = (created.child.id, Word::Known);
                [known].into_iter().chain(self.told_to_be_ready(&created.child)).collect()
            }
            (Request::Create(params), Err(error)) => {
                let (uid, own) = (asked.peer.uid, asked.fresh.child);
                // Who has come for the same request shares its failure.
                let shares = params.request_id.is_some() && is_of_its_start(&error.kind);
                let is_told = |track: &&Track| match error.kind {
                    // The broker exits, and what it has ordered may come to be all the same.
                    ErrorKind::ShuttingDown => !matches!(track.start, Start::Recording | Start::Ordered),
                    _ => true,
                };
                let is_its = |track: &&Track| {
                    let same = shares && track.params.request_id == params.request_id;
                    track.run.child == own || same && track.owner.uid == uid
                };
                // One that was replaced, and whose place was taken by none, is on record as replaced.
                let failed = self.tracks.values().filter(is_its).filter(is_told);
                let failed = failed.filter(|track| track.refused && !track.is_replaced());
                failed.map(|track| (track.run.child, Word::Failed)).collect()
            }
            (Request::Destroy(_), Ok(Response::Children(children))) => {
                children.iter().filter_map(|child| self.told_of_a_stop(child)).collect()
            }
            (Request::Renew(_), Ok(Response::Children(children))) => {
                let until = |child: &std::sync::Arc<Child>| {
                    Some((child.id, Word::Renewed(self.tracks.get(&child.id)?.lives_until?)))
                };
                children.iter().filter_map(until).collect()
            }
            (Request::Wait(_), Ok(Response::Child(child))) => {
                let word = end_of(child).map_or(Word::Known, Word::Ended);
                [(child.id, word)].into_iter().chain(self.told_to_be_ready(child)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// One that has said that it is ready does not say so again.
    fn told_to_be_ready(&self, child: &Child) -> Option<(ChildId, Word)> {
        let track = self.tracks.get(&child.id)?;
        let says_so = child.state == ChildState::Running && track.params.ready != Ready::Spawn;
        says_so.then_some((child.id, Word::Ready(child.restarts)))
    }

    fn told_of_a_stop(&self, child: &Child) -> Option<(ChildId, Word)> {
        if let Some(end) = end_of(child) {
            return Some((child.id, Word::Ended(end)));
        }
        let track = self.tracks.get(&child.id)?;
        let exit = track.known_exit.as_ref().map(|exit| exit.reason);
        let reason = exit.or_else(|| track.demands.first().map(|demand| demand.reason))?;
        Some((child.id, Word::Stopped(reason)))
    }
}

/// Whether an error is about a start that was tried, and not about what was asked for.
#[must_use]
pub fn is_of_its_start(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::Timeout(_)
        | ErrorKind::SpawnFailed(_)
        | ErrorKind::Internal
        | ErrorKind::StartFailed { .. } => true,
        ErrorKind::ParseError
        | ErrorKind::InvalidRequest
        | ErrorKind::MethodNotFound
        | ErrorKind::InvalidParams
        | ErrorKind::NameTaken(_)
        | ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::LimitExceeded
        | ErrorKind::ShuttingDown
        | ErrorKind::Overloaded
        | ErrorKind::Unsupported => false,
    }
}

fn end_of(child: &Child) -> Option<End> {
    let exit = child.exit.clone().filter(|_| child.state == ChildState::Ended)?;
    Some(End { exit, cleanup: child.cleanup.clone() })
}
