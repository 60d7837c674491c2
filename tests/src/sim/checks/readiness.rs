//! Readiness: whether a child is ready is asked when it is due, what ends before it is ready is told with its last words, and
//! nobody waits for a word that has come.

use procbroker_core::{Call, Run};
use procbroker_protocol::create::Ready;
use procbroker_protocol::event::Event;
use procbroker_protocol::{ChildId, EventKind, Request, Timestamp};

use crate::sim::checks::orders::known;
use crate::sim::checks::standstill::is_held;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::readiness::Question;
use crate::sim::ledger::track::Track;

/// It is asked whether a child is ready.
///
/// # Errors
/// When there is nothing to ask, or not now.
pub fn asks(ledger: &Ledger, run: Run, since: Timestamp) -> Checked {
    let track = known(ledger, run.child)?;
    is_due(ledger, track)?;
    Check::Readiness.demand(track.run == run && !track.is_asked_by_command(), || {
        format!("it is asked whether {run:?} is ready, which is to find out otherwise: {track:?}")
    })?;
    let ordered = track.runs.ordered_at.unwrap_or(track.clock.wall(track.born));
    Check::Readiness.demand(since == ordered, || {
        format!("what {run:?} has written counts since {since}, and it was ordered at {ordered}")
    })
}

/// It is to be found out now whether a child is ready.
///
/// # Errors
/// When there is nothing to ask, or not now.
pub fn is_due(ledger: &Ledger, track: &Track) -> Checked {
    let is_due = matches!(track.readiness.question, Question::Due { at, .. } if at <= ledger.now);
    let probes = matches!(track.params.ready, Ready::Probe(_));
    // It may expire at the very moment, and be asked about just before.
    let is_starting = track.is_starting() || track.expired == Some(ledger.now);
    Check::Readiness.demand(is_starting && probes && is_due, || {
        format!("it is asked at {} whether it is ready, and it is {track:?}", ledger.now)
    })
}

/// The last words of a child are read.
///
/// # Errors
/// When it has not failed to start, or nobody waits for it.
pub fn last_words(ledger: &Ledger, call: Call, child: ChildId) -> Checked {
    let track = known(ledger, child)?;
    let asked = ledger.calls.get(&call).filter(|_| ledger.waiting.contains(&call));
    let waits = asked.is_some_and(|asked| matches!(asked.request, Request::Create(_)) && !asked.reading);
    Check::Readiness.demand(waits && track.is_unanswered() && !track.is_live(), || {
        format!("the last words of {track:?} are read for {asked:?}")
    })
}

/// A subscriber is told that something has happened to a child: that it is ready once for each run, and when it is.
///
/// # Errors
/// When it is told twice, or that is not so.
pub fn told(ledger: &mut Ledger, event: &Event) -> Checked {
    let (EventKind::Ready, Some(child)) = (event.kind, &event.child) else { return Ok(()) };
    let run = (child.id, child.restarts);
    let first = *ledger.ready_events.entry(run).or_insert(event.seq);
    Check::Readiness.demand(first == event.seq, || {
        format!("that {run:?} is ready is told as event {first}, and as event {} once more", event.seq)
    })?;
    let Some(track) = ledger.tracks.get(&child.id) else { return Ok(()) };
    let is_later = track.runs.count > child.restarts;
    Check::Readiness.demand(is_later || track.is_ready(), || format!("{track:?} is told to be ready"))
}

/// After a turn: a child that is starting is asked about when that is due.
///
/// # Errors
/// When it is not.
pub fn goes_on(ledger: &Ledger, track: &Track) -> Checked {
    if !track.is_starting() {
        return Ok(());
    }
    let is_asked = match track.readiness.question {
        Question::None => !matches!(track.params.ready, Ready::Probe(_)),
        Question::Asked { .. } => true,
        // A command takes its turn among the starts of its user.
        Question::Due { at, .. } => ledger.now < at || track.is_asked_by_command() && is_held(ledger, track),
    };
    Check::Readiness.demand(is_asked, || format!("nobody asks whether {track:?} is ready"))?;
    Check::Readiness.demand(track.readiness.by.is_some_and(|by| ledger.now < by), || {
        format!("{track:?} has for ever to get ready, or no time any more")
    })
}
