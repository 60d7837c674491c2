//! Errors of the command line, in the one-line form of all others.

use std::borrow::Cow;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::command_status::CommandStatus;
use super::output::complain;
use super::print::escape::escaped;

/// Prints help, a version or what is wrong with the command line, and gives the exit status.
pub(super) fn answer(error: &clap::Error) -> CommandStatus {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has seen enough, such as head(1), is no failure.
            let _ = error.print();
            CommandStatus::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            CommandStatus::Usage
        }
        _ => {
            complain(&explanation(error));
            CommandStatus::Usage
        }
    }
}

/// What is wrong with a command line, and what to do instead.
fn explanation(error: &clap::Error) -> String {
    if let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand)
        && let Some((_, pointer)) = POINTERS.iter().find(|(other, _)| other == verb)
    {
        return format!("procbroker: there is no verb '{verb}'; {pointer}\n");
    }
    let rendered = error.render().to_string();
    pointed_elsewhere(error, &rendered).unwrap_or_else(|| line(&rendered))
}

/// What to use in the place of a flag that other tools have.
fn pointed_elsewhere(error: &clap::Error, rendered: &str) -> Option<String> {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let usage = rendered.lines().find_map(|line| line.trim().strip_prefix("Usage: "))?;
    let command = command_of(usage);
    let verb = command.strip_prefix("procbroker ")?;
    let (.., pointer) =
        FLAG_POINTERS.iter().find(|(of, flags, _)| *of == verb && flags.contains(&given.as_str()))?;
    Some(format!("procbroker: '{command}' has no flag '{given}'; {pointer}\n"))
}

/// Flags of other tools, of which verb they would be, and what to use.
const FLAG_POINTERS: [(&str, &[&str], &str); 4] = [
    (
        "create",
        &["--detach", "-d"],
        "a child goes on by itself, and '--no-wait' does not even wait until it is ready",
    ),
    ("create", &["-n"], "'--name NAME' names the child"),
    (
        "destroy",
        &["--force", "-f", "--timeout", "-t"],
        "'--stop KILL' ends it at once, '--stop SIGTERM:5s' by force after five seconds",
    ),
    (
        "list",
        &["--state"],
        "it shows live children, and with '--all' ended ones too; '--json' tells the state of each, for jq(1)",
    ),
];

/// Verbs of other tools that mean something else here, or more than one thing, and what to use.
const POINTERS: [(&str, &str); 6] = [
    (
        "kill",
        "'procbroker destroy TARGET' stops a child, 'procbroker signal TARGET SIGNAL' sends it a signal",
    ),
    ("start", "'procbroker create -- COMMAND' starts a child, 'procbroker serve' the broker"),
    ("exec", "'procbroker create -- COMMAND' starts one more child; nothing can be run inside another"),
    ("attach", "'procbroker logs --follow TARGET' shows what a child writes; none of them has a terminal"),
    ("show", "'procbroker get TARGET' shows one child, 'procbroker list' all of them"),
    ("version", "'procbroker --version' shows this program's, 'procbroker status' the broker's"),
];

/// What is wrong with a command line, in one line.
pub(super) fn message(error: &clap::Error) -> String {
    let line = explanation(error);
    line.trim_end().strip_prefix("procbroker: ").unwrap_or(&line).to_owned()
}

/// Verbs that end something: nobody who has mistyped another one is to be led to them.
const ENDING_VERBS: [&str; 5] = ["destroy", "stop", "rm", "restart", "shutdown"];

/// The message of a rendered error as one line: without its prefix, and with where to read more instead of the
/// usage. An error about one value has no usage, and says all there is to say.
fn line(rendered: &str) -> String {
    let mut message = String::new();
    let mut advice = String::new();
    for part in rendered.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if let Some(usage) = part.strip_prefix("Usage: ") {
            advice = advice_for(&command_of(usage), &message);
            break;
        }
        if part.starts_with("For more information") {
            break;
        }
        // A signal is what looks like a flag of one letter, and that is said in better words below.
        if part.starts_with("tip: to pass '-") && !part.starts_with("tip: to pass '--") {
            continue;
        }
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let Some(part) = less_ending_verbs(part) else { continue };
        let separator = match message.chars().next_back() {
            None => "",
            Some(':') => " ",
            Some(_) if part.starts_with('[') => " ",
            Some(_) => "; ",
        };
        message.push_str(separator);
        message.push_str(&part);
    }
    format!("procbroker: {}{advice}\n", escaped(&message))
}

/// A line of the message, and of a tip that names verbs only those that end nothing; none where no verb is left.
fn less_ending_verbs(part: &str) -> Option<Cow<'_, str>> {
    if !part.starts_with("tip: ") || !part.contains("similar subcommand") {
        return Some(Cow::Borrowed(part));
    }
    let named = part.split('\'').skip(1).step_by(2);
    let left: Vec<String> =
        named.filter(|verb| !ENDING_VERBS.contains(verb)).map(|verb| format!("'{verb}'")).collect();
    match left.as_slice() {
        [] => None,
        [verb] => Some(format!("tip: a similar subcommand exists: {verb}").into()),
        verbs => Some(format!("tip: some similar subcommands exist: {}", verbs.join(", ")).into()),
    }
}

