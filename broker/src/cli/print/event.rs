//! An event, on one line.

use procbroker_protocol::event::{Event, EventKind};
use procbroker_protocol::{Child, Exit};

use super::children::{ABSENT, exit_word, title};
use super::escape::command_line;

/// The longest kind is `shutting_down`.
const KIND_WIDTH: usize = 13;

/// For programs: fields between tabs. They and their order are documented in the help.
pub(in crate::cli) fn fields(event: &Event) -> String {
    let child = event.child.as_deref();
    let field = |value: Option<String>| value.unwrap_or_else(|| ABSENT.to_owned());
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
        event.seq,
        event.at,
        event.kind.as_str(),
        field(child.map(|child| child.id.to_string())),
        field(child.and_then(|child| child.name.as_ref()).map(ToString::to_string)),
        field(child.and_then(|child| child.pid).map(|pid| pid.to_string())),
        field(child.and_then(|child| child.exit.as_ref()).map(|exit| exit_word(exit.status))),
    )
}

/// For people: when, what, to whom, and what matters of it.
pub(in crate::cli) fn sentence(event: &Event) -> String {
    let (at, kind) = (event.at, event.kind.as_str());
    let Some(child) = event.child.as_deref() else { return format!("{at}  {kind}\n") };
    let matter = matter(event.kind, child);
    let line = format!("{at}  {kind:KIND_WIDTH$}  {}  {matter}", title(child));
    line.trim_end().to_owned() + "\n"
}

fn matter(kind: EventKind, child: &Child) -> String {
    match kind {
        EventKind::Created => command_line(&child.command),
        EventKind::Started | EventKind::Ready | EventKind::Stopping => {
            child.pid.map_or_else(String::new, |pid| format!("pid {pid}"))
        }
        EventKind::Exited | EventKind::Ended => child.exit.as_ref().map_or_else(String::new, how),
        EventKind::Restarting => format!("restart {}", child.restarts),
        EventKind::Cleaning | EventKind::ShuttingDown => String::new(),
    }
}

fn how(exit: &Exit) -> String {
    let forced = if exit.forced { ", forced" } else { "" };
    format!("exit {} ({}{forced})", exit_word(exit.status), exit.reason.as_str())
}
