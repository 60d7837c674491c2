//! One run: the loop that takes the place of the broker's driver, from one seed to a verdict.

use std::hash::{DefaultHasher, Hash, Hasher};

use procbroker_core::{
    Birthmark, Broker, Effect, Incarnation, Input, Progress, Purpose, Record, Report, Run, ShutdownCause,
};

use crate::sim::agenda::{Agenda, SECOND};
use crate::sim::checks;
use crate::sim::clients::Clients;
use crate::sim::dice::Dice;
use crate::sim::event::Event;
use crate::sim::finding::{Check, Checked, Finding};
use crate::sim::held::Held;
use crate::sim::ledger::Ledger;
use crate::sim::ledger::upgrade::Upgrade;
use crate::sim::lives::Fates;
use crate::sim::machine::{Machine, Means};
use crate::sim::setting::{Ending, Setting};
use crate::sim::tally::Tally;
use crate::sim::wall_clock::WallClock;
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{Child, ExitReason};

/// More turns than any run needs: one that takes more is spinning.
const TURNS_MAX: u64 = 60_000;

/// And more than ever happens in the model beside it.
const EVENTS_MAX: u64 = 10 * TURNS_MAX;

/// More orders than one turn gives for each child that is there or visible, and for each request that waits or is remembered.
const ORDERS_OF_EACH: usize = 16;

/// What happened in a run, in lines.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that is kept.
    #[must_use]
    pub fn kept() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    /// Adds a line.
    pub fn line(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// A number that two equal traces share.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines().hash(&mut hasher);
        hasher.finish()
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Simulation<'a> {
    pub(super) setting: Setting,
    pub(super) dice: Dice,
    pub(super) agenda: Agenda<Event>,
    pub(super) machine: Machine,
    pub(super) clients: Clients,
    pub(super) ledger: Ledger,
    /// The answers that wait for the record.
    pub(super) held: Held,
    /// The broker, if one is there.
    pub(super) broker: Option<Broker>,
    pub(super) fates: Fates,
    pub(super) tally: Tally,
    pub(super) trace: &'a mut Trace,
}

/// Runs the broker through what follows from a seed.
///
/// # Errors
/// What a checker has found.
pub fn run(seed: u64, trace: &mut Trace) -> Result<Tally, Finding> {
    let mut dice = Dice::new(seed);
    let setting = Setting::roll(&mut dice);
    let clients = Clients::roll(&mut dice, &setting);
    let clock = WallClock::roll(seed);
    let mut simulation = Simulation {
        ledger: Ledger::new(setting.config.clone(), clock.clone()),
        broker: Some(Broker::new(setting.config.clone())),
        agenda: Agenda::default(),
        machine: Machine::default(),
        held: Held::default(),
        tally: Tally { clocks_set: clock.jumps(), ..Tally::default() },
        fates: Fates::roll(&mut dice, &setting),
        setting,
        dice,
        clients,
        trace,
    };
    simulation.trace.line(|| format!("{:?} {clock:?}", simulation.setting));
    simulation.plan();
    simulation.go_on()?;
    Ok(simulation.tally)
}

