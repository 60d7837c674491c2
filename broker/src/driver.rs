//! The only owner of the core: takes facts in, one at a time, and has the orders that follow carried out.
//!
//! There is one task and one queue for facts. What the machine reports (exits, spawned processes) goes
//! first, because clients wait for it; what clients ask for comes in the order of its arrival.

mod perform;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::SigSet;
use procbroker_core::{Broker, ConnectionId, Effect, ExitCause, Input, Moment, Now, Peer};
use procbroker_protocol::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::connection::Outbox;
use crate::limits::FACTS_A_TURN;
use crate::spawners::{Outcome, TEND_EVERY};
pub use perform::Hands;

/// Something for the core to know, and what the edge needs to act on the answer.
#[derive(Debug)]
pub enum Fact {
    /// An input as it is.
    Input(Input),
    /// A client has connected.
    Connected {
        /// Its connection.
        connection: ConnectionId,
        /// Who it is.
        peer: Peer,
        /// Where its answers go.
        outbox: Outbox,
    },
}

/// What threads of the edge report.
#[derive(Debug)]
pub enum FromThread {
    /// A process was started, or not.
    Spawned(Outcome),
    /// A walk over the processes of children has shown something.
    Input(Input),
}

/// Where facts come from.
#[derive(Debug)]
pub struct Sources {
    /// From clients.
    pub facts: mpsc::Receiver<Fact>,
    /// From the edge's own threads.
    pub threads: mpsc::Receiver<FromThread>,
    /// From the kernel.
    pub signals: Signals,
}

/// The signals that mean something to the broker.
#[derive(Debug)]
pub struct Signals {
    child: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from their default actions.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> std::io::Result<Self> {
        // Whoever started the broker may have blocked them, which its program inherits.
        SigSet::empty().thread_set_mask()?;
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    broker: Broker,
    hands: Hands,
    start: Instant,
    /// Inputs that are there at once, before any other fact.
    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    /// When the spawning threads are looked after, while they have something to do.
    tend_at: Option<Instant>,
    exit: Option<ExitCause>,
}

/// The clients that were admitted or are to be told that they are not.
pub type Outboxes = BTreeMap<ConnectionId, Outbox>;

impl Driver {
    /// A driver of this core.
    #[must_use]
    pub fn new(broker: Broker, hands: Hands) -> Self {
        Self {
            broker,
            hands,
            start: Instant::now(),
            inputs: VecDeque::new(),
            effects: Vec::new(),
            tend_at: None,
            exit: None,
        }
    }

    /// Works until the core orders the exit.
    pub async fn run(&mut self, mut sources: Sources) -> ExitCause {
        // The clocks of the core begin with its first input.
        self.take(Input::Due);
        loop {
            if let Some(cause) = self.exit {
                return cause;
            }
            self.wait(&mut sources).await;
        }
    }

    /// Waits for one fact and takes it in, and whatever else is there by then.
    async fn wait(&mut self, sources: &mut Sources) {
        if self.hands.has_backlog() {
            self.reap();
        }
        let backlog = self.hands.has_backlog();
        let wake_at = self.wake_at();
        let Sources { facts, threads, signals } = sources;
        tokio::select! {
            biased;
            Some(()) = signals.child.recv() => self.reap(),
            Some(report) = threads.recv() => {
                self.take_report(report);
                while let Ok(report) = threads.try_recv() {
                    self.take_report(report);
                }
                // A child may have ended before it was watched, with a signal that came too early.
                self.reap();
            }
            Some(()) = signals.terminate.recv() => self.take(shutdown(true)),
            Some(()) = signals.interrupt.recv() => self.take(shutdown(true)),
            Some(()) = signals.hangup.recv() => self.take(shutdown(false)),
            () = until(wake_at), if wake_at.is_some() => self.wake(),
            Some(fact) = facts.recv() => {
                self.fact(fact);
                for _ in 1..FACTS_A_TURN {
                    let Ok(fact) = facts.try_recv() else { break };
                    self.fact(fact);
                }
            }
            () = std::future::ready(()), if backlog => {}
        }
    }

    /// When something is due that nothing else tells of. It is one timer, because each one that is set earlier
    /// than the last wakes the event loop.
    fn wake_at(&self) -> Option<Instant> {
        let due = self
            .broker
            .next_deadline()
            .map(|deadline| self.start + Duration::from_nanos(deadline.as_nanos()));
        let tend = self.tend_at.filter(|_| self.hands.spawns_in_flight());
        match (due, tend) {
            (Some(due), Some(tend)) => Some(due.min(tend)),
            (due, tend) => due.or(tend),
        }
    }

    /// Does what is due.
    fn wake(&mut self) {
        if self.tend_at.is_some_and(|tend_at| tend_at <= Instant::now()) {
            self.hands.tend();
            self.tend_at = Some(Instant::now() + TEND_EVERY);
        }
        self.take(Input::Due);
    }

    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Input(input) => {
                if let Input::Disconnected { connection } = &input {
                    self.hands.outboxes.remove(connection);
                }
                self.take(input);
            }
            Fact::Connected { connection, peer, outbox } => {
                self.hands.outboxes.insert(connection, outbox);
                self.take(Input::Connected { connection, peer });
            }
        }
    }

    fn take_report(&mut self, report: FromThread) {
        match report {
            FromThread::Spawned(outcome) => self.hands.spawned(outcome, &mut self.inputs),
            FromThread::Input(input) => self.inputs.push_back(input),
        }
        self.settle();
    }

    /// Reaps what has ended, and tells the core.
    fn reap(&mut self) {
        self.hands.reap(&mut self.inputs);
        self.settle();
    }

    fn take(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.settle();
    }

    /// Takes in what is there, and carries out what follows, until nothing follows any more.
    fn settle(&mut self) {
        if !self.hands.spawns_in_flight() {
            self.tend_at = None;
        }
        while let Some(input) = self.inputs.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.broker.handle(self.now(), input, &mut effects);
            for effect in effects.drain(..) {
                if let Effect::Exit(cause) = effect {
                    self.exit = Some(cause);
                } else {
                    self.hands.perform(effect, &mut self.inputs);
                }
            }
            self.effects = effects;
        }
        if self.tend_at.is_none() && self.hands.spawns_in_flight() {
            self.tend_at = Some(Instant::now() + TEND_EVERY);
        }
    }

    fn now(&self) -> Now {
        let nanoseconds = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { moment: Moment::from_nanos(nanoseconds), wall: Timestamp::from(SystemTime::now()) }
    }

    /// Lets go of all clients, so that their last answers are written and their connections closed, and of
    /// what the machine lent.
    pub fn finish(self) {
        self.hands.finish();
    }
}

fn shutdown(hurries: bool) -> Input {
    Input::ShutdownAsked { cause: procbroker_core::ShutdownCause::Signal { hurries } }
}

async fn until(moment: Option<Instant>) {
    match moment {
        // The timer counts in milliseconds, and never fires early.
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
