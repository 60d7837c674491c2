//! The only owner of the core: takes facts in, one at a time, and has the orders that follow carried out.
//!
//! There is one task, and it takes from one source after the other ([`Sources`]). What the machine reports (exits, spawned
//! processes) goes first, because clients wait for it; what clients ask for comes in the order of its arrival.

mod audit;
mod chores;
mod clients;
mod durable_answers;
mod effect_handler;
mod launches;
mod measure;
mod perform;
mod records;
mod signals;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use procbroker_core::{
    After, Broker, Call, Config, Effect, EventHistory, ExitCause, HandedOver, Histogram, Input, Now,
    UpgradeFailure,
};
use procbroker_protocol::response::Metrics as MetricsAnswer;
use procbroker_protocol::{ChildId, Error, ErrorKind, Response, Timestamp};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::inbox;
use crate::limits::{FACTS_A_TURN, RECORD_PATIENCE, SPAWN_PATIENCE, TURN_BOUNDS};
use crate::messages::{Fact, FromThread, Who};
use crate::os::host::clock::{self, Alarm};
use crate::os::host::heap;
use crate::os::journal::JournalError;
use crate::recovery::TakenOver;
use crate::turns::SLICE;
use audit::Audit;
use chores::Chores;
pub use clients::Clients;
use durable_answers::DurableAnswers;
pub use effect_handler::{EffectHandler, user};
pub use records::Records;
use signals::SignalEvent;
pub use signals::{Audience, Signals};

/// To recover so many children takes memory that the broker never needs again: some 3 KiB for each.
const MANY_RECOVERED: usize = 1_000;

/// What is due for so long was not seen to because the broker did not run. A turn of the loop is far shorter.
const BEHIND_AFTER: Duration = Duration::from_millis(5);

/// After so many rounds of the loop in which nothing came, nothing more does: a user's connections read in turn.
const QUIET_ROUNDS: usize = 8;

/// For so long what was said meanwhile goes before what is due.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);

/// Where facts come from.
#[derive(Debug)]
pub struct Sources {
    /// What clients say, and what the tasks around them report.
    pub facts: inbox::Receiver<Fact>,
    /// From the edge's own threads.
    pub threads: mpsc::Receiver<FromThread>,
    /// The signals that mean something to the broker, SIGCHLD among them.
    pub signals: Signals,
    /// Readable when a watched process has ended: there only where some are not the broker's own children, of whose end
    /// no signal tells.
    pub announcer: Option<AsyncFd<OwnedFd>>,
    /// Readable when a child has told something of itself.
    pub notices: AsyncFd<OwnedFd>,
    /// Readable when a process has ended that children's lives hang on.
    pub anchors: AsyncFd<OwnedFd>,
    /// Readable when something has come of a process that is being started.
    pub landings: AsyncFd<OwnedFd>,
    /// Rings when something is due.
    pub alarm: Alarm,
}

/// Why the driver stops working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The broker exits, for this cause.
    Exit(ExitCause),
    /// Another program is to take over.
    HandOver,
}

