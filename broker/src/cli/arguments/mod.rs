//! The definition of the command line: every verb, flag and help text.

mod create;
mod events;
mod logs;
mod run;
mod serve;
mod size;
mod target;
mod upgrade;
mod values;

use std::path::PathBuf;

use clap::builder::{Styles, styling::AnsiColor};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use procbroker_protocol::request::{NoParams, ShutdownParams};
use procbroker_protocol::{Request, Span};

pub(super) use create::CreateArguments;
pub(super) use events::EventsArguments;
pub(super) use logs::LogsArguments;
pub use run::MainArguments;
pub(super) use run::RunArguments;
pub use serve::{BoundArguments, ContainmentChoice, LogLevel, ServeArguments};
pub use size::ByteSize;
pub(super) use target::{DestroyArguments, GetArguments, ListArguments, SignalArguments, WaitArguments};
pub(super) use upgrade::{CanTakeOverArguments, UpgradeArguments};

use super::examples;

/// The colours of help and usage errors; none where standard output or error is no terminal.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold());

/// A broker for long-lived child processes: create, destroy and list them over one Unix socket
///
/// One dedicated process, the broker (`procbroker serve`), owns every long-lived child process of a web
/// application. Any number of workers and scripts ask it over a Unix socket to start, stop and show children.
/// When it is stopped, it brings every child down in order.
#[derive(Debug, Parser)]
#[command(name = "procbroker", version, styles = STYLES, max_term_width = 100)]
#[command(after_long_help = examples::root(), subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
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
    /// Run the broker in the foreground, until SIGTERM, SIGINT or SIGHUP stops it and every child
    #[command(after_long_help = examples::serve())]
    Serve(Box<ServeArguments>),
    /// Run the broker and one main command, as the entry point of a container
    ///
    /// The main command, a web server, finds the broker in `$PROCBROKER_SOCKET`, and writes to this program's own standard
    /// output and error. When this program is told to stop (SIGTERM, SIGINT, SIGHUP), the main command is stopped first
    /// and the children after it, all within --shutdown-timeout. When the main command ends by itself, everything else
    /// is stopped too. The exit status is that of the main command; 128 and the number of the signal where one ended it,
    /// 127 where it was not found, and 126 where it could not be executed. SIGUSR1, SIGUSR2, SIGWINCH and SIGQUIT are
    /// passed on to it.
    #[command(override_usage = "procbroker run [OPTIONS] -- <COMMAND>...", after_long_help = examples::run())]
    Run(Box<RunArguments>),
    /// What one request to the broker does.
    #[command(flatten)]
    Ask(Ask),
    /// Show what a child has written
    ///
    /// The text is printed as it is. With `--follow` it ends when the child has ended. Of a child that writes a lot the
    /// oldest output is not kept; see `--log-bytes` of `serve`.
    #[command(after_long_help = examples::logs())]
    Logs(LogsArguments),
    /// Show what happens to children, a line for each event, until the broker ends
    ///
    /// It goes on after a restart or an upgrade of the broker. A reader that is too slow is told how many events it has
    /// missed.
    #[command(after_long_help = examples::events())]
    Events(EventsArguments),
    /// Put a new version of the program into the running broker's place
    ///
    /// The broker asks the program that is in its own place by now whether it can take over, and becomes it: the same
    /// process, with the same children, none of which notices. No client is turned away. Where it cannot, it says why and
    /// nothing has changed. For root and the broker's own user. SIGUSR2 to the broker does the same.
    #[command(after_long_help = examples::upgrade())]
    Upgrade(UpgradeArguments),
    /// Say whether this program could take over from a running broker
    ///
    /// A broker that is to be upgraded asks this of the program that would take its place.
    #[command(hide = true)]
    CanTakeOver(CanTakeOverArguments),
    /// Print the completions for a shell
    #[command(after_long_help = examples::completions())]
    Completions(CompletionsArguments),
    /// Print the manual page, in roff, of the program or of one verb
    #[command(after_long_help = examples::man())]
    Man(ManArguments),
}

/// A verb that is one request to the broker.
#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// Start a child
    ///
    /// Answers when the child is ready. On a terminal it says what it did; elsewhere it prints the id alone.
    #[command(override_usage = "procbroker create [OPTIONS] -- <COMMAND>...", after_long_help = examples::create())]
    Create(Box<CreateArguments>),
    /// Stop children, and wait until they and all their descendants are gone and cleaned up
    ///
    /// Destroying a child that has ended already is no error.
    #[command(after_long_help = examples::destroy())]
    Destroy(DestroyArguments),
    /// Show children, the oldest first
    List(ListArguments),
    /// Show everything about one child
    Get(GetArguments),
    /// Wait until a child has ended, or is ready
    ///
    /// The exit status is 0 once the child has ended, whatever its own exit code: that is printed. With
    /// `--until ready` it is 1 when the child has ended instead. It is 7 when the time is up first.
    Wait(WaitArguments),
    /// Send a signal to a child
    Signal(SignalArguments),
    /// Show the broker itself: its version, children, facilities and limits
    Status(StatusArguments),
    /// Stop every child and then the broker, as SIGTERM does, and show what happened to each
    Shutdown(ShutdownArguments),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub(super) struct PrintArguments {
    /// Print the broker's answer as it is on the wire, as one line of JSON
    ///
    /// On success that is the JSON-RPC result, on standard output. On failure it is the JSON-RPC error, on
    /// standard error; one that does not come from the broker (none is there, the connection broke) has a
    /// `message` alone.
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    pub(super) print: PrintArguments,
}

impl StatusArguments {
    /// The request that these arguments ask for.
    pub(super) fn request() -> Request {
        Request::Status(NoParams {})
    }
}

/// The arguments of `shutdown`.
#[derive(Debug, Args)]
pub(super) struct ShutdownArguments {
    /// How long the whole may take before all that is left is killed, instead of the broker's own setting
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    #[command(flatten)]
    pub(super) print: PrintArguments,
}

impl ShutdownArguments {
    /// The request that these arguments ask for.
    pub(super) fn request(&self) -> Request {
        Request::Shutdown(ShutdownParams { timeout: self.timeout })
    }
}

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell to print them for
    #[arg(value_enum)]
    pub(super) shell: Shell,
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// The verb to print the page of; without one, the page of the program
    pub(super) verb: Option<String>,
}

#[cfg(test)]
mod tests;
