//! `completions`: the script that completes verbs and flags in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{CommandLine, PROGRAM};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker completions bash >/etc/bash_completion.d/procbroker
  procbroker completions zsh >\"${fpath[1]}/_procbroker\"
  procbroker completions fish >~/.config/fish/completions/procbroker.fish";

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionsArguments {
    /// The shell to print them for
    #[arg(value_enum)]
    pub(in crate::cli) shell: Shell,
}

/// The script that completes verbs and flags in a shell.
pub(in crate::cli) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_every_verb() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for verb in CommandLine::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell} lacks {verb}");
            }
        }
    }
}
