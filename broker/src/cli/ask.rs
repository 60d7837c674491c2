//! A verb that is one request to the broker: what it asks, and how the answer is shown.

use std::path::PathBuf;
use std::sync::Arc;

use procbroker_protocol::json_lines::objects::ResultObject;
use procbroker_protocol::{Child, Request, Response};

use super::call;
use super::command_status::CommandStatus;
use super::failure::Failure;
use super::print::{Report, Screen, Style};
use super::verbs::PrintArguments;

/// A verb that is one request to the broker.
pub(super) trait Ask {
    /// Returns how the verb was asked to print.
    fn print(&self) -> PrintArguments;

    /// Returns the request that the arguments ask for.
    ///
    /// # Errors
    /// [`Failure::Usage`] where the arguments contradict each other.
    fn request(&self) -> Result<Request, Failure>;

    /// Shows the answer to a program: fields between tabs.
    ///
    /// # Errors
    /// [`Failure::Answer`] where it belongs to another request.
    fn plain(&self, answer: &Response) -> Result<String, Failure>;

    /// Shows the answer to a person.
    ///
    /// # Errors
    /// [`Failure::Answer`] where it belongs to another request.
    fn human(&self, answer: &Response, screen: Screen) -> Result<Report, Failure>;

    /// Says what the answer means for whoever asked.
    fn verdict(&self, answer: &Response) -> Verdict {
        let _ = answer;
        Verdict::Done
    }
}

/// What an answer of the broker means for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was asked for is done.
    Done,
    /// The broker did its part, and what was hoped for did not come.
    Failed {
        /// One line that says so.
        why: String,
    },
}

/// Sends the request of a verb, and shows the answer.
pub(super) fn ask(socket: Option<PathBuf>, verb: &dyn Ask) -> Result<Report, Failure> {
    let answer = call::call(socket, verb.request()?)?;
    show(verb, &answer, Style::of_standard_output(verb.print()))
}

/// Shows the answer to a verb's request.
pub(super) fn show(verb: &dyn Ask, answer: &Response, style: Style) -> Result<Report, Failure> {
    let report = match style {
        Style::Json => Report::done(json(answer)?),
        Style::Plain => Report::done(verb.plain(answer)?),
        Style::Terminal(screen) => verb.human(answer, screen)?,
    };
    match verb.verdict(answer) {
        Verdict::Done => Ok(report),
        Verdict::Failed { why } => {
            let note = if style == Style::Json { report.note } else { Some(why) };
            Ok(Report { note, status: CommandStatus::Failed, ..report })
        }
    }
}

/// The answer as it is on the wire, on one line.
pub(super) fn json(answer: &Response) -> Result<String, Failure> {
    let line = serde_json::to_string(&ResultObject(answer));
    line.map(|line| line + "\n").map_err(|error| Failure::Output(error.into()))
}

/// The children of an answer that has any number of them.
pub(super) fn children_of(answer: &Response) -> Result<&[Arc<Child>], Failure> {
    if let Response::Children(children) = answer { Ok(children) } else { Err(Failure::Answer) }
}

/// The child of an answer that has one.
pub(super) fn child_of(answer: &Response) -> Result<&Child, Failure> {
    if let Response::Child(child) = answer { Ok(child) } else { Err(Failure::Answer) }
}
