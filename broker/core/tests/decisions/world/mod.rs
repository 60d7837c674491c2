//! A small driver of the state machine: it hands in facts, keeps the answers and the orders, and checks
//! with every order what must hold always.

mod cleaning;
mod disk;
mod ending;
mod main_command;
mod requests;
mod restarting;
mod subscribing;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procbroker_core::{
    Accounts, AccountsFailure, After, Anchor, AnchorFound, Broker, Call, Caller, CallerUnknown, Config,
    ConnectionId, Counts, Effect, ExitCause, Fresh, Incarnation, Input, Instant, Members, Now, Peer, Purpose,
    Receipt, Report, Run, ShutdownCause, SignalOutcome, UnreadEvents, paired_id,
};
use procbroker_protocol::create::RestartPolicy;
use procbroker_protocol::{
    ChildId, Containment, CreateParams, Error, ExitStatus, Name, Request, Response, Signal, Timestamp,
    status::Facilities,
};
use uuid::Uuid;

pub(crate) use cleaning::*;
pub(crate) use disk::*;
pub(crate) use ending::*;
pub(crate) use main_command::*;
pub(crate) use requests::*;
pub(crate) use restarting::*;
pub(crate) use subscribing::*;
pub(crate) use told::*;

/// The user that the broker of most tests runs as.
pub(crate) const BROKER_UID: u32 = 900;
/// Another user, who may connect.
pub(crate) const ALICE: u32 = 1001;
/// One more.
pub(crate) const BOB: u32 = 1002;

/// What the wall clock shows at the first moment.
const WALL_AT_START: u64 = 1_700_000_000_000_000;

