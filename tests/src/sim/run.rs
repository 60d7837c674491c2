//! One run: the loop that takes the place of the broker's driver, from one seed to a verdict.

use std::hash::{DefaultHasher, Hash, Hasher};

use procbroker_core::{Broker, Effect, Incarnation, Input, Run, ShutdownCause};

use crate::sim::agenda::{Agenda, SECOND, clocks};
use crate::sim::checks;
use crate::sim::clients::Clients;
use crate::sim::dice::Dice;
use crate::sim::event::Event;
use crate::sim::finding::{Check, Checked, Finding};
use crate::sim::ledger::Ledger;
use crate::sim::machine::{Machine, Means};
use crate::sim::setting::{Ending, Setting};

/// More turns than any run needs: one that takes more is spinning.
const TURNS_MAX: u32 = 20_000;

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

    fn line(&mut self, line: impl FnOnce() -> String) {
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
struct Simulation<'a> {
    setting: Setting,
    dice: Dice,
    agenda: Agenda<Event>,
    machine: Machine,
    clients: Clients,
    ledger: Ledger,
    broker: Broker,
    turns: u32,
    trace: &'a mut Trace,
}

/// Runs the broker through what follows from a seed.
///
/// # Errors
/// What a checker has found.
pub fn run(seed: u64, trace: &mut Trace) -> Result<u32, Finding> {
    let mut dice = Dice::new(seed);
    let setting = Setting::roll(&mut dice);
    let clients = Clients::roll(&mut dice, &setting);
    let mut simulation = Simulation {
        ledger: Ledger::new(setting.config.clone()),
        broker: Broker::new(setting.config.clone()),
        agenda: Agenda::default(),
        machine: Machine::default(),
        turns: 0,
        setting,
        dice,
        clients,
        trace,
    };
    simulation.trace.line(|| format!("{:?}", simulation.setting));
    simulation.plan();
    simulation.go_on()?;
    Ok(simulation.turns)
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
    }

    /// Lets the earliest of what is planned and what the broker waits for happen, until it exits.
    fn go_on(&mut self) -> Checked {
        while !self.ledger.exited {
            let planned = self.agenda.next_time();
            let due = self.broker.next_deadline().map(procbroker_core::Moment::as_nanos);
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
        Ok(())
    }

    fn due(&mut self, due: u64) -> Checked {
        self.agenda.advance(due);
        self.tell(Input::Due)
    }

    fn happen(&mut self, event: Event) -> Checked {
        let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
        let input = match event {
            Event::Input(input) => Some(input),
            Event::Executed { run } => {
                self.machine.executed(run, &mut means);
                None
            }
            Event::Dies { run, process, of } => {
                self.machine.dies(run, process, of, &mut means);
                None
            }
            Event::Forks { run } => {
                self.machine.forks(run, &mut means);
                None
            }
            Event::Reaped { run } => self.machine.reaped(run),
            Event::Remaining { run } => self.machine.remaining(run),
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
        self.tell_stale(&input)?;
        self.tell(input)
    }

    /// Now and then a report comes late, about an earlier process of the same child: it is to change nothing.
    fn tell_stale(&mut self, input: &Input) -> Checked {
        if !self.dice.chance(3) {
            return Ok(());
        }
        let mut stale = input.clone();
        match &mut stale {
            Input::Recorded { run, .. }
            | Input::Spawned { run, .. }
            | Input::SpawnFailed { run, .. }
            | Input::Exited { run, .. }
            | Input::MembersLeft { run, .. } => *run = Run { incarnation: Incarnation(0), ..*run },
            Input::Connected { .. }
            | Input::Disconnected { .. }
            | Input::Called { .. }
            | Input::Signalled { .. }
            | Input::ShutdownAsked { .. }
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
        inputs.into_iter().try_for_each(|input| self.tell(input))
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
            let kept_for = self.setting.config.bounds.ended_kept_for.as_nanos();
            self.agenda.at(at + kept_for + SECOND, Event::Inspect);
            return Ok(());
        }
        if self.ledger.live.is_empty() && !self.ledger.exited && self.ledger.closing.is_none() {
            let mut fresh = Broker::new(self.setting.config.clone());
            fresh.handle(clocks(self.agenda.now()), Input::Due, &mut Vec::new());
            let (now, then) = (footprint(&self.broker), footprint(&fresh));
            Check::Growth.demand(now == then, || format!("the broker keeps {:?}", self.broker))?;
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
    fn tell(&mut self, input: Input) -> Checked {
        if self.ledger.exited || self.is_unheard(&input) {
            return Ok(());
        }
        self.turns += 1;
        Check::Progress.demand(self.turns <= TURNS_MAX, || "the broker is spinning".to_owned())?;
        let now = self.agenda.now();
        self.trace.line(|| format!("{now:>15} {input:?}"));
        match &input {
            Input::Recorded { run, .. } if run.incarnation == Incarnation::FIRST => {
                self.machine.recording -= 1;
            }
            Input::Spawned { run, .. } | Input::SpawnFailed { run, .. }
                if run.incarnation == Incarnation::FIRST =>
            {
                self.machine.spawning -= 1;
            }
            _ => {}
        }
        self.ledger.take(now, &input);
        let mut effects = Vec::new();
        self.broker.handle(clocks(now), input, &mut effects);
        for effect in &effects {
            self.trace.line(|| format!("{:>15}     {effect:?}", ""));
            checks::order(&mut self.ledger, &self.machine, effect)?;
            if let Effect::Refuse { connection, .. } = effect {
                self.clients.refused(*connection);
            }
            let mut means = Means { agenda: &mut self.agenda, dice: &mut self.dice, setting: &self.setting };
            self.machine.perform(effect, &mut means);
        }
        checks::standstill::after(&mut self.ledger, self.broker.next_deadline())
    }
}

/// What a broker holds, without the numbers in it.
fn footprint(broker: &Broker) -> String {
    format!("{broker:?}").chars().filter(|character| !character.is_ascii_digit()).collect()
}
