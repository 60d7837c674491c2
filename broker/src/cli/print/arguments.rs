//! The flags of every verb that prints something.

use clap::Args;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub(in crate::cli) struct PrintArguments {
    /// Print the broker's answer as it is on the wire, as one line of JSON
    ///
    /// On success that is the JSON-RPC result, on standard output. On failure it is the JSON-RPC error, on
    /// standard error; one that does not come from the broker (none is there, the connection broke) has a
    /// `message` alone.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
