//! Why a process was not started, for people: what was asked for, what the system said of it, and the way out.

use std::fmt::Write as _;

use procbroker_protocol::CreateParams;
use procbroker_protocol::create::{Account, Rlimit};
use procbroker_protocol::error::SpawnFailure;

use crate::authorize::RunAs;
use crate::child::launching::{KillReason, is_kill};
use crate::effect::SpawnOrder;
use crate::shown;

/// The most bytes that are told of one text that a client has given.
const TOLD_BYTES_MAX: usize = 256;

/// A process that was to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartAttempt<'a> {
    /// What was to be executed.
    command: &'a [String],
    /// What else was asked for.
    order: &'a SpawnOrder,
    /// Where it is started in the place of a folder that is gone, for people; empty where it is not.
    or_elsewhere: &'static str,
}

impl<'a> StartAttempt<'a> {
    /// The main process of a child.
    pub(super) fn main(order: &'a SpawnOrder) -> Self {
        Self { command: &order.params.command, order, or_elsewhere: "" }
    }

    /// Describes the attempt to start the cleanup of a child.
    pub(super) fn cleanup(order: &'a SpawnOrder) -> Self {
        let command = order.params.cleanup.as_ref().map_or(&[][..], |cleanup| &cleanup.command);
        Self { command, order, or_elsewhere: ", or in / where that is gone" }
    }

    /// A command that finds out whether it is ready.
    pub(super) fn probe(command: &'a [String], order: &'a SpawnOrder) -> Self {
        Self { command, order, or_elsewhere: "" }
    }

    /// Returns the program, quoted.
    pub(super) fn program(self) -> String {
        quoted(self.command.first().map_or("", String::as_str))
    }

    /// Says why there is no process.
    pub(super) fn why(self, failure: &SpawnFailure, killed_for: Option<KillReason>) -> String {
        let SpawnFailure { step, errno_name, .. } = failure;
        match killed_for {
            Some(KillReason::TakeOver) if is_kill(failure) => {
                "it had not got to execute its program when another broker took over, and was killed; try again, and see \
                 whether its file system answers"
                    .to_owned()
            }
            Some(KillReason::Stop | KillReason::TakeOver) | None if is_kill(failure) => {
                "it did not get to execute its program, and was killed; see whether its file system answers"
                    .to_owned()
            }
            Some(KillReason::Stop | KillReason::TakeOver) | None => {
                format!("{step} failed with {errno_name} ({})", self.advice(step, errno_name))
            }
        }
    }

    /// Says what of the request a step has failed on, and what a user can do about it.
    fn advice(self, step: &str, errno: &str) -> String {
        let params = &*self.order.params;
        match step {
            "exec" => self.about_program(errno) + &self.where_it_was_looked_for(errno),
            "cwd" => about_folder(self.folder(), errno),
            "user" => format!("check {} and what the broker may do", user(self.order)),
            "groups" => format!("check {} and what the broker may do", groups(self.order)),
            "rlimits" => about_limits(params, errno),
            "stdout" | "stderr" | "stdin" => "check the broker's state folder".to_owned(),
            "cgroup" | "resources" => "see the facilities in status".to_owned(),
            _ => "see the broker's log".to_owned(),
        }
    }

    /// A program with a slash in it that is no whole path depends on the folder, which whoever asked may not have thought of.
    fn where_it_was_looked_for(self, errno: &str) -> String {
        let depends_on_folder =
            self.command.first().is_some_and(|program| program.contains('/') && !program.starts_with('/'));
        match errno {
            "ENOENT" | "ENOTDIR" | "EACCES" if depends_on_folder => {
                let (folder, elsewhere) = (quoted(self.folder()), self.or_elsewhere);
                format!("; it was looked for in the folder {folder}, which cwd sets{elsewhere}")
            }
            _ => String::new(),
        }
    }

    fn folder(self) -> &'a str {
        self.order.params.cwd.as_deref().unwrap_or("/")
    }

    fn about_program(self, errno: &str) -> String {
        let is_path = self.command.first().is_some_and(|program| program.contains('/'));
        let said = match (errno, self.command) {
            ("ENOENT" | "ENOTDIR", [line]) if line.trim().contains(char::is_whitespace) => {
                "program and arguments are separate words, and this is one word with a space in it"
            }
            ("ENOENT" | "ENOTDIR", _) if is_path => {
                "it is not there, or the interpreter that its first line names is not"
            }
            ("ENOENT" | "ENOTDIR", _) => {
                "it is not in the child's PATH, or the interpreter that its first line names is not there"
            }
            ("ENOEXEC", _) => {
                "it is no program that the kernel knows; a script begins with a line such as #!/bin/sh"
            }
            ("EACCES", _) => "the child's user may not execute it, or not enter the folder that it is in",
            ("E2BIG", _) => "its arguments and its environment are longer than the kernel takes",
            (_, _) => "check the program, its permissions and the child's PATH",
        };
        said.to_owned()
    }
}

