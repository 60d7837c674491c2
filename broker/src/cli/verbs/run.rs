//! `run`: the broker and one main command, as the entry point of a container.

use std::time::Duration;

use clap::Args;
use procbroker_protocol::Signal;
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::Scope;

use super::main_arguments::MainArguments;
use super::serve::ServeArguments;
use crate::cli::values::{Choice, one_of, stop_step};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!(
    "

Examples:
  Apache in a container, with a graceful stop and its failsafe:
    procbroker run --main-stop SIGWINCH:20s,SIGTERM:12s \\
        --shutdown-timeout 60s -- \\
        sh -c '. /etc/apache2/envvars; exec apache2 -D FOREGROUND'
  gunicorn, whose workers run as another user:
    procbroker run --allow-user www-data --socket-group www-data \\
        --socket-mode 660 -- gunicorn --user www-data app:app

A script in front of the server has to exec it. apachectl does not: it keeps
the server's signals, and its exit status.

Docker and Kubernetes kill what does not stop in time: give them more than
--shutdown-timeout (docker run --stop-timeout, terminationGracePeriodSeconds)."
);

/// The words of `--main-stop-scope`.
const STOP_SCOPES: &[Choice<Scope>] = &[
    Choice { word: "main", value: Scope::Main, help: "The process that was started" },
    Choice { word: "group", value: Scope::Group, help: "Its process group" },
];

/// How long the main command has by default to end after SIGTERM.
const MAIN_GRACE: Duration = Duration::from_secs(20);

/// The flags of `procbroker run`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct RunArguments {
    /// The program and its arguments, after `--`; looked up in PATH, with no shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// The signals that ask the main command to end, tried in turn, each with how long to wait for it (10s unless given)
    ///
    /// May be repeated, or given as a list with commas. `SIGWINCH:20s,SIGTERM:12s` is
    /// Apache's graceful stop, and what follows where a request hangs. [default: SIGTERM:20s]
    #[arg(long, value_name = "SIGNAL[:GRACE]", value_delimiter = ',', value_parser = stop_step)]
    main_stop: Vec<StopStep>,
    /// Which processes of the main command these signals go to
    ///
    /// The group reaches a server behind a script that does not exec it. A server that passes its own stop on, and whose
    /// workers take SIGTERM for an order to drop everything (uWSGI), is stopped by its main process alone.
    #[arg(long, value_name = "SCOPE", default_value = "group", value_parser = one_of(STOP_SCOPES))]
    main_stop_scope: Scope,
    /// Give the main command this program's own standard input, and its terminal: `docker run -it IMAGE bash` works
    ///
    /// It is in the foreground of the terminal then, with job control, and gets what is typed there, Ctrl-C included.
    /// A Ctrl-Z that stops it stops the broker too, until the shell continues both.
    /// Otherwise its standard input is empty, and it has no terminal.
    #[arg(long, short)]
    interactive: bool,
    #[command(flatten)]
    serve: ServeArguments,
}

impl RunArguments {
    /// The broker that these arguments ask for.
    pub(in crate::cli) fn into_serve(self) -> ServeArguments {
        let Self { command, main_stop, main_stop_scope: stop_scope, interactive, serve } = self;
        let stop = if main_stop.is_empty() {
            vec![StopStep { signal: Signal::TERM, grace: MAIN_GRACE }]
        } else {
            main_stop
        };
        ServeArguments { main: Some(MainArguments { command, stop, stop_scope, interactive }), ..serve }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{CommandLine, Verb};
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<ServeArguments, clap::Error> {
        let line = CommandLine::try_parse_from([&["procbroker"], arguments].concat())?;
        match line.verb {
            Verb::Run(arguments) => Ok(arguments.into_serve()),
            other => panic!("{other:?}"),
        }
    }

    fn main_of(arguments: &[&str]) -> MainArguments {
        parsed(arguments).unwrap().main.unwrap()
    }

    fn step(signal: Signal, seconds: u64) -> StopStep {
        StopStep { signal, grace: Duration::from_secs(seconds) }
    }

    #[test]
    fn all_after_the_dashes_is_the_main_command() {
        let main =
            main_of(&["run", "--max-children", "7", "--", "apachectl", "-D", "FOREGROUND", "--", "--log"]);
        assert_eq!(main.command, ["apachectl", "-D", "FOREGROUND", "--", "--log"]);
        assert!(!main.interactive && main_of(&["run", "-i", "--", "bash"]).interactive);
        let serve = parsed(&["run", "--shutdown-timeout", "45s", "--", "true"]).unwrap();
        assert_eq!(serve.shutdown_timeout, Duration::from_secs(45));
    }

    #[test]
    fn it_is_stopped_by_sigterm_unless_it_is_said_how() {
        assert_eq!(main_of(&["run", "--", "true"]).stop, [step(Signal::TERM, 20)]);
        let steps = [step(Signal::WINCH, 20), step(Signal::TERM, 5), step(Signal::INT, 10)];
        let flags = ["run", "--main-stop", "SIGWINCH:20s,SIGTERM:5s", "--main-stop", "INT", "--", "true"];
        assert_eq!(main_of(&flags).stop, steps);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases: [&[&str]; 5] = [
            &["run"],
            &["run", "--"],
            &["run", "true"],
            &["run", "--main-stop", "SIGFOO:1s", "--", "true"],
            &["run", "--main-stop", "TERM:soon", "--", "true"],
        ];
        for arguments in cases {
            assert_eq!(parsed(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
        }
    }
}
