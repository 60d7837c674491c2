//! `serve`: the flags of the broker itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use procbroker_core::{Bounds, SPAWNS_IN_FLIGHT_MAX, bytes_of_one_user, part_of_one_user};
use procbroker_protocol::create::Account;

use tracing::level_filters::LevelFilter;

use super::main_arguments::MainArguments;
use crate::cli::size::{ByteSize, ByteSizeError};
use crate::cli::values::{account, duration, file_mode, whole};
use crate::metrics::http::address;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!(
    "

Examples:
  Everything at its default, in the foreground:
    procbroker serve
  A web application's workers, which run as www-data, may use root's broker:
    procbroker serve --allow-user www-data --socket-group www-data \\
        --socket-mode 660
  Bounds for a small machine:
    procbroker serve --max-children 100 --shutdown-timeout 10s

Signals:
  SIGTERM, SIGINT, SIGQUIT and SIGHUP stop every child, then the broker. A
  second one of these but SIGHUP, a second later or more, kills at once; cleanups
  still run, for five seconds. SIGUSR2 asks for an upgrade."
);

/// The permissions with which others than its owner may connect to a socket: unix(7) asks for that to write.
pub const WRITE_BY_OTHERS_THAN_THE_OWNER: u32 = 0o022;

/// The heading of the flags that bound what clients can ask for.
const BOUNDS: &str = "Bounds";

/// How much output is kept where nothing else is said.
const LOG_BYTES: ByteSize = ByteSize::new(16 << 20);

/// How much output is kept of all children where nothing else is said.
const LOG_TOTAL: ByteSize = ByteSize::new(1 << 30);

/// The least output that can be kept: it is kept in parts, each of which takes whole blocks of the disk.
const LOG_BYTES_MIN: ByteSize = ByteSize::new(64 << 10);

/// Takes an amount of output.
fn log_bytes(text: &str) -> Result<ByteSize, ByteSizeError> {
    text.parse::<ByteSize>()?.at_least(LOG_BYTES_MIN)
}

/// The flags of `procbroker serve`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ServeArguments {
    /// Where to listen, as `--socket` says; none when it was not given. It is defined for all verbs at once.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
    /// The main command, of `run`.
    #[arg(skip)]
    pub main: Option<MainArguments>,
    /// The permissions of the socket, in octal
    ///
    /// Who may connect is decided by --allow-user and --allow-group as well.
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = file_mode)]
    pub socket_mode: u32,
    /// The group that the socket belongs to, by name or number [default: the broker's own]
    #[arg(long, value_name = "GROUP", value_parser = account)]
    pub socket_group: Option<Account>,
    /// The folder for state and for the children's output
    ///
    /// [default: `/var/lib/procbroker` as root, otherwise `$XDG_STATE_HOME/procbroker` or
    /// `~/.local/state/procbroker`] Two brokers never share one.
    #[arg(long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// The folder for what a crash of the broker leaves and a reboot does not need
    ///
    /// [default: the socket's path with `.d` at its end] It is best on a file system in memory. After a crash the broker
    /// goes on in the folder that it had. It is removed at the end, unless it was there before.
    #[arg(long, value_name = "FOLDER")]
    pub runtime_dir: Option<PathBuf>,
    /// How much output is kept of each child, both streams together; beyond it the oldest goes
    ///
    /// In bytes on the disk, or with k, M, G or T (powers of 1024).
    #[arg(long, value_name = "BYTES", default_value_t = LOG_BYTES, value_parser = log_bytes)]
    pub log_bytes: ByteSize,
    /// How much output is kept of all children together; beyond it the oldest of the user who has the most goes
    #[arg(long, value_name = "BYTES", default_value_t = LOG_TOTAL, value_parser = log_bytes)]
    pub log_total: ByteSize,
    /// Pass what children write on, line by line, beside keeping it [default: nowhere]
    ///
    /// Each line says which child has written it. One that is longer than 48 KiB (syslog: 7 KiB) is cut, and empty ones are
    /// left out. Lines on standard output are informational and those on a standard error of its own are warnings, unless
    /// they begin with a level such as `<3>` (sd-daemon(3)). No child is held up by it: what the reader does not take in time
    /// is kept alone, and counted in the metrics.
    #[arg(long, value_name = "WHERE", value_enum)]
    pub children_log: Option<ChildrenLog>,
    /// The datagram socket of --children-log, where it is not in its usual place
    ///
    /// [default: `/run/systemd/journal/socket`, or `/dev/log` for syslog]
    #[arg(long, value_name = "PATH", requires = "children_log")]
    pub children_log_socket: Option<PathBuf>,
    /// How long an orderly stop may take before every child that is left is killed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub shutdown_timeout: Duration,
    /// A user, by name or number, who may connect, beside root and the broker's own; may be repeated
    ///
    /// The socket has to let them in too: see --socket-mode and --socket-group.
    ///
    /// A broker that runs as root starts children as the user who asks. A broker that does not run as root starts
    /// them as its own user: whoever is allowed here can then do all that the broker's user can.
    #[arg(long, value_name = "USER", value_parser = account)]
    pub allow_user: Vec<Account>,
    /// A group, by name or number, whose members may connect; may be repeated
    ///
    /// What --allow-user says about the user that children run as holds here too. Users that are subordinate numbers of an account
    /// in /etc/subuid, as it was read at the start, are no members: one account would be tens of thousands of users.
    #[arg(long, value_name = "GROUP", value_parser = account)]
    pub allow_group: Vec<Account>,
    /// Exit after so long without a child and without a connection [default: never]
    ///
    /// For a socket that systemd holds and starts the broker for.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub exit_when_idle: Option<Duration>,
    /// What holds the descendants of a child together
    #[arg(long, value_name = "WAY", value_enum, default_value_t)]
    pub containment: ContainmentChoice,
    /// Move into a control group `broker` below the one that the broker was started in, so that children can have `resources`
    ///
    /// The kernel lets no group have processes and bounded groups at once. Whoever starts the next broker in the same group
    /// has to disable the controllers there before, as procbroker.service does; started in a group that is called `broker`
    /// (DelegateSubgroup=broker, systemd 254), the broker needs neither.
    #[arg(long)]
    pub leaf_group: bool,
    /// Serve metrics for Prometheus at this port, or address and port, by HTTP [default: nowhere]
    ///
    /// They are at `/metrics`, for whoever can connect: with a port alone, that is everybody on this machine. `procbroker
    /// metrics` shows the same to root and the broker's user.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// How much to log, on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub log: LogLevel,
    /// How lines of the log look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What clients can ask for.
    #[command(flatten)]
    pub bounds: BoundArguments,
}

