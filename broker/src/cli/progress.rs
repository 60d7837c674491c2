//! What is still waited for, on the terminal of somebody who waits: a line for each child, drawn anew every second.

mod line;
mod start;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procbroker_client::Broker;
use procbroker_core::steps_within;
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::{ListParams, NoParams, OneParams};
use procbroker_protocol::response::Got;
use procbroker_protocol::{Child, ChildId, ChildState, Request, Response, Target};
use terminal_size::{Height, Width, terminal_size_of};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output::complain;
use super::print::words::title;
use crate::counted;
use line::Line;
pub(super) use start::Start;

/// How often the lines are drawn anew; what is done sooner shows none.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most children that have a line of their own.
const LINES_MAX: usize = 10;

/// The columns and lines of a terminal that does not tell.
const SIZE_UNKNOWN: (u16, u16) = (80, 24);

/// What a verb waits for.
#[derive(Clone, Debug)]
pub(super) struct Awaited {
    pub(super) targets: Vec<Target>,
    /// What is to become of them.
    pub(super) end: End,
    /// What goes on when nobody waits for it any more, as a whole sentence.
    pub(super) goes_on: &'static str,
}

/// What children that are waited for are to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Stopped, by these steps where the verb gives them.
    Stopped(Option<Vec<StopStep>>),
    /// Stopped with the broker, which may take so long where the verb says so.
    ShutDown(Option<Duration>),
    /// Stopped and started again.
    Restarted,
    /// What they become by themselves, for so long at most.
    Seen(Option<Duration>),
    /// Started, once what is in the way has gone.
    Started(Start),
}

/// What somebody who sits there is told meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remarks {
    /// How it goes, and what goes on after Ctrl-C.
    All,
    /// What goes on after Ctrl-C.
    GoesOn,
}

/// What is told, if somebody sits there.
pub(super) fn told(json: bool) -> Option<Remarks> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let told = if json || dumb { Remarks::GoesOn } else { Remarks::All };
    std::io::stderr().is_terminal().then_some(told)
}

