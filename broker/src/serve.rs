//! `procbroker serve`: puts a broker together from its flags and its machine, runs it, and takes it down.

mod bounds;
mod error;
pub mod facilities;
mod log;
mod passed_with_flags;
mod replacement;
pub(crate) mod startup;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use interprocess::local_socket::tokio::Listener;
use nix::sys::signal::SigSet;
use procbroker_core::{ExitCause, MainCommand, MainExit, UpgradeFailure};
use procbroker_protocol::ExitStatus;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use error::ServeError;

use crate::blocking_pool::BlockingPool;
use crate::causes::with_causes;
use crate::cli::ServeArguments;
use crate::driver::{Audience, Driver, EffectHandler, Leave, Signals, Sources, Stay};
use crate::inbox;
use crate::limits::{FACTS_WAITING, FLUSH_PATIENCE, REPORTS_WAITING};
use crate::listener::Acceptor;
use crate::messages::FromThread;
use crate::metrics;
use crate::os::host::caller::Baseline;
use crate::os::host::clock::Alarm;
use crate::os::host::code;
use crate::os::host::disposal::Disposals;
use crate::os::host::heap;
use crate::os::host::listening::Sockets;
use crate::os::host::terminal;
use crate::os::journal;
use crate::os::process::child_signal::ChildSignal;
use crate::os::process::probation;
use crate::recovery::{self, TakenOver};
use crate::transit::Transit;
use crate::turns::Turns;
use crate::upgrade::{Beginning, Predecessor, Program};
use replacement::{Leaving, hand_over};
use startup::Prepared;

