//! What the child's process finds when it starts: folder, environment, user, and where its output goes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use procbroker_protocol::create::{Account, StandardError, StandardOutput, Umask};

use super::error::CreateError;
use crate::cli::values::{Choice, account, map, one_of, pair};

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

/// What the child's process finds when it starts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Surroundings of the child")]
pub(super) struct SurroundingsArguments {
    /// Its working directory [default: the one that this command is run in]
    #[arg(long, value_name = "FOLDER")]
    cwd: Option<PathBuf>,
    /// A variable of its environment, which is otherwise the broker's; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Start from an empty environment instead of the broker's
    #[arg(long)]
    pub(super) env_clear: bool,
    /// Start from the environment of this command instead of the broker's
    ///
    /// What belongs to one process is left out: `NOTIFY_SOCKET`, `LISTEN_*`, `WATCHDOG_*`, and what the broker tells its
    /// children (`PROCBROKER_SOCKET`, `PROCBROKER_CHILD_ID`, `PROCBROKER_CHILD_NAME`).
    #[arg(long, conflicts_with = "env_clear")]
    pub(super) inherit_env: bool,
    /// The mask of file permissions, in octal
    #[arg(long, value_name = "MASK", default_value = "022")]
    pub(super) umask: Umask,
    /// The user that it runs as, by name or number; only root may name another [default: you]
    #[arg(long, value_parser = account)]
    pub(super) user: Option<Account>,
    /// A supplementary group, by name or number; may be repeated [default: those of the user]
    #[arg(long, value_parser = account)]
    pub(super) group: Vec<Account>,
    /// Where its standard output goes
    #[arg(long, value_name = "WHERE", default_value = "log", value_parser = one_of(STDOUT))]
    pub(super) stdout: StandardOutput,
    /// Where its standard error goes
    #[arg(long, value_name = "WHERE", default_value = "stdout", value_parser = one_of(STDERR))]
    pub(super) stderr: StandardError,
}

/// Variables that mean one process, and must not be handed on to another.
const OF_ONE_PROCESS: [&str; 4] =
    ["NOTIFY_SOCKET", "PROCBROKER_SOCKET", "PROCBROKER_CHILD_ID", "PROCBROKER_CHILD_NAME"];

/// How the names of others of them begin.
const OF_ONE_PROCESS_PREFIXES: [&str; 2] = ["LISTEN_", "WATCHDOG_"];

impl SurroundingsArguments {
    /// The variables that the child gets: those that are given, on top of this command's own where they are wanted.
    pub(super) fn environment(
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

    /// The folder that the child starts in: absolute, because the broker has another one of its own.
    pub(super) fn working_directory(&self) -> Result<String, CreateError> {
        let absolute = match &self.cwd {
            Some(folder) => std::path::absolute(folder),
            None => std::env::current_dir(),
        };
        let path = absolute.map_err(CreateError::WorkingDirectory)?;
        path.into_os_string().into_string().map_err(|path| CreateError::NotUtf8(path.into()))
    }
}

/// Whether a variable means the same in another process. The kernel lets one have no name, or one with a `=`, which nobody
/// can set.
fn is_inheritable(name: &str) -> bool {
    let is_own = OF_ONE_PROCESS.contains(&name)
        || OF_ONE_PROCESS_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    !name.is_empty() && !name.contains('=') && !is_own
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