/// Does the work, and tells meanwhile what it waits for.
///
/// # Errors
/// [`Failure::GivenUp`] when whoever waits has typed Ctrl-C.
pub(super) async fn beside<T>(
    broker: &Broker,
    awaited: &Awaited,
    told: Remarks,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|source| Failure::Machine { attempted: "cannot wait for Ctrl-C", source })?;
    let drawing = Drawing::default();
    let mut stops = Stops::default();
    let seen = tokio::select! {
        biased;
        seen = Seen::before(broker, awaited, told, &mut stops) => seen,
        _ = interrupt.recv() => return Err(Failure::GivenUp { goes_on: "nothing was begun" }),
    };
    let outcome = tokio::select! {
        biased;
        result = work => Ok(result),
        _ = interrupt.recv() => Err(Failure::GivenUp { goes_on: goes_on(broker, awaited).await }),
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

/// The steps of the children's own stops, as far as the broker tells them. They do not change, and are asked for once.
#[derive(Debug, Default)]
struct Stops(BTreeMap<ChildId, Option<Vec<StopStep>>>);

impl Stops {
    fn note(&mut self, got: &Got) {
        self.0.insert(got.child.id, got.spec.as_ref().map(|spec| spec.params.stop.clone()));
    }

    fn of(&self, child: ChildId) -> Option<&[StopStep]> {
        self.0.get(&child).and_then(Option::as_deref)
    }

    /// Asks for those of children that are being stopped, of not more than can be shown.
    async fn learn(&mut self, broker: &Broker, children: &[Arc<Child>]) {
        let stopping = children.iter().filter(|child| child.state == ChildState::Stopping).take(LINES_MAX);
        for child in stopping {
            if self.0.contains_key(&child.id) {
                continue;
            }
            // One that has gone meanwhile is not shown any more either.
            if let Ok(Response::Got(got)) = broker.call(get(Target::Id(child.id))).await {
                self.note(&got);
            }
        }
    }
}

fn get(target: Target) -> Request {
    Request::Get(OneParams { target })
}

/// The children that are waited for, as far as the broker tells.
async fn children(broker: &Broker, targets: &[Target], stops: &mut Stops) -> Vec<Arc<Child>> {
    let mut all = Vec::new();
    // Each is a question of its own, so that there are not more than can be shown.
    for target in targets.iter().take(LINES_MAX) {
        let request = match target {
            Target::All => Request::List(ListParams::default()),
            Target::Labels(labels) => {
                Request::List(ListParams { labels: labels.clone(), ..ListParams::default() })
            }
            Target::Id(_) | Target::Name(_) => get(target.clone()),
        };
        match broker.call(request).await {
            Ok(Response::Children(children)) => all.extend(children),
            Ok(Response::Child(child)) => all.push(child),
            Ok(Response::Got(got)) => {
                stops.note(&got);
                all.push(got.child);
            }
            // One that is not there is not waited for, and its own request says so.
            Ok(_) | Err(_) => {}
        }
    }
    stops.learn(broker, &all).await;
    all
}

/// Since when children are in their states, as far as was seen from here.
struct Seen {
    /// What they are to become.
    end: End,
    began: Instant,
    states: BTreeMap<ChildId, (ChildState, Instant)>,
    /// Those whose stop had begun before: by which steps, and when, is not told.
    stopping_before: BTreeSet<ChildId>,
}

impl Seen {
    fn since(began: Instant, end: End) -> Self {
        Self { end, began, states: BTreeMap::new(), stopping_before: BTreeSet::new() }
    }

    /// What there is to see before anything is asked for.
    async fn before(broker: &Broker, awaited: &Awaited, told: Remarks, stops: &mut Stops) -> Self {
        let Awaited { targets, end, goes_on: _ } = awaited;
        let (found, end) = match (end, told) {
            (End::Seen(_), _) | (_, Remarks::GoesOn) => (Vec::new(), end.clone()),
            // The request itself would wait for a broker that does not answer, and is not held up for long.
            (End::Stopped(_) | End::ShutDown(_) | End::Restarted | End::Started(_), Remarks::All) => {
                let look = async { (children(broker, targets, stops).await, bounded(broker, end).await) };
                let looked = tokio::time::timeout(INTERVAL, look).await;
                looked.unwrap_or_else(|_| (Vec::new(), end.clone()))
            }
        };
        let mut seen = Self::since(Instant::now(), end);
        seen.note_stopping(&found);
        seen
    }

    fn note_stopping(&mut self, found: &[Arc<Child>]) {
        let stopping = found.iter().filter(|child| child.state == ChildState::Stopping);
        self.stopping_before.extend(stopping.map(|child| child.id));
    }

    /// A line for each child that is still waited for, and one for those that had no room.
    fn lines(&mut self, children: &[Arc<Child>], stops: &Stops, now: Instant) -> Vec<Line> {
        let is_first = self.states.is_empty();
        let mut lines = Vec::new();
        let mut in_turn = 0_usize;
        for child in children {
            let begin = if is_first { self.began } else { now };
            let entry = self.states.entry(child.id).or_insert((child.state, begin));
            if entry.0 != child.state {
                *entry = (child.state, now);
            }
            if child.state != ChildState::Stopping {
                self.stopping_before.remove(&child.id);
            }
            let phase = if self.stopping_before.contains(&child.id) {
                Phase::Awaited(joined(&self.end, now.saturating_duration_since(self.began)))
            } else {
                phase(child.state, &self.end, stops.of(child.id), now.saturating_duration_since(entry.1))
            };
            match phase {
                Phase::Awaited(what) => lines.push(Line { title: title(child), what }),
                Phase::InTurn => in_turn += 1,
                Phase::Over => {}
            }
        }
        if let (true, End::Started(start)) = (lines.is_empty(), &self.end) {
            lines.extend(start.line(now.saturating_duration_since(self.began)));
        }
        let hidden = lines.len().saturating_sub(LINES_MAX);
        lines.truncate(LINES_MAX);
        if hidden > 0 {
            lines.push(Line::of_several(format!("and {hidden} more")));
        }
        if in_turn > 0 {
            lines.push(Line::of_several(format!("{} to be stopped after them", counted::children(in_turn))));
        }
        lines
    }
}

/// A shutdown with the time that it may take, where that can be told: not of one that somebody else has begun.
async fn bounded(broker: &Broker, end: &End) -> End {
    let End::ShutDown(within) = *end else { return end.clone() };
    match broker.call(Request::Status(NoParams {})).await {
        Ok(Response::Status(status)) if status.shutting_down => End::ShutDown(None),
        Ok(Response::Status(status)) => End::ShutDown(Some(within.unwrap_or(status.limits.shutdown_timeout))),
        Ok(_) | Err(_) => end.clone(),
    }
}

/// What is told of a stop that had begun before: its steps are somebody else's, but a shutdown over it ends it.
fn joined(end: &End, lasted: Duration) -> String {
    match end {
        End::ShutDown(Some(within)) => {
            format!("stopping, {} of at most {} s", lasted.as_secs(), within.as_secs_f64())
        }
        End::ShutDown(None) | End::Stopped(_) | End::Restarted | End::Seen(_) | End::Started(_) => {
            "stopping".to_owned()
        }
    }
}

/// Where a child stands on the way to what is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// It is waited for, in this way.
    Awaited(String),
    /// Its stop has not begun.
    InTurn,
    /// It is not waited for any more.
    Over,
}

