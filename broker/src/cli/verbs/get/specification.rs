//! What a child was created with, a line for each fact, written as the flags of `create` take it.

use std::fmt::Display;

use procbroker_protocol::create::{
    Account, Check, Limit, Probe, Ready, Resources, Restart, RestartPolicy, Rlimit, StandardError,
    StandardOutput, StopStep,
};
use procbroker_protocol::{CreateParams, Spec, duration};

use crate::cli::print::escape::{command_line, escaped};
use crate::cli::print::sheet::SheetRow;
use crate::cli::size::ByteSize;

/// All facts of a specification; of none, their keys.
pub(super) fn facts(spec: Option<&Spec>) -> Vec<SheetRow> {
    let params = spec.map(|spec| &spec.params);
    let restart = params.map(|params| &params.restart).filter(|it| it.policy != RestartPolicy::Never);
    let cleanup = params.and_then(|params| params.cleanup.as_ref());
    let resources = params.and_then(|params| params.resources.as_ref());
    vec![
        SheetRow::maybe("spec.user", params.and_then(|params| params.user.as_ref()).map(account)),
        SheetRow::maybe("spec.group", spec.and_then(|spec| spec.group)),
        SheetRow::maybe(
            "spec.groups",
            params.and_then(|params| params.groups.as_ref()).map(|all| list(all, account)),
        ),
        SheetRow::maybe("spec.cwd", params.and_then(|params| params.cwd.as_deref()).map(escaped)),
        SheetRow::maybe("spec.env", params.and_then(environment)),
        SheetRow::maybe("spec.env_clear", params.map(|params| params.env_clear)),
        SheetRow::maybe("spec.umask", params.map(|params| format!("{:03o}", params.umask.bits()))),
        SheetRow::maybe("spec.stdout", params.map(|params| stdout(params.stdout))),
        SheetRow::maybe("spec.stderr", params.map(|params| stderr(params.stderr))),
        SheetRow::maybe("spec.log", spec.and_then(|spec| spec.log.as_deref()).map(escaped)),
        SheetRow::maybe("spec.stop", params.map(|params| stop(&params.stop))),
        SheetRow::maybe("spec.ready", params.map(|params| ready(&params.ready))),
        SheetRow::maybe("spec.ready_timeout", params.map(|params| duration::display(params.ready_timeout.0))),
        SheetRow::maybe("spec.watchdog", params.and_then(|params| params.watchdog).map(duration::display)),
        SheetRow::maybe("spec.restart", restart.map(restarts)),
        SheetRow::maybe(
            "spec.linger",
            params.map(|params| params.linger).filter(|it| !it.is_zero()).map(duration::display),
        ),
        SheetRow::maybe("spec.cleanup", cleanup.map(|cleanup| command_line(&cleanup.command))),
        SheetRow::maybe("spec.cleanup_timeout", cleanup.map(|cleanup| duration::display(cleanup.timeout))),
        SheetRow::maybe("spec.limit", params.and_then(|params| params.limit.as_ref()).map(limit)),
        SheetRow::maybe("spec.rlimits", params.and_then(rlimits)),
        SheetRow::maybe("spec.resources", resources.map(bounds)),
    ]
}

fn list<T, S: Display>(all: &[T], shown: impl Fn(&T) -> S) -> String {
    all.iter().map(|one| shown(one).to_string()).collect::<Vec<_>>().join(" ")
}

fn account(account: &Account) -> String {
    escaped(&account.to_string())
}

fn environment(params: &CreateParams) -> Option<String> {
    let pairs: Vec<String> = params.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!pairs.is_empty()).then(|| command_line(&pairs))
}

fn stdout(output: StandardOutput) -> &'static str {
    match output {
        StandardOutput::Log => "log",
        StandardOutput::Null => "null",
        StandardOutput::Inherit => "inherit",
    }
}

fn stderr(output: StandardError) -> &'static str {
    match output {
        StandardError::Stdout => "stdout",
        StandardError::Log => "log",
        StandardError::Null => "null",
        StandardError::Inherit => "inherit",
    }
}

fn stop(steps: &[StopStep]) -> String {
    let step = |step: &StopStep| format!("{}:{}", step.signal, duration::display(step.grace));
    let steps: Vec<String> = steps.iter().map(step).collect();
    if steps.is_empty() { "SIGKILL".to_owned() } else { steps.join(",") }
}

