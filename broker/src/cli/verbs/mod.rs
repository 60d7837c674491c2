//! The definition of the command line. Each verb has a file of its own, with its arguments, its request, what it prints
//! and its examples.

/// What stands below the flags of a verb that takes a duration: what one is, and then this.
macro_rules! durations {
    ($rest:literal) => {
        concat!("Durations:\n  250ms, 10s, 5m, 1h30m, 2d; a number without a unit is seconds.", $rest)
    };
}

mod can_take_over;
mod complete;
mod completions;
mod create;
mod destroy;
mod entry_points;
mod events;
mod get;
mod help;
mod list;
mod logs;
mod main_arguments;
mod man;
mod metrics;
mod remove_groups;
mod renew;
mod restart;
mod run;
pub(super) mod serve;
mod shutdown;
mod signal;
mod status;
mod targets;
mod top;
mod upgrade;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{Styles, styling::AnsiColor};
use clap::{CommandFactory, Parser, Subcommand};

pub use entry_points::{EntryPoints, Rehearse};
pub use main_arguments::MainArguments;
use remove_groups::RemoveGroupsArguments;
pub use serve::{
    BoundArguments, ChildrenLog, ContainmentChoice, LogFormat, LogLevel, ServeArguments,
    WRITE_BY_OTHERS_THAN_THE_OWNER,
};

use super::ask::{self, Ask};
use super::output::conclude;
use super::print::CommandOutput;

use can_take_over::CanTakeOverArguments;
use complete::CompleteArguments;
use completions::CompletionsArguments;
use create::CreateArguments;
use destroy::DestroyArguments;
use events::EventsArguments;
use get::GetArguments;
use help::HelpArguments;
use list::ListArguments;
use logs::LogsArguments;
use man::ManArguments;
use metrics::MetricsArguments;
use renew::RenewArguments;
use restart::RestartArguments;
use run::RunArguments;
use shutdown::ShutdownArguments;
use signal::SignalArguments;
use status::StatusArguments;
use top::TopArguments;
use upgrade::UpgradeArguments;
use wait::WaitArguments;

/// The colours of help and usage errors; none where standard output or error is no terminal.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold());

/// How wide help is at most on a terminal, because longer lines are hard to read.
const HELP_WIDTH_MAX: usize = 100;

/// How wide help is where no terminal says otherwise.
const HELP_WIDTH: usize = 80;

/// How wide help is here.
fn help_width() -> usize {
    let columns = terminal_size::terminal_size_of(std::io::stdout())
        .map(|(terminal_size::Width(columns), _)| usize::from(columns));
    columns.filter(|columns| *columns > 0).map_or(HELP_WIDTH, |columns| columns.min(HELP_WIDTH_MAX))
}

/// A broker for long-lived child processes: create, destroy and list them over one Unix socket
///
/// One dedicated process, the broker (`procbroker serve`), owns every long-lived child process of a web
/// application. Any number of workers and scripts ask it over a Unix socket to start, stop and show children.
/// When it is stopped, it brings every child down in order.
#[derive(Debug, Parser)]
#[command(name = "procbroker", version, styles = STYLES, term_width = help_width())]
#[command(after_long_help = OVERVIEW, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
#[command(disable_help_subcommand = true)]
pub(super) struct CommandLine {
    /// The broker's socket: where `serve` listens, and where every other verb connects
    ///
    /// Without it, `$PROCBROKER_SOCKET`. Without that, `serve` listens at `/run/procbroker/procbroker.sock` as root
    /// and at `$XDG_RUNTIME_DIR/procbroker/procbroker.sock` otherwise (at `/tmp/procbroker-UID/procbroker.sock` where
    /// that variable is not set). The other verbs connect to the user's own broker when its socket is there, and to
    /// the system's otherwise.
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the broker in the foreground, until SIGTERM, SIGINT, SIGQUIT or SIGHUP stops it and every child
    #[command(after_long_help = serve::EXAMPLES)]
    Serve(Box<ServeArguments>),
    /// Run the broker and one main command, as the entry point of a container
    ///
    /// The main command, a web server, finds the broker in `$PROCBROKER_SOCKET`, and writes to this program's own standard
    /// output and error. When this program is told to stop (SIGTERM, SIGINT, SIGHUP), the main command is stopped first
    /// and the children after it, all within --shutdown-timeout. When the main command ends by itself, everything else
    /// is stopped too. The exit status is that of the main command; 128 and the number of the signal where one ended it,
    /// 127 where it was not found, and 126 where it could not be executed. SIGUSR1, SIGUSR2, SIGWINCH and SIGQUIT are
    /// passed on to it, but for a SIGWINCH that a terminal sends when it is resized. A second SIGTERM or SIGINT, a second
    /// or more after the first, kills what is left.
    #[command(override_usage = "procbroker run [OPTIONS] -- <COMMAND>...", after_long_help = run::EXAMPLES)]
    Run(Box<RunArguments>),
    /// A verb that makes requests to the broker.
    #[command(flatten)]
    Ask(ClientVerb),
    /// Show what a child has written
    ///
    /// The text is printed as it is. With `--follow` it ends when the child has ended. Of a child that writes a lot the
    /// oldest output is not kept; see `--log-bytes` of `serve`.
    #[command(after_long_help = logs::EXAMPLES)]
    Logs(LogsArguments),
    /// Show what happens to children, a line for each event, until the broker ends
    ///
    /// It goes on after a crash or an upgrade of the broker, and ends when the broker is stopped. A reader that is too slow is
    /// told how many events it has missed.
    #[command(mut_arg("json", events::json_flag), after_long_help = events::EXAMPLES)]
    Events(EventsArguments),
    /// Watch the children on a terminal, and stop, restart or signal them by keys
    ///
    /// Children come and go as it happens; what they use is asked for once a second.
    #[command(after_long_help = top::EXAMPLES)]
    Top(TopArguments),
    /// Put a new version of the program into the running broker's place
    ///
    /// The broker asks the program that is in its own place by now whether it can take over, and becomes it: the same
    /// process, with the same children, none of which notices. No client is turned away. Where it cannot, it says why and
    /// nothing has changed. For root and the broker's own user. SIGUSR2 to the broker does the same.
    #[command(after_long_help = upgrade::EXAMPLES)]
    Upgrade(UpgradeArguments),
    /// Say whether this program could take over from a running broker
    ///
    /// A broker that is to be upgraded asks this of the program that would take its place.
    #[command(hide = true)]
    CanTakeOver(CanTakeOverArguments),
    /// Print what a shell completes at this place: the names of children, or signals
    #[command(hide = true)]
    Complete(CompleteArguments),
    /// Print the help of a verb, as `--help` after it does
    #[command(hide = true)]
    Help(HelpArguments),
    /// Remove the empty control groups of a broker that has exited
    ///
    /// A broker that leaves many starts this, so that nobody has to wait until all are removed.
    #[command(hide = true)]
    RemoveGroups(RemoveGroupsArguments),
    /// Print the completions for a shell
    #[command(after_long_help = completions::EXAMPLES)]
    Completions(CompletionsArguments),
    /// Print the manual page, in roff, of the program or of one verb
    #[command(after_long_help = man::EXAMPLES)]
    Man(ManArguments),
}