/// `stop` are the steps of the child's own stop, where they are known.
fn phase(state: ChildState, end: &End, stop: Option<&[StopStep]>, lasted: Duration) -> Phase {
    let seconds = lasted.as_secs();
    match (state, end) {
        (ChildState::Ended, _) | (ChildState::Running, End::Restarted | End::Started(_)) => Phase::Over,
        (_, End::Seen(bound)) => Phase::Awaited(match bound {
            Some(bound) => format!("{}, {seconds} of {} s", state.as_str(), bound.as_secs()),
            None => format!("{}, {seconds} s", state.as_str()),
        }),
        (ChildState::Stopping, End::Stopped(Some(steps))) => Phase::Awaited(step_at(steps, lasted)),
        (ChildState::Stopping, End::ShutDown(Some(within))) if stop.is_some() => {
            let steps = steps_within(stop.unwrap_or_default(), *within);
            Phase::Awaited(step_at(&steps, lasted))
        }
        (ChildState::Starting, End::Started(start)) => Phase::Awaited(start.starting(lasted)),
        (ChildState::Stopping, End::Stopped(None) | End::ShutDown(_) | End::Restarted | End::Started(_)) => {
            let told = |steps| step_at(steps, lasted);
            Phase::Awaited(stop.map_or_else(|| format!("stopping, {seconds} s"), told))
        }
        (ChildState::Cleaning, End::Stopped(_) | End::ShutDown(_) | End::Restarted | End::Started(_)) => {
            Phase::Awaited(format!("cleaning up, {seconds} s"))
        }
        (ChildState::Starting | ChildState::Backoff, End::Restarted)
        | (ChildState::Backoff, End::Started(_)) => {
            Phase::Awaited(format!("{}, {seconds} s", state.as_str()))
        }
        (
            ChildState::Running | ChildState::Starting | ChildState::Backoff,
            End::Stopped(_) | End::ShutDown(_),
        ) => Phase::InTurn,
    }
}

/// Which step a stop has come to after so long: `SIGTERM, 3 of 10 s`.
fn step_at(steps: &[StopStep], lasted: Duration) -> String {
    let mut left = lasted;
    for step in steps {
        let grace = step.grace;
        match left.checked_sub(grace) {
            Some(rest) => left = rest,
            None => return format!("{}, {} of {} s", step.signal, left.as_secs(), grace.as_secs_f64()),
        }
    }
    format!("SIGKILL, {} s", left.as_secs())
}

/// The lines that stand on the terminal.
#[derive(Debug, Default)]
struct Drawing {
    height: Cell<usize>,
}

