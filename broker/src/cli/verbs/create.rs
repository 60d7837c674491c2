//! `create`: starts a child, with a flag for every parameter.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use procbroker_protocol::create::{
    Account, Check, Cleanup, CreateParams, IfExists, Lifetime, Limit, Probe, Ready, ReadyTimeout, Resources,
    Restart, RestartPolicy, Rlimit, StandardError, StandardInput, StandardOutput, StopStep, Umask,
    default_stop,
};
use procbroker_protocol::response::{Created, Outcome};
use procbroker_protocol::{Name, Request, Response, Target, duration};
use thiserror::Error;
use uuid::Uuid;

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::escape::command_line;
use crate::cli::print::words::{condition, title};
use crate::cli::print::{CommandOutput, Screen};
use crate::cli::progress::{Awaited, End, Start};
use crate::cli::size::ByteSize;
use crate::cli::values::{
    CgroupBound, Choice, ValueError, account, lifetime, limit, map, one_of, pair, ready, request_id,
    resource, rlimit, stop_step, whole,
};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  One child of a name, however many workers ask for it at the same time:
    procbroker create --name render-42 --if-exists reuse -- \\
        python3 render.py 42
  A graceful stop first, then a firm one:
    procbroker create --stop SIGHUP:10s,SIGTERM:5s -- ./server
  Keep the id in a script, and clean up after it however it ends:
    id=$(procbroker create --cleanup rm --cleanup -rf --cleanup \"$dir\" \\
        -- ./job \"$dir\")
  At most four at a time:
    procbroker create --limit render=4 --label pool=render -- ./render
  With the environment of this shell, and not with the broker's:
    procbroker create --inherit-env --env PORT=8080 -- ./server
  With a shell, where one is wanted:
    procbroker create -- sh -c 'exec ./job >>job.log 2>&1'";

/// The words of `--if-exists`.
const IF_EXISTS: &[Choice<IfExists>] = &[
    Choice { word: "fail", value: IfExists::Fail, help: "Fail, with exit status 4" },
    Choice {
        word: "reuse",
        value: IfExists::Reuse,
        help: "Answer with the live child; one that is stopping is waited for, then created anew",
    },
    Choice { word: "replace", value: IfExists::Replace, help: "Destroy it, then create" },
];

/// The words of `--stdout`.
const STDOUT: &[Choice<StandardOutput>] = &[
    Choice { word: "log", value: StandardOutput::Log, help: "To the child's log" },
    Choice { word: "null", value: StandardOutput::Null, help: "Nowhere" },
    Choice { word: "inherit", value: StandardOutput::Inherit, help: "To the broker's own" },
];

/// The words of `--stderr`.
const STDERR: &[Choice<StandardError>] = &[
    Choice { word: "stdout", value: StandardError::Stdout, help: "To where standard output goes" },
    Choice { word: "log", value: StandardError::Log, help: "To a log of its own" },
    Choice { word: "null", value: StandardError::Null, help: "Nowhere" },
    Choice { word: "inherit", value: StandardError::Inherit, help: "To the broker's own" },
];

/// The words of `--restart`.
const RESTART: &[Choice<RestartPolicy>] = &[
    Choice { word: "never", value: RestartPolicy::Never, help: "After no end" },
    Choice { word: "on-failure", value: RestartPolicy::OnFailure, help: "After any end but exit code 0" },
    Choice { word: "always", value: RestartPolicy::Always, help: "After any end" },
];

/// Why the arguments of `create` do not make a request.
#[derive(Debug, Error)]
enum CreateError {
    /// A key came twice.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The folder that the command was started in cannot be told.
    #[error("cannot tell the working directory, which the child would get; give one with --cwd")]
    WorkingDirectory(#[source] std::io::Error),
    /// A command of several words came as one, and no program has that name.
    #[error(
        "invalid value for {flag}: {text:?} is one word with a space in it, and no program; give each word by itself: {form}"
    )]
    OneWord {
        /// The flag that it was given with.
        flag: &'static str,
        /// The word.
        text: String,
        /// How it is given.
        form: String,
    },
    /// The wire takes text only.
    #[error("the working directory {0:?} is not UTF-8; give another with --cwd")]
    NotUtf8(PathBuf),
    /// The wire takes text only.
    #[error(
        "the variable {0:?} of the environment is not UTF-8; unset it, or give it another value with --env"
    )]
    VariableNotUtf8(OsString),
}