pub(crate) struct World {
    config: Config,
    broker: Broker,
    now: Instant,
    /// What the wall clock shows, in microseconds, at the first moment.
    wall_at_start: u64,
    connections: u64,
    calls: u64,
    fresh: BTreeMap<Call, ChildId>,
    /// What is found of the process that calls.
    pub(crate) caller: Result<Caller, CallerUnknown>,
    /// What is found of the process that it names.
    pub(crate) anchor: AnchorFound,
    /// What a crash leaves of a command that was to find out whether a child is ready.
    pub(crate) probe_left: Members,
    /// The processes that the present broker has ordered to be watched, and that have not ended.
    pub(crate) watched: BTreeSet<Anchor>,
    answers: BTreeMap<Call, Result<Response, Error>>,
    /// The answers that wait for the record, with how many writes have to be safe before they go out.
    promises: BTreeMap<Call, usize>,
    orders: Vec<Effect>,
    exit: Option<ExitCause>,
    /// What is on record, as far as the present broker was told that it is safe.
    safe: BTreeSet<Run>,
    /// Whose records the present broker waits for, with what is safe when they are.
    awaited: BTreeMap<Run, Awaited>,
    spawned: BTreeMap<Run, Option<Name>>,
    /// Every child whose program any of the brokers has ordered to be started.
    started: BTreeSet<ChildId>,
    /// How often the cleanup of each child was ordered to be started, by any of the brokers.
    cleanups: BTreeMap<ChildId, u32>,
    disk: Disk,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// A world with a broker of other settings.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            version: "1.2.3".to_owned(),
            pid: 77,
            instance: Uuid::from_u128(7),
            started_at: Timestamp::from_micros(WALL_AT_START),
            failed_upgrade: None,
            broker_uid: BROKER_UID,
            allow_users: vec![ALICE, BOB],
            allow_groups: Vec::new(),
            subordinates: Vec::new(),
            bounds: procbroker_core::Bounds::default(),
            shutdown_timeout: Duration::from_secs(30),
            exit_when_idle: None,
            main: None,
            log_folder: "/logs".to_owned(),
            containment: Containment::Subreaper,
            lacking: BTreeMap::new(),
            facilities: Facilities::default(),
        };
        change(&mut config);
        Self {
            broker: Broker::new(config.clone()),
            config,
            now: Instant::from_nanos(0),
            wall_at_start: WALL_AT_START,
            connections: 0,
            calls: 0,
            fresh: BTreeMap::new(),
            caller: Ok(Caller::default()),
            anchor: None,
            probe_left: Members::Nothing,
            watched: BTreeSet::new(),
            answers: BTreeMap::new(),
            promises: BTreeMap::new(),
            orders: Vec::new(),
            exit: None,
            safe: BTreeSet::new(),
            awaited: BTreeMap::new(),
            spawned: BTreeMap::new(),
            started: BTreeSet::new(),
            cleanups: BTreeMap::new(),
            disk: Disk::default(),
        }
    }

    /// A world with one client, who is the broker's own user.
    pub(crate) fn with_client() -> (Self, ConnectionId) {
        let mut world = Self::new();
        let client = world.connect(BROKER_UID);
        (world, client)
    }

    /// Hands in one fact.
    pub(crate) fn give(&mut self, input: Input) {
        self.give_by(Broker::handle, input);
    }

    /// Hands in one that was there before this moment.
    pub(crate) fn give_belated(&mut self, input: Input) {
        self.give_by(Broker::handle_belated, input);
    }

    fn give_by(&mut self, handle: fn(&mut Broker, Now, Input, &mut Vec<Effect>), input: Input) {
        if let Input::Recorded { run, .. } = &input
            && let Some(awaited) = self.awaited.remove(run)
        {
            self.disk.is_safe(awaited);
        }
        if let Input::AnchorEnded { anchor } = &input {
            self.watched.remove(anchor);
        }
        if let Input::SpawnFailed { run, .. } = &input {
            // Nothing has run.
            self.started.remove(&run.child);
        }
        let mut effects = Vec::new();
        let now = Now { instant: self.now, wall: self.wall() };
        handle(&mut self.broker, now, input, &mut effects);
        self.obey(effects);
    }

    fn obey(&mut self, effects: Vec<Effect>) {
        let mut promised = Vec::new();
        for effect in effects {
            assert_eq!(self.exit, None, "ordered after the exit: {effect:?}");
            self.check(&effect);
            match effect {
                Effect::Answer { call, result, after, usage: _ } => {
                    match after {
                        After::Nothing => {}
                        After::Records => promised.push(call),
                    }
                    let earlier = self.answers.insert(call, result);
                    assert_eq!(earlier, None, "{call:?} was answered twice");
                }
                Effect::Exit(cause) => self.exit = Some(cause),
                other => self.orders.push(other),
            }
        }
        self.promises.extend(promised.into_iter().map(|call| (call, self.disk.written())));
    }

    /// What holds for every order, whatever a test is about.
    fn check(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { run, purpose: Purpose::Cleanup { .. }, .. } => {
                assert!(self.safe.contains(run), "{run:?} is started before it is on record");
                let is_asked = self.spawned.keys().any(|other| other.child == paired_id(run.child));
                assert!(!is_asked, "{run:?} is started before what asked its child is gone");
                *self.cleanups.entry(run.child).or_default() += 1;
                let mut others = self.spawned.keys().filter(|other| other.child == run.child);
                assert_eq!(others.next(), None, "{run:?} is started before all else of its child is gone");
                let earlier = self.spawned.insert(*run, None);
                assert_eq!(earlier, None, "{run:?} is started twice");
            }
            Effect::Spawn { run, purpose: Purpose::Probe, .. } => {
                let child = paired_id(run.child);
                let is_there = self.spawned.keys().any(|other| other.child == child);
                assert!(is_there, "{run:?} asks a child that is not there");
                let mut others = self.spawned.keys().filter(|other| other.child == run.child);
                assert_eq!(others.next(), None, "{run:?} is started before the last one is gone");
                self.spawned.insert(*run, None);
            }
            Effect::Spawn { run, order, purpose: Purpose::Main } => {
                assert!(self.safe.contains(run), "{run:?} is started before it is on record");
                let is_restart = run.incarnation != Incarnation::FIRST
                    || order.params.restart.policy != RestartPolicy::Never;
                let is_first = self.started.insert(run.child);
                assert!(is_first || is_restart, "{run:?} is started twice");
                let mut others = self.spawned.keys().filter(|other| other.child == run.child);
                assert_eq!(others.next(), None, "{run:?} is started before its last run is gone");
                let name = order.params.name.clone();
                if name.is_some() {
                    let held = self.spawned.values().any(|held| *held == name);
                    assert!(!held, "{name:?} is started while it is held");
                }
                let earlier = self.spawned.insert(*run, name);
                assert_eq!(earlier, None, "{run:?} is started twice");
            }
            Effect::Signal { run, .. } | Effect::Kill { run } => {
                assert!(self.spawned.contains_key(run), "{run:?} is signalled and there is no such process");
            }
            Effect::Release { run } => {
                self.spawned.remove(run);
            }
            Effect::Record { run, record, safety, receipt, expires } => {
                let awaited = self.disk.write(*run, record, *safety, *expires);
                if *receipt == Receipt::Wanted {
                    let earlier = self.awaited.insert(*run, awaited);
                    assert_eq!(earlier, None, "two records of {run:?} are awaited at a time");
                }
            }
            Effect::Forget { child } => self.disk.forget(*child),
            Effect::ForgetAnswers { on_record } => self.disk.forget_answers(on_record),
            Effect::Watch { anchor } => {
                assert!(self.watched.insert(*anchor), "{anchor:?} is watched already");
            }
            Effect::Unwatch { anchor } => assert!(self.watched.remove(anchor), "{anchor:?} is not watched"),
            Effect::Report(Report::Ended { child }) if child.cleanup.is_some() => {
                let mut awaited = self.awaited.keys().filter(|run| run.child == child.id);
                assert_eq!(awaited.next(), None, "it is told before it is on record how the cleanup went");
            }
            Effect::Admit { .. }
            | Effect::Refuse { .. }
            | Effect::Answer { .. }
            | Effect::Publish { .. }
            | Effect::Unread { .. }
            | Effect::ReadLog { .. }
            | Effect::ReadTail { .. }
            | Effect::Probe { .. }
            | Effect::EndLog { .. }
            | Effect::AwaitRun { .. }
            | Effect::Measure { .. }
            | Effect::CheckUpgrade
            | Effect::HandOver
            | Effect::Report(_)
            | Effect::Notify(_)
            | Effect::Sweep
            | Effect::Exit(_) => {}
        }
    }

    /// What the broker has counted.
    pub(crate) fn counts(&self) -> Counts {
        self.broker.counts()
    }

    /// What each connection has not read of the events that it has subscribed to.
    pub(crate) fn unread(&self) -> Vec<(ConnectionId, UnreadEvents)> {
        self.broker.unread_events()
    }

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::from_micros(self.wall_at_start + self.now.as_nanos() / 1000)
    }

    /// Lets time pass, with every deadline on the way.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(due) = self.broker.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.give(Input::Due);
            assert_ne!(self.broker.next_deadline(), Some(due), "what is due stays due");
        }
        self.now = end;
    }

    /// Lets time pass without a word about the deadlines on the way.
    pub(crate) fn jump(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    /// How long it is to the next deadline.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.broker.next_deadline().map(|due| due.since(self.now))
    }

    pub(crate) fn try_connect(&mut self, peer: Peer) -> Result<ConnectionId, Error> {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.give(Input::Connected { connection, peer });
        match self.orders.pop() {
            Some(Effect::Admit { connection: admitted }) if admitted == connection => Ok(connection),
            Some(Effect::Refuse { connection: refused, error }) if refused == connection => Err(error),
            other => panic!("a connection was answered with {other:?}"),
        }
    }

    pub(crate) fn connect(&mut self, uid: u32) -> ConnectionId {
        self.try_connect(peer(uid)).unwrap()
    }

    pub(crate) fn call(&mut self, connection: ConnectionId, request: Request) -> Call {
        self.call_as(connection, request, Ok(Accounts::default()))
    }

    /// A call whose accounts were looked up with this result.
    pub(crate) fn call_as(
        &mut self,
        connection: ConnectionId,
        request: Request,
        accounts: Result<Accounts, AccountsFailure>,
    ) -> Call {
        let (call, input) = self.asking(connection, request, accounts);
        self.give(input);
        call
    }

    /// A request that was there before this moment.
    pub(crate) fn call_belated(&mut self, connection: ConnectionId, request: Request) -> Call {
        let (call, input) = self.asking(connection, request, Ok(Accounts::default()));
        self.give_belated(input);
        call
    }

    fn asking(
        &mut self,
        connection: ConnectionId,
        request: Request,
        accounts: Result<Accounts, AccountsFailure>,
    ) -> (Call, Input) {
        self.calls += 1;
        let call = Call { connection, number: self.calls };
        let child = ChildId::from_uuid(Uuid::from_u128(u128::from(self.calls)));
        self.fresh.insert(call, child);
        let fresh = Fresh { child, accounts, caller: self.caller.clone(), anchor: self.anchor.clone() };
        (call, Input::Called { call, request, fresh })
    }

    pub(crate) fn create(&mut self, connection: ConnectionId, params: CreateParams) -> Call {
        self.call(connection, Request::Create(Box::new(params)))
    }

    /// A call that is answered at once.
    pub(crate) fn ask(&mut self, connection: ConnectionId, request: Request) -> Result<Response, Error> {
        let call = self.call(connection, request);
        self.answer(call)
    }

    /// The process that the next call starts, if it is a create.
    pub(crate) fn next_run(&self) -> Run {
        let child = ChildId::from_uuid(Uuid::from_u128(u128::from(self.calls + 1)));
        Run { child, incarnation: Incarnation::FIRST }
    }

    /// The process that the create of this call starts.
    pub(crate) fn run(&self, call: Call) -> Run {
        Run { child: self.fresh[&call], incarnation: Incarnation::FIRST }
    }

    pub(crate) fn recorded(&mut self, run: Run) {
        self.safe.insert(run);
        self.give(Input::Recorded { run, result: Ok(()) });
    }

    pub(crate) fn spawned(&mut self, run: Run) {
        self.give(Input::Spawned { run, pid: pid_of(run) });
    }

    /// A child that runs; the orders on the way are taken.
    pub(crate) fn start(&mut self, connection: ConnectionId, params: CreateParams) -> Run {
        let call = self.create(connection, params);
        let run = self.run(call);
        self.recorded(run);
        self.spawned(run);
        assert_eq!(self.created(call).child.id, run.child);
        self.take();
        run
    }

    pub(crate) fn exited(&mut self, run: Run, status: ExitStatus, members: Members) {
        self.give(Input::Exited { run, status, members });
    }

    /// The main process ends and leaves nothing behind.
    pub(crate) fn ends(&mut self, run: Run) {
        self.exited(run, ExitStatus::Signal(Signal::TERM), Members::Nothing);
    }

    pub(crate) fn left(&mut self, run: Run, members: Members) {
        self.give(Input::MembersLeft { run, members });
    }

    pub(crate) fn signalled(&mut self, run: Run, call: Call, outcome: SignalOutcome) {
        self.give(Input::Signalled { run, call: Some(call), outcome });
    }

    pub(crate) fn term(&mut self) {
        self.give(Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries: true } });
    }

    /// SIGTERM comes again, as soon as it counts.
    pub(crate) fn term_again(&mut self) {
        self.jump(Duration::from_secs(1));
        self.term();
    }

    pub(crate) fn hangup(&mut self) {
        self.give(Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries: false } });
    }
}
