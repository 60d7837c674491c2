//! How results are shown: as tables and lines on a terminal, as fields between tabs elsewhere, as JSON on request.

mod children;
mod elapsed;
pub(super) mod escape;
pub(super) mod event;
mod sheet;
mod style;

use procbroker_protocol::json_lines::objects::ResultObject;
use procbroker_protocol::request::Until;
use procbroker_protocol::{ChildState, Response, Timestamp};

use super::failure::Failure;
use super::status::CommandStatus;
pub(super) use style::Style;

/// What to show of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// What `create` did.
    Created,
    /// Children, in one table.
    Children {
        /// Whether how they ended is shown.
        exits: bool,
        /// What is said when there are none.
        none: &'static str,
    },
    /// Everything about one child.
    Child,
    /// The child that was waited for.
    Waited(Until),
    /// The broker itself.
    Status,
    /// What a shutdown did.
    Shutdown,
}

/// What a command prints, and its exit status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// For standard output.
    pub(super) result: String,
    /// For standard error: one line, without its end.
    pub(super) note: Option<String>,
    /// The exit status.
    pub(super) status: CommandStatus,
}

impl Report {
    /// A result and nothing else.
    pub(super) fn done(result: String) -> Self {
        Self { result, note: None, status: CommandStatus::Done }
    }

    fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// Shows an answer.
pub(super) fn report(
    view: View,
    response: &Response,
    style: Style,
    now: Timestamp,
) -> Result<Report, Failure> {
    let mut report = match style {
        Style::Json => Report::done(json(response)?),
        Style::Plain => plain(view, response)?,
        Style::Terminal { .. } => human(view, response, style, now)?,
    };
    if let (View::Waited(Until::Ready), Response::Child(child)) = (view, response)
        && child.state == ChildState::Ended
    {
        report.status = CommandStatus::Failed;
        if style != Style::Json {
            let note = format!("{} has ended, so it is not ready", children::title(child));
            report = report.with_note(note);
        }
    }
    Ok(report)
}

fn json(response: &Response) -> Result<String, Failure> {
    let line = serde_json::to_string(&ResultObject(response));
    line.map(|line| line + "\n").map_err(|error| Failure::Output(error.into()))
}

fn plain(view: View, response: &Response) -> Result<Report, Failure> {
    let result = match (view, response) {
        (View::Created, Response::Created(created)) => format!("{}\n", created.child.id),
        (View::Children { .. }, Response::Children(children)) => children::lines(children),
        (View::Child, Response::Child(child)) => sheet::lines(&sheet::child(child, None)),
        (View::Waited(_), Response::Child(child)) => children::lines(std::slice::from_ref(child)),
        (View::Status, Response::Status(status)) => sheet::lines(&sheet::status(status, None)),
        (View::Shutdown, Response::ShutDown(report)) => children::lines(&report.children),
        (
            View::Created
            | View::Children { .. }
            | View::Child
            | View::Waited(_)
            | View::Status
            | View::Shutdown,
            _,
        ) => return Err(Failure::Answer),
    };
    Ok(Report::done(result))
}

fn human(view: View, response: &Response, style: Style, now: Timestamp) -> Result<Report, Failure> {
    let result = match (view, response) {
        (View::Created, Response::Created(created)) => children::created(created),
        (View::Children { none, .. }, Response::Children(children)) if children.is_empty() => {
            return Ok(Report::done(String::new()).with_note(none));
        }
        (View::Children { exits, .. }, Response::Children(children)) => {
            children::table(children, exits, style, now)
        }
        (View::Child, Response::Child(child)) => sheet::table(&sheet::child(child, Some(now)), style),
        (View::Waited(_), Response::Child(child)) => children::waited(child),
        (View::Status, Response::Status(status)) => sheet::table(&sheet::status(status, Some(now)), style),
        (View::Shutdown, Response::ShutDown(report)) => children::shut_down(report, style, now),
        (
            View::Created
            | View::Children { .. }
            | View::Child
            | View::Waited(_)
            | View::Status
            | View::Shutdown,
            _,
        ) => return Err(Failure::Answer),
    };
    Ok(Report::done(result))
}

#[cfg(test)]
mod tests;