/// The arguments of `create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArguments {
    /// The program and its arguments, after `--`; the program is looked up in the child's PATH, with no shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// The name that the child holds while it lives; one live child at most holds a name
    #[arg(long)]
    name: Option<Name>,
    /// What to do when a live child holds the name already
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = one_of(IF_EXISTS))]
    if_exists: IfExists,
    /// Makes it safe to run this again: the same id gets the first answer, and nothing is started twice
    ///
    /// [default: a new one for each run]
    #[arg(long, value_name = "UUID", value_parser = request_id)]
    request_id: Option<Uuid>,
    /// A label to select children by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Answer as soon as it is spawned, without waiting for it to be ready
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    print: PrintArguments,
    #[command(flatten)]
    surroundings: SurroundingsArguments,
    #[command(flatten)]
    life: LifeArguments,
    #[command(flatten)]
    bounds: BoundsArguments,
}

/// What the child's process finds when it starts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Surroundings of the child")]
struct SurroundingsArguments {
    /// Its working directory [default: the one that this command is run in]
    #[arg(long, value_name = "FOLDER")]
    cwd: Option<PathBuf>,
    /// A variable of its environment, which is otherwise the broker's; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Start from an empty environment instead of the broker's
    #[arg(long)]
    env_clear: bool,
    /// Start from the environment of this command instead of the broker's
    ///
    /// What belongs to one process is left out: `NOTIFY_SOCKET`, `LISTEN_*`, `WATCHDOG_*`, and what the broker tells its
    /// children (`PROCBROKER_SOCKET`, `PROCBROKER_CHILD_ID`, `PROCBROKER_CHILD_NAME`).
    #[arg(long, conflicts_with = "env_clear")]
    inherit_env: bool,
    /// The mask of file permissions, in octal
    #[arg(long, value_name = "MASK", default_value = "022")]
    umask: Umask,
    /// The user that it runs as, by name or number; only root may name another [default: you]
    #[arg(long, value_parser = account)]
    user: Option<Account>,
    /// A supplementary group, by name or number; may be repeated [default: those of the user]
    #[arg(long, value_parser = account)]
    group: Vec<Account>,
    /// Where its standard output goes
    #[arg(long, value_name = "WHERE", default_value = "log", value_parser = one_of(STDOUT))]
    stdout: StandardOutput,
    /// Where its standard error goes
    #[arg(long, value_name = "WHERE", default_value = "stdout", value_parser = one_of(STDERR))]
    stderr: StandardError,
}

