//! The arguments of the verbs that act on children which are there already.

use clap::{ArgGroup, Args};
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::{
    DestroyParams, ListParams, OneParams, Scope, SignalParams, Until, WaitParams,
};
use procbroker_protocol::{Request, Signal, Span, Target};

use super::PrintArguments;
use super::values::{Choice, ValueError, map, one_of, pair, stop_step, target};

/// The words of `--until`.
const UNTIL: &[Choice<Until>] = &[
    Choice { word: "ready", value: Until::Ready, help: "It is ready, or has ended before it was" },
    Choice { word: "ended", value: Until::Ended, help: "It and its descendants are gone and cleaned up" },
];

/// The words of `--scope`.
const SCOPES: &[Choice<Scope>] = &[
    Choice { word: "main", value: Scope::Main, help: "The process that the broker started" },
    Choice { word: "group", value: Scope::Group, help: "Its process group" },
    Choice { word: "all", value: Scope::All, help: "Everything that descends from it" },
];

/// The arguments of `destroy`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["target", "label", "all"]))]
pub(in crate::cli) struct DestroyArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Option<Target>,
    /// Every live child with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Every live child that you may act on
    #[arg(long)]
    all: bool,
    /// The steps of the stop, instead of each child's own; see `create --help`
    #[arg(long, value_name = "SIGNAL[:GRACE]", value_delimiter = ',', value_parser = stop_step)]
    stop: Vec<StopStep>,
    /// Answer as soon as the stop has begun
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl DestroyArguments {
    /// The request that these arguments ask for.
    pub(in crate::cli) fn request(&self) -> Result<Request, ValueError> {
        let target = match &self.target {
            Some(target) => target.clone(),
            None if self.all => Target::All,
            None => Target::Labels(map("--label", &self.label)?),
        };
        let stop = if self.stop.is_empty() { None } else { Some(self.stop.clone()) };
        Ok(Request::Destroy(DestroyParams { target, stop, no_wait: self.no_wait }))
    }
}

/// The arguments of `list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    /// Only children with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Ended children too, with how they ended
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl ListArguments {
    /// The request that these arguments ask for.
    pub(in crate::cli) fn request(&self) -> Result<Request, ValueError> {
        Ok(Request::List(ListParams { labels: map("--label", &self.label)?, all: self.all }))
    }

    /// Whether ended children are shown too.
    pub(in crate::cli) fn all(&self) -> bool {
        self.all
    }

    /// What to say when there are no such children.
    pub(in crate::cli) fn none(&self) -> &'static str {
        match (self.label.is_empty(), self.all) {
            (true, false) => "no child is alive; start one with 'procbroker create -- COMMAND'",
            (true, true) => "no child is alive, and none has ended lately",
            (false, false) => "no live child has these labels",
            (false, true) => "no child has these labels, alive or ended lately",
        }
    }
}

/// The arguments of `get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct GetArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl GetArguments {
    /// The request that these arguments ask for.
    pub(in crate::cli) fn request(&self) -> Request {
        Request::Get(OneParams { target: self.target.clone() })
    }
}

/// The arguments of `wait`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    /// What to wait for
    #[arg(long, value_name = "STATE", default_value = "ended", value_parser = one_of(UNTIL))]
    until: Until,
    /// How long to wait [default: for ever]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl WaitArguments {
    /// The request that these arguments ask for.
    pub(in crate::cli) fn request(&self) -> Request {
        let Self { target, until, timeout, print: _ } = self;
        Request::Wait(WaitParams { target: target.clone(), until: *until, timeout: *timeout })
    }

    /// What is waited for.
    pub(in crate::cli) fn until(&self) -> Until {
        self.until
    }
}

/// The arguments of `signal`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SignalArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    /// The signal, by name (SIGHUP or HUP) or number
    signal: Signal,
    /// Which of its processes get it
    #[arg(long, value_name = "SCOPE", default_value = "main", value_parser = one_of(SCOPES))]
    scope: Scope,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl SignalArguments {
    /// The request that these arguments ask for.
    pub(in crate::cli) fn request(&self) -> Request {
        let Self { target, signal, scope, print: _ } = self;
        Request::Signal(SignalParams { target: target.clone(), signal: *signal, scope: *scope })
    }
}
