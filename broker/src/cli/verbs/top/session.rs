//! What goes on while `top` is open: events come as they happen, and the broker is asked once a second.

use std::io;
use std::time::{Duration, SystemTime};

use procbroker_client::{Broker, Error as ClientError, Events, Happening};
use procbroker_protocol::create::StandardError;
use procbroker_protocol::request::{
    DestroyParams, EventsParams, ListParams, LogStream, LogsParams, ManyParams, OneParams, Scope,
    SignalParams,
};
use procbroker_protocol::{ChildId, PartialChildren, Request, Response, Target, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::job;
use super::model::{LOG_LINES, LogPane, Model, TopQuery, UserAction};
use super::rows;
use super::terminal::{Terminal, Typed, typed};
use crate::cli::command_status::CommandStatus;
use crate::cli::failure::Failure;
use crate::cli::verbs::restart::why_not_back;

/// How often the broker is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the screen is drawn at most, unless a key was pressed.
const DRAWN_EVERY: Duration = Duration::from_millis(100);

/// What has come of a request.
enum Told {
    Listed(PartialChildren),
    Output(LogPane),
    /// What has come of what a key asked for.
    Done(String),
    Failed(String),
}

/// Shows the children until a key or a signal ends it.
pub(super) async fn run(broker: Broker) -> Result<CommandStatus, Failure> {
    let mut events = broker.events(EventsParams::default()).await?;
    let machine = |source| Failure::Machine { attempted: "cannot take over the terminal", source };
    let mut ends = Ends::install().map_err(machine)?;
    let mut stops = Stops::install().map_err(machine)?;
    let mut terminal = Terminal::open().map_err(machine)?;
    let mut keys = typed().map_err(machine)?;
    let mut session = Session::new(broker);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if session.is_to_be_drawn() {
            terminal.show(&mut session.model).map_err(Failure::Output)?;
            session.drawn();
        }
        tokio::select! {
            biased;
            () = ends.come() => return Ok(CommandStatus::Interrupted),
            _ = stops.suspend.recv() => {
                if job::can_be_continued() {
                    terminal.leave_while(job::stop_alone).map_err(machine)?;
                    session.draw_now();
                }
            }
            _ = stops.resume.recv() => {
                terminal.leave_while(|| Ok(())).map_err(machine)?;
                session.draw_now();
            }
            typed = keys.recv() => match typed {
                Some(Typed::Key(key)) => match session.model.pressed(key) {
                    Some(UserAction::Quit) => return Ok(CommandStatus::Done),
                    Some(UserAction::Suspend) if job::can_be_continued() => {
                        terminal.leave_while(job::stop).map_err(machine)?;
                        session.draw_now();
                    }
                    wish => session.pressed(wish),
                },
                Some(Typed::Resized) => session.draw_now(),
                None => return Ok(CommandStatus::Done),
            },
            Some(Ok(told)) = session.asked.join_next() => session.told(told),
            () = sleep_until(session.draw_at.unwrap_or_else(Instant::now)), if session.draw_at.is_some() => {}
            _ = ticks.tick() => session.tick(),
            happening = next(&mut events), if !session.is_cut_off => session.happened(happening),
        }
    }
}

async fn next(events: &mut Events) -> Result<Happening, ClientError> {
    events.next().await
}

/// What ends it from outside.
struct Ends([Signal; 4]);

impl Ends {
    fn install() -> io::Result<Self> {
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let [interrupt, terminate, hangup, quit] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?, quit?]))
    }

    async fn come(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// What stops it for a while, or has done so.
struct Stops {
    suspend: Signal,
    /// It goes on. Nothing tells of a SIGSTOP, after which a shell has changed the terminal too.
    resume: Signal,
}

impl Stops {
    fn install() -> io::Result<Self> {
        let kind = |signal: nix::sys::signal::Signal| SignalKind::from_raw(signal as i32);
        let [suspend, resume] =
            [nix::sys::signal::Signal::SIGTSTP, nix::sys::signal::Signal::SIGCONT].map(kind).map(signal);
        Ok(Self { suspend: suspend?, resume: resume? })
    }
}

/// What the broker was asked and has not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Nothing,
    /// Something that it was asked since the last tick.
    JustAsked,
    /// Something that it has been asked for a second, or longer.
    SinceATick,
}

struct Session {
    broker: Broker,
    model: Model,
    asked: JoinSet<Told>,
    waits_for: Awaited,
    /// Whether no events come until the next tick.
    is_cut_off: bool,
    /// Whether it was told that the broker could not be asked, and it has not been since.
    is_lost: bool,
    drawn_at: Option<Instant>,
    /// When the screen is to be drawn, if it is to be.
    draw_at: Option<Instant>,
}

impl Session {
    fn new(broker: Broker) -> Self {
        Self {
            broker,
            model: Model::new(now()),
            asked: JoinSet::new(),
            waits_for: Awaited::Nothing,
            is_cut_off: false,
            is_lost: false,
            drawn_at: None,
            draw_at: Some(Instant::now()),
        }
    }

    fn is_to_be_drawn(&self) -> bool {
        self.draw_at.is_some_and(|at| at <= Instant::now())
    }

    fn drawn(&mut self) {
        self.drawn_at = Some(Instant::now());
        self.draw_at = None;
    }

    fn draw_now(&mut self) {
        self.draw_at = Some(Instant::now());
    }