/// When the child is ready, restarted, stopped and cleaned up after.
#[derive(Debug, Args)]
#[command(next_help_heading = "Life of the child")]
#[command(group = ArgGroup::new("readiness").args(["ready", "ready_command"]))]
struct LifeArguments {
    /// The signals that ask it to end, tried in turn, each with how long to wait for it (10s unless given)
    ///
    /// May be repeated, or given as a list with commas: SIGHUP:10s,SIGTERM:5s. SIGKILL to all that is left always
    /// ends it. [default: SIGTERM:10s]
    #[arg(long, value_name = "SIGNAL[:GRACE]", value_delimiter = ',', value_parser = stop_step)]
    stop: Vec<StopStep>,
    /// When the broker stops, lower orders are stopped first, and entirely, before the next begins
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = whole(i32::MIN..=i32::MAX))]
    stop_order: i32,
    /// When it counts as running: spawn, notify, tcp:ADDRESS:PORT, unix:PATH or log:TEXT
    ///
    /// `spawn`: as soon as its program runs. `notify`: when it sends READY=1 as `sd_notify` does.
    /// `tcp:127.0.0.1:8080`, `unix:/run/web.sock`: when something accepts connections there (with tcp, another program that
    /// listens there already counts as well: take a port of its own). `log:TEXT`: when a line of its output contains TEXT.
    /// For a command that finds it out, see --ready-command.
    #[arg(long, value_name = "WHEN", default_value = "spawn", value_parser = ready)]
    ready: Ready,
    /// It counts as running when this command, run as its user, exits with 0: one element, repeated for each
    ///
    /// It has the child's environment, folder and limits, and five seconds each time; what it says is not kept. How the last
    /// one has failed is told where the time to become ready is over.
    /// --ready-command test --ready-command -f --ready-command "$folder/up"
    #[arg(long, value_name = "ELEMENT", allow_hyphen_values = true, conflicts_with = "ready")]
    ready_command: Vec<String>,
    /// The pause before it is found out again whether it runs; it doubles with each, to a second [default: 100ms]
    #[arg(long, value_name = "DURATION", requires = "readiness", value_parser = duration::parse)]
    ready_interval: Option<Duration>,
    /// How long it may take to become ready; then it is stopped, and the exit status is 7
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    ready_timeout: Duration,
    /// With --ready notify: the time within which it has to send WATCHDOG=1, again and again, or it is stopped
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    watchdog: Option<Duration>,
    /// After which ends it is started again
    #[arg(long, value_name = "POLICY", default_value = "never", value_parser = one_of(RESTART))]
    restart: RestartPolicy,
    /// Restarts within --restart-window after which it is given up
    #[arg(long, value_name = "N", requires = "restart", default_value_t = Restart::default().max, value_parser = whole(0..=u32::MAX))]
    restart_max: u32,
    /// The time over which restarts are counted
    #[arg(long, value_name = "DURATION", requires = "restart", default_value = "1m", value_parser = duration::parse)]
    restart_window: Duration,
    /// The pause before the first restart; it doubles with each
    #[arg(long, value_name = "DURATION", requires = "restart", default_value = "100ms", value_parser = duration::parse)]
    restart_backoff: Duration,
    /// The longest pause before a restart
    #[arg(long, value_name = "DURATION", requires = "restart", default_value = "30s", value_parser = duration::parse)]
    restart_backoff_max: Duration,
    /// What its life is bound to: broker, connection, pid:N or ttl:DURATION
    ///
    /// `pid:N` ends it with that process, such as pid:$$ in a shell script: one of your own, unless you are root.
    /// `ttl:DURATION` ends it after that time. `connection` ends it with the connection that created it, which is
    /// that of this very command: it lives on for --linger.
    #[arg(long, default_value = "broker", value_parser = lifetime)]
    lifetime: Lifetime,
    /// With the lifetime `connection`: how long it lives on after the last one closes
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    linger: Duration,
    /// A command that runs once the child and its descendants are gone: one element, repeated for each
    ///
    /// It does not run when the child's program was never started. No shell and no quoting takes part, so that any value
    /// is safe:
    /// --cleanup rm --cleanup -rf --cleanup "$folder"
    #[arg(long, value_name = "ELEMENT", allow_hyphen_values = true)]
    cleanup: Vec<String>,
    /// How long the cleanup command may run before it is killed [default: 30s]
    #[arg(long, value_name = "DURATION", requires = "cleanup", value_parser = duration::parse)]
    cleanup_timeout: Option<Duration>,
}

/// What bounds the child.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bounds of the child")]
struct BoundsArguments {
    /// Fail, with exit status 4, when MAX live children have this key already
    #[arg(long, value_name = "KEY=MAX", value_parser = limit)]
    limit: Option<Limit>,
    /// With --limit: how long to wait for a place, in the order of arrival, before that
    #[arg(long, value_name = "DURATION", requires = "limit", value_parser = duration::parse)]
    limit_wait: Option<Duration>,
    /// A resource limit, soft and hard, such as nofile=1024 or core=unlimited; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = rlimit)]
    rlimit: Vec<(String, Rlimit)>,
    /// A bound of its control group, such as `memory_max=512M`; may be repeated
    ///
    /// There are `memory_max` and `memory_high` (bytes, or with k, M, G or T, or max), `cpu_weight` and `io_weight` (1 to
    /// 10000), `cpu_max` (processors such as 1.5, or 150%, or a quota and a period in microseconds such as "150000
    /// 100000") and `pids_max`. It needs a broker that has a control group (version 2) delegated to it: `procbroker status`
    /// tells, under `facilities.controllers`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = resource)]
    resource: Vec<CgroupBound>,
}