fn ready(ready: &Ready) -> String {
    let Probe { check, interval } = match ready {
        Ready::Spawn => return "spawn".to_owned(),
        Ready::Notify => return "notify".to_owned(),
        Ready::Probe(probe) => probe,
    };
    let check = match check {
        Check::Tcp(address) => format!("tcp:{address}"),
        Check::Unix(path) => format!("unix:{}", escaped(path)),
        Check::Log(text) => format!("log:{}", escaped(text)),
        Check::Command(command) => format!("command: {}", command_line(command)),
    };
    format!("{check}, tried every {}", duration::display(*interval))
}

fn restarts(restart: &Restart) -> String {
    let Restart { policy, max, window, backoff, backoff_max } = restart;
    let policy = match policy {
        RestartPolicy::Never => "never",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Always => "always",
    };
    let [window, backoff, backoff_max] = [*window, *backoff, *backoff_max].map(duration::display);
    format!("{policy}, {max} in {window}, after {backoff} to {backoff_max}")
}

fn limit(limit: &Limit) -> String {
    let wait =
        limit.wait.map_or_else(String::new, |wait| format!(", waited for {}", duration::display(wait)));
    format!("{}={}{wait}", escaped(&limit.key), limit.max)
}

fn rlimits(params: &CreateParams) -> Option<String> {
    let rlimit = |(name, value): (&String, &Rlimit)| match value {
        Rlimit::Value(value) => format!("{name}={value}"),
        Rlimit::Unlimited => format!("{name}=unlimited"),
    };
    let rlimits: Vec<String> = params.rlimits.iter().map(rlimit).collect();
    (!rlimits.is_empty()).then(|| rlimits.join(" "))
}

fn bounds(resources: &Resources) -> String {
    let Resources { memory_max, cpu_weight, cpu_max, pids_max, memory_high, io_weight } = resources;
    let bounds = [
        ("memory_max", memory_max.map(|bytes| ByteSize::new(bytes).to_string())),
        ("memory_high", memory_high.map(|bytes| ByteSize::new(bytes).to_string())),
        ("cpu_weight", cpu_weight.map(|weight| weight.to_string())),
        ("cpu_max", cpu_max.map(|bound| format!("\"{bound}\""))),
        ("pids_max", pids_max.map(|pids| pids.to_string())),
        ("io_weight", io_weight.map(|weight| weight.to_string())),
    ];
    let set = bounds.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}")));
    set.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use procbroker_protocol::create::Cleanup;

    use super::*;
    use crate::cli::print::sheet;

    fn words(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_specification_is_shown_as_the_flags_take_it() {
        let params = CreateParams {
            user: Some(Account::Id(33)),
            groups: Some(vec![Account::Id(33), Account::Id(44)]),
            cwd: Some("/srv".to_owned()),
            env: [("A".to_owned(), "b\x1b[2J".to_owned())].into(),
            ready: Check::Command(words(&["test", "-f", "a b"])).into(),
            restart: Restart { policy: RestartPolicy::OnFailure, ..Restart::default() },
            cleanup: Some(Cleanup { command: words(&["rm", "x"]), timeout: Duration::from_secs(30) }),
            limit: Some(Limit { key: "k".to_owned(), max: 4, wait: Some(Duration::from_secs(2)) }),
            rlimits: [("core".to_owned(), Rlimit::Unlimited)].into(),
            resources: Some(Resources {
                cpu_max: Some("1.5".parse().unwrap()),
                pids_max: Some(64),
                memory_max: Some(512 << 20),
                ..Resources::default()
            }),
            ..CreateParams::new(words(&["serve"]))
        };
        let spec = Spec { params, group: Some(33), log: Some("/logs/1.out".to_owned()) };
        let expected = concat!(
            "spec.user\t33\n",
            "spec.group\t33\n",
            "spec.groups\t33 44\n",
            "spec.cwd\t/srv\n",
            "spec.env\t$'A=b\\x1b[2J'\n",
            "spec.env_clear\tfalse\n",
            "spec.umask\t022\n",
            "spec.stdout\tlog\n",
            "spec.stderr\tstdout\n",
            "spec.log\t/logs/1.out\n",
            "spec.stop\tSIGTERM:10s\n",
            "spec.ready\tcommand: test -f 'a b', tried every 100ms\n",
            "spec.ready_timeout\t30s\n",
            "spec.watchdog\t-\n",
            "spec.restart\ton-failure, 5 in 1m, after 100ms to 30s\n",
            "spec.linger\t-\n",
            "spec.cleanup\trm x\n",
            "spec.cleanup_timeout\t30s\n",
            "spec.limit\tk=4, waited for 2s\n",
            "spec.rlimits\tcore=unlimited\n",
            "spec.resources\tmemory_max=512MiB cpu_max=\"150000 100000\" pids_max=64\n",
        );
        assert_eq!(sheet::lines(&facts(Some(&spec))), expected);
    }
}
