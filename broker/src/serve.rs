//! `procbroker serve`: puts a broker together from its flags and its machine, runs it, and takes it down.

mod error;
mod startup;

use std::process::ExitCode;
use std::time::Duration;

use procbroker_core::{Broker, ExitCause};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

pub use error::ServeError;

use crate::cli::{LogLevel, ServeArguments};
use crate::driver::{Driver, FromThread, Signals, Sources};
use crate::limits::{FACTS_WAITING, FLUSH_PATIENCE, REPORTS_WAITING};
use crate::listener::Reception;
use crate::os::notify::ServiceOwner;
use startup::Prepared;

/// Runs a broker until it is told to stop. The exit status is 0 when nothing is left.
#[must_use]
pub fn serve(arguments: &ServeArguments) -> ExitCode {
    write_log_to_standard_error(arguments.log);
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

fn write_log_to_standard_error(level: LogLevel) {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_env_var("PROCBROKER_LOG")
        .try_from_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level.as_str()));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(terminal);
    // Under systemd the journal has the time already.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().with_writer(std::io::stderr).try_init()
    } else {
        log.with_writer(std::io::stderr).try_init()
    };
    // It fails only when a log is there already.
    drop(result);
}