impl CreateArguments {
    /// The parameters that these arguments ask for. They always have a request id, so that they can be sent again.
    fn params(&self) -> Result<CreateParams, CreateError> {
        let Self { surroundings, life, bounds, .. } = self;
        let cwd = working_directory(surroundings.cwd.as_deref())?;
        check_words("--cleanup", &life.cleanup, Path::new(&cwd))?;
        check_words("--ready-command", &life.ready_command, Path::new(&cwd))?;
        Ok(CreateParams {
            command: self.command.clone(),
            name: self.name.clone(),
            if_exists: self.if_exists,
            request_id: Some(self.request_id.unwrap_or_else(Uuid::new_v4)),
            labels: map("--label", &self.label)?,
            cwd: Some(cwd),
            env: surroundings.environment(std::env::vars_os())?,
            // Nothing of the broker's own.
            env_clear: surroundings.env_clear || surroundings.inherit_env,
            umask: surroundings.umask,
            user: surroundings.user.clone(),
            groups: if surroundings.group.is_empty() { None } else { Some(surroundings.group.clone()) },
            stdin: StandardInput::Null,
            stdout: surroundings.stdout,
            stderr: surroundings.stderr,
            stop: if life.stop.is_empty() { default_stop() } else { life.stop.clone() },
            stop_order: life.stop_order,
            ready: life.ready(),
            ready_timeout: ReadyTimeout(life.ready_timeout),
            no_wait: self.no_wait,
            restart: life.restart(),
            lifetime: life.lifetime,
            linger: life.linger,
            cleanup: life.cleanup(),
            limit: bounds.limit.clone().map(|limit| Limit { wait: bounds.limit_wait, ..limit }),
            rlimits: map("--rlimit", &bounds.rlimit)?,
            resources: resources(&bounds.resource)?,
            watchdog: life.watchdog,
        })
    }
}

impl Ask for CreateArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let params = self.params().map_err(|error| Failure::usage(&error))?;
        Ok(vec![Request::Create(Box::new(params))])
    }

    fn awaited(&self) -> Option<Awaited> {
        let waits_until_ready = !self.no_wait && self.life.ready() != Ready::Spawn;
        let start = Start {
            place_within: self.bounds.limit_wait,
            ready_within: waits_until_ready.then_some(self.life.ready_timeout),
            is_bound_to_connection: self.life.lifetime == Lifetime::Connection,
        };
        let waits_for_a_name = match self.if_exists {
            IfExists::Reuse | IfExists::Replace => true,
            IfExists::Fail => false,
        };
        let can_take_long = waits_for_a_name || start.place_within.is_some() || waits_until_ready;
        let targets = self.name.clone().map(Target::Name).into_iter().collect();
        // What goes on is asked for then.
        can_take_long.then_some(Awaited { targets, end: End::Started(start), goes_on: "" })
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        Ok(format!("{}\n", created_of(answer)?.child.id))
    }

    fn human(&self, answer: &Response, _: Screen) -> Result<CommandOutput, Failure> {
        created_of(answer).map(|created| CommandOutput::done(sentence(created)))
    }

    fn remark(&self, answer: &Response) -> Option<&'static str> {
        let LifeArguments { lifetime, linger, .. } = &self.life;
        let is_new = created_of(answer).is_ok_and(|created| match created.outcome {
            Outcome::Created | Outcome::Replaced => true,
            Outcome::Existing { .. } => false,
        });
        let ends_at_once = is_new && *lifetime == Lifetime::Connection && linger.is_zero();
        ends_at_once
            .then_some("it ends with this command's connection; --linger, or --lifetime pid:$$, keeps it")
    }
}

