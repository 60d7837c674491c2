//! `procbroker serve`: puts a broker together from its flags and its machine, runs it, and takes it down.

mod bounds;
mod error;
pub mod facilities;
mod log;
mod passed_with_flags;
pub(crate) mod startup;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use interprocess::local_socket::tokio::Listener;
use nix::sys::signal::SigSet;
use procbroker_core::{ExitCause, MainExit, UpgradeFailure};
use procbroker_protocol::ExitStatus;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use error::ServeError;

use crate::blocking_pool::BlockingPool;
use crate::causes::with_causes;
use crate::cli::ServeArguments;
use crate::driver::{Audience, Driver, FromThread, Leave, Signals, Sources, Stay};
use crate::inbox;
use crate::limits::{FACTS_WAITING, FLUSH_PATIENCE, REPORTS_WAITING};
use crate::listener::Reception;
use crate::metrics;
use crate::os::host::caller::Standpoint;
use crate::os::host::clock::Alarm;
use crate::os::host::code;
use crate::os::host::heap;
use crate::os::host::terminal;
use crate::os::journal;
use crate::os::process::child_signal::ChildSignal;
use crate::os::service::notify::ServiceOwner;
use crate::recovery;
use crate::transit::Transit;
use crate::turns::Turns;
use startup::Prepared;

