//! When the child is ready, restarted, stopped and cleaned up after, and what its life is bound to.

use std::path::Path;
use std::time::Duration;

use clap::{ArgGroup, Args};
use procbroker_protocol::create::{Check, Cleanup, Lifetime, Probe, Ready, Restart, RestartPolicy, StopStep};

use super::error::CreateError;
use crate::cli::print::escape::command_line;
use crate::cli::values::{Choice, duration, lifetime, one_of, ready, stop_step, whole};

/// The words of `--restart`.
const RESTART: &[Choice<RestartPolicy>] = &[
    Choice { word: "never", value: RestartPolicy::Never, help: "After no end" },
    Choice { word: "on-failure", value: RestartPolicy::OnFailure, help: "After any end but exit code 0" },
    Choice { word: "always", value: RestartPolicy::Always, help: "After any end" },
];

/// When the child is ready, restarted, stopped and cleaned up after.
#[derive(Debug, Args)]
#[command(next_help_heading = "Life of the child")]
#[command(group = ArgGroup::new("readiness").args(["ready", "ready_command"]))]
pub(super) struct LifeArguments {
    /// The signals that ask it to end, tried in turn, each with how long to wait for it (10s unless given)
    ///
    /// May be repeated, or given as a list with commas: SIGHUP:10s,SIGTERM:5s. SIGKILL to all that is left always
    /// ends it. [default: SIGTERM:10s]
    #[arg(long, value_name = "SIGNAL[:GRACE]", value_delimiter = ',', value_parser = stop_step)]
    pub(super) stop: Vec<StopStep>,
    /// When the broker stops, lower orders of its user are stopped first, and entirely, before the next begins
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = whole(i32::MIN..=i32::MAX))]
    pub(super) stop_order: i32,
    /// When it counts as running: spawn, notify, tcp:ADDRESS:PORT, unix:PATH or log:TEXT
    ///
    /// `spawn`: as soon as its program runs. `notify`: when it sends READY=1 as `sd_notify` does.
    /// `tcp:127.0.0.1:8080` or `tcp:8080`, `unix:/run/web.sock`: when something accepts connections there (with tcp, another program that
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
    #[arg(long, value_name = "DURATION", requires = "readiness", value_parser = duration)]
    ready_interval: Option<Duration>,
    /// How long it may take to become ready; then it is stopped, and the exit status is 7
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(super) ready_timeout: Duration,
    /// With --ready notify: the time within which it has to send WATCHDOG=1, again and again, or it is stopped
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) watchdog: Option<Duration>,
    /// After which ends it is started again
    #[arg(long, value_name = "POLICY", default_value = "never", value_parser = one_of(RESTART))]
    restart: RestartPolicy,
    /// Restarts within --restart-window after which it is given up
    #[arg(long, value_name = "N", requires = "restart", default_value_t = Restart::default().max, value_parser = whole(0..=u32::MAX))]
    restart_max: u32,
    /// The time over which restarts are counted
    #[arg(long, value_name = "DURATION", requires = "restart", default_value = "1m", value_parser = duration)]
    restart_window: Duration,
    /// The pause before the first restart; it doubles with each
    #[arg(long, value_name = "DURATION", requires = "restart", default_value = "100ms", value_parser = duration)]
    restart_backoff: Duration,
    /// The longest pause before a restart
    #[arg(long, value_name = "DURATION", requires = "restart", default_value = "30s", value_parser = duration)]
    restart_backoff_max: Duration,
    /// What its life is bound to: broker, connection, pid:N or ttl:DURATION
    ///
    /// `pid:N` ends it with that process, such as pid:$$ in a shell script: one of your own, unless you are root.
    /// `ttl:DURATION` ends it after that time. `connection` ends it with the connection that created it, which is
    /// that of this very command: it lives on for --linger.
    #[arg(long, default_value = "broker", value_parser = lifetime)]
    pub(super) lifetime: Lifetime,
    /// With the lifetime `connection`: how long it lives on after the last one closes
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(super) linger: Duration,
    /// A command that runs once the child and its descendants are gone: one element, repeated for each
    ///
    /// It does not run when the child's program was never started. No shell and no quoting takes part, so that any value
    /// is safe:
    /// --cleanup rm --cleanup -rf --cleanup "$folder"
    #[arg(long, value_name = "ELEMENT", allow_hyphen_values = true)]
    cleanup: Vec<String>,
    /// How long the cleanup command may run before it is killed [default: 30s]
    #[arg(long, value_name = "DURATION", requires = "cleanup", value_parser = duration)]
    cleanup_timeout: Option<Duration>,
}

impl LifeArguments {
    pub(super) fn ready(&self) -> Ready {
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

    pub(super) fn restart(&self) -> Restart {
        Restart {
            policy: self.restart,
            max: self.restart_max,
            window: self.restart_window,
            backoff: self.restart_backoff,
            backoff_max: self.restart_backoff_max,
        }
    }

    pub(super) fn cleanup(&self) -> Option<Cleanup> {
        let timeout = self.cleanup_timeout.unwrap_or(Duration::from_secs(30));
        (!self.cleanup.is_empty()).then(|| Cleanup { command: self.cleanup.clone(), timeout })
    }

    /// Refuses what would be found out too late of the commands in it.
    pub(super) fn check_commands(&self, cwd: &Path) -> Result<(), CreateError> {
        check_words("--cleanup", &self.cleanup, cwd)?;
        check_words("--ready-command", &self.ready_command, cwd)
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
