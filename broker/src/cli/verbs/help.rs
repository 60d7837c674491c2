//! `help`: the help of the program or of one verb, for those who ask for it in this way.

use clap::{Args, Command};

use super::man::no_such_verb;
use crate::cli::failure::Failure;

/// The arguments of `help`.
#[derive(Debug, Args)]
pub(in crate::cli) struct HelpArguments {
    /// The verb to explain; without one, the program
    verb: Option<String>,
}

/// The text that `--help` prints.
pub(in crate::cli) fn help(arguments: &HelpArguments, mut program: Command) -> Result<String, Failure> {
    program.build();
    let Some(verb) = &arguments.verb else { return Ok(program.render_long_help().to_string()) };
    match program.find_subcommand_mut(verb) {
        Some(verb) => Ok(verb.render_long_help().to_string()),
        None => Err(no_such_verb(&program, verb)),
    }
}