fn about_folder(folder: &str, errno: &str) -> String {
    let folder = quoted(folder);
    match errno {
        "ENOENT" => format!("the folder {folder} does not exist"),
        "ENOTDIR" => format!("{folder} is no folder"),
        "EACCES" => format!("the child's user may not enter the folder {folder}"),
        _ => format!("check that the folder {folder} exists and that the child's user may enter it"),
    }
}

fn user(order: &SpawnOrder) -> String {
    match (&order.params.user, &order.run_as) {
        (Some(account), _) => format!("the user {}", named(account)),
        (None, RunAs::User { uid, .. }) => format!("the user {uid}"),
        (None, RunAs::Broker) => "the account".to_owned(),
    }
}

fn groups(order: &SpawnOrder) -> String {
    let asked = order.params.groups.as_ref().map(|groups| list(groups.iter().map(named)));
    match (asked, &order.run_as) {
        (Some(groups), RunAs::User { gid, .. }) => format!("the group {gid} and the groups {groups}"),
        (Some(groups), RunAs::Broker) => format!("the groups {groups}"),
        (None, RunAs::User { gid, groups, .. }) => {
            format!("the group {gid} and the groups {}", list(groups.iter().map(u32::to_string)))
        }
        (None, RunAs::Broker) => "the account".to_owned(),
    }
}

fn about_limits(params: &CreateParams, errno: &str) -> String {
    let asked = list(params.rlimits.iter().map(|(name, limit)| match limit {
        Rlimit::Value(value) => format!("{}={value}", told(name)),
        Rlimit::Unlimited => format!("{}=unlimited", told(name)),
    }));
    let asked = match params.rlimits.len() {
        // A cleanup has none of its own, and what bounds its creator can be more than the broker may set.
        0 => return "ask for no more than the broker's own hard limit".to_owned(),
        1 => asked,
        _ => format!("one of {asked}"),
    };
    match errno {
        "EPERM" => format!("{asked} is above the hard limit of the broker, or of who asks for it"),
        "EINVAL" => format!("{asked} is no limit that there is; see getrlimit(2)"),
        _ => format!("it was asked for {asked}; ask for no more than the broker's own hard limit"),
    }
}

fn named(account: &Account) -> String {
    told(&account.to_string())
}

fn list(texts: impl Iterator<Item = String>) -> String {
    let mut all = String::new();
    for text in texts {
        if all.len() > TOLD_BYTES_MAX {
            all.push_str(", …");
            return all;
        }
        let separator = if all.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(all, "{separator}{text}");
    }
    all
}

/// A text, or the beginning of a long one.
fn told(text: &str) -> String {
    let beginning = shown::cut(text, TOLD_BYTES_MAX);
    let rest = if beginning.len() < text.len() { "…" } else { "" };
    format!("{beginning}{rest}")
}