    /// Draws soon: what happens at the same time is drawn once.
    fn draw_soon(&mut self) {
        let earliest = self.drawn_at.map_or_else(Instant::now, |at| at + DRAWN_EVERY);
        self.draw_at = Some(self.draw_at.map_or(earliest, |at| at.min(earliest)));
    }

    /// A second has passed.
    fn tick(&mut self) {
        self.is_cut_off = false;
        self.model.passed(now());
        self.draw_soon();
        match self.waits_for {
            Awaited::Nothing => self.ask(),
            Awaited::JustAsked => {}
            Awaited::SinceATick => {
                self.is_lost = true;
                self.model.notice = Some("the broker does not answer".to_owned());
                return;
            }
        }
        self.waits_for = Awaited::SinceATick;
    }

    fn ask(&mut self) {
        self.waits_for = Awaited::JustAsked;
        let (broker, question) = (self.broker.clone(), self.model.question());
        self.asked.spawn(async move { answer(&broker, question).await });
    }

    /// The broker has answered what it was asked last.
    fn answered(&mut self) {
        self.waits_for = Awaited::Nothing;
        self.ask_for_output();
    }

    /// Asks for what somebody has just chosen to see, without waiting for a second to be over.
    fn ask_for_output(&mut self) {
        if self.waits_for == Awaited::Nothing && self.model.lacks_output() {
            self.ask();
        }
    }

    /// The broker is there.
    fn is_back(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            self.model.notice = None;
        }
    }

    /// A key was pressed.
    fn pressed(&mut self, wish: Option<UserAction>) {
        self.draw_now();
        self.ask_for_output();
        let (request, done) = match wish {
            None | Some(UserAction::Quit) => return,
            Some(UserAction::Suspend) => {
                self.model.notice = Some("there is no shell here that could continue it".to_owned());
                return;
            }
            Some(UserAction::Stop(id)) => {
                let params = DestroyParams { target: Target::Id(id), stop: None, no_wait: true };
                (Request::Destroy(params), "its stop has begun")
            }
            Some(UserAction::Restart(id)) => {
                (Request::Restart(ManyParams { target: Target::Id(id) }), "it was restarted")
            }
            Some(UserAction::Signal(id, signal)) => {
                let params = SignalParams { target: Target::Id(id), signal, scope: Scope::Main };
                (Request::Signal(params), "the signal was sent")
            }
        };
        let broker = self.broker.clone();
        let is_restart = matches!(request, Request::Restart(_));
        self.asked.spawn(async move {
            match broker.call(request).await {
                Ok(answer) => {
                    let not_back = if is_restart { why_not_back(&answer) } else { None };
                    Told::Done(not_back.unwrap_or_else(|| done.to_owned()))
                }
                Err(error) => Told::Done(Failure::from(error).line()),
            }
        });
    }

    /// The broker has answered.
    fn told(&mut self, told: Told) {
        match told {
            Told::Listed(children) => {
                self.is_back();
                self.model.listed(&children, now());
                self.answered();
            }
            Told::Output(output) => {
                self.is_back();
                self.model.logged(&output);
                self.answered();
            }
            Told::Done(what) => self.model.notice = Some(what),
            Told::Failed(message) => {
                self.is_lost = true;
                self.model.notice = Some(message);
                self.waits_for = Awaited::Nothing;
            }
        }
        self.draw_soon();
    }

    /// Something has happened, or events do not come any more.
    fn happened(&mut self, happening: Result<Happening, ClientError>) {
        match happening {
            Ok(Happening::Event(event)) => self.model.happened(&event),
            // The next list shows how things are.
            Ok(Happening::Lagged { .. }) => {}
            // What was told of the one before is over when this one has answered.
            Ok(Happening::Restarted) => self.is_lost = true,
            Err(error) => {
                self.is_cut_off = true;
                self.is_lost = true;
                self.model.notice = Some(Failure::from(error).line());
            }
        }
        self.draw_soon();
    }
}

async fn answer(broker: &Broker, question: TopQuery) -> Told {
    match question {
        TopQuery::List => {
            let params = ListParams { fields: Some(rows::wanted()), ..ListParams::default() };
            match broker.call(Request::List(params)).await {
                Ok(Response::PartialChildren(children)) => Told::Listed(children),
                Ok(_) => Told::Failed(Failure::Answer.line()),
                Err(error) => Told::Failed(Failure::from(error).line()),
            }
        }
        TopQuery::Log(child, stream) => output(broker, child, stream).await,
    }
}

/// Asks for the end of an output, and whether there are two.
async fn output(broker: &Broker, child: ChildId, stream: LogStream) -> Told {
    let target = Target::Id(child);
    let get = Request::Get(OneParams { target: target.clone() });
    let logs = Request::Logs(LogsParams {
        target,
        stream,
        tail: Some(LOG_LINES),
        follow: false,
        since: None,
        timestamps: false,
        position: None,
    });
    let (got, logs) = tokio::join!(broker.call(get), broker.call(logs));
    let has_two = matches!(got, Ok(Response::Got(got))
        if got.spec.as_ref().is_some_and(|spec| spec.params.stderr == StandardError::Log));
    match logs {
        Ok(Response::Logs(logs)) => Told::Output(LogPane { child, stream, text: logs.text, has_two }),
        Ok(_) => Told::Failed(Failure::Answer.line()),
        Err(error) => Told::Failed(Failure::from(error).line()),
    }
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
