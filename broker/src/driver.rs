//! The only owner of the core: takes facts in, one at a time, and has the orders that follow carried out.
//!
//! There is one task, and it takes from one source after the other ([`Sources`]). What the machine reports (exits, spawned
//! processes) goes first, because clients wait for it, and for no longer than a slice while somebody else has something
//! (`precedence`); what clients ask for comes in the order of its arrival.

mod audit;
mod chores;
mod clients;
mod due;
mod durable_answers;
mod effect_handler;
mod hand_over;
mod launches;
mod measure;
mod perform;
mod precedence;
mod records;
mod signals;
mod sources;

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use procbroker_core::{After, Broker, Call, Config, Effect, EventHistory, ExitCause, Histogram, Input, Now};
use procbroker_protocol::response::Metrics as MetricsAnswer;
use procbroker_protocol::{Response, Timestamp};
use tokio::sync::mpsc;

use crate::inbox;
use crate::limits::{FACTS_A_TURN, RECORD_PATIENCE, TURN_BOUNDS};
use crate::messages::{Fact, FromThread, Who};
use crate::os::host::{clock, heap};
use crate::recovery::TakenOver;
use crate::turns::SLICE;
use audit::Audit;
use chores::Chores;
pub use clients::Clients;
use durable_answers::DurableAnswers;
pub use effect_handler::{EffectHandler, user};
pub use hand_over::Stay;
use precedence::{Party, Precedence};
pub use records::Records;
use signals::SignalEvent;
pub use signals::{Audience, Signals};
pub use sources::Sources;
use sources::{Left, News, Pause};

/// How many recovered children are worth a trim of the heap: to recover one takes some 3 KiB that the broker never needs again.
const MANY_RECOVERED: usize = 1_000;

/// Why the driver stops working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The broker exits, for this cause.
    Exit(ExitCause),
    /// Another program is to take over.
    HandOver,
}

/// The core, what carries out its effects, and what waits for them.
#[derive(Debug)]
pub struct Driver {
    broker: Broker,
    handler: EffectHandler,
    /// Inputs that are there at once, before any other fact.
    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    leave: Option<Leave>,
    /// Answers that wait for the record.
    durable_answers: DurableAnswers,
    /// Who asked for an upgrade, and is told of it when it cannot fail any more but by the other program.
    farewells: Vec<Call>,
    /// How long it took for each input, with all that followed from it.
    turns: Histogram,
    audit: Audit,
    /// What waits until the clients have their answers.
    chores: Chores,
    /// Who goes first with what there is to take in.
    precedence: Precedence,
}

impl Driver {
    /// A driver of a core that takes over these children and answers, and goes on with these events.
    #[must_use]
    pub fn new(
        config: Config,
        handler: EffectHandler,
        (recovered, answers): TakenOver,
        events: Option<EventHistory>,
    ) -> Self {
        let mut effects = Vec::new();
        let has_many = recovered.len() >= MANY_RECOVERED;
        let broker = Broker::recover(config, now(), recovered, answers, events, &mut effects);
        let mut driver = Self {
            broker,
            handler,
            inputs: VecDeque::new(),
            effects: Vec::new(),
            leave: None,
            durable_answers: DurableAnswers::default(),
            farewells: Vec::new(),
            turns: Histogram::new(&TURN_BOUNDS),
            audit: Audit::default(),
            chores: Chores::default(),
            precedence: Precedence::new(),
        };
        driver.perform_all(&mut effects);
        if has_many {
            drop(effects);
            heap::trim();
        }
        driver
    }

    /// What it acts with.
    #[must_use]
    pub fn handler(&self) -> &EffectHandler {
        &self.handler
    }

    /// Works until the core orders something that ends the work.
    pub async fn run(&mut self, sources: &mut Sources) -> Leave {
        // What there is to do at the start, and the first of the core's deadlines.
        self.take(Input::Due);
        loop {
            if let Some(leave) = self.leave.take() {
                return leave;
            }
            self.wait(sources).await;
        }
    }

