//! `procbroker serve`: puts a broker together from its flags and its machine, runs it, and takes it down.

mod error;
mod startup;

use std::process::ExitCode;
use std::time::Duration;

use procbroker_core::{Broker, ExitCause};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

pub use error::ServeError;

use crate::cli::{LogLevel, ServeArguments};
use crate::driver::{Driver, FromThread, Signals, Sources};
use crate::limits::{FACTS_WAITING, FLUSH_PATIENCE, LOG_LINES_WAITING, REPORTS_WAITING};
use crate::listener::Reception;
use crate::os::notify::ServiceOwner;
use startup::Prepared;

/// Runs a broker until it is told to stop. The exit status is 0 when nothing is left.
#[must_use]
pub fn serve(arguments: &ServeArguments) -> ExitCode {
    let _log = write_log_to_standard_error(arguments.log);
    match run(arguments) {
        Ok(ExitCause::Done) => ExitCode::SUCCESS,
        Ok(ExitCause::Left(_)) => ExitCode::FAILURE,
        Err(error) => {
            let mut line = format!("procbroker: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                line.push_str(": ");
                line.push_str(&cause.to_string());
                source = cause.source();
            }
            // Whoever has closed standard error has seen enough.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &ServeArguments) -> Result<ExitCause, ServeError> {
    let prepared = startup::prepare(arguments)?;
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(ServeError::Runtime)?;
    let cause = runtime.block_on(work(prepared))?;
    end(runtime);
    Ok(cause)
}

/// Serves clients until the core orders the exit, and sends the last answers.
async fn work(prepared: Prepared) -> Result<ExitCause, ServeError> {
    let (facts_in, facts) = mpsc::channel(FACTS_WAITING);
    let (threads_in, threads) = mpsc::channel::<FromThread>(REPORTS_WAITING);
    let signals = Signals::install().map_err(ServeError::Signals)?;
    let Prepared { config, machine, sockets, places } = prepared;
    let listeners = sockets.listeners()?;
    let (reception, emptiness) = Reception::new(facts_in, &config.bounds);
    let hands = machine.hands(threads_in)?;
    tokio::spawn(crate::watchdog::report(ServiceOwner));
    let mut driver = Driver::new(Broker::new(config), hands);
    let receiving: Vec<_> =
        listeners.into_iter().map(|listener| tokio::spawn(reception.clone().receive(listener))).collect();
    tracing::info!(sockets = %places.sockets, state = %places.state_dir, "ready");
    ServiceOwner.ready(&format!("Serving {}", places.sockets));
    let cause = driver.run(Sources { facts, threads, signals }).await;
    for task in receiving {
        task.abort();
    }
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

/// Sends the log to standard error, from a thread of its own. It is written out when the guard is dropped.
fn write_log_to_standard_error(level: LogLevel) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES_WAITING)
        .thread_name("log")
        .finish(std::io::stderr());
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_max_level(level.filter())
        .with_target(false)
        .with_ansi(terminal)
        .with_writer(writer);
    // Under systemd the journal has the time already. It fails only when a log is there already.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
    guard
}