/// Where to read more; and what is most often forgotten.
fn advice_for(command: &str, message: &str) -> String {
    let unexpected = message.starts_with("unexpected argument");
    let forgotten = match command {
        "procbroker create" | "procbroker run" if unexpected => "; the command to start comes after '--'",
        "procbroker signal" if unexpected => "; the signal comes after the child",
        _ => "",
    };
    format!("{forgotten}; see '{command} --help'")
}

/// The words of a usage line before its flags and arguments: `procbroker create`.
fn command_of(usage: &str) -> String {
    let words = usage.split_whitespace().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::verbs::CommandLine;

    fn refusal(arguments: &[&str]) -> String {
        explanation(
            &CommandLine::try_parse_from(std::iter::once(&"procbroker").chain(arguments)).unwrap_err(),
        )
    }

    #[test]
    fn a_value_of_the_command_line_cannot_steer_the_terminal() {
        let message = refusal(&["get", "\x1b[31m\u{202e}"]);
        assert!(!message.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }

    #[test]
    fn a_usage_error_is_one_line_that_says_what_to_do() {
        let cases: [(&[&str], &str); 16] = [
            (&["frobnicate", "a"], "unrecognized subcommand 'frobnicate'; see 'procbroker --help'"),
            (&["restar", "a"], "unrecognized subcommand 'restar'; see 'procbroker --help'"),
            (
                &["kill", "a"],
                "there is no verb 'kill'; 'procbroker destroy TARGET' stops a child, 'procbroker signal TARGET SIGNAL' sends it a signal",
            ),
            (
                &["run", "sleep", "9"],
                "unexpected argument 'sleep' found; the command to start comes after '--'; see 'procbroker run --help'",
            ),
            (
                &["signal", "-9", "a"],
                "unexpected argument '-9' found; the signal comes after the child; see 'procbroker signal --help'",
            ),
            (
                &["lst"],
                "unrecognized subcommand 'lst'; tip: some similar subcommands exist: 'ls', 'list'; see 'procbroker --help'",
            ),
            (
                &["get"],
                "the following required arguments were not provided: <TARGET>; see 'procbroker get --help'",
            ),
            (
                &["get", "a b"],
                "invalid value 'a b' for '<TARGET>': the name \"a b\" has the character ' '; ASCII letters, digits and (after the first) any of . _ : @ - are allowed",
            ),
            (
                &["destroy", "web*"],
                "invalid value 'web*' for '[TARGET]...': \"web*\" is a pattern; names and ids are taken, and --label for those that have a label",
            ),
            (
                &["events", "--since", "x"],
                "invalid value 'x' for '--since <NUMBER>': \"x\" is not the number of an event; each line of events has one, such as 42",
            ),
            (
                &["create", "sleep", "9"],
                "unexpected argument 'sleep' found; the command to start comes after '--'; see 'procbroker create --help'",
            ),
            (
                &["create", "--if-exists", "maybe", "--", "true"],
                "invalid value 'maybe' for '--if-exists <WHAT>' [possible values: fail, reuse, replace]",
            ),
            (
                &["create", "--stop", "SIGFOO:1s", "--", "true"],
                "invalid value 'SIGFOO:1s' for '--stop <SIGNAL[:GRACE]>': \"SIGFOO\" is not a signal; give a name such as \"SIGHUP\" or \"HUP\", or a number from 1 to 64",
            ),
            (
                &["destroy"],
                "the following required arguments were not provided: <TARGET|--label <KEY=VALUE>|--all>; see 'procbroker destroy --help'",
            ),
            (
                &["destroy", "a", "--all"],
                "the argument '[TARGET]...' cannot be used with '--all'; see 'procbroker destroy --help'",
            ),
            (
                &["list", "--labels", "\x1b[31m"],
                "unexpected argument '--labels' found; tip: a similar argument exists: '--label'; see 'procbroker list --help'",
            ),
        ];
        for (arguments, expected) in cases {
            assert_eq!(refusal(arguments), format!("procbroker: {expected}\n"), "{arguments:?}");
        }
    }

    #[test]
    fn a_flag_of_another_tool_leads_to_the_one_that_does_it_here() {
        let cases: [(&[&str], &str); 6] = [
            (
                &["create", "--detach", "--", "a"],
                "'procbroker create' has no flag '--detach'; a child goes on by itself, and '--no-wait' does not even wait until it is ready",
            ),
            (
                &["create", "-d", "--", "a"],
                "'procbroker create' has no flag '-d'; a child goes on by itself, and '--no-wait' does not even wait until it is ready",
            ),
            (
                &["create", "-n", "a", "--", "b"],
                "'procbroker create' has no flag '-n'; '--name NAME' names the child",
            ),
            (
                &["rm", "-f", "a"],
                "'procbroker destroy' has no flag '-f'; '--stop KILL' ends it at once, '--stop SIGTERM:5s' by force after five seconds",
            ),
            (
                &["stop", "--timeout=5", "a"],
                "'procbroker destroy' has no flag '--timeout'; '--stop KILL' ends it at once, '--stop SIGTERM:5s' by force after five seconds",
            ),
            (
                &["list", "--state", "running"],
                "'procbroker list' has no flag '--state'; it shows live children, and with '--all' ended ones too; '--json' tells the state of each, for jq(1)",
            ),
        ];
        for (arguments, expected) in cases {
            assert_eq!(refusal(arguments), format!("procbroker: {expected}\n"), "{arguments:?}");
        }
    }
}
