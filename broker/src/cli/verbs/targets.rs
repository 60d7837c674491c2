//! Which children a verb acts on: some by id or name, those with labels, or all.

use clap::{ArgGroup, Args};
use procbroker_protocol::Target;

use crate::cli::failure::Failure;
use crate::cli::program::PROGRAM;
use crate::cli::values::{map, one_of_several_targets, pair};

/// The arguments that choose children.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["target", "label", "all"]))]
pub(super) struct TargetArguments {
    /// The children, by id or name
    #[arg(value_parser = one_of_several_targets)]
    target: Vec<Target>,
    /// Every live child with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Every live child that you may act on
    #[arg(long)]
    all: bool,
}

/// The usage of a verb that takes them.
pub(super) fn usage(verb: &str) -> String {
    format!("{PROGRAM} {verb} [OPTIONS] <TARGET>... | --label <KEY=VALUE>... | --all")
}

impl TargetArguments {
    /// The targets that the arguments name, each once: the wire takes one a request.
    pub(super) fn targets(&self) -> Result<Vec<Target>, Failure> {
        if self.all {
            return Ok(vec![Target::All]);
        }
        if self.target.is_empty() {
            let labels = map("--label", &self.label).map_err(|error| Failure::usage(&error))?;
            return Ok(vec![Target::Labels(labels)]);
        }
        let mut targets: Vec<Target> = Vec::new();
        for target in &self.target {
            if !targets.contains(target) {
                targets.push(target.clone());
            }
        }
        Ok(targets)
    }
}