    /// Waits for one fact and takes it in, and whatever else is there by then.
    async fn wait(&mut self, sources: &mut Sources) {
        if self.chores.wait() {
            // The connections that have something to write are ready to run by now, and go first.
            tokio::task::yield_now().await;
        }
        if self.chores.are_overdue() {
            self.do_chores();
        }
        if self.handler.has_backlog() {
            let began = Instant::now();
            self.reap();
            self.precedence.had(Party::Machine, began.elapsed());
        }
        let left = Left {
            unheard: self.handler.has_unheard(),
            own_work: self.handler.has_backlog() || self.chores.is_any(),
        };
        let wake_at = self.wake_at();
        if let Some(wake_at) = wake_at {
            sources.alarm.set(wake_at);
        }
        if !left.own_work && !left.unheard {
            // What was waited for has come: an idle broker does not wake up for it.
            sources.alarm.put_off(wake_at);
        }
        if self.precedence.is_slice_over() || left.unheard {
            // What clients have said meanwhile is read before they are asked.
            tokio::task::yield_now().await;
        }
        let (news, pause) = sources.next(self.precedence.order(), left).await;
        match pause {
            Pause::Rested => self.precedence.rested(),
            Pause::None => {}
        }
        let (party, began) = (news.party(), Instant::now());
        self.take_news(news, sources).await;
        if let Some(party) = party {
            self.precedence.had(party, began.elapsed());
        }
    }

    async fn take_news(&mut self, news: News, sources: &mut Sources) {
        match news {
            News::Signal(SignalEvent::Input(input)) => self.take(*input),
            News::Signal(SignalEvent::ChildEnded) | News::Ended => self.reap(),
            News::Report(report) => self.take_reports(report, &mut sources.threads),
            News::Launches => self.take_launch_outcomes(),
            News::AnchorEnded => self.anchors_ended(),
            News::Due => self.wake(&mut sources.facts).await,
            News::Notices => self.hear(),
            News::Fact(fact) => self.facts(fact, &mut sources.facts).await,
            // What is left of a backlog is reaped when it is waited again.
            News::OwnWork if self.chores.is_any() && !self.handler.has_backlog() => self.do_chores(),
            News::OwnWork => {}
        }
    }

    /// Takes in what a thread reports, and what is there behind it for as long as nobody waits for the loop for long.
    fn take_reports(&mut self, first: FromThread, others: &mut mpsc::Receiver<FromThread>) {
        let began = Instant::now();
        self.take_report(first);
        while began.elapsed() < SLICE {
            let Ok(report) = others.try_recv() else { return };
            self.take_report(report);
        }
    }