/// Runs a broker until it is told to stop. The exit status is 0 when nothing is left.
#[must_use]
pub fn serve(arguments: &ServeArguments) -> ExitCode {
    heap::settle();
    // Signals are for the driver's thread, once it is ready for them: every other thread inherits that it takes none. So
    // none is lost while the program is replaced.
    let _held = SigSet::all().thread_block();
    let log = log::to_standard_error(arguments.log, arguments.log_format).map_err(ServeError::Thread);
    let outcome = log.and_then(|_until_then| run(arguments));
    if arguments.is_interactive() {
        // Whoever has started the broker may have gone on with another terminal, or with none.
        let _as_it_is = terminal::take_back();
    }
    match outcome {
        Ok(ExitCause::Done) => ExitCode::SUCCESS,
        Ok(ExitCause::Left(_)) => ExitCode::FAILURE,
        Ok(ExitCause::Main(exit)) => ExitCode::from(as_a_shell_says(exit)),
        Err(error) => {
            let line = format!("procbroker: {}\n", with_causes(&error));
            // Whoever has closed standard error has seen enough.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
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

/// Whether a broker of this program could go on with what is on record in this file, which another one has open.
///
/// # Errors
/// Why not, in one line.
pub fn read_record(path: &Path) -> Result<(), String> {
    let rows = journal::check(path).map_err(|error| with_causes(&error))?;
    recovery::read(rows, path).map(drop).map_err(|error| with_causes(&error))
}

fn run(arguments: &ServeArguments) -> Result<ExitCause, ServeError> {
    ChildSignal::restore_default().map_err(|errno| ServeError::Signals(errno.into()))?;
    let prepared = startup::prepare(arguments)?;
    // This thread sleeps from here on: what its children are is what the broker has inherited, and nothing else.
    let driver = thread::Builder::new().name("driver".to_owned()).spawn(move || drive(prepared));
    match driver.map_err(ServeError::Thread)?.join() {
        Ok(cause) => cause,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Everything that the broker does, on the thread that is the parent of its children.
fn drive(prepared: Prepared) -> Result<ExitCause, ServeError> {
    let turns = Turns::new();
    let resting = turns.clone();
    let mut builder = Builder::new_current_thread();
    builder.enable_io().enable_time().on_thread_park(move || resting.rest());
    let runtime = builder.build().map_err(ServeError::Runtime)?;
    // As a task of its own: the future that is blocked on is woken through the kernel.
    let driving = runtime.spawn(work(prepared, turns));
    let cause = runtime.block_on(driving).map_err(ServeError::Driver)??;
    end(runtime);
    Ok(cause)
}

/// Serves clients until the core orders the exit, and sends the last answers.
async fn work(prepared: Prepared, turns: Turns) -> Result<ExitCause, ServeError> {
    let (facts_in, facts) = inbox::inbox(FACTS_WAITING, inbox::BROKER);
    let (threads_in, threads) = mpsc::channel::<FromThread>(REPORTS_WAITING);
    let Prepared { config, machine, sockets, places, metrics, interactive, events } = prepared;
    let listeners = sockets.listeners()?;
    let audience = if config.main.is_some() { Audience::MainCommand } else { Audience::Broker };
    let pool = BlockingPool::start().map_err(ServeError::Blocking)?;
    let transit = Transit::new(config.bounds.answer_bytes());
    let (mut hands, recovered) =
        machine.hands(threads_in, facts_in.clone(), (pool.clone(), transit.clone()))?;
    if let Some(main) = config.main.as_ref().filter(|_| interactive) {
        hands.surroundings.lend_input(main.id);
        if let Some(pid) = startup::own_main(&recovered.0).filter(|_| terminal::is_own()) {
            hands.job.begin(pid);
        }
    }
    if let Some(socket) = metrics {
        let listener = metrics::http::listener(socket).map_err(ServeError::Listen)?;
        tokio::spawn(metrics::http::serve(listener, facts_in.clone()));
    }
    let standpoint = Standpoint::of_this_process().map_err(ServeError::Standpoint)?;
    tokio::spawn(turns.clone().keep());
    let (reception, emptiness) = Reception::new(facts_in, &config.bounds, (pool, transit, turns), standpoint);
    let signals = Signals::install(audience).map_err(ServeError::Signals)?;
    let announcer = hands.reaper.readable().map_err(ServeError::Announcer)?;
    let anchors = hands.anchors.readable().map_err(ServeError::Anchors)?;
    let landings = hands.launcher.readable().map_err(ServeError::Landings)?;
    let notices = hands.notices.readable().map_err(ServeError::Notices)?;
    let alarm = Alarm::new().map_err(ServeError::Alarm)?;
    tokio::spawn(ServiceOwner.keep_watchdog_fed());
    let program = Arc::clone(&hands.program);
    let mut driver = Driver::new(config, hands, recovered, events);
    let receive = |listeners: Vec<Listener>| -> Vec<JoinHandle<()>> {
        listeners.into_iter().map(|listener| tokio::spawn(reception.clone().receive(listener))).collect()
    };
    let mut receiving = receive(listeners);
    tracing::info!(sockets = %places.sockets, state = %places.state_dir, "ready");
    ServiceOwner.ready(&format!("Serving {}", places.sockets));
    let mut sources = Sources { facts, threads, signals, announcer, notices, anchors, landings, alarm };
    // What only the start has needed is needed no more.
    heap::trim();
    code::let_go();
    let cause = loop {
        match driver.run(&mut sources).await {
            Leave::Exit(cause) => break cause,
            Leave::HandOver => {
                // Made before they are needed: without them nobody could connect to a broker that stays.
                let listeners = match sockets.listeners() {
                    Ok(listeners) => listeners,
                    Err(error) => {
                        let message = with_causes(&error);
                        driver.stay(Stay::Failed(UpgradeFailure { message }));
                        continue;
                    }
                };
                // Who connects from now on waits for whichever program comes next, and loses nothing.
                receiving.drain(..).for_each(|task| task.abort());
                let stay =
                    crate::upgrade::hand_over::hand_over(&mut driver, &mut sources, &sockets, &program).await;
                driver.stay(stay);
                receiving = receive(listeners);
            }
        }
    };
    receiving.drain(..).for_each(|task| task.abort());
    drop(reception);
    driver.finish();
    // Clients that read have their answers by then; those that do not cannot hold up the exit.
    let _ = tokio::time::timeout(FLUSH_PATIENCE, emptiness.come()).await;
    drop(sockets);
    Ok(cause)
}

/// Ends what still runs on other threads without waiting for it.
fn end(runtime: Runtime) {
    runtime.shutdown_background();
}