fn created_of(answer: &Response) -> Result<&Created, Failure> {
    if let Response::Created(created) = answer { Ok(created) } else { Err(Failure::Answer) }
}

/// What was done, in one line.
fn sentence(created: &Created) -> String {
    let child = &created.child;
    let (verb, remark) = match created.outcome {
        Outcome::Created => ("created", ""),
        Outcome::Replaced => ("replaced", ""),
        Outcome::Existing { same_spec: true } => ("found", ""),
        Outcome::Existing { same_spec: false } => ("found", "; it was created from another specification"),
    };
    let id = child.name.as_ref().map_or_else(String::new, |_| format!(" ({})", child.id));
    format!("{verb} {}{id}: {}{remark}\n", title(child), condition(child))
}

/// Variables that mean one process, and must not be handed on to another.
const OF_ONE_PROCESS: [&str; 4] =
    ["NOTIFY_SOCKET", "PROCBROKER_SOCKET", "PROCBROKER_CHILD_ID", "PROCBROKER_CHILD_NAME"];

/// How the names of others of them begin.
const OF_ONE_PROCESS_PREFIXES: [&str; 2] = ["LISTEN_", "WATCHDOG_"];

impl SurroundingsArguments {
    /// The variables that the child gets: those that are given, on top of this command's own where they are wanted.
    fn environment(
        &self,
        own: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<BTreeMap<String, String>, CreateError> {
        let given = map("--env", &self.env)?;
        let mut all = BTreeMap::new();
        for (name, value) in own.into_iter().filter(|_| self.inherit_env) {
            // What is given takes the place of one that cannot be sent.
            if name.to_str().is_some_and(|name| given.contains_key(name) || !is_inheritable(name)) {
                continue;
            }
            let Some((text, value)) = name.to_str().zip(value.to_str()) else {
                return Err(CreateError::VariableNotUtf8(name));
            };
            all.insert(text.to_owned(), value.to_owned());
        }
        all.extend(given);
        Ok(all)
    }
}

/// Whether a variable means the same in another process. The kernel lets one have no name, or one with a `=`, which nobody
/// can set.
fn is_inheritable(name: &str) -> bool {
    let is_own = OF_ONE_PROCESS.contains(&name)
        || OF_ONE_PROCESS_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    !name.is_empty() && !name.contains('=') && !is_own
}

impl LifeArguments {
    fn ready(&self) -> Ready {
        let ready = match self.ready_command.as_slice() {
            [] => self.ready.clone(),
            command => Check::Command(command.to_vec()).into(),
        };
        match ready {
            Ready::Probe(Probe { check, interval }) => {
                Ready::Probe(Probe { check, interval: self.ready_interval.unwrap_or(interval) })
            }
            word @ (Ready::Spawn | Ready::Notify) => word,
        }
    }

    fn restart(&self) -> Restart {
        Restart {
            policy: self.restart,
            max: self.restart_max,
            window: self.restart_window,
            backoff: self.restart_backoff,
            backoff_max: self.restart_backoff_max,
        }
    }

