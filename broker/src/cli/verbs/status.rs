//! `status`: shows the broker itself.

use clap::Args;
use procbroker_protocol::request::NoParams;
use procbroker_protocol::status::{ChildCounts, Facilities, Limits, ProtocolRange};
use procbroker_protocol::{Request, Response, Status, Timestamp, duration};

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::escape::escaped;
use crate::cli::print::sheet::{self, SheetRow};
use crate::cli::print::{CommandOutput, Screen};

/// The arguments of `status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArguments {
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for StatusArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        Ok(vec![Request::Status(NoParams {})])
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        Ok(sheet::lines(&facts(status_of(answer)?, None)))
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        Ok(CommandOutput::done(sheet::table(&facts(status_of(answer)?, Some(screen.now)), screen)))
    }
}

fn status_of(answer: &Response) -> Result<&Status, Failure> {
    if let Response::Status(status) = answer { Ok(status) } else { Err(Failure::Answer) }
}

/// Everything about the broker; with the present moment, how long ago it was started.
fn facts(status: &Status, now: Option<Timestamp>) -> Vec<SheetRow> {
    let ProtocolRange { lowest, highest } = status.protocol;
    let mut facts = vec![
        SheetRow::new("version", escaped(&status.version)),
        SheetRow::new("protocol.lowest", lowest),
        SheetRow::new("protocol.highest", highest),
        SheetRow::new("pid", status.pid),
        SheetRow::new("instance", status.instance),
        SheetRow::new("events_instance", status.events_instance),
        SheetRow::moment("started_at", Some(status.started_at), now),
        SheetRow::new("shutting_down", status.shutting_down),
    ];
    if let Some(failed) = &status.failed_upgrade {
        facts.push(SheetRow::moment("failed_upgrade.at", Some(failed.at), now));
        facts.push(SheetRow::new("failed_upgrade.message", escaped(&failed.message)));
    }
    facts.extend(counts(status.children));
    facts.push(SheetRow::new("connections", status.connections));
    facts.extend(facilities(&status.facilities));
    facts.extend(limits(status.limits));
    facts
}

fn counts(counts: ChildCounts) -> [SheetRow; 6] {
    let ChildCounts { starting, running, stopping, cleaning, ended, backoff } = counts;
    [
        SheetRow::new("children.starting", starting),
        SheetRow::new("children.running", running),
        SheetRow::new("children.stopping", stopping),
        SheetRow::new("children.cleaning", cleaning),
        SheetRow::new("children.ended", ended),
        SheetRow::new("children.backoff", backoff),
    ]
}

fn facilities(facilities: &Facilities) -> [SheetRow; 11] {
    [
        SheetRow::new("facilities.spawn", escaped(&facilities.spawn)),
        SheetRow::new("facilities.containment", escaped(&facilities.containment)),
        SheetRow::new("facilities.cgroup", escaped(&facilities.cgroup)),
        SheetRow::new("facilities.controllers", escaped(&facilities.controllers)),
        SheetRow::new("facilities.subreaper", facilities.subreaper),
        SheetRow::new("facilities.pidfd", facilities.pidfd),
        SheetRow::new("facilities.pidfd_group_signal", facilities.pidfd_group_signal),
        SheetRow::new("facilities.pidfd_exit_info", facilities.pidfd_exit_info),
        SheetRow::new("facilities.proc_children", facilities.proc_children),
        SheetRow::new("facilities.activation", escaped(&facilities.activation)),
        SheetRow::new("facilities.state_dir", escaped(&facilities.state_dir)),
    ]
}

fn limits(limits: Limits) -> [SheetRow; 14] {
    [
        SheetRow::new("limits.max_children", limits.max_children),
        SheetRow::new("limits.max_children_per_user", limits.max_children_per_user),
        SheetRow::new("limits.max_connections", limits.max_connections),
        SheetRow::new("limits.max_connections_per_user", limits.max_connections_per_user),
        SheetRow::new("limits.max_pipelined", limits.max_pipelined),
        SheetRow::bytes("limits.max_command_bytes", Some(limits.max_command_bytes.into())),
        SheetRow::new("limits.max_subscriptions", limits.max_subscriptions),
        SheetRow::bytes("limits.max_kept_bytes", Some(limits.max_kept_bytes)),
        SheetRow::bytes("limits.max_kept_bytes_per_user", Some(limits.max_kept_bytes_per_user)),
        SheetRow::bytes("limits.max_message_bytes", Some(limits.max_message_bytes.into())),
        SheetRow::new("limits.partial_message_timeout", duration::display(limits.partial_message_timeout)),
        SheetRow::new("limits.ended_kept", limits.ended_kept),
        SheetRow::new("limits.ended_kept_for", duration::display(limits.ended_kept_for)),
        SheetRow::new("limits.shutdown_timeout", duration::display(limits.shutdown_timeout)),
    ]
}
