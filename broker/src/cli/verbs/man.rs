//! `man`: the manual pages, made from the definition of the command line.

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::Roff;

use crate::cli::failure::Failure;
use crate::cli::program::PROGRAM;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker man | man -l -
  procbroker man create >/usr/local/share/man/man1/procbroker-create.1";

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ManArguments {
    /// The verb to print the page of; without one, the page of the program
    pub(in crate::cli) verb: Option<String>,
}

/// The manual page of the program, or of one verb.
pub(in crate::cli) fn manual(verb: Option<&str>, mut program: Command) -> Result<String, Failure> {
    program.build();
    let command = match verb {
        None => program,
        Some(verb) => program.find_subcommand(verb).cloned().ok_or_else(|| no_such_verb(&program, verb))?,
    };
    page(command).map_err(Failure::Output)
}

pub(super) fn no_such_verb(program: &Command, verb: &str) -> Failure {
    let shown = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    let verbs: Vec<&str> = shown.map(Command::get_name).collect();
    Failure::Usage { message: format!("there is no verb {verb:?}; there are {}", verbs.join(", ")) }
}

/// The sections that follow from the definition, and then the text that stands below the flags in the help:
/// with its own line breaks, and with each of its headings as a section.
fn page(command: Command) -> std::io::Result<String> {
    let command = command.subcommand_help_heading("VERBS");
    let flags = flags_with_a_value(&command);
    let extra = command.get_after_long_help().map(ToString::to_string);
    let has_verbs = command.has_subcommands();
    let aliases: Vec<String> =
        command.get_visible_aliases().map(|alias| format!("{PROGRAM} {alias}")).collect();
    let source = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
    // An empty date would be left out, and what follows it would move into its place.
    let man = Man::new(command).date(" ").source(source).manual("procbroker manual");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    let mut synopsis = Vec::new();
    man.render_synopsis_section(&mut synopsis)?;
    out.extend(with_values(&String::from_utf8_lossy(&synopsis), &flags).into_bytes());
    man.render_description_section(&mut out)?;
    if !aliases.is_empty() {
        let mut roff = Roff::new();
        roff.control("SH", ["ALIASES"]);
        roff.text([clap_mangen::roff::roman(aliases.join(", "))]);
        roff.to_writer(&mut out)?;
    }
    man.render_options_section(&mut out)?;
    if has_verbs {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::new();
    for line in extra.unwrap_or_default().lines() {
        push_line(&mut roff, line);
    }
    roff.control("fi", []);
    roff.to_writer(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The flags after which a value comes, each with the name of that.
fn flags_with_a_value(command: &Command) -> Vec<(String, String)> {
    let flags = command.get_arguments().filter(|flag| flag.get_action().takes_values());
    flags
        .filter_map(|flag| {
            let value = flag.get_value_names()?.first()?.to_string();
            Some((flag.get_long()?.to_owned(), value))
        })
        .collect()
}

/// The synopsis, in which the flags have their values: the library leaves them out.
fn with_values(synopsis: &str, flags: &[(String, String)]) -> String {
    flags.iter().fold(synopsis.to_owned(), |synopsis, (flag, value)| {
        let flag = format!("\\fB\\-\\-{}\\fR", flag.replace('-', "\\-"));
        synopsis.replace(&format!("{flag}]"), &format!("{flag} \\fI{value}\\fR]"))
    })
}

fn push_line(roff: &mut Roff, line: &str) {
    match line.strip_suffix(':') {
        Some(heading) if !heading.starts_with(' ') => {
            roff.control("fi", []);
            roff.control("SH", [heading.to_uppercase().as_str()]);
            roff.control("nf", []);
        }
        Some(_) | None => {
            roff.text([clap_mangen::roff::roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::CommandLine;
    use super::*;

    fn manual(verb: Option<&str>) -> Result<String, Failure> {
        super::manual(verb, CommandLine::command())
    }

    #[test]
    fn every_verb_has_a_page() {
        for verb in CommandLine::command().get_subcommands() {
            let page = manual(Some(verb.get_name())).unwrap();
            assert!(page.contains(&format!(".TH procbroker-{}", verb.get_name())), "{page}");
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
            assert!(page.contains(concat!(" 1 \" \" \"procbroker ", env!("CARGO_PKG_VERSION"))), "{page}");
        }
    }

    #[test]
    fn the_page_of_the_program_names_the_exit_statuses() {
        let page = manual(None).unwrap();
        assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
        assert!(page.contains("no broker there"), "{page}");
    }

    #[test]
    fn the_page_of_a_verb_has_its_other_names_and_can_be_found_by_them() {
        let page = manual(Some("destroy")).unwrap();
        assert!(page.contains(".SH ALIASES\nprocbroker stop, procbroker rm\n"), "{page}");
        assert_eq!(manual(Some("rm")).unwrap(), page);
    }

    #[test]
    fn a_synopsis_says_which_flags_take_a_value() {
        let socket = "[\\fB\\-\\-socket\\fR \\fIPATH\\fR]";
        let page = manual(None).unwrap();
        assert!(page.contains(&format!(".SH SYNOPSIS\n\\fBprocbroker\\fR {socket} ")), "{page}");
        assert!(page.contains("\n.SH VERBS\n"), "{page}");
        let page = manual(Some("serve")).unwrap();
        let state_dir = "[\\fB\\-\\-state\\-dir\\fR \\fIFOLDER\\fR]";
        assert!(page.contains(socket) && page.contains(state_dir), "{page}");
    }

    #[test]
    fn a_page_of_no_verb_is_refused() {
        let message = manual(Some("pause")).unwrap_err().to_string();
        assert!(message.starts_with("there is no verb \"pause\"; there are serve, run, create"), "{message}");
        assert!(!message.contains("can-take-over"), "{message}");
    }
}