/// Runs a broker until it is told to stop. The exit status is 0 when nothing is left.
#[must_use]
pub fn serve(arguments: &ServeArguments) -> ExitCode {
    heap::settle();
    // Signals are for the driver's thread, once it is ready for them: every other thread inherits that it takes none. So
    // none is lost while the program is replaced.
    let _held = SigSet::all().thread_block();
    let mut predecessor = Predecessor::of_this_process();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // What it has to say is said before there is another program.
        let log = log::to_standard_error(arguments.log, arguments.log_format).map_err(ServeError::Thread);
        log.and_then(|_until_then| run(arguments, &mut predecessor))
    }));
    let outcome = outcome.unwrap_or_else(|panic| Err(ServeError::Panic(said_in(panic.as_ref()))));
    let outcome = match (outcome, predecessor) {
        (Err(error), Some(predecessor)) => Err(return_to(&predecessor, error)),
        (outcome, _) => outcome,
    };
    if arguments.is_interactive() {
        // Whoever has started the broker may have gone on with another terminal, or with none.
        let _as_it_is = terminal::take_back();
    }
    match outcome {
        Ok(ExitCause::Done) => ExitCode::SUCCESS,
        Ok(ExitCause::Left(_)) => ExitCode::FAILURE,
        Ok(ExitCause::Main(exit)) => ExitCode::from(as_a_shell_says(exit)),
        Err(error) => {
            log::last_word(arguments.log_format, &with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The exit status of the main command, in the way of a shell (POSIX, "Exit Status for Commands").
fn as_a_shell_says(exit: MainExit) -> u8 {
    match exit {
        MainExit::Status(ExitStatus::Code(code)) => u8::try_from(code & 0xFF).unwrap_or(u8::MAX),
        MainExit::Status(ExitStatus::Signal(signal)) => {
            u8::try_from(signal.number()).map_or(u8::MAX, |number| number.saturating_add(128))
        }
        MainExit::Status(ExitStatus::Unknown) => 1,
        MainExit::NotStarted { errno: Some(libc::ENOENT) } => 127,
        MainExit::NotStarted { errno: _ } => 126,
    }
}

/// Whether a broker of this program could go on with these arguments and with what is on record in this file, which another
/// one has open.
///
/// # Errors
/// Why not, in one line.
pub fn rehearse(arguments: &ServeArguments, record: &Path) -> Result<(), String> {
    let rows = journal::check(record).map_err(|error| with_causes(&error))?;
    recovery::read(rows, record).map(drop).map_err(|error| with_causes(&error))?;
    startup::rehearse(arguments, record)
}

/// Executes the program before this one again, which goes on with everything; gives the reason why not, if it cannot be.
fn return_to(predecessor: &Predecessor, error: ServeError) -> ServeError {
    match predecessor.go_back(&with_causes(&error)) {
        Some(source) => ServeError::NoReturn { failure: Box::new(error), source },
        None => error,
    }
}

/// Executes the program before this one again, if this one was to take over and does not come to that, for this reason.
pub fn turn_back(reason: &str) {
    let Some(predecessor) = Predecessor::of_this_process() else { return };
    if let Some(error) = predecessor.go_back(reason) {
        let line = format!("procbroker: {}\n", with_causes(&error));
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
}

/// The predecessor is let go when this program serves, and not before.
fn run(arguments: &ServeArguments, predecessor: &mut Option<Predecessor>) -> Result<ExitCause, ServeError> {
    if let Some(failure) = predecessor.as_ref().and_then(Predecessor::failure) {
        tracing::error!("not upgraded: the new program could not take over ({failure}); this one goes on");
    }
    ChildSignal::restore_default().map_err(|errno| ServeError::Signals(errno.into()))?;
    let prepared = startup::prepare(arguments, predecessor.as_mut())?;
    let (serving, served) = std::sync::mpsc::channel();
    // This thread sleeps from here on: what its children are is what the broker has inherited, and nothing else.
    let driver = thread::Builder::new().name("driver".to_owned()).spawn(move || drive(prepared, serving));
    let driver = driver.map_err(ServeError::Thread)?;
    if let Ok(Serving) = served.recv() {
        *predecessor = None;
    }
    match driver.join() {
        Ok(cause) => cause,
        Err(panic) => Err(ServeError::Panic(said_in(panic.as_ref()))),
    }
}

/// That the broker serves, and nothing can keep it from that any more.
struct Serving;

/// What a panic said.
fn said_in(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why").to_owned()
}

/// Everything that the broker does, on the thread that is the parent of its children.
fn drive(prepared: Prepared, serving: std::sync::mpsc::Sender<Serving>) -> Result<ExitCause, ServeError> {
    let turns = Turns::new();
    let resting = turns.clone();
    let mut builder = Builder::new_current_thread();
    builder.enable_io().enable_time().on_thread_park(move || resting.rest());
    let runtime = builder.build().map_err(ServeError::Runtime)?;
    // As a task of its own: the future that is blocked on is woken through the kernel.
    let driving = runtime.spawn(work(prepared, turns, serving));
    let cause = runtime.block_on(driving).map_err(ServeError::Driver)??;
    end(runtime);
    Ok(cause)
}

/// Serves clients until the core orders the exit, and sends the last answers.
async fn work(
    prepared: Prepared,
    turns: Turns,
    serving: std::sync::mpsc::Sender<Serving>,
) -> Result<ExitCause, ServeError> {
    let (facts_in, facts) = inbox::inbox(FACTS_WAITING, inbox::BROKER);
    let (threads_in, threads) = mpsc::channel::<FromThread>(REPORTS_WAITING);
    let Prepared { config, machine, mut sockets, places, metrics, interactive, events, counters } = prepared;
    let listeners = sockets.listeners().map_err(ServeError::Listen)?;
    let audience = if config.main.is_some() { Audience::MainCommand } else { Audience::Broker };
    let pool = BlockingPool::start().map_err(ServeError::Blocking)?;
    let baseline = Baseline::of_this_process().map_err(ServeError::Baseline)?;
    let alarm = Alarm::new().map_err(ServeError::Alarm)?;
    let transit = Transit::within(&config.bounds);
    let disposals = Disposals::default();
    let (mut handler, recovered) = machine.effect_handler(
        threads_in,
        facts_in.clone(),
        (pool.clone(), transit.clone(), disposals.clone()),
    )?;
    if interactive {
        lend_terminal(&mut handler, config.main.as_ref(), &recovered);
    }
    if let Some(socket) = metrics {
        let listener = metrics::http::listener(socket).map_err(ServeError::Listen)?;
        tokio::spawn(metrics::http::serve(listener, facts_in.clone()));
    }
    tokio::spawn(turns.clone().keep());
    let (acceptor, clients_gone) =
        Acceptor::new(facts_in, &config.bounds, (pool, transit, turns), (baseline, disposals));
    let announcer = handler.reaper.readable().map_err(ServeError::Announcer)?;
    let anchors = handler.anchors.readable().map_err(ServeError::Anchors)?;
    let launches = handler.launcher.readable().map_err(ServeError::Launches)?;
    let notices = handler.notices.readable().map_err(ServeError::Notices)?;
    // Those that came meanwhile come now: the program before this one would not have them any more.
    let signals = Signals::install(audience).map_err(ServeError::Signals)?;
    let owner = handler.owner.clone();
    tokio::spawn(owner.clone().keep_watchdog_fed());
    let program = Arc::clone(&handler.program);
    let beginning = Beginning { instance: config.instance, at: config.started_at };
    let mut driver = Driver::new(config, handler, recovered, events);
    if let Some(counters) = counters {
        driver.go_on_counting(counters);
    }
    tracing::info!(sockets = %places.sockets, state = %places.state_dir, "ready");
    owner.ready(&format!("Serving {}", places.sockets));
    probation::pass();
    // Whoever has gone has ended.
    let _ = serving.send(Serving);
    drop(serving);
    let mut sources = Sources { facts, threads, signals, announcer, notices, anchors, launches, alarm };
    // What only the start has needed is needed no more.
    heap::trim();
    code::let_go();
    let served = Served { acceptor: &acceptor, sockets: &mut sockets, program: &program, beginning };
    let cause = served.until_the_exit(&mut driver, &mut sources, listeners).await;
    drop(acceptor);
    driver.finish();
    // Whoever waits to tell the driver something has nobody to tell it to.
    drop(sources);
    // Clients that read have their answers by then; those that do not cannot hold up the exit.
    let _ = tokio::time::timeout(FLUSH_PATIENCE, clients_gone.wait()).await;
    sockets.leave();
    Ok(cause)
}

/// Has the main command use the terminal of whoever sits there, where the broker has one; `recovered` are the children that an
/// earlier program of this process has started.
fn lend_terminal(handler: &mut EffectHandler, main: Option<&MainCommand>, (recovered, _): &TakenOver) {
    let Some(main) = main else { return };
    handler.child_environment.lend_input(main.id);
    if let Some(pid) = startup::own_main(recovered).filter(|_| terminal::is_own()) {
        handler.job.begin(pid);
    }
}

/// What clients connect to, and what goes on with it after an upgrade.
struct Served<'a> {
    acceptor: &'a Acceptor,
    sockets: &'a mut Sockets,
    program: &'a Program,
    beginning: Beginning,
}

impl Served<'_> {
    /// Takes clients in until the core orders the exit, or another program has taken this one's place.
    async fn until_the_exit(
        self,
        driver: &mut Driver,
        sources: &mut Sources,
        listeners: Vec<Listener>,
    ) -> ExitCause {
        let mut receiving = self.receive(listeners);
        loop {
            match driver.run(sources).await {
                Leave::Exit(cause) => {
                    receiving.drain(..).for_each(|task| task.abort());
                    return cause;
                }
                Leave::HandOver => {
                    self.sockets.make_anew_if_gone();
                    // Made before they are needed: without them nobody could connect to a broker that stays.
                    let listeners = match self.sockets.listeners() {
                        Ok(listeners) => listeners,
                        Err(error) => {
                            let message = with_causes(&ServeError::Listen(error));
                            driver.stay(Stay::Failed(UpgradeFailure { message }));
                            continue;
                        }
                    };
                    // Who connects from now on waits for whichever program comes next, and loses nothing.
                    receiving.drain(..).for_each(|task| task.abort());
                    let Self { sockets, program, beginning, .. } = &self;
                    let leaving = Leaving { sockets, program, beginning: *beginning };
                    let stay = hand_over(driver, sources, &leaving).await;
                    driver.stay(stay);
                    receiving = self.receive(listeners);
                }
            }
        }
    }

    fn receive(&self, listeners: Vec<Listener>) -> Vec<JoinHandle<()>> {
        let receive = |listener| tokio::spawn(self.acceptor.clone().receive(listener));
        listeners.into_iter().map(receive).collect()
    }
}

/// Ends what still runs on other threads without waiting for it.
fn end(runtime: Runtime) {
    runtime.shutdown_background();
}