    fn cleanup(&self) -> Option<Cleanup> {
        let timeout = self.cleanup_timeout.unwrap_or(Duration::from_secs(30));
        (!self.cleanup.is_empty()).then(|| Cleanup { command: self.cleanup.clone(), timeout })
    }
}

/// Refuses a whole command line in one word: it would be taken for the name of a program, which nobody hears of before the
/// child has ended.
fn check_words(flag: &'static str, command: &[String], cwd: &Path) -> Result<(), CreateError> {
    let [text] = command else { return Ok(()) };
    if !text.contains(char::is_whitespace) || cwd.join(text).is_file() {
        return Ok(());
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    // What means something to a shell alone is left to one.
    let is_plain = words.iter().all(|word| command_line(std::slice::from_ref(word)) == *word);
    let words = if is_plain { words } else { vec!["sh".to_owned(), "-c".to_owned(), text.clone()] };
    let form = words.into_iter().map(|word| format!("{flag} {}", command_line(&[word])));
    Err(CreateError::OneWord { flag, text: text.clone(), form: form.collect::<Vec<_>>().join(" ") })
}

/// The folder that the child starts in: absolute, because the broker has another one of its own.
fn working_directory(given: Option<&Path>) -> Result<String, CreateError> {
    let absolute = match given {
        Some(folder) => std::path::absolute(folder),
        None => std::env::current_dir(),
    };
    let path = absolute.map_err(CreateError::WorkingDirectory)?;
    path.into_os_string().into_string().map_err(|path| CreateError::NotUtf8(path.into()))
}

fn resources(given: &[CgroupBound]) -> Result<Option<Resources>, ValueError> {
    let mut resources = Resources::default();
    for (index, resource) in given.iter().enumerate() {
        if given.iter().take(index).any(|earlier| earlier.name() == resource.name()) {
            return Err(ValueError::Twice { key: resource.name().to_owned(), flag: "--resource" });
        }
        match resource {
            CgroupBound::MemoryMax(size) => resources.memory_max = size.map(ByteSize::bytes),
            CgroupBound::MemoryHigh(size) => resources.memory_high = size.map(ByteSize::bytes),
            CgroupBound::CpuWeight(weight) => resources.cpu_weight = Some(*weight),
            CgroupBound::CpuMax(bound) => resources.cpu_max = Some(*bound),
            CgroupBound::PidsMax(pids) => resources.pids_max = Some(*pids),
            CgroupBound::IoWeight(weight) => resources.io_weight = Some(*weight),
        }
    }
    Ok((!given.is_empty()).then_some(resources))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn surroundings(flags: &[&str]) -> SurroundingsArguments {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            surroundings: SurroundingsArguments,
        }
        let line: Line = clap::Parser::try_parse_from([&["create"], flags].concat()).unwrap();
        line.surroundings
    }

    #[test]
    fn a_whole_command_line_in_one_word_is_refused_with_the_right_form() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            check_words("--cleanup", &words, folder.path()).map_err(|error| error.to_string())
        };
        assert_eq!(
            refusal(&["rm -rf /tmp/x"]).unwrap_err(),
            "invalid value for --cleanup: \"rm -rf /tmp/x\" is one word with a space in it, and no program; give each word \
             by itself: --cleanup rm --cleanup -rf --cleanup /tmp/x"
        );
        let by_a_shell = "--cleanup sh --cleanup -c --cleanup 'rm -rf \"$dir\"'";
        assert!(refusal(&["rm -rf \"$dir\""]).unwrap_err().ends_with(by_a_shell));
        for command in [&["true"][..], &["rm", "-rf", "/a b"], &["a b", "c"], &[]] {
            assert_eq!(refusal(command), Ok(()));
        }
        assert!(refusal(&["my cleanup"]).is_err());
        std::fs::write(folder.path().join("my cleanup"), "").unwrap();
        assert_eq!(refusal(&["my cleanup"]), Ok(()));
    }

    #[test]
    fn an_environment_is_handed_on_less_what_belongs_to_one_process() {
        let own = || {
            ["PATH", "HOME", "NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "PROCBROKER_CHILD_ID", "=x"]
                .map(|name| (OsString::from(name), OsString::from("own")))
        };
        let pairs = |flags: &[&str]| -> Vec<String> {
            let all = surroundings(flags).environment(own()).unwrap();
            all.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(pairs(&["--inherit-env"]), ["HOME=own", "PATH=own"]);
        assert_eq!(pairs(&["--inherit-env", "--env", "PATH=/bin"]), ["HOME=own", "PATH=/bin"]);
        assert_eq!(pairs(&["--env", "PATH=/bin"]), ["PATH=/bin"]);
        let bytes = OsString::from_vec(vec![0xff]);
        let odd = || [(OsString::from("ODD"), bytes.clone())];
        let error = surroundings(&["--inherit-env"]).environment(odd()).unwrap_err();
        assert!(error.to_string().contains("\"ODD\""), "{error}");
        assert!(surroundings(&["--inherit-env", "--env", "ODD=1"]).environment(odd()).is_ok());
    }
}
