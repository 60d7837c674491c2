//! `can-take-over`: what this program answers when a running broker is to become it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::entry_points::Rehearse;
use super::serve::ServeArguments;
use crate::cli::failure::Failure;
use crate::cli::print::CommandOutput;
use crate::cli::program::PROGRAM;
use crate::cli::usage;
use crate::upgrade::{FORMAT, promise};

/// The arguments of `can-take-over`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CanTakeOverArguments {
    /// The form in which everything would be handed over
    #[arg(long, value_name = "NUMBER")]
    form: u32,
    /// The file in which the children are on record
    #[arg(long, value_name = "PATH")]
    record: PathBuf,
    /// The arguments with which the program would be started
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// Looks at everything that this program would be given, and promises to take it.
pub(in crate::cli) fn can_take_over(
    arguments: &CanTakeOverArguments,
    served: Served,
    rehearse: Rehearse,
) -> Result<CommandOutput, Failure> {
    let CanTakeOverArguments { form, record, arguments } = arguments;
    if *form != FORMAT {
        let message =
            format!("it would be handed over in form {form}, and this program knows form {FORMAT} only");
        return Err(Failure::TakeOver { message });
    }
    let serve = check_arguments(arguments, served)?;
    rehearse(&serve, record).map_err(|message| Failure::TakeOver { message })?;
    Ok(CommandOutput::done(promise() + "\n"))
}

/// What a command line would serve; `None` where it would do something else.
type Served = fn(&[OsString]) -> Result<Option<ServeArguments>, clap::Error>;

/// What this program would serve with, if it were started with them.
fn check_arguments(arguments: &[OsString], served: Served) -> Result<ServeArguments, Failure> {
    let line: Vec<OsString> =
        std::iter::once(OsString::from(PROGRAM)).chain(arguments.iter().cloned()).collect();
    let message = match served(&line) {
        Ok(Some(serve)) => return Ok(serve),
        Ok(None) => "the broker's arguments would not let it serve".to_owned(),
        Err(error) => format!("it does not take the broker's arguments: {}", usage::message(&error, &line)),
    };
    Err(Failure::TakeOver { message })
}

#[cfg(test)]
mod tests {
    use super::super::CommandLine;
    use super::*;

    fn asked(form: u32, arguments: &[&str], rehearse: Rehearse) -> Result<String, String> {
        let arguments = CanTakeOverArguments {
            form,
            record: "/state.db".into(),
            arguments: arguments.iter().map(Into::into).collect(),
        };
        let outcome = can_take_over(&arguments, CommandLine::served, rehearse);
        outcome.map(|report| report.result).map_err(|failure| failure.report(false))
    }

    #[test]
    fn a_program_that_can_take_everything_promises_to() {
        let promised = asked(FORMAT, &["serve", "--max-children", "7"], |arguments, record| {
            assert_eq!((arguments.bounds().max_children, record), (7, "/state.db".as_ref()));
            Ok(())
        });
        assert_eq!(promised, Ok(promise() + "\n"));
    }

    #[test]
    fn a_program_that_would_go_on_with_a_main_command_promises_it() {
        let arguments = ["run", "--main-stop", "WINCH:5s", "--", "apachectl", "-D", "FOREGROUND"];
        assert_eq!(asked(FORMAT, &arguments, |_, _| Ok(())), Ok(promise() + "\n"));
        let refused = asked(FORMAT, &["run", "--of-the-future", "--", "true"], |_, _| Ok(())).unwrap_err();
        assert!(refused.contains("--of-the-future"), "{refused}");
    }

    #[test]
    fn another_form_is_refused() {
        let refused = asked(FORMAT + 1, &["serve"], |_, _| Ok(())).unwrap_err();
        assert!(refused.contains(&format!("form {}", FORMAT + 1)), "{refused}");
    }

    #[test]
    fn arguments_that_this_program_does_not_take_are_refused_and_named() {
        let refused = asked(FORMAT, &["serve", "--of-the-future"], |_, _| Ok(())).unwrap_err();
        assert!(refused.contains("--of-the-future") && refused.lines().count() == 1, "{refused}");
        let refused = asked(FORMAT, &["status"], |_, _| Ok(())).unwrap_err();
        assert!(refused.contains("would not let it serve"), "{refused}");
    }

    #[test]
    fn a_record_that_makes_no_sense_is_refused() {
        let refused = asked(FORMAT, &["serve"], |_, _| Err("/state.db is newer".to_owned())).unwrap_err();
        assert_eq!(refused, "procbroker: /state.db is newer\n");
    }
}
