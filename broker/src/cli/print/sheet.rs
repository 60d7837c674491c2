//! Everything about one child or about the broker, a line for each fact.

use std::fmt::Write as _;

use comfy_table::{ColumnConstraint, Row};
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::status::{ChildCounts, Facilities, Limits, ProtocolRange};
use procbroker_protocol::{Child, Cleaned, Containment, Exit, Status, Timestamp};

use super::children::{ABSENT, exit_word};
use super::elapsed;
use super::escape::{command_line, escaped};
use super::style::Style;

/// One fact: the path of its JSON member, its value where there is one, and what helps people to read it.
pub(super) struct Fact {
    key: &'static str,
    value: Option<String>,
    remark: Option<String>,
}

impl Fact {
    fn new(key: &'static str, value: impl ToString) -> Self {
        Self::maybe(key, Some(value))
    }

    fn maybe(key: &'static str, value: Option<impl ToString>) -> Self {
        Self { key, value: value.map(|value| value.to_string()), remark: None }
    }

    /// A moment, with how long ago it was when that is asked for.
    fn moment(key: &'static str, at: Option<Timestamp>, now: Option<Timestamp>) -> Self {
        let remark = at.zip(now).map(|(at, now)| format!("{} ago", elapsed::between(at, now)));
        Self { remark, ..Self::maybe(key, at) }
    }
}

/// Lines of key, tab, value: all of them, with `-` for a value that is absent.
pub(super) fn lines(facts: &[Fact]) -> String {
    let mut out = String::new();
    for Fact { key, value, remark: _ } in facts {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{key}\t{}", value.as_deref().unwrap_or(ABSENT));
    }
    out
}

/// A table of the facts that are there.
pub(super) fn table(facts: &[Fact], style: Style) -> String {
    let mut table = style.table();
    for Fact { key, value, remark } in facts {
        let Some(value) = value else { continue };
        let remark = remark.as_ref().map_or_else(String::new, |remark| format!(" ({remark})"));
        table.add_row(Row::from([(*key).to_owned(), format!("{value}{remark}")]));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if index == 0 {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        } else {
            column.set_padding((0, 0));
        }
    }
    table.trim_fmt() + "\n"
}

/// Everything about a child; with the present moment, how long ago things were.
pub(super) fn child(child: &Child, now: Option<Timestamp>) -> Vec<Fact> {
    let labels: Vec<String> =
        child.labels.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    let labels = if labels.is_empty() { None } else { Some(labels.join(" ")) };
    let mut facts = vec![
        Fact::new("id", child.id),
        Fact::maybe("name", child.name.as_ref()),
        Fact::new("state", child.state.as_str()),
        Fact::maybe("pid", child.pid),
        Fact::new("command", command_line(&child.command)),
        Fact::maybe("labels", labels),
        Fact::new("owner.uid", child.owner.uid),
        Fact::new("owner.gid", child.owner.gid),
        Fact::moment("created_at", Some(child.created_at), now),
        Fact::moment("started_at", child.started_at, now),
        Fact::new("restarts", child.restarts),
        Fact::new("lifetime", lifetime(child.lifetime)),
        Fact::new("stop_order", child.stop_order),
        Fact::new("containment", containment(child.containment)),
    ];
    facts.extend(exit(child.exit.as_ref(), now));
    facts.extend(cleanup(child.cleanup.as_ref()));
    facts
}

fn exit(exit: Option<&Exit>, now: Option<Timestamp>) -> [Fact; 5] {
    let steps = exit.filter(|exit| !exit.steps.is_empty()).map(|exit| {
        let steps: Vec<String> =
            exit.steps.iter().map(|step| format!("{} at {}", step.signal, step.at)).collect();
        steps.join(", ")
    });
    [
        Fact::maybe("exit", exit.map(|exit| exit_word(exit.status))),
        Fact::maybe("exit.reason", exit.map(|exit| exit.reason.as_str())),
        Fact::maybe("exit.forced", exit.map(|exit| exit.forced)),
        Fact::maybe("exit.steps", steps),
        Fact::moment("exit.at", exit.map(|exit| exit.at), now),
    ]
}

fn cleanup(cleaned: Option<&Cleaned>) -> [Fact; 3] {
    [
        Fact::maybe("cleanup.ok", cleaned.map(|cleaned| cleaned.ok)),
        Fact::maybe("cleanup.exit", cleaned.and_then(|cleaned| cleaned.exit).map(exit_word)),
        Fact::maybe("cleanup.attempts", cleaned.map(|cleaned| cleaned.attempts)),
    ]
}

/// A lifetime as the flag takes it.
fn lifetime(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::Broker => "broker".to_owned(),
        Lifetime::Connection => "connection".to_owned(),
        Lifetime::Pid(pid) => format!("pid:{pid}"),
        Lifetime::Ttl(span) => format!("ttl:{span}"),
    }
}

fn containment(containment: Containment) -> &'static str {
    match containment {
        Containment::Cgroup => "cgroup",
        Containment::Subreaper => "subreaper",
    }
}

/// Everything about the broker; with the present moment, how long ago it was started.
pub(super) fn status(status: &Status, now: Option<Timestamp>) -> Vec<Fact> {
    let ProtocolRange { lowest, highest } = status.protocol;
    let mut facts = vec![
        Fact::new("version", escaped(&status.version)),
        Fact::new("protocol.lowest", lowest),
        Fact::new("protocol.highest", highest),
        Fact::new("pid", status.pid),
        Fact::new("instance", status.instance),
        Fact::moment("started_at", Some(status.started_at), now),
        Fact::new("shutting_down", status.shutting_down),
    ];
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

fn facilities(facilities: &Facilities) -> [Fact; 10] {
    [
        Fact::new("facilities.spawn", escaped(&facilities.spawn)),
        Fact::new("facilities.containment", escaped(&facilities.containment)),
        Fact::new("facilities.cgroup", escaped(&facilities.cgroup)),
        Fact::new("facilities.subreaper", facilities.subreaper),
        Fact::new("facilities.pidfd", facilities.pidfd),
        Fact::new("facilities.pidfd_group_signal", facilities.pidfd_group_signal),
        Fact::new("facilities.pidfd_exit_info", facilities.pidfd_exit_info),
        Fact::new("facilities.proc_children", facilities.proc_children),
        Fact::new("facilities.activation", escaped(&facilities.activation)),
        Fact::new("facilities.state_dir", escaped(&facilities.state_dir)),
    ]
}

fn limits(limits: Limits) -> [Fact; 12] {
    [
        Fact::new("limits.max_children", limits.max_children),
        Fact::new("limits.max_children_per_user", limits.max_children_per_user),
        Fact::new("limits.max_connections", limits.max_connections),
        Fact::new("limits.max_connections_per_user", limits.max_connections_per_user),
        Fact::new("limits.max_pipelined", limits.max_pipelined),
        Fact::new("limits.max_command_bytes", limits.max_command_bytes),
        Fact::new("limits.max_subscriptions", limits.max_subscriptions),
        Fact::new("limits.max_message_bytes", limits.max_message_bytes),
        Fact::new("limits.partial_message_timeout", limits.partial_message_timeout),
        Fact::new("limits.ended_kept", limits.ended_kept),
        Fact::new("limits.ended_kept_for", limits.ended_kept_for),
        Fact::new("limits.shutdown_timeout", limits.shutdown_timeout),
    ]
}
