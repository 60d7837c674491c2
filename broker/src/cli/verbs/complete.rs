//! `complete`: what the completion scripts ask while somebody types.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use procbroker_client::Broker;
use procbroker_protocol::request::ListParams;
use procbroker_protocol::{Request, Response, Signal};

use crate::cli::call;
use crate::cli::print::words::title;

/// How long somebody who types waits for the broker.
const PATIENCE: Duration = Duration::from_secs(1);

/// The arguments of `complete`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CompleteArguments {
    /// What stands at this place
    #[arg(value_enum)]
    what: What,
}

/// What can be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The names of the live children, and the ids of those without a name
    Children,
    /// The names of the children that are kept, ended ones too
    AllChildren,
    /// Live children, and then the names of signals
    ChildrenAndSignals,
}

/// The words that can stand there, one a line; none where the broker cannot be asked.
pub(in crate::cli) fn complete(socket: Option<PathBuf>, arguments: &CompleteArguments) -> String {
    match arguments.what {
        What::ChildrenAndSignals => children(socket, false).unwrap_or_default() + &signals(),
        What::Children => children(socket, false).unwrap_or_default(),
        What::AllChildren => children(socket, true).unwrap_or_default(),
    }
}

fn children(socket: Option<PathBuf>, all: bool) -> Option<String> {
    let answer = call::runtime().ok()?.block_on(async {
        let mut builder = Broker::builder().connect_timeout(PATIENCE).call_timeout(PATIENCE);
        if let Some(socket) = socket {
            builder = builder.socket(socket);
        }
        let request = Request::List(ListParams { all, ..ListParams::default() });
        builder.connect().await?.call(request).await
    });
    match answer {
        Ok(Response::Children(children)) => Some(children.iter().map(|child| title(child) + "\n").collect()),
        Ok(_) | Err(_) => None,
    }
}

/// The names of the signals that have one, without SIG: most people type them so.
fn signals() -> String {
    let names =
        (1..=31).filter_map(|number| Signal::from_number(number).ok()).map(|signal| signal.to_string());
    names.map(|name| name.trim_start_matches("SIG").to_owned() + "\n").collect()
}
