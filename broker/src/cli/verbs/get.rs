//! `get`: shows everything about one child.

mod specification;

use clap::Args;
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::request::OneParams;
use procbroker_protocol::{
    Child, Cleaned, Containment, Exit, Request, Response, Spec, Target, Timestamp, Usage, duration,
};

use crate::cli::ask::{Ask, child_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::escape::{command_line, escaped};
use crate::cli::print::sheet::{self, SheetRow};
use crate::cli::print::words::exit_word;
use crate::cli::print::{CommandOutput, Screen};
use crate::cli::values::target;

/// The arguments of `get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct GetArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for GetArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        Ok(vec![Request::Get(OneParams { target: self.target.clone() })])
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        Ok(sheet::lines(&facts(child_of(answer)?, spec_of(answer), None)))
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        Ok(CommandOutput::done(sheet::table(
            &facts(child_of(answer)?, spec_of(answer), Some(screen.now)),
            screen,
        )))
    }
}

/// The specification in an answer that has one.
fn spec_of(answer: &Response) -> Option<&Spec> {
    if let Response::Got(got) = answer { got.spec.as_deref() } else { None }
}

/// Everything about a child; with the present moment, how long ago things were.
fn facts(child: &Child, spec: Option<&Spec>, now: Option<Timestamp>) -> Vec<SheetRow> {
    let labels: Vec<String> =
        child.labels.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    let labels = if labels.is_empty() { None } else { Some(labels.join(" ")) };
    let mut facts = vec![
        SheetRow::new("id", child.id),
        SheetRow::maybe("name", child.name.as_ref()),
        SheetRow::new("state", child.state.as_str()),
        SheetRow::maybe("status_text", child.status_text.as_deref().map(escaped)),
        SheetRow::maybe("pid", child.pid),
        SheetRow::new("command", command_line(&child.command)),
        SheetRow::maybe("labels", labels),
        SheetRow::new("owner.uid", child.owner.uid),
        SheetRow::new("owner.gid", child.owner.gid),
        SheetRow::moment("created_at", Some(child.created_at), now),
        SheetRow::moment("started_at", child.started_at, now),
        SheetRow::new("restarts", child.restarts),
        SheetRow::new("lifetime", lifetime(child.lifetime)),
        SheetRow::new("stop_order", child.stop_order),
        SheetRow::new("containment", containment(child.containment)),
    ];
    facts.extend(exit(child.exit.as_ref(), now));
    facts.extend(cleanup(child.cleanup.as_ref()));
    facts.extend(usage(child.usage.as_deref()));
    facts.extend(specification::facts(spec));
    facts
}

fn exit(exit: Option<&Exit>, now: Option<Timestamp>) -> [SheetRow; 7] {
    let steps = exit.filter(|exit| !exit.steps.is_empty()).map(|exit| {
        let steps: Vec<String> =
            exit.steps.iter().map(|step| format!("{} at {}", step.signal, step.at)).collect();
        steps.join(", ")
    });
    [
        SheetRow::maybe("exit", exit.map(|exit| exit_word(exit.status))),
        SheetRow::maybe("exit.reason", exit.map(|exit| exit.reason.as_str())),
        SheetRow::maybe("exit.forced", exit.map(|exit| exit.forced)),
        SheetRow::maybe("exit.steps", steps),
        SheetRow::moment("exit.at", exit.map(|exit| exit.at), now),
        SheetRow::maybe("exit.gave_up", exit.filter(|exit| exit.gave_up).map(|_| true)),
        SheetRow::maybe("exit.oom", exit.filter(|exit| exit.oom).map(|_| true)),
    ]
}

fn cleanup(cleaned: Option<&Cleaned>) -> [SheetRow; 3] {
    [
        SheetRow::maybe("cleanup.ok", cleaned.map(|cleaned| cleaned.ok)),
        SheetRow::maybe("cleanup.exit", cleaned.and_then(|cleaned| cleaned.exit).map(exit_word)),
        SheetRow::maybe("cleanup.attempts", cleaned.map(|cleaned| cleaned.attempts)),
    ]
}

fn usage(usage: Option<&Usage>) -> [SheetRow; 4] {
    [
        SheetRow::lasting("usage.cpu", usage.and_then(|usage| usage.cpu)),
        SheetRow::bytes("usage.memory", usage.and_then(|usage| usage.memory)),
        SheetRow::bytes("usage.memory_peak", usage.and_then(|usage| usage.memory_peak)),
        SheetRow::maybe("usage.processes", usage.and_then(|usage| usage.processes)),
    ]
}

/// A lifetime as the flag takes it.
fn lifetime(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::Broker => "broker".to_owned(),
        Lifetime::Connection => "connection".to_owned(),
        Lifetime::Pid(pid) => format!("pid:{pid}"),
        Lifetime::Ttl(time) => format!("ttl:{}", duration::display(time)),
    }
}

fn containment(containment: Containment) -> &'static str {
    match containment {
        Containment::Cgroup => "cgroup",
        Containment::Subreaper => "subreaper",
    }
}