impl ServeArguments {
    /// Whether the main command has this program's own standard input.
    pub(crate) fn is_interactive(&self) -> bool {
        self.main.as_ref().is_some_and(|main| main.interactive)
    }

    /// The permissions of the socket where no flag says others.
    pub const SOCKET_MODE: u32 = 0o600;

    /// Whether somebody is allowed to connect, beside root and the broker's user.
    #[must_use]
    pub fn allows_others(&self) -> bool {
        !(self.allow_user.is_empty() && self.allow_group.is_empty())
    }

    /// Whether somebody is allowed to connect, while the socket's permissions let in its owner only.
    #[must_use]
    pub fn allows_in_vain(&self) -> bool {
        self.allows_others() && self.socket_mode & WRITE_BY_OTHERS_THAN_THE_OWNER == 0
    }

    /// The arguments that the command line `serve` with these flags gives.
    #[cfg(test)]
    pub(crate) fn parsed(flags: &[&str]) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Line {
            #[arg(long)]
            socket: Option<PathBuf>,
            #[command(flatten)]
            serve: ServeArguments,
        }
        let words = std::iter::once("serve").chain(flags.iter().copied());
        <Line as clap::Parser>::try_parse_from(words)
            .map(|Line { socket, serve }| ServeArguments { socket, ..serve })
    }

    /// The bounds that the flags set.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let BoundArguments {
            max_children,
            max_children_per_user,
            max_connections,
            max_connections_per_user,
            max_pipelined,
            max_command_bytes,
            max_subscriptions,
            max_kept_bytes,
            max_kept_bytes_per_user,
            partial_message_timeout,
            ended_max,
            ended_for,
        } = self.bounds;
        let max_children = max_children.unwrap_or(Bounds::default().max_children);
        let max_connections = max_connections.unwrap_or(Bounds::default().max_connections);
        Bounds {
            max_kept_bytes: max_kept_bytes.bytes(),
            max_kept_bytes_per_user: max_kept_bytes_per_user
                .map_or_else(|| bytes_of_one_user(max_kept_bytes.bytes()), ByteSize::bytes),
            max_children,
            max_children_per_user: max_children_per_user.unwrap_or_else(|| part_of_one_user(max_children)),
            max_connections,
            max_connections_per_user: max_connections_per_user
                .unwrap_or_else(|| part_of_one_user(max_connections)),
            max_pipelined,
            max_spawns_in_flight: SPAWNS_IN_FLIGHT_MAX,
            max_command_bytes,
            max_subscriptions,
            partial_message_timeout,
            ended_kept: ended_max,
            ended_kept_for: ended_for,
            events_kept: Bounds::default().events_kept,
        }
    }
}

