//! `status`: shows the broker itself.

use clap::Args;
use procbroker_protocol::request::NoParams;
use procbroker_protocol::status::{ChildCounts, Facilities, Limits, ProtocolRange};
use procbroker_protocol::{Request, Response, Status, Timestamp, duration};

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::escape::escaped;
use crate::cli::print::sheet::{self, Fact};
use crate::cli::print::{Report, Screen};

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

    fn human(&self, answer: &Response, screen: Screen) -> Result<Report, Failure> {
        Ok(Report::done(sheet::table(&facts(status_of(answer)?, Some(screen.now)), screen)))
    }
}

fn status_of(answer: &Response) -> Result<&Status, Failure> {
    if let Response::Status(status) = answer { Ok(status) } else { Err(Failure::Answer) }
}

/// Everything about the broker; with the present moment, how long ago it was started.
fn facts(status: &Status, now: Option<Timestamp>) -> Vec<Fact> {
    let ProtocolRange { lowest, highest } = status.protocol;
    let mut facts = vec![
        Fact::new("version", escaped(&status.version)),
        Fact::new("protocol.lowest", lowest),
        Fact::new("protocol.highest", highest),
        Fact::new("pid", status.pid),
        Fact::new("instance", status.instance),
        Fact::new("events_instance", status.events_instance),
        Fact::moment("started_at", Some(status.started_at), now),
        Fact::new("shutting_down", status.shutting_down),
    ];
    if let Some(failed) = &status.failed_upgrade {
        facts.push(Fact::moment("failed_upgrade.at", Some(failed.at), now));
        facts.push(Fact::new("failed_upgrade.message", escaped(&failed.message)));
    }
    facts.extend(counts(status.children));
    facts.push(Fact::new("connections", status.connections));
    facts.extend(facilities(&status.facilities));
    facts.extend(limits(status.limits));
    facts
}

fn counts(counts: ChildCounts) -> [Fact; 6] {
    let ChildCounts { starting, running, stopping, cleaning, ended, backoff } = counts;
    [
        Fact::new("children.starting", starting),
        Fact::new("children.running", running),
        Fact::new("children.stopping", stopping),
        Fact::new("children.cleaning", cleaning),
        Fact::new("children.ended", ended),
        Fact::new("children.backoff", backoff),
    ]
}

fn facilities(facilities: &Facilities) -> [Fact; 11] {
    [
        Fact::new("facilities.spawn", escaped(&facilities.spawn)),
        Fact::new("facilities.containment", escaped(&facilities.containment)),
        Fact::new("facilities.cgroup", escaped(&facilities.cgroup)),
        Fact::new("facilities.controllers", escaped(&facilities.controllers)),
        Fact::new("facilities.subreaper", facilities.subreaper),
        Fact::new("facilities.pidfd", facilities.pidfd),
        Fact::new("facilities.pidfd_group_signal", facilities.pidfd_group_signal),
        Fact::new("facilities.pidfd_exit_info", facilities.pidfd_exit_info),
        Fact::new("facilities.proc_children", facilities.proc_children),
        Fact::new("facilities.activation", escaped(&facilities.activation)),
        Fact::new("facilities.state_dir", escaped(&facilities.state_dir)),
    ]
}

fn limits(limits: Limits) -> [Fact; 14] {
    [
        Fact::new("limits.max_children", limits.max_children),
        Fact::new("limits.max_children_per_user", limits.max_children_per_user),
        Fact::new("limits.max_connections", limits.max_connections),
        Fact::new("limits.max_connections_per_user", limits.max_connections_per_user),
        Fact::new("limits.max_pipelined", limits.max_pipelined),
        Fact::bytes("limits.max_command_bytes", Some(limits.max_command_bytes.into())),
        Fact::new("limits.max_subscriptions", limits.max_subscriptions),
        Fact::bytes("limits.max_kept_bytes", Some(limits.max_kept_bytes)),
        Fact::bytes("limits.max_kept_bytes_per_user", Some(limits.max_kept_bytes_per_user)),
        Fact::bytes("limits.max_message_bytes", Some(limits.max_message_bytes.into())),
        Fact::new("limits.partial_message_timeout", duration::display(limits.partial_message_timeout)),
        Fact::new("limits.ended_kept", limits.ended_kept),
        Fact::new("limits.ended_kept_for", duration::display(limits.ended_kept_for)),
        Fact::new("limits.shutdown_timeout", duration::display(limits.shutdown_timeout)),
    ]
}