/// A verb that makes requests to the broker.
#[derive(Debug, Subcommand)]
pub(super) enum ClientVerb {
    /// Start a child
    ///
    /// Answers when the child is ready. On a terminal it says what it did; elsewhere it prints the id alone. The child's
    /// standard input is `/dev/null`: what it is to read it finds in its arguments, its environment or a file.
    #[command(override_usage = "procbroker create [OPTIONS] -- <COMMAND>...", after_long_help = create::EXAMPLES)]
    Create(Box<CreateArguments>),
    /// Stop children, and wait until they and all their descendants are gone and cleaned up
    ///
    /// Destroying a child that has ended already is no error.
    #[command(visible_aliases = ["stop", "rm"], override_usage = targets::usage("destroy"), after_long_help = destroy::EXAMPLES)]
    Destroy(DestroyArguments),
    /// Show children, the oldest first
    #[command(visible_aliases = ["ls", "ps"], after_long_help = list::EXAMPLES)]
    List(ListArguments),
    /// Show everything about one child
    #[command(visible_alias = "inspect")]
    Get(GetArguments),
    /// Wait until children have ended, or are ready
    ///
    /// The exit status is 0 once all of them have ended, whatever their own exit codes: these are printed, and with
    /// `--exit-code` that of one child is passed on. With `--until ready` it is 1 when one has ended instead. It is 7 when
    /// the time is up first.
    #[command(override_usage = wait::USAGE, after_long_help = wait::EXAMPLES)]
    Wait(WaitArguments),
    /// Send a signal to children
    #[command(override_usage = signal::USAGE, after_long_help = signal::EXAMPLES)]
    Signal(SignalArguments),
    /// Stop children and start them again, with the same id and name
    #[command(override_usage = targets::usage("restart"), after_long_help = restart::EXAMPLES)]
    Restart(RestartArguments),
    /// Give children whose lifetime is `ttl:DURATION` their whole time again
    #[command(override_usage = targets::usage("renew"), after_long_help = renew::EXAMPLES)]
    Renew(RenewArguments),
    /// Show the broker itself: its version, children, facilities and limits
    Status(StatusArguments),
    /// Show what the broker has counted, in the text format of Prometheus
    ///
    /// For root and the broker's own user. `serve --metrics` serves the same by HTTP.
    #[command(after_long_help = metrics::EXAMPLES)]
    Metrics(MetricsArguments),
    /// Stop every child and then the broker, as SIGTERM does, and show what happened to each
    #[command(after_long_help = shutdown::EXAMPLES)]
    Shutdown(ShutdownArguments),
}