impl Drawing {
    /// Puts these lines in the place of those before.
    fn show(&self, lines: &[Line]) {
        let size = terminal_size_of(std::io::stderr());
        let (columns, rows) = size.map_or(SIZE_UNKNOWN, |(Width(columns), Height(rows))| (columns, rows));
        let mut out = String::new();
        if self.height.get() > 0 {
            // Up to the first of them, and everything from there is erased (ECMA-48: CUU, ED).
            let _ = write!(out, "\r\x1b[{}A\x1b[J", self.height.get());
        }
        // A line at the right edge would wrap, and one above the top can't be reached again.
        let shown = lines.len().min(usize::from(rows).saturating_sub(2));
        for line in lines.iter().take(shown) {
            let _ = writeln!(out, "{}", line.fitted(usize::from(columns).saturating_sub(1)));
        }
        self.height.set(shown);
        complain(&out);
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::Signal;

    use super::*;

    fn steps() -> Vec<StopStep> {
        let step = |signal, seconds| StopStep { signal, grace: Duration::from_secs(seconds) };
        vec![step(Signal::HUP, 2), step(Signal::TERM, 10)]
    }

    #[test]
    fn a_stop_is_at_the_step_that_its_time_has_come_to() {
        let at = |millis| step_at(&steps(), Duration::from_millis(millis));
        assert_eq!(at(0), "SIGHUP, 0 of 2 s");
        assert_eq!(at(1_999), "SIGHUP, 1 of 2 s");
        assert_eq!(at(2_000), "SIGTERM, 0 of 10 s");
        assert_eq!(at(5_500), "SIGTERM, 3 of 10 s");
        assert_eq!(at(13_000), "SIGKILL, 1 s");
    }

    #[test]
    fn a_stop_by_the_childs_own_steps_tells_them_where_they_are_known() {
        let second = Duration::from_secs(1);
        for end in [End::Stopped(None), End::Restarted] {
            let phase = phase(ChildState::Stopping, &end, Some(&steps()), second);
            assert_eq!(phase, Phase::Awaited("SIGHUP, 1 of 2 s".to_owned()), "{end:?}");
        }
    }

    #[test]
    fn a_shutdown_that_has_less_time_than_the_steps_tells_what_they_have_in_it() {
        let steps = [StopStep { signal: Signal::TERM, grace: Duration::from_secs(10) }];
        let at =
            |end: End, seconds| phase(ChildState::Stopping, &end, Some(&steps), Duration::from_secs(seconds));
        let awaited = |text: &str| Phase::Awaited(text.to_owned());
        let within = |seconds| End::ShutDown(Some(Duration::from_secs(seconds)));
        assert_eq!(at(within(5), 4), awaited("SIGTERM, 4 of 4.5 s"));
        assert_eq!(at(within(60), 4), awaited("SIGTERM, 4 of 10 s"));
        assert_eq!(at(End::ShutDown(None), 4), awaited("SIGTERM, 4 of 10 s"));
    }

    #[test]
    fn only_those_on_their_way_are_waited_for() {
        let stopped = || End::Stopped(None);
        let start = || Start {
            place_within: None,
            ready_within: Some(Duration::from_secs(30)),
            is_bound_to_connection: false,
        };
        let second = Duration::from_secs(1);
        let awaited = |text: &str| Phase::Awaited(text.to_owned());
        let cases = [
            (ChildState::Stopping, stopped(), awaited("stopping, 1 s")),
            (ChildState::Stopping, End::Stopped(Some(steps())), awaited("SIGHUP, 1 of 2 s")),
            (ChildState::Cleaning, stopped(), awaited("cleaning up, 1 s")),
            (ChildState::Running, stopped(), Phase::InTurn),
            (ChildState::Ended, stopped(), Phase::Over),
            (ChildState::Running, End::Restarted, Phase::Over),
            (ChildState::Starting, End::Restarted, awaited("starting, 1 s")),
            (ChildState::Starting, End::Started(start()), awaited("starting, 1 of 30 s")),
            (ChildState::Stopping, End::Started(start()), awaited("stopping, 1 s")),
            (ChildState::Cleaning, End::Started(start()), awaited("cleaning up, 1 s")),
            (ChildState::Backoff, End::Started(start()), awaited("backoff, 1 s")),
            (ChildState::Running, End::Started(start()), Phase::Over),
            (ChildState::Running, End::Seen(None), awaited("running, 1 s")),
            (ChildState::Running, End::Seen(Some(Duration::from_secs(60))), awaited("running, 1 of 60 s")),
            (ChildState::Ended, End::Seen(None), Phase::Over),
        ];
        for (state, end, expected) in cases {
            assert_eq!(phase(state, &end, None, second), expected, "{state:?} {end:?}");
        }
    }
}
