//! Commands that are given element by element, each behind a flag of its own, and were begun so and then went on without.

use std::ffi::OsString;

/// The flags that take one element of a command.
const FLAGS: [&str; 2] = ["--cleanup", "--ready-command"];

/// What is wrong where the word that was not expected follows an element, or where an element is the `--` that was to come
/// before the command.
pub(super) fn misplaced(words: &[OsString], given: &str) -> Option<String> {
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let place = words.iter().position(|word| is_said(word, given))?;
    let (before, rest) = words.split_at(place);
    // A whole word is a flag of the verb that was mistyped.
    if given.starts_with("--") || !before.contains(&"create") {
        return None;
    }
    let [.., flag, element] = before else { return None };
    let flag = FLAGS.iter().find(|known| *known == flag)?;
    if *element == "--" {
        return Some(format!(
            "{flag} has taken the '--' for an element of its command; each element has a {flag} before it ({flag} rm {flag} -f \
             {flag} FILE), and after them come '--' and the whole command to start"
        ));
    }
    let more = rest.iter().take_while(|word| !word.starts_with("--"));
    let whole: Vec<String> =
        std::iter::once(element).chain(more).map(|element| format!("{flag} {element}")).collect();
    Some(format!(
        "'{given}' is no element of the command of {flag}: each has a {flag} before it, as in '{}'; the whole command to start \
         comes after '--'",
        whole.join(" ")
    ))
}

/// Whether a word is what was not expected: of short flags in one word, that is one of them.
fn is_said(word: &str, given: &str) -> bool {
    let is_short = given.len() == 2 && given.starts_with('-') && given != "--";
    word == given || is_short && !word.starts_with("--") && word.starts_with(given)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::explanation;
    use super::*;
    use crate::cli::verbs::CommandLine;

    fn refusal(arguments: &[&str]) -> String {
        let words: Vec<OsString> =
            std::iter::once(&"procbroker").chain(arguments).map(OsString::from).collect();
        explanation(&CommandLine::try_parse_from(&words).unwrap_err(), &words)
    }

    #[test]
    fn elements_that_are_given_without_their_flag_come_with_the_right_form() {
        let eaten = "procbroker: --cleanup has taken the '--' for an element of its command; each element has a --cleanup \
                     before it (--cleanup rm --cleanup -f --cleanup FILE), and after them come '--' and the whole command to \
                     start\n";
        for line in [
            &["create", "--cleanup", "--", "sleep", "1"][..],
            &["create", "--name", "x", "--cleanup", "rm", "--cleanup", "--", "sleep", "1"],
        ] {
            assert_eq!(refusal(line), eaten);
        }
        for (line, given, form) in [
            (&["create", "--cleanup", "rm", "-f", "x"][..], "-f", "--cleanup rm --cleanup -f --cleanup x"),
            (
                &["create", "--cleanup", "rm", "-rf", "x", "--", "sleep", "1"],
                "-r",
                "--cleanup rm --cleanup -rf --cleanup x",
            ),
            (
                &["create", "--ready-command", "test", "x", "--name", "y", "--", "sleep", "1"],
                "x",
                "--ready-command test --ready-command x",
            ),
        ] {
            let said = refusal(line);
            let flag = form.split(' ').next().unwrap();
            let begins =
                format!("procbroker: '{given}' is no element of the command of {flag}: each has a {flag}");
            assert!(said.starts_with(&begins) && said.contains(&format!("as in '{form}'; ")), "{said}");
        }
    }

    #[test]
    fn what_stands_elsewhere_is_no_element() {
        for line in [&["create", "sleep", "9"][..], &["create", "--cleanup", "true", "--frob", "x"]] {
            assert!(!refusal(line).contains("element of"), "{}", refusal(line));
        }
        for line in [
            &["create", "--cleanup", "rm", "--cleanup", "--", "--cleanup", "x", "--", "true"][..],
            &["create", "--cleanup=--", "--", "sleep", "1"],
        ] {
            let words = std::iter::once(&"procbroker").chain(line);
            assert!(CommandLine::try_parse_from(words).is_ok(), "{line:?}");
        }
    }
}
