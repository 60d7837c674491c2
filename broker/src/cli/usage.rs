//! Errors of the command line, in the one-line form of all others.

mod elements;
mod pointers;

use std::borrow::Cow;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use strsim::osa_distance;

use super::command_status::CommandStatus;
use super::output::complain;
use super::print::escape::escaped;

/// Prints help, a version or what is wrong with the words of a command line, and gives the exit status.
pub(super) fn answer(error: &clap::Error, words: &[OsString]) -> CommandStatus {
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
            complain(&explanation(error, words));
            CommandStatus::Usage
        }
    }
}

/// What is wrong with a command line, and what to do instead.
fn explanation(error: &clap::Error, words: &[OsString]) -> String {
    if let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(pointer) = pointers::of_verb(verb)
    {
        return format!("procbroker: there is no verb '{verb}'; {pointer}\n");
    }
    if let Some(line) = other_word(error) {
        return line;
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(misplaced) = elements::misplaced(words, &given(error))
    {
        return format!("procbroker: {}\n", escaped(&misplaced));
    }
    let rendered = error.render().to_string();
    pointed_elsewhere(error, &rendered).unwrap_or_else(|| line(&rendered, &given(error)))
}

/// What to give in the place of a word that other tools take for a flag of that name.
fn other_word(error: &clap::Error) -> Option<String> {
    let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return None;
    };
    let pointer = pointers::of_word(flag.split(' ').next()?, value)?;
    Some(format!("procbroker: invalid value '{}' for '{flag}'; {pointer}\n", escaped(value)))
}

/// What was given that is not known: a verb, a flag or a value; nothing where that is not what is wrong.
fn given(error: &clap::Error) -> String {
    [ContextKind::InvalidSubcommand, ContextKind::InvalidArg]
        .into_iter()
        .find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(given)) => Some(given.clone()),
            Some(_) | None => None,
        })
        .unwrap_or_default()
}

/// What to use in the place of a flag or a value that other tools have.
fn pointed_elsewhere(error: &clap::Error, rendered: &str) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let given = given(error);
    let usage = rendered.lines().find_map(|line| line.trim().strip_prefix("Usage: "))?;
    let command = command_of(usage);
    let verb = command.strip_prefix("procbroker ")?;
    let (what, pointer) = if given.starts_with('-') {
        ("has no flag", pointers::of_flag(verb, &given)?)
    } else {
        ("does not take", pointers::of_value(verb)?)
    };
    Some(format!("procbroker: '{command}' {what} '{}'; {pointer}\n", escaped(&given)))
}

/// What is wrong with the words of a command line, in one line.
pub(super) fn message(error: &clap::Error, words: &[OsString]) -> String {
    let line = explanation(error, words);
    line.trim_end().strip_prefix("procbroker: ").unwrap_or(&line).to_owned()
}

/// Verbs that end something, to which nobody is to be led who has mistyped another one, and those that are for programs.
const VERBS_NOT_TO_LEAD_TO: [&str; 8] =
    ["destroy", "stop", "rm", "restart", "shutdown", "remove-groups", "complete", "can-take-over"];

/// How many letters a mistyped word has wrong, lacks or has too many; one that differs in more is another word.
const MISTYPED_MAX: usize = 2;

/// The message of a rendered error as one line: without its prefix, and with where to read more instead of the
/// usage. An error about one value has no usage, and says all there is to say.
fn line(rendered: &str, given: &str) -> String {
    let mut message = String::new();
    let mut advice = String::new();
    for part in rendered.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if let Some(usage) = part.strip_prefix("Usage: ") {
            advice = advice_for(&command_of(usage), &message, given);
            break;
        }
        if part.starts_with("For more information") {
            break;
        }
        // No name and no command begins with a dash, and a signal that does is told of in better words below.
        if part.starts_with("tip: to pass '-") {
            continue;
        }
        let part = part.strip_prefix("error: ").unwrap_or(part);
        let Some(part) = likely_tips(part, given) else { continue };
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

/// A line of the message, and of a tip that names verbs or flags only those that were likely meant; none where no one is
/// left.
fn likely_tips<'a>(part: &'a str, given: &str) -> Option<Cow<'a, str>> {
    let kinds = [("similar subcommand", "subcommand"), ("similar argument", "argument")];
    let Some((_, kind)) = kinds.iter().find(|(tip, _)| part.starts_with("tip: ") && part.contains(tip))
    else {
        return Some(Cow::Borrowed(part));
    };
    let is_likely = |word: &str| {
        let is_begun = given.len() > 3 && word.starts_with(given);
        !VERBS_NOT_TO_LEAD_TO.contains(&word) && (is_begun || osa_distance(word, given) <= MISTYPED_MAX)
    };
    let named = part.split('\'').skip(1).step_by(2);
    let left: Vec<String> = named.filter(|word| is_likely(word)).map(|word| format!("'{word}'")).collect();
    match left.as_slice() {
        [] => None,
        [word] => Some(format!("tip: a similar {kind} exists: {word}").into()),
        words => Some(format!("tip: some similar {kind}s exist: {}", words.join(", ")).into()),
    }
}

