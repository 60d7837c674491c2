//! What is still waited for, on the terminal of somebody who waits: a line for each child, drawn anew every second.

mod awaited;
mod begun;
mod drawing;
mod line;
mod look;
mod phase;
mod remarks;
mod seen;
mod start;

use std::time::Instant;

use procbroker_client::Broker;
use procbroker_protocol::Target;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
pub(super) use awaited::{Awaited, End};
pub(super) use begun::Begun;
use begun::NOTHING;
use drawing::Drawing;
use look::{INTERVAL, Stops, children};
pub(super) use remarks::{Remarks, told};
use seen::Seen;
pub(super) use start::Start;

/// Does the work, and tells meanwhile what it waits for.
///
/// # Errors
/// [`Failure::GivenUp`] when whoever waits has typed Ctrl-C.
pub(super) async fn beside<T>(
    broker: &Broker,
    awaited: &Awaited,
    told: Remarks,
    begun: &Begun,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|source| Failure::Machine { attempted: "cannot wait for Ctrl-C", source })?;
    let drawing = Drawing::default();
    let mut stops = Stops::default();
    let seen = tokio::select! {
        biased;
        seen = Seen::before(broker, awaited, told, &mut stops) => seen,
        _ = interrupt.recv() => return Err(Failure::GivenUp { goes_on: NOTHING.into() }),
    };
    let outcome = tokio::select! {
        biased;
        result = work => Ok(result),
        _ = interrupt.recv() => Err(Failure::GivenUp { goes_on: begun.shown(goes_on(broker, awaited).await) }),
        never = watch(broker, &awaited.targets, (seen, stops), &drawing), if told == Remarks::All => match never {},
    };
    drawing.show(&[]);
    outcome
}

/// What goes on after Ctrl-C: of a start, that depends on how far it has come.
async fn goes_on(broker: &Broker, awaited: &Awaited) -> &'static str {
    let End::Started(start) = &awaited.end else { return awaited.goes_on };
    // The request itself would wait for a broker that does not answer, and is not held up for long.
    let mut stops = Stops::default();
    let look = tokio::time::timeout(INTERVAL, children(broker, &awaited.targets, &mut stops)).await;
    match (awaited.targets.as_slice(), look) {
        ([], _) => start.fate_of_one_without_a_name(),
        (_, Ok(children)) => start.fate(children.first().map(|child| child.state)),
        (_, Err(_)) => start::FATE_UNKNOWN,
    }
}

/// Something that does not come.
enum Never {}

/// Asks how the children are, and draws it, again and again.
async fn watch(
    broker: &Broker,
    targets: &[Target],
    (mut seen, mut stops): (Seen, Stops),
    drawing: &Drawing,
) -> Never {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let children = children(broker, targets, &mut stops).await;
        drawing.show(&seen.lines(&children, &stops, Instant::now()));
    }
}