/// The flags that bound what clients can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = BOUNDS)]
pub struct BoundArguments {
    /// Live children, in all; a tenth of them is left to root and the broker's user [default: 10000]
    #[arg(long, value_name = "N", value_parser = whole(1..=u32::MAX))]
    pub max_children: Option<u32>,
    /// Live children of one user; half of all unless set
    #[arg(long, value_name = "N", value_parser = whole(1..=u32::MAX))]
    pub max_children_per_user: Option<u32>,
    /// Connections, in all; a tenth of them is left to root and the broker's user [default: 4096]
    #[arg(long, value_name = "N", value_parser = whole(1..=u32::MAX))]
    pub max_connections: Option<u32>,
    /// Connections of one user; half of all unless set
    #[arg(long, value_name = "N", value_parser = whole(1..=u32::MAX))]
    pub max_connections_per_user: Option<u32>,
    /// Requests of one connection that are not answered yet
    #[arg(long, value_name = "N", default_value_t = Bounds::default().max_pipelined, value_parser = whole(1..=u32::MAX))]
    pub max_pipelined: u32,
    /// Bytes of the command line and the environment of one `create`
    #[arg(long, value_name = "BYTES", default_value_t = Bounds::default().max_command_bytes, value_parser = whole(1..=u32::MAX))]
    pub max_command_bytes: u32,
    /// Subscriptions of one connection; a user has as many in all as it may have connections
    #[arg(long, value_name = "N", default_value_t = Bounds::default().max_subscriptions, value_parser = whole(0..=u32::MAX))]
    pub max_subscriptions: u32,
    /// Memory for what clients make the broker keep, in all
    ///
    /// Three eighths of it are for children, live ones and as many ended ones as there is room for, an eighth for requests
    /// that wait, an eighth for events and for the answers that a request id gets again, and three eighths for answers,
    /// events and output on their way to clients and for messages that are still arriving. A tenth of each is left to root
    /// and the broker's user. What is over is refused before anything is done.
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub max_kept_bytes: ByteSize,
    /// Memory for what one user makes the broker keep, in the same parts; a quarter of all unless set
    #[arg(long, value_name = "SIZE")]
    pub max_kept_bytes_per_user: Option<ByteSize>,
    /// How long a message may stay unfinished before its connection is closed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub partial_message_timeout: Duration,
    /// Ended children that stay visible to get, wait and list --all; beyond it, the first of the user who has the most goes
    #[arg(long, value_name = "N", default_value_t = Bounds::default().ended_kept, value_parser = whole(0..=u32::MAX))]
    pub ended_max: u32,
    /// How long ended children stay visible
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub ended_for: Duration,
}

/// What is to hold the descendants of a child together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ContainmentChoice {
    /// Control groups where the broker can make them, otherwise subreaper
    #[default]
    Auto,
    /// A control group (version 2) for each child; the broker does not start where it cannot make them
    Cgroup,
    /// The process group, the session, and the orphans that the broker inherits
    Subreaper,
}

/// Where what children write goes beside what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChildrenLog {
    /// systemd's journal, with the child's id, name, labels, stream and pid as fields (`journalctl PROCBROKER_CHILD_NAME=web`)
    Journal,
    /// A syslog daemon, with the child's name and pid in front of each line
    Syslog,
}

/// How lines of the broker's log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// A JSON object a line, with `timestamp`, `level`, `target`, `message` and what belongs to it
    Json,
}

/// How much the broker logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing
    Off,
    /// What failed
    Error,
    /// And children that did not start or needed force, cleanups that failed, and what else looks wrong
    Warn,
    /// And each start and end of a child, who asked for what changes something and who was refused (`audit:`), and what a
    /// shutdown did
    #[default]
    Info,
    /// And every request and its answer, those that change nothing too, and connections that were closed
    Debug,
    /// The same: nothing is logged at this level by itself
    Trace,
}

impl LogLevel {
    /// What it lets through.
    #[must_use]
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}