impl Simulation<'_> {
    fn plan(&mut self) {
        for client in 0..self.clients.count() {
            let delay = self.dice.within_millis(if self.setting.crowded { 20 } else { 10_000 });
            self.agenda.after(delay, Event::Act { client });
        }
        let end_at = self.setting.end_at;
        match self.setting.ending {
            Ending::Quiet => self.agenda.after(end_at, Event::Quieten),
            Ending::Signal | Ending::Limited(_) | Ending::Request(_) => self.agenda.after(end_at, Event::End),
        }
        if let Some(again) = self.setting.again_after {
            self.agenda.after(end_at + again, Event::EndAgain);
        }
        for _ in 0..self.setting.upgrades {
            let at = self.dice.below(end_at);
            self.agenda.after(at, Event::Input(Input::UpgradeAsked));
        }
    }

    /// Lets the earliest of what is planned and what the broker waits for happen, until the last one exits.
    fn go_on(&mut self) -> Checked {
        // What the model plans for itself tells the broker nothing, and would not be counted as a turn of it.
        let mut events = 0;
        loop {
            events += 1;
            Check::Progress.demand(events <= EVENTS_MAX, || "the broker never comes to an end".to_owned())?;
            if self.broker.is_some() && self.ledger.exited && !self.leave()? {
                return Ok(());
            }
            let planned = self.agenda.next_time();
            let due = self.broker.as_ref().and_then(Broker::next_deadline);
            let due = due.map(procbroker_core::Instant::as_nanos);
            match (planned, due) {
                (Some(planned), Some(due)) if due <= planned => self.due(due)?,
                (None, Some(due)) => self.due(due)?,
                (Some(_), _) => {
                    if let Some(event) = self.agenda.pop() {
                        self.happen(event)?;
                    }
                }
                (None, None) => return Err(Check::Progress.broken("the broker waits for nothing, forever")),
            }
        }
    }

    fn due(&mut self, due: u64) -> Checked {
        self.agenda.advance(due);
        self.tell(Input::Due)
    }

    fn happen(&mut self, event: Event) -> Checked {
        if self.broker.is_none() && event.needs_a_broker() {
            self.agenda.after(SECOND, event);
            return Ok(());
        }
        let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
        let input = match event {
            Event::Input(input) => Some(input),
            Event::Executed { run } => {
                self.machine.executed(run, &mut means);
                None
            }
            Event::GetsThere { family } => {
                self.machine.gets_there(family, &mut means);
                None
            }
            Event::Written { run, place, safety } => Some(self.machine.written(run, place, safety)),
            Event::Reads { connection } => return self.tell(Input::EventsWanted { connection }),
            Event::Attempted { ticket, written } => {
                self.attempted(ticket, written);
                None
            }
            Event::Dies { family, process, of } => {
                self.machine.dies(family, process, of, &mut means);
                None
            }
            Event::Says { family, notices } => {
                self.machine.says(family, notices, &mut means);
                None
            }
            Event::Starves { family, process } => {
                self.machine.starves(family, process, &mut means);
                None
            }
            Event::Forks { family } => {
                self.machine.forks(family, &mut means);
                None
            }
            Event::AnchorEnds { anchor } => {
                self.machine.anchors.ends(anchor, &mut means);
                None
            }
            Event::Reaped { family } => {
                let starved = self.machine.starved(family);
                let reaped = self.machine.reaped(family, &mut means);
                if let Some(starved) = starved.filter(|_| reaped.is_some()) {
                    self.tell(starved)?;
                }
                reaped
            }
            Event::Remaining { family } => self.machine.remaining(family),
            Event::Start => return self.start(),
            Event::Replaced => {
                if self.ledger.upgrade == Upgrade::HandingOver {
                    self.hand_over();
                }
                None
            }
            Event::Act { client } => return self.act(client),
            Event::End => return self.end(),
            Event::EndAgain => {
                let hurries = self.dice.chance(75);
                Some(Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries } })
            }
            Event::Quieten => return self.quieten(),
            Event::Inspect => return self.inspect(),
        };
        let Some(input) = input else { return Ok(()) };
        if let Input::Spawned { run, .. } | Input::SpawnFailed { run, .. } = &input {
            if !self.machine.end_launch(*run) {
                // It was killed before, and the broker has heard of that.
                return Ok(());
            }
            // One that is started again under this number is another process.
            self.agenda.drop_unless(|event| !event.ends_launch(*run));
        }
        self.tell_stale(&input)?;
        self.tell(input)
    }

    /// Now and then a report comes late, about an earlier process of the same child or of the same number: it is to change
    /// nothing.
    fn tell_stale(&mut self, input: &Input) -> Checked {
        if !self.dice.chance(3) {
            return Ok(());
        }
        let mut stale = input.clone();
        match &mut stale {
            Input::Recorded { run, .. }
            | Input::Spawned { run, .. }
            | Input::SpawnFailed { run, .. }
            | Input::Notified { run, .. }
            | Input::Probed { run, .. }
            | Input::Exited { run, .. }
            | Input::OutOfMemory { run }
            | Input::MembersLeft { run, .. } => {
                *run = Run { incarnation: Incarnation(run.incarnation.0 - 1), ..*run };
            }
            // Of another process of the same number.
            Input::AnchorEnded { anchor } => anchor.birthmark = Birthmark::Inode(u64::MAX),
            Input::Connected { .. }
            | Input::ConnectedUnmapped { .. }
            | Input::Disconnected { .. }
            | Input::EventsWanted { .. }
            | Input::Called { .. }
            | Input::Signalled { .. }
            | Input::ShutdownAsked { .. }
            | Input::LogRead { .. }
            | Input::TailRead { .. }
            | Input::PassOn { .. }
            | Input::UpgradeAsked
            | Input::UpgradeChecked { .. }
            | Input::HandOverFailed { .. }
            | Input::Swept { .. }
            | Input::Due => return Ok(()),
        }
        self.tell(stale)
    }

    fn act(&mut self, client: usize) -> Checked {
        let (inputs, more) = self.clients.act(client, &mut self.dice, &self.setting);
        if more {
            let most = if self.setting.crowded { 400 } else { 15_000 };
            let most = self.dice.choose([2, 20, most]);
            self.agenda.after(self.dice.within_millis(most), Event::Act { client });
        }
        inputs.into_iter().try_for_each(|input| {
            let input = self.looked_up(input);
            self.tell(input)
        })
    }

    /// A request, with what is found of the process that it names.
    fn looked_up(&mut self, mut input: Input) -> Input {
        if let Input::Called { call, request, fresh } = &mut input
            && let Some(link) = self.ledger.links.get(&call.connection)
        {
            let (uid, boot) = (link.peer.uid, self.machine.boot);
            let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
            fresh.anchor = self.machine.anchors.find(request, uid, boot, &mut means);
        }
        input
    }

    fn end(&mut self) -> Checked {
        let inputs = match self.setting.ending {
            Ending::Signal | Ending::Quiet => {
                let hurries = self.dice.chance(80);
                vec![Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries } }]
            }
            Ending::Limited(timeout) => {
                vec![Input::ShutdownAsked { cause: ShutdownCause::Limited { timeout } }]
            }
            Ending::Request(timeout) => {
                // The request may be refused, where connections are short.
                self.agenda.after(0, Event::EndAgain);
                self.clients.shut_down(timeout)
            }
        };
        inputs.into_iter().try_for_each(|input| self.tell(input))
    }

    fn quieten(&mut self) -> Checked {
        let inputs = self.clients.leave();
        inputs.into_iter().try_for_each(|input| self.tell(input))?;
        self.agenda.after(400 * SECOND, Event::Inspect);
        let left = self.clients.leave_wholly();
        left.map_or(Ok(()), |input| self.tell(input))
    }

    /// Everything is over and forgotten: the broker is as it was at its start, but for its counters.
    fn inspect(&mut self) -> Checked {
        if let Some((at, _)) = self.ledger.visible.back()
            && self.ledger.closing.is_none()
            && self.ledger.live.is_empty()
        {
            let kept_for = nanos(self.setting.config.bounds.ended_kept_for);
            self.agenda.at(at + kept_for + SECOND, Event::Inspect);
            return Ok(());
        }
        if self.ledger.live.is_empty() && !self.ledger.exited && self.ledger.closing.is_none() {
            let mut fresh = Broker::new(self.setting.config.clone());
            fresh.handle(self.ledger.clock.at(self.agenda.now()), Input::Due, &mut Vec::new());
            let Some(broker) = &self.broker else { return Ok(()) };
            let (now, then) = (footprint(broker), footprint(&fresh));
            Check::Growth.demand(now == then, || format!("the broker keeps {broker:?}"))?;
            let watched = &self.machine.anchors.watched;
            Check::Growth.demand(watched.is_empty(), || format!("{watched:?} are watched in vain"))?;
        }
        self.end()
    }

    /// Whether a request comes on a connection that was refused: nobody reads it.
    fn is_unheard(&self, input: &Input) -> bool {
        if let Input::Called { call, .. } = input {
            return self.ledger.links.get(&call.connection).is_none_or(|link| !link.open);
        }
        false
    }

    /// Tells the broker one thing, holds its orders against the book, and has them carried out.
    pub(super) fn tell(&mut self, input: Input) -> Checked {
        if self.ledger.exited || self.is_unheard(&input) {
            return Ok(());
        }
        let Some(broker) = &mut self.broker else { return Ok(()) };
        self.tally.turns += 1;
        Check::Progress.demand(self.tally.turns <= TURNS_MAX, || "the broker is spinning".to_owned())?;
        let now = self.agenda.now();
        self.trace.line(|| format!("{now:>15} {input:?}"));
        self.tally.words += u64::from(matches!(input, Input::Notified { .. }));
        self.ledger.take(now, &input);
        let mut effects = Vec::new();
        broker.handle(self.ledger.clock.at(now), input, &mut effects);
        self.tally.gaps += checks::events::happened(&mut self.ledger, broker, &effects)?;
        self.is_bounded(&effects)?;
        self.perform(&effects)
    }

    /// No turn orders more than follows from what there is: from each child and each request that waits.
    fn is_bounded(&self, effects: &[Effect]) -> Checked {
        let of_all = |effect: &&Effect| !matches!(effect, Effect::Publish { .. } | Effect::Unread { .. });
        let orders = effects.iter().filter(of_all).count();
        let Ledger { live, waiting, visible, found, .. } = &self.ledger;
        let most = ORDERS_OF_EACH * (1 + live.len() + waiting.len() + visible.len() + found.len());
        Check::Progress
            .demand(orders <= most, || format!("one turn gives {orders} orders, of which {most} may be"))
    }

    /// Carries out orders, as far as the broker lives to give them.
    pub(super) fn perform(&mut self, effects: &[Effect]) -> Checked {
        let mut answers = Vec::new();
        for effect in effects {
            if self.fates.strikes() {
                self.crash();
                return Ok(());
            }
            self.trace.line(|| format!("{:>15}     {effect:?}", ""));
            if let Effect::Record { run, record: Record::Intent(_), .. } = effect {
                self.tally.places += u64::from(self.ledger.is_for_a_seeker(run.child));
            }
            if let Effect::Kill { run } = effect {
                self.tally.cut_short += u64::from(self.ledger.is_launch(*run));
            }
            checks::order(&mut self.ledger, &self.machine, effect)?;
            match effect {
                Effect::Refuse { connection, .. } => self.clients.refused(*connection),
                Effect::Spawn { purpose: Purpose::Cleanup { .. }, .. } => self.tally.cleanups += 1,
                Effect::Report(Report::Restarting { .. }) => self.tally.runs_again += 1,
                Effect::Report(Report::Ended { child }) if is_outlived(child) => self.tally.owners_gone += 1,
                Effect::Probe { .. } => self.tally.questions += 1,
                Effect::Spawn { purpose: Purpose::Probe, .. } => self.tally.commands += 1,
                Effect::ReadTail { .. } => self.tally.last_words += 1,
                Effect::Record { record: Record::Progress(Progress::Stopping(stopping)), .. } => {
                    self.tally.hung += u64::from(stopping.reason == ExitReason::Watchdog);
                }
                Effect::Answer { call, result, after, usage: _ } => {
                    answers.extend(self.answer(*call, result, *after));
                }
                _ => {}
            }
            let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
            self.machine.perform(effect, &mut means);
        }
        self.hold(answers);
        let due = self.broker.as_ref().and_then(Broker::next_deadline);
        let is_due = due.is_some_and(|due| due.as_nanos() <= self.agenda.now());
        if is_due && self.fates.begins() {
            // A step whose time was over before it started: the driver tells it so at once.
            return self.tell(Input::Due);
        }
        checks::events::after(&mut self.ledger)?;
        checks::standstill::after(&mut self.ledger, due)
    }
}

/// Whether a child has ended with a process that it was to live as long as.
fn is_outlived(child: &Child) -> bool {
    let reason = child.exit.as_ref().map(|exit| exit.reason);
    matches!(child.lifetime, Lifetime::Pid(_)) && reason == Some(ExitReason::OwnerGone)
}

/// What a broker holds, without the numbers in it, the events that it keeps for those who come later, what it has counted,
/// and how the last upgrade has failed.
fn footprint(broker: &Broker) -> String {
    let held = format!("{broker:?}");
    let held = without(&held, "kept: Kept", ", readers: ");
    let held = without(&held, "totals: ", ", stopping: ");
    let held = without(&held, "last_failure: ", " }, main: ");
    held.chars().filter(|character| !character.is_ascii_digit()).collect()
}

/// A text without what is between the first of these and the last of those.
fn without(text: &str, from: &str, to: &str) -> String {
    let (before, rest) = text.split_once(from).unwrap_or((text, ""));
    let (_, after) = rest.rsplit_once(to).unwrap_or(("", rest));
    [before, after].concat()
}