fn quoted(text: &str) -> String {
    format!("{:?}", told(text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use procbroker_protocol::create::Cleanup;

    use super::*;

    fn order(params: CreateParams) -> SpawnOrder {
        let run_as = RunAs::User { uid: 33, gid: 34, groups: vec![34, 35] };
        SpawnOrder { params: Arc::new(params), run_as, launch: crate::Launch::default() }
    }

    fn failure(step: &str, errno_name: &str) -> SpawnFailure {
        SpawnFailure { errno: 1, errno_name: errno_name.to_owned(), step: step.to_owned() }
    }

    fn why(params: CreateParams, step: &str, errno_name: &str) -> String {
        StartAttempt::main(&order(params)).why(&failure(step, errno_name), None)
    }

    fn command(words: &[&str]) -> CreateParams {
        CreateParams::new(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_is_missing_is_named() {
        let in_folder = || CreateParams { cwd: Some("/none".to_owned()), ..command(&["a"]) };
        let as_user = |user: &str| CreateParams { user: Some(Account::from_text(user)), ..command(&["a"]) };
        let limited = |limits: &[(&str, Rlimit)]| CreateParams {
            rlimits: limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect(),
            ..command(&["a"])
        };
        let cases = [
            (in_folder(), "cwd", "ENOENT", "the folder \"/none\" does not exist"),
            (in_folder(), "cwd", "ENOTDIR", "\"/none\" is no folder"),
            (in_folder(), "cwd", "EACCES", "the child's user may not enter the folder \"/none\""),
            (
                in_folder(),
                "cwd",
                "ELOOP",
                "check that the folder \"/none\" exists and that the child's user may enter it",
            ),
            (as_user("web"), "user", "EPERM", "check the user web and what the broker may do"),
            (command(&["a"]), "user", "EPERM", "check the user 33 and what the broker may do"),
            (
                command(&["a"]),
                "groups",
                "EPERM",
                "check the group 34 and the groups 34, 35 and what the broker may do",
            ),
            (
                limited(&[("nofile", Rlimit::Value(9))]),
                "rlimits",
                "EPERM",
                "nofile=9 is above the hard limit of the broker, or of who asks for it",
            ),
            (
                limited(&[("nofile", Rlimit::Value(9)), ("core", Rlimit::Unlimited)]),
                "rlimits",
                "EPERM",
                "one of core=unlimited, nofile=9 is above the hard limit of the broker, or of who asks for it",
            ),
            (
                limited(&[("files", Rlimit::Value(9))]),
                "rlimits",
                "EINVAL",
                "files=9 is no limit that there is; see getrlimit(2)",
            ),
        ];
        for (params, step, errno, expected) in cases {
            assert_eq!(why(params, step, errno), format!("{step} failed with {errno} ({expected})"));
        }
    }

    #[test]
    fn a_program_that_cannot_be_executed_comes_with_the_way_out() {
        let cases: [(&[&str], &str, &str); 8] = [
            (
                &["sleep 9"],
                "ENOENT",
                "program and arguments are separate words, and this is one word with a space in it",
            ),
            (
                &["/a b"],
                "ENOENT",
                "program and arguments are separate words, and this is one word with a space in it",
            ),
            (
                &["/a b", "c"],
                "ENOENT",
                "it is not there, or the interpreter that its first line names is not",
            ),
            (
                &["a"],
                "ENOENT",
                "it is not in the child's PATH, or the interpreter that its first line names is not there",
            ),
            (
                &["a"],
                "ENOEXEC",
                "it is no program that the kernel knows; a script begins with a line such as #!/bin/sh",
            ),
            (&["a"], "EACCES", "the child's user may not execute it, or not enter the folder that it is in"),
            (&["a"], "E2BIG", "its arguments and its environment are longer than the kernel takes"),
            (&["a b"], "EPERM", "check the program, its permissions and the child's PATH"),
        ];
        for (words, errno, expected) in cases {
            assert_eq!(why(command(words), "exec", errno), format!("exec failed with {errno} ({expected})"));
        }
    }

    #[test]
    fn a_relative_program_that_is_not_there_comes_with_the_folder_that_it_was_looked_for_in() {
        let in_srv = |program| CreateParams { cwd: Some("/srv".to_owned()), ..command(&[program]) };
        let not_there = "it is not there, or the interpreter that its first line names is not";
        let closed = "the child's user may not execute it, or not enter the folder that it is in";
        let (root, srv) = ["/", "/srv"]
            .map(|folder| format!("; it was looked for in the folder {folder:?}, which cwd sets"))
            .into();
        for (params, errno, expected) in [
            (command(&["./job.sh"]), "ENOENT", format!("{not_there}{root}")),
            (in_srv("bin/job"), "ENOTDIR", format!("{not_there}{srv}")),
            (in_srv("./job.sh"), "EACCES", format!("{closed}{srv}")),
            (in_srv("/job.sh"), "ENOENT", not_there.to_owned()),
            (in_srv("/job.sh"), "EACCES", closed.to_owned()),
            (in_srv("job.sh"), "EACCES", closed.to_owned()),
        ] {
            assert_eq!(why(params, "exec", errno), format!("exec failed with {errno} ({expected})"));
        }
        let cleanup = Cleanup { command: vec!["./tidy".to_owned()], timeout: Duration::from_secs(1) };
        let order = order(CreateParams { cleanup: Some(cleanup), ..in_srv("/job") });
        let said = StartAttempt::cleanup(&order).why(&failure("exec", "ENOENT"), None);
        assert!(said.ends_with("\"/srv\", which cwd sets, or in / where that is gone)"), "{said}");
    }

    #[test]
    fn a_long_text_of_a_client_makes_no_long_message() {
        let params = CreateParams { cwd: Some("x".repeat(100_000)), ..command(&["a"]) };
        assert!(why(params, "cwd", "ENAMETOOLONG").len() < 2 * TOLD_BYTES_MAX);
        let groups = Some((0..100_000).map(Account::Id).collect());
        assert!(
            why(CreateParams { groups, ..command(&["a"]) }, "groups", "EPERM").len() < 2 * TOLD_BYTES_MAX
        );
    }
}
