//! `signal`: sends a signal to children.

use std::ffi::OsString;

use clap::Args;
use procbroker_protocol::request::{Scope, SignalParams};
use procbroker_protocol::{Request, Response, Signal, Target};

use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::values::{Choice, map, one_of, one_of_several_targets, pair, signal};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker signal render-42 HUP
  procbroker signal render-42 render-43 -9 --scope all
  procbroker signal --label pool=render USR1";

/// The usage of the verb.
pub(super) const USAGE: &str = "procbroker signal [OPTIONS] <TARGET...|--label KEY=VALUE|--all> <SIGNAL>";

/// The words of `--scope`.
const SCOPES: &[Choice<Scope>] = &[
    Choice { word: "main", value: Scope::Main, help: "The process that the broker started" },
    Choice { word: "group", value: Scope::Group, help: "Its process group" },
    Choice { word: "all", value: Scope::All, help: "Everything that descends from it" },
];

/// The arguments of `signal`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SignalArguments {
    /// The children, by id or name, and then the signal: by name (SIGHUP or HUP) or number, or as kill(1) takes it (-9)
    #[arg(required = true, value_name = "TARGET")]
    words: Vec<String>,
    /// Every live child with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, conflicts_with = "all")]
    label: Vec<(String, String)>,
    /// Every live child that you may act on
    #[arg(long)]
    all: bool,
    /// Which of their processes get it
    #[arg(long, value_name = "SCOPE", default_value = "main", value_parser = one_of(SCOPES))]
    scope: Scope,
    #[command(flatten)]
    print: PrintArguments,
}

/// The words of a command line, in which a signal as kill(1) takes it has no dash: for any other verb it is a flag.
pub(super) fn without_dashes(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let mut is_value = false;
    let verb = words.iter().skip(1).position(|word| {
        let is_flag = is_value || word.as_encoded_bytes().starts_with(b"-");
        is_value = word == "--socket";
        !is_flag
    });
    let Some(verb) =
        verb.map(|place| place + 1).filter(|place| words.get(*place).is_some_and(|word| word == "signal"))
    else {
        return words;
    };
    for word in words.iter_mut().skip(verb + 1).take_while(|word| *word != "--") {
        let name = word.to_str().and_then(|word| word.strip_prefix('-'));
        if let Some(name) = name.filter(|name| name.parse::<Signal>().is_ok()) {
            *word = name.into();
        }
    }
    words
}

impl SignalArguments {
    /// The signal, which comes last, and the targets before it.
    fn signal_and_targets(&self) -> Result<(Signal, Vec<Target>), Failure> {
        let (last, targets) = self.words.split_last().ok_or_else(|| usage(NO_SIGNAL.to_owned()))?;
        let is_signal = |word: &String| signal(word).is_ok();
        let signal = signal(last).map_err(|error| match targets.first() {
            Some(first) if is_signal(first) => usage(format!(
                "the signal comes after the children: procbroker signal {} {first}",
                self.words.get(1..).unwrap_or_default().join(" ")
            )),
            None if !self.is_by_label_or_all() => usage(NO_SIGNAL.to_owned()),
            Some(_) | None => usage(format!("invalid value {last:?} for the signal: {error}")),
        })?;
        if self.is_by_label_or_all() {
            return match targets.first() {
                None => Ok((signal, vec![self.labels_or_all()?])),
                Some(target) => {
                    Err(usage(format!("{target:?} is chosen already by --label or --all; give one of them")))
                }
            };
        }
        if targets.is_empty() {
            let none = "no child is named; give some before the signal, or choose by --label or --all";
            return Err(usage(none.to_owned()));
        }
        let mut all: Vec<Target> = Vec::new();
        for word in targets {
            let target = one_of_several_targets(word)
                .map_err(|error| usage(format!("invalid value {word:?} for a target: {error}")))?;
            if !all.contains(&target) {
                all.push(target);
            }
        }
        Ok((signal, all))
    }

    fn is_by_label_or_all(&self) -> bool {
        self.all || !self.label.is_empty()
    }

    fn labels_or_all(&self) -> Result<Target, Failure> {
        if self.all {
            return Ok(Target::All);
        }
        map("--label", &self.label).map(Target::Labels).map_err(|error| Failure::usage(&error))
    }
}

const NO_SIGNAL: &str = "no signal is given; it comes after the children, such as HUP";

fn usage(message: String) -> Failure {
    Failure::Usage { message: message + "; see 'procbroker signal --help'" }
}

impl Ask for SignalArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let (signal, targets) = self.signal_and_targets()?;
        let request = |target| Request::Signal(SignalParams { target, signal, scope: self.scope });
        Ok(targets.into_iter().map(request).collect())
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(CommandOutput::nothing("no live child matches; no signal was sent"));
        }
        Ok(CommandOutput::done(table::table(children, false, screen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_as_kill_takes_it_loses_its_dash_and_nothing_else_does() {
        let read = |line: &str| {
            let words = without_dashes(line.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (line, expected) in [
            ("p signal a -9", "p signal a 9"),
            ("p signal -HUP a b", "p signal HUP a b"),
            ("p --socket /s signal a -SIGTERM --scope all", "p --socket /s signal a SIGTERM --scope all"),
            ("p --socket=/s signal a -hup -h", "p --socket=/s signal a hup -h"),
            ("p signal a -nope", "p signal a -nope"),
            ("p --socket signal logs -9", "p --socket signal logs -9"),
            ("p logs -n -9", "p logs -n -9"),
            ("p create -- signal -9", "p create -- signal -9"),
            ("p", "p"),
        ] {
            assert_eq!(read(line), expected);
        }
    }
}