/// Why no other program has taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stay {
    /// The core does not want it any more: the broker is to stop.
    CalledOff,
    /// It cannot be done.
    Failed(UpgradeFailure),
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
    /// Whether the last thing that was taken in was what children tell of themselves.
    has_just_heard: bool,
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
            has_just_heard: false,
        };
        driver.perform_all(&mut effects);
        if has_many {
            drop(effects);
            heap::trim();
        }
        driver
    }

    /// The events that were told of, for the program that takes over.
    #[must_use]
    pub fn event_history(&self) -> EventHistory {
        self.broker.event_history()
    }

    /// What the program that takes over is told of children beside what is on record.
    #[must_use]
    pub fn handed_over(&self) -> BTreeMap<ChildId, HandedOver> {
        self.broker.handed_over(now().instant)
    }

    /// What it acts with.
    #[must_use]
    pub fn handler(&self) -> &EffectHandler {
        &self.handler
    }

    /// Whether the connections have taken all of their answers, and none waits for the record.
    #[must_use]
    pub fn all_answers_are_out(&self) -> bool {
        self.durable_answers.is_empty()
            && self.handler.measuring == 0
            && self.handler.clients.all_answers_are_out()
    }

    /// Waits until everything is written that is to be on record so far, and lets the answers go that wait for it.
    ///
    /// # Errors
    /// When the disk refuses, or takes longer than that.
    pub fn complete_record(&mut self, patience: Duration) -> Result<(), JournalError> {
        let completed = self.handler.records.flush(patience);
        self.durable_answers.attempted(self.handler.records.attempted(), &mut self.handler.clients);
        completed
    }

    /// Whether another program is to take over, still.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.broker.is_handing_over()
    }

    /// Takes in what is there by now, without waiting for more. Nothing is reaped: what ends from now on is for the
    /// program that takes over.
    pub fn catch_up(&mut self, sources: &mut Sources) {
        self.chores.do_all(&mut self.handler);
        while let Ok(report) = sources.threads.try_recv() {
            self.take_report(report);
        }
        for _ in 0..FACTS_A_TURN {
            let Some(fact) = sources.facts.try_recv() else { break };
            self.fact(fact);
        }
        while let Some(stop) = sources.signals.stop() {
            self.take(stop);
        }
    }

    /// Tells those who asked that the other program takes over.
    pub fn say_farewell(&mut self) {
        for call in std::mem::take(&mut self.farewells) {
            self.handler.clients.answer(call, Ok(Response::Upgraded));
        }
    }

    /// No other program has taken over.
    pub fn stay(&mut self, stay: Stay) {
        let error = match &stay {
            Stay::CalledOff => {
                Error::new(ErrorKind::ShuttingDown, "not upgraded: the broker is shutting down")
            }
            Stay::Failed(UpgradeFailure { message }) => {
                let message = format!("not upgraded, and nothing has changed: {message}");
                Error::new(ErrorKind::Internal, message)
            }
        };
        for call in std::mem::take(&mut self.farewells) {
            self.handler.clients.answer(call, Err(error.clone()));
        }
        match stay {
            Stay::CalledOff => {}
            Stay::Failed(failure) => self.take(Input::HandOverFailed { failure }),
        }
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
            self.reap();
        }
        let backlog = self.handler.has_backlog();
        let has_unheard = self.handler.has_unheard();
        let has_chores = self.chores.is_any();
        // Neither clients nor children have the driver for themselves.
        let has_just_heard = std::mem::take(&mut self.has_just_heard);
        let wake_at = self.wake_at();
        let Sources { facts, threads, signals, announcer, anchors, landings, notices, alarm } = sources;
        if let Some(wake_at) = wake_at {
            alarm.set(wake_at);
        }
        tokio::select! {
            biased;
            told = signals.next() => match told {
                SignalEvent::ChildEnded => self.reap(),
                SignalEvent::Input(input) => self.take(*input),
            },
            Some(report) = threads.recv() => {
                self.take_report(report);
                while let Ok(report) = threads.try_recv() {
                    self.take_report(report);
                }
            }
            () = announced(Some(landings)) => self.land(),
            () = announced(announcer.as_ref()), if announcer.is_some() => self.reap(),
            () = announced(Some(anchors)) => self.anchors_ended(),
            () = alarm.rings() => self.wake(facts).await,
            () = unheard(notices, has_unheard), if !has_just_heard => self.hear(),
            fact = facts.recv() => self.facts(fact, facts).await,
            () = unheard(notices, has_unheard), if has_just_heard => self.hear(),
            () = std::future::ready(()), if backlog => {}
            () = std::future::ready(()), if has_chores => self.do_chores(),
        }
    }

    /// How long after the machine's start something is due that nothing else tells of.
    fn wake_at(&self) -> Option<Duration> {
        let due = self.broker.next_deadline().map(|deadline| Duration::from_nanos(deadline.as_nanos()));
        let overdue = self.handler.launcher.overdue_at(SPAWN_PATIENCE).map(clock::after_boot);
        let rested = self.handler.notices.rest_until().map(clock::after_boot);
        let again = self.handler.anchors.again_at().map(clock::after_boot);
        due.into_iter().chain(overdue).chain(rested).chain(again).min()
    }

    /// Does what is due. If it has been so for long, the broker did not run: what was said meanwhile goes first.
    async fn wake(&mut self, facts: &mut inbox::Receiver<Fact>) {
        if self.is_behind() {
            self.catch_up_with_words(facts).await;
        }
        if self.handler.launcher.kill_overdue(SPAWN_PATIENCE) > 0 {
            tracing::warn!(
                "a child did not get to execute its program within {SPAWN_PATIENCE:?} and was killed"
            );
        }
        self.handler.notices.wake(Instant::now());
        let ended = self.handler.anchors.try_again(Instant::now());
        self.inputs.extend(ended.into_iter().map(|anchor| Input::AnchorEnded { anchor }));
        self.take(Input::Due);
    }

    /// Whether something has been due for longer than a turn of the loop takes.
    fn is_behind(&self) -> bool {
        let due = self.broker.next_deadline().map(|due| Duration::from_nanos(due.as_nanos()));
        due.is_some_and(|due| clock::since_boot() > due.saturating_add(BEHIND_AFTER))
    }

    /// Takes in what children and clients have said while the broker did not run, as far as it is there at once.
    async fn catch_up_with_words(&mut self, facts: &mut inbox::Receiver<Fact>) {
        let began = Instant::now();
        let mut quiet_rounds = 0;
        while quiet_rounds < QUIET_ROUNDS && began.elapsed() < CATCH_UP_MAX {
            quiet_rounds += 1;
            self.hear();
            // The connections read what is there in the meantime.
            tokio::task::yield_now().await;
            for _ in 0..FACTS_A_TURN {
                let Some(fact) = facts.try_recv() else { break };
                self.fact(fact);
                quiet_rounds = 0;
            }
            if self.handler.has_unheard() {
                quiet_rounds = 0;
            }
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
            // Whoever has said something meanwhile has their turn before a crowd that was there earlier.
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
    fn land(&mut self) {
        self.chores.landed |= self.handler.land(&mut self.inputs);
        self.settle();
    }

    fn do_chores(&mut self) {
        self.chores.do_all(&mut self.handler);
        if std::mem::take(&mut self.chores.landed) {
            // One may have ended before it was watched, with a signal that came too early.
            self.reap();
        }
    }

    /// Takes in what children tell of themselves, and tells the core.
    fn hear(&mut self) {
        self.has_just_heard = true;
        self.handler.hear(&mut self.inputs);
        self.settle();
    }

    /// Takes in which processes have ended that children's lives hang on, and tells the core.
    fn anchors_ended(&mut self) {
        let ended = self.handler.anchors.take_ended();
        self.inputs.extend(ended.into_iter().map(|anchor| Input::AnchorEnded { anchor }));
        self.settle();
    }

    /// Reaps what has ended, and tells the core. The same signal tells of a main command that was stopped.
    fn reap(&mut self) {
        self.handler.reap(&mut self.inputs);
        self.settle();
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

/// Waits until a child has told something, or, where more was told than could be taken in, until others have had their
/// turns.
async fn unheard(notices: &AsyncFd<OwnedFd>, has_more: bool) {
    if has_more { tokio::task::yield_now().await } else { announced(Some(notices)).await }
}

/// Waits until a descriptor of this kind is readable.
async fn announced(announcer: Option<&AsyncFd<OwnedFd>>) {
    match announcer {
        Some(announcer) => match announcer.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The event loop itself has ended.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