    /// Takes in a fact, and those behind it for as long as nobody waits for the loop for long.
    async fn facts(&mut self, first: Fact, others: &mut inbox::Receiver<Fact>) {
        let began = Instant::now();
        self.fact(first);
        let mut count = 1;
        while count < FACTS_A_TURN && began.elapsed() < SLICE {
            let Some(fact) = others.try_recv() else { return };
            self.fact(fact);
            count += 1;
        }
        if !others.is_empty() {
            // Whoever has said something meanwhile has their turn before those who were there earlier.
            tokio::task::yield_now().await;
        }
    }

    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Input(input) => {
                if let Input::Disconnected { connection } = &input {
                    self.handler.clients.remove(*connection);
                    self.durable_answers.disconnected(*connection);
                    self.audit.disconnected(*connection);
                }
                if let Input::Called { call, request, fresh: _ } = &input {
                    self.chores.audit(self.audit.called(*call, request));
                }
                self.take(input);
            }
            Fact::Connected { connection, who, outbox } => {
                let user = if let Who::Known(peer) = &who { peer.uid } else { u32::MAX };
                self.handler.clients.insert(connection, user, outbox);
                let input = match who {
                    Who::Known(peer) => {
                        self.audit.connected(connection, &peer);
                        Input::Connected { connection, peer }
                    }
                    Who::Unmapped => Input::ConnectedUnmapped { connection },
                };
                self.take(input);
            }
            // One that has gone needs no answer.
            Fact::Measure { answer } => drop(answer.send(self.metrics())),
        }
    }

    fn take_report(&mut self, report: FromThread) {
        match report {
            FromThread::Input(input) => {
                if let Input::Recorded { run, result } = &input {
                    self.handler.records.receipt(*run, result);
                }
                self.inputs.push_back(input);
            }
            FromThread::Measured { call, answer } => {
                self.handler.measuring = self.handler.measuring.saturating_sub(1);
                self.handler.clients.answer(call, Ok(*answer));
            }
            FromThread::Attempted(up_to) => self.durable_answers.attempted(up_to, &mut self.handler.clients),
            FromThread::UpgradeChecked(result) => {
                let result = result.map(|accounts| self.handler.accounts = Some(accounts));
                self.inputs.push_back(Input::UpgradeChecked { result });
            }
        }
        self.settle();
    }

    /// Takes in which programs have been executed, and tells the core.
    fn take_launch_outcomes(&mut self) {
        self.chores.has_launched |= self.handler.take_launch_outcomes(&mut self.inputs);
        self.settle();
    }

    fn do_chores(&mut self) {
        self.chores.do_all(&mut self.handler);
        if std::mem::take(&mut self.chores.has_launched) {
            // One may have ended before it was watched, with a signal that came too early.
            self.reap();
        }
    }

    /// Takes in what children tell of themselves, and tells the core.
    fn hear(&mut self) {
        let strays = self.handler.hear(&mut self.inputs);
        self.settle();
        for stray in strays {
            self.audit.stray(stray);
        }
    }

    /// Takes in which processes have ended that children's lives hang on, and tells the core.
    fn anchors_ended(&mut self) {
        let ended = self.handler.anchors.take_ended();
        self.inputs.extend(ended.into_iter().map(|anchor| Input::AnchorEnded { anchor }));
        self.settle();
    }

    /// Reaps what has ended, and tells the core. The same signal tells of a main command that was stopped.
    fn reap(&mut self) {
        let are_many = self.handler.reap(&mut self.inputs);
        self.settle();
        if are_many {
            // What these have left keeps the other threads busy while the next ones are taken in.
            self.handler.records.hurry();
            self.handler.let_go();
        }
        self.handler.job.follow();
    }

    fn take(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.settle();
    }

    /// Takes in what is there, and carries out what follows, until nothing follows any more.
    fn settle(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let began = Instant::now();
            let mut effects = std::mem::take(&mut self.effects);
            match input {
                Input::Due => self.broker.handle(now(), input, &mut effects),
                // It may have been there before what is due.
                input if self.is_behind() => self.broker.handle_belated(now(), input, &mut effects),
                input => self.broker.handle(now(), input, &mut effects),
            }
            self.perform_all(&mut effects);
            self.effects = effects;
            self.turns.observe(began.elapsed());
        }
    }

    /// Carries out all orders of one turn of the core.
    fn perform_all(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.durable_answers.end_turn(&self.handler.records, &mut self.handler.clients);
    }

    fn perform(&mut self, effect: Effect) {
        if let Effect::Answer { call, result, after: _, usage: _ } = &effect {
            self.chores.audit(self.audit.answered(*call, result));
        }
        if let Effect::Refuse { connection, error } = &effect {
            self.audit.refused(*connection, error);
        }
        // Each of these leaves something to do to a thread that nobody waits for.
        if let Effect::Release { .. } | Effect::EndLog { .. } | Effect::Forget { .. } = &effect {
            self.chores.let_go = true;
        }
        match effect {
            Effect::Exit(cause) => self.leave = Some(Leave::Exit(cause)),
            Effect::HandOver => self.leave = Some(Leave::HandOver),
            Effect::Answer { call, result: Ok(Response::Upgraded), after: _, usage: _ } => {
                self.farewells.push(call);
            }
            Effect::Answer { call, result, after: After::Records, usage: _ } => {
                self.durable_answers.add(call, result);
            }
            Effect::Measure { call } => {
                let answer = Ok(Response::Metrics(MetricsAnswer { text: self.metrics() }));
                self.chores.audit(self.audit.answered(call, &answer));
                self.handler.clients.answer(call, answer);
            }
            Effect::Report(report) => self.chores.report(report),
            other => self.handler.perform(other, &mut self.inputs),
        }
    }

    /// Completes the record, lets go of all clients, so that their last answers are written and their connections
    /// closed, and of what the machine lent.
    pub fn finish(mut self) {
        self.chores.do_all(&mut self.handler);
        if let Err(error) = self.handler.records.flush(RECORD_PATIENCE) {
            tracing::error!("what was last recorded may be lost: {error}");
        }
        // No attempt follows that they could wait for.
        self.durable_answers.release_all(&mut self.handler.clients);
        for (connection, unread) in self.broker.unread_events() {
            self.handler.clients.last_events(connection, unread);
        }
        // The process ends. To free what is known of thousands of children would take as long as to end some of them.
        std::mem::forget(self.broker);
        self.handler.finish();
    }
}

fn now() -> Now {
    let nanoseconds = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
    Now {
        instant: procbroker_core::Instant::from_nanos(nanoseconds),
        wall: Timestamp::from(SystemTime::now()),
    }
}