impl ClientVerb {
    /// What the verb asks, and how it shows the answer.
    pub(super) fn ask(&self) -> &dyn Ask {
        match self {
            Self::Create(verb) => verb.as_ref(),
            Self::Destroy(verb) => verb,
            Self::List(verb) => verb,
            Self::Get(verb) => verb,
            Self::Wait(verb) => verb,
            Self::Signal(verb) => verb,
            Self::Restart(verb) => verb,
            Self::Renew(verb) => verb,
            Self::Status(verb) => verb,
            Self::Metrics(verb) => verb,
            Self::Shutdown(verb) => verb,
        }
    }
}

impl CommandLine {
    /// Reads a command line, the program's name among its words.
    ///
    /// # Errors
    /// What clap says of it.
    pub(super) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(signal::without_dashes(words))
    }

    /// What these arguments, the program's name among them, would serve; `None` where they would do something else.
    fn served(arguments: &[OsString]) -> Result<Option<ServeArguments>, clap::Error> {
        let Self { socket, verb } = Self::read(arguments.iter().cloned())?;
        Ok(match verb {
            Verb::Serve(arguments) => Some(ServeArguments { socket, ..*arguments }),
            Verb::Run(arguments) => Some(ServeArguments { socket, ..arguments.into_serve() }),
            Verb::Ask(_)
            | Verb::Logs(_)
            | Verb::Events(_)
            | Verb::Top(_)
            | Verb::Upgrade(_)
            | Verb::CanTakeOver(_)
            | Verb::Complete(_)
            | Verb::Help(_)
            | Verb::RemoveGroups(_)
            | Verb::Completions(_)
            | Verb::Man(_) => None,
        })
    }

    /// Does what the verb says.
    pub(super) fn carry_out(self, entry_points: &EntryPoints) -> ExitCode {
        let Self { socket, verb } = self;
        match verb {
            Verb::Serve(arguments) => (entry_points.serve)(&ServeArguments { socket, ..*arguments }),
            Verb::Run(arguments) => {
                (entry_points.serve)(&ServeArguments { socket, ..arguments.into_serve() })
            }
            Verb::Ask(question) => {
                let verb = question.ask();
                conclude(verb.print().json, ask::ask(socket, verb)).into()
            }
            Verb::Logs(arguments) => logs::show(socket, &arguments).into(),
            Verb::Events(arguments) => events::show(socket, &arguments).into(),
            Verb::Top(arguments) => top::show(socket, &arguments).into(),
            Verb::Upgrade(arguments) => {
                conclude(arguments.print.json, upgrade::upgrade(socket, &arguments)).into()
            }
            Verb::CanTakeOver(arguments) => {
                conclude(false, can_take_over::can_take_over(&arguments, Self::served, entry_points.rehearse))
                    .into()
            }
            Verb::Complete(arguments) => {
                conclude(false, Ok(CommandOutput::done(complete::complete(socket, &arguments)))).into()
            }
            Verb::Help(arguments) => {
                conclude(false, help::help(&arguments, Self::command()).map(CommandOutput::done)).into()
            }
            Verb::RemoveGroups(arguments) => {
                conclude(false, Ok(remove_groups::remove_groups(&arguments))).into()
            }
            Verb::Completions(arguments) => conclude(
                false,
                Ok(CommandOutput::done(completions::completions(arguments.shell, &Self::command()))),
            )
            .into(),
            Verb::Man(arguments) => conclude(
                false,
                man::manual(arguments.verb.as_deref(), Self::command()).map(CommandOutput::done),
            )
            .into(),
        }
    }
}

/// What stands below the flags in the help and the manual page of the program.
const OVERVIEW: &str = "\
Output:
  On a terminal, tables for people. Elsewhere a line for each child, without
  a header, its fields between tabs, `-` for one that is absent:
    ID NAME STATE PID STARTED_AT RESTARTS EXIT COMMAND REASON
  EXIT is an exit code, the name of a signal, or `unknown`; REASON is why it
  ended, such as `exited`, `destroyed` or `expired`. `list --usage` has CPU, in
  seconds, and MEMORY, in bytes, behind them. `create` prints the id alone,
  `get` and `status` lines of KEY, tab, VALUE. Control characters of a child's
  texts are escaped. With --json, the wire objects: that of `create` has in
  `outcome` whether the child is new.

Exit status:
  0  done
  1  failed
  2  usage: the command line, or parameters that the broker refuses
  3  not found
  4  name taken, or limit exceeded
  5  no broker there
  6  permission denied
  7  timeout
  130  Ctrl-C was typed while it waited; it has said what goes on
`run` has that of its main command, `wait --exit-code` that of the child.

Environment:
  PROCBROKER_SOCKET  the broker's socket, where --socket is not given
  NO_COLOR           no colours, even on a terminal

Examples:
  procbroker serve
  procbroker create --name render-42 --if-exists reuse -- python3 render.py 42
  procbroker create --name render-42 --if-exists reuse --json -- ./render 42 |
      jq -r .outcome          # created, existing or replaced
  procbroker list
  procbroker destroy render-42";

#[cfg(test)]
mod shown;
#[cfg(test)]
mod tests;
