//! Errors of the command line, in the one-line form of all others.

use clap::error::ErrorKind;

use super::command_status::CommandStatus;
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
            super::complain(&line(&error.render().to_string()));
            CommandStatus::Usage
        }
    }
}

/// What is wrong with a command line, in one line.
pub(super) fn message(error: &clap::Error) -> String {
    let line = line(&error.render().to_string());
    line.trim_end().strip_prefix("procbroker: ").unwrap_or(&line).to_owned()
}

/// Verbs that end something: nobody who has mistyped another one is to be led to them.
const ENDING_VERBS: [&str; 2] = ["destroy", "shutdown"];

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
        if ENDING_VERBS.iter().any(|verb| part == format!("tip: a similar subcommand exists: '{verb}'")) {
            continue;
        }
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let separator = match message.chars().next_back() {
            None => "",
            Some(':') => " ",
            Some(_) if part.starts_with('[') => " ",
            Some(_) => "; ",
        };
        message.push_str(separator);
        message.push_str(part);
    }
    format!("procbroker: {}{advice}\n", escaped(&message))
}

/// Where to read more; and what is most often forgotten.
fn advice_for(command: &str, message: &str) -> String {
    let forgotten = if command == "procbroker create" && message.starts_with("unexpected argument") {
        "; the command to start comes after '--'"
    } else {
        ""
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
        let error = CommandLine::try_parse_from(std::iter::once(&"procbroker").chain(arguments)).unwrap_err();
        line(&error.render().to_string())
    }

    #[test]
    fn a_value_of_the_command_line_cannot_steer_the_terminal() {
        let message = refusal(&["get", "\x1b[31m\u{202e}"]);
        assert!(!message.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }

    #[test]
    fn a_usage_error_is_one_line_that_says_what_to_do() {
        let cases: [(&[&str], &str); 10] = [
            (&["restart", "a"], "unrecognized subcommand 'restart'; see 'procbroker --help'"),
            (
                &["lst"],
                "unrecognized subcommand 'lst'; tip: a similar subcommand exists: 'list'; see 'procbroker --help'",
            ),
            (
                &["get"],
                "the following required arguments were not provided: <TARGET>; see 'procbroker get --help'",
            ),
            (
                &["get", "a b"],
                "invalid value 'a b' for '<TARGET>': the name \"a b\" has the character ' '; letters, digits and (after the first) any of . _ : @ - are allowed",
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
                "the argument '[TARGET]' cannot be used with '--all'; see 'procbroker destroy --help'",
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
}