/// Where to read more; and what is most often forgotten.
fn advice_for(command: &str, message: &str, given: &str) -> String {
    let unexpected = message.starts_with("unexpected argument");
    let is_flag = given.starts_with('-');
    let forgotten = match command {
        "procbroker create" | "procbroker run" if unexpected && !is_flag => {
            "; the whole command to start comes after '--'"
        }
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
        let words: Vec<OsString> =
            std::iter::once(&"procbroker").chain(arguments).map(OsString::from).collect();
        explanation(&CommandLine::try_parse_from(&words).unwrap_err(), &words)
    }

    #[test]
    fn a_value_of_the_command_line_cannot_steer_the_terminal() {
        let message = refusal(&["get", "\x1b[31m\u{202e}"]);
        assert!(!message.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }

    #[test]
    fn a_usage_error_is_one_line_that_says_what_to_do() {
        let cases: [(&[&str], &str); 21] = [
            (&["frobnicate", "a"], "unrecognized subcommand 'frobnicate'; see 'procbroker --help'"),
            (&["restar", "a"], "unrecognized subcommand 'restar'; see 'procbroker --help'"),
            (
                &["kill", "a"],
                "there is no verb 'kill'; 'procbroker destroy TARGET' stops a child, 'procbroker signal TARGET SIGNAL' sends it a signal",
            ),
            (
                &["run", "sleep", "9"],
                "unexpected argument 'sleep' found; the whole command to start comes after '--'; see 'procbroker run --help'",
            ),
            (
                &["signal", "--frob", "a"],
                "unexpected argument '--frob' found; see 'procbroker signal --help'",
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
                "unexpected argument 'sleep' found; the whole command to start comes after '--'; see 'procbroker create --help'",
            ),
            (
                &["create", "--lifetime", "5m", "--", "true"],
                "invalid value '5m' for '--lifetime <LIFETIME>': a lifetime of so long is ttl:5m",
            ),
            (
                &["create", "--lifetime", "60", "--", "true"],
                "invalid value '60' for '--lifetime <LIFETIME>': a lifetime of so long is ttl:60",
            ),
            (
                &["create", "--restart", "no", "--", "true"],
                "invalid value 'no' for '--restart <POLICY>'; it is 'never' here, and need not be said",
            ),
            (
                &["create", "--restart=unless-stopped", "--", "true"],
                "invalid value 'unless-stopped' for '--restart <POLICY>'; it is 'always' here: what was destroyed is not started again",
            ),
            (
                &["create", "--restart", "on-failure:3", "--", "true"],
                "invalid value 'on-failure:3' for '--restart <POLICY>'; the number is given apart: '--restart on-failure --restart-max 3', within '--restart-window 1m'",
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
    fn what_is_typed_for_want_of_knowing_better_leads_to_what_does_it_here() {
        let cases: [(&[&str], &str); 13] = [
            (
                &["create", "--ttl", "10m", "--", "a"],
                "'procbroker create' has no flag '--ttl'; '--lifetime ttl:10m' ends it after so long, unless 'procbroker renew' comes before",
            ),
            (
                &["run", "--name", "x", "--", "a"],
                "'procbroker run' has no flag '--name'; it starts a broker and the server beside it: 'procbroker create' starts a child, with such flags, in a broker that runs",
            ),
            (
                &["run", "-d", "--", "a"],
                "'procbroker run' has no flag '-d'; it stays in the foreground, for a container to start; 'procbroker create -- COMMAND' starts a child that goes on by itself",
            ),
            (
                &["logs", "--stderr", "a"],
                "'procbroker logs' has no flag '--stderr'; '--stream stderr' shows its standard error",
            ),
            (
                &["logs", "--stdout", "a"],
                "'procbroker logs' has no flag '--stdout'; it is shown unless '--stream stderr' says otherwise",
            ),
            (
                &["serve", "--port", "8080"],
                "'procbroker serve' has no flag '--port'; it listens at a Unix socket, which '--socket PATH' names; '--metrics 9464' serves metrics at a port",
            ),
            (&["daemon"], "there is no verb 'daemon'; 'procbroker serve' runs the broker, in the foreground"),
            (
                &["up"],
                "there is no verb 'up'; 'procbroker serve' runs the broker, 'procbroker create -- COMMAND' starts a child",
            ),
            (
                &["info"],
                "there is no verb 'info'; 'procbroker status' shows the broker, 'procbroker get TARGET' a child",
            ),
            (&["add", "x"], "there is no verb 'add'; 'procbroker create -- COMMAND' starts a child"),
            (
                &["start", "web"],
                "there is no verb 'start'; 'procbroker create -- COMMAND' starts a child, 'procbroker serve' the broker; a child that has ended or was stopped is not started again, it is created anew: 'procbroker restart TARGET' is for those that live",
            ),
            (
                &["stats"],
                "there is no verb 'stats'; 'procbroker top' shows what children use, 'procbroker list --usage' the same once, 'procbroker metrics' what the broker has counted",
            ),
            (
                &["ls", "--format", "x"],
                "'procbroker list' has no flag '--format'; '--json' tells all of each child, for jq(1), and with '--usage' what it uses",
            ),
        ];
        for (arguments, expected) in cases {
            assert_eq!(refusal(arguments), format!("procbroker: {expected}\n"), "{arguments:?}");
        }
    }

    #[test]
    fn a_flag_of_another_tool_leads_to_the_one_that_does_it_here() {
        let cases: [(&[&str], &str); 23] = [
            (
                &["create", "--detach", "--", "a"],
                "'procbroker create' has no flag '--detach'; a child goes on by itself, and '--no-wait' does not even wait until it is ready",
            ),
            (
                &["create", "-d", "--", "a"],
                "'procbroker create' has no flag '-d'; a child goes on by itself, and '--no-wait' does not even wait until it is ready",
            ),
            (&["events", "-f"], "'procbroker events' has no flag '-f'; it goes on until Ctrl-C anyway"),
            (
                &["serve", "--log-level", "debug"],
                "'procbroker serve' has no flag '--log-level'; '--log warn' tells less and '--log debug' more",
            ),
            (
                &["serve", "-v"],
                "'procbroker serve' has no flag '-v'; '--log warn' tells less and '--log debug' more",
            ),
            (
                &["serve", "--config", "x"],
                "'procbroker serve' has no flag '--config'; there is no such file: all is said by flags, under systemd by PROCBROKER_ARGS in /etc/default/procbroker",
            ),
            (
                &["create", "--stop-signal", "INT", "--", "a"],
                "'procbroker create' has no flag '--stop-signal'; '--stop SIGINT:10s' is the signal that asks it to end, and how long it has",
            ),
            (
                &["create", "--timeout", "5s", "--", "a"],
                "'procbroker create' has no flag '--timeout'; '--ready-timeout' bounds how long it takes to be ready, '--lifetime ttl:5m' how long it lives",
            ),
            (
                &["create", "--env-file", "x", "--", "a"],
                "'procbroker create' has no flag '--env-file'; '--inherit-env' gives it the environment of this command, 'env $(cat FILE) procbroker create --inherit-env -- COMMAND' what a file has on top",
            ),
            (
                &["run", "--rm", "--", "a"],
                "'procbroker run' has no flag '--rm'; nothing is to be removed: it ends with the main command, and all children with it",
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
                &["create", "-e", "A=b", "--", "true"],
                "'procbroker create' has no flag '-e'; '--env KEY=VALUE' sets a variable of the child",
            ),
            (
                &["create", "--rm", "--", "true"],
                "'procbroker create' has no flag '--rm'; nothing is to be removed: a child that has ended is shown for a while, and forgotten",
            ),
            (
                &["create", "--cpu-max", "1", "--", "true"],
                "'procbroker create' has no flag '--cpu-max'; bounds are given with --resource, such as '--resource cpu_max=1.5' or '--resource memory_max=512M'",
            ),
            (
                &["signal", "-s", "HUP", "a"],
                "'procbroker signal' has no flag '-s'; the signal comes after the children: 'procbroker signal TARGET HUP'",
            ),
            (
                &["logs", "--lines", "2", "x"],
                "'procbroker logs' has no flag '--lines'; '--tail N' (-n) shows the last lines",
            ),
            (
                &["ls", "--sort", "cpu"],
                "'procbroker list' has no flag '--sort'; children are shown by age, the oldest first; 'procbroker top' orders them by what they use",
            ),
            (
                &["status", "web"],
                "'procbroker status' does not take 'web'; it shows the broker itself: 'procbroker get TARGET' shows a child",
            ),
            (
                &["ps", "web"],
                "'procbroker list' does not take 'web'; '--name PATTERN' shows those of such a name, 'procbroker get TARGET' one child",
            ),
            (
                &["serve", "-d"],
                "'procbroker serve' has no flag '-d'; it stays in the foreground, for systemd or another supervisor to start",
            ),
            (
                &["destroy", "--signal", "KILL", "a"],
                "'procbroker destroy' has no flag '--signal'; '--stop KILL' ends it at once, '--stop SIGTERM:5s' by force after five seconds",
            ),
        ];
        for (arguments, expected) in cases {
            assert_eq!(refusal(arguments), format!("procbroker: {expected}\n"), "{arguments:?}");
        }
    }

    #[test]
    fn a_tip_leads_to_no_other_word_and_to_none_that_is_hidden_or_ends_something() {
        let hidden: Vec<String> = {
            use clap::CommandFactory as _;
            let line = CommandLine::command();
            let verbs = line.get_subcommands().filter(|verb| verb.is_hide_set());
            verbs.map(|verb| verb.get_name().to_owned()).filter(|verb| verb != "help").collect()
        };
        assert!(hidden.iter().all(|verb| VERBS_NOT_TO_LEAD_TO.contains(&verb.as_str())), "{hidden:?}");
        for verb in hidden.iter().map(String::as_str).chain(VERBS_NOT_TO_LEAD_TO) {
            let mistyped = &verb[..verb.len() - 1];
            let said = refusal(&[mistyped, "x"]);
            assert!(!said.contains("tip:") || !said.contains(&format!("'{verb}'")), "{said}");
        }
        for (arguments, tip) in [
            (&["logs", "--tial", "2", "x"][..], Some("--tail")),
            (&["create", "--environ", "A=b", "--", "x"], None),
            (&["logs", "--sinc", "2", "x"], Some("--since")),
            (&["list", "--reverse"], None),
            (&["statsu"], Some("status")),
            (&["balance"], None),
        ] {
            let said = refusal(arguments);
            match tip {
                Some(tip) => assert!(said.contains(&format!("exists: '{tip}'")), "{said}"),
                None => assert!(!said.contains("tip:"), "{said}"),
            }
        }
    }

    #[test]
    fn what_leads_elsewhere_leads_to_verbs_and_flags_that_there_are() {
        use clap::CommandFactory as _;
        let mut line = CommandLine::command();
        line.build();
        for pointer in pointers::all() {
            let words = pointer.split(|c: char| " '();,".contains(c));
            for flag in words.clone().filter(|word| word.starts_with("--") && word.len() > 2) {
                let long = flag.trim_start_matches("--");
                let is_there = line
                    .get_subcommands()
                    .any(|verb| verb.get_arguments().any(|argument| argument.get_long() == Some(long)));
                assert!(is_there || long == "version", "{pointer}");
            }
            for (_, rest) in
                pointer.match_indices("procbroker ").map(|(at, word)| (at, &pointer[at + word.len()..]))
            {
                let verb = rest.split([' ', '\'']).next().unwrap();
                assert!(verb.starts_with("--") || line.find_subcommand(verb).is_some(), "{pointer}");
            }
        }
    }
}
