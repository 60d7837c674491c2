//! A verb that makes requests to the broker: what it asks, and how the answer is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procbroker_client::{Broker, Error as ClientError};
use procbroker_protocol::json_lines::objects::ResultObject;
use procbroker_protocol::request::WaitParams;
use procbroker_protocol::{Child, ErrorKind, ExitStatus, Request, Response, Target};
use tokio::task::JoinSet;

use super::call;
use super::command_status::CommandStatus;
use super::failure::Failure;
use super::in_turn;
use super::print::PrintArguments;
use super::print::escape::escaped_json;
use super::print::{CommandOutput, Screen, Style};
use super::progress::{self, Awaited, Begun};

/// How many requests are under way at a time of a broker that was not asked how many it takes of one connection.
const AT_ONCE_UNASKED: usize = 32;

/// How many places are left to what is asked beside them: how those are who are waited for.
const PLACES_BESIDE: usize = 4;

/// A verb that makes requests to the broker.
pub(super) trait Ask {
    /// Returns how the verb was asked to print.
    fn print(&self) -> PrintArguments;

    /// Returns the requests that the arguments ask for: one, unless several children are named.
    ///
    /// # Errors
    /// [`Failure::Usage`] where the arguments contradict each other.
    fn requests(&self) -> Result<Vec<Request>, Failure>;

    /// The labels of the live children that a request is to be made for, each for itself, instead of the requests.
    ///
    /// # Errors
    /// As those of the requests.
    fn each_with(&self) -> Result<Option<BTreeMap<String, String>>, Failure> {
        Ok(None)
    }

    /// Returns the requests for these children, where they are chosen by what they are at the moment.
    fn requests_for(&self, children: &[Target]) -> Vec<Request> {
        let _ = children;
        Vec::new()
    }

    /// The targets to be restarted one after the other, instead of the requests, where that was asked for.
    ///
    /// # Errors
    /// As those of the requests.
    fn in_turn(&self) -> Result<Option<Vec<Target>>, Failure> {
        Ok(None)
    }

    /// Whether the answer is of several children, where each request is of one.
    fn is_of_several(&self) -> bool {
        false
    }

    /// Chooses what is shown of the answer, where the broker cannot do so.
    fn choose(&self, answer: Response) -> Response {
        answer
    }

    /// Says what is waited for, where that can take long.
    fn awaited(&self) -> Option<Awaited> {
        None
    }

    /// Shows the answer to a program: fields between tabs.
    ///
    /// # Errors
    /// [`Failure::Answer`] where it belongs to another request.
    fn plain(&self, answer: &Response) -> Result<String, Failure>;

    /// Shows the answer to a person.
    ///
    /// # Errors
    /// [`Failure::Answer`] where it belongs to another request.
    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure>;

    /// Says what whoever asked may not expect of what was done, on a line of its own.
    fn remark(&self, answer: &Response) -> Option<&'static str> {
        let _ = answer;
        None
    }

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
    /// The child has ended in this way, and its exit status is to be passed on.
    Ended(ExitStatus),
}

/// Sends the requests of a verb, and shows the answers as one.
pub(super) fn ask(socket: Option<PathBuf>, verb: &dyn Ask) -> Result<CommandOutput, Failure> {
    let (requests, turns, labels) = (verb.requests()?, verb.in_turn()?, verb.each_with()?);
    let answers = call::runtime()?.block_on(async {
        let broker = call::connect(socket).await?;
        let chosen = match labels {
            Some(labels) => Some(in_turn::each_of(&broker, &Target::Labels(labels)).await?),
            None => None,
        };
        let requests = chosen.as_ref().map_or(requests, |chosen| verb.requests_for(chosen));
        let awaited = verb.awaited().map(|awaited| match &chosen {
            Some(chosen) => Awaited { targets: chosen.clone(), ..awaited },
            None => awaited,
        });
        let begun = Begun::none_of(if turns.is_some() { 0 } else { requests.len() });
        let work = async {
            match turns {
                Some(targets) => {
                    let is_done = |answer: &_| verb.verdict(answer) == Verdict::Done;
                    in_turn::restart(&broker, targets, is_done).await
                }
                None => send(&broker, requests, &begun).await,
            }
        };
        let answers = match awaited.zip(progress::told(verb.print().json)) {
            Some((awaited, told)) => progress::beside(&broker, &awaited, told, &begun, work).await,
            None => Ok(work.await),
        }?;
        Ok::<_, Failure>(if chosen.is_some() { of_those_chosen(answers) } else { answers })
    })?;
    let json = verb.print().json;
    conclude(verb, answers, json, || Style::of_standard_output(verb.print()))
}

/// The answers of requests that were made for the children that there were: one that has ended and is forgotten meanwhile is
/// no failure, and none of them is an answer too.
fn of_those_chosen(answers: Vec<Result<Response, ClientError>>) -> Vec<Result<Response, ClientError>> {
    let is_gone = |answer: &Result<Response, ClientError>| matches!(answer, Err(ClientError::Broker(error)) if error.kind == ErrorKind::NotFound);
    let mut left: Vec<_> = answers.into_iter().filter(|answer| !is_gone(answer)).collect();
    if left.is_empty() {
        left.push(Ok(Response::Children(Vec::new())));
    }
    left
}

/// Sends requests side by side, as many as the broker takes of one connection: what is begun goes on whoever waits for it.
/// Returns their answers in the order of the requests.
async fn send(broker: &Broker, requests: Vec<Request>, begun: &Begun) -> Vec<Result<Response, ClientError>> {
    let at_once = if requests.len() <= AT_ONCE_UNASKED { AT_ONCE_UNASKED } else { at_once(broker).await };
    let start = Instant::now();
    let mut calls = JoinSet::new();
    let mut answers = BTreeMap::new();
    for (place, request) in requests.into_iter().enumerate() {
        if calls.len() >= at_once {
            answers.extend(calls.join_next().await.and_then(Result::ok));
        }
        let request = less_what_has_passed(request, start.elapsed());
        let (broker, begun) = (broker.clone(), begun.clone());
        calls.spawn(async move {
            begun.one_more();
            (place, broker.call(request).await)
        });
    }
    while let Some(call) = calls.join_next().await {
        answers.extend(call.ok());
    }
    answers.into_values().collect()
}

/// A request that had to wait for its place has so much less time: what it was given is for all of them together.
fn less_what_has_passed(request: Request, passed: Duration) -> Request {
    match request {
        Request::Wait(WaitParams { timeout: Some(timeout), target, until }) => {
            Request::Wait(WaitParams { timeout: Some(timeout.saturating_sub(passed)), target, until })
        }
        other => other,
    }
}

/// How many requests can be under way at a time.
async fn at_once(broker: &Broker) -> usize {
    // One that does not answer is found out by the requests themselves.
    let Ok(status) = broker.status().await else { return AT_ONCE_UNASKED };
    let taken = usize::try_from(status.limits.max_pipelined).unwrap_or(usize::MAX);
    taken.saturating_sub(PLACES_BESIDE).max(1)
}

/// Shows what succeeded, and says what did not.
fn conclude(
    verb: &dyn Ask,
    answers: Vec<Result<Response, ClientError>>,
    json: bool,
    style: impl FnOnce() -> Style,
) -> Result<CommandOutput, Failure> {
    let mut given = Vec::new();
    let mut refused = Vec::new();
    for answer in answers {
        match answer {
            Ok(answer) => given.push(answer),
            Err(error) => refused.push(Failure::from(error)),
        }
    }
    let mut report = match together(given, verb.is_of_several())? {
        Some(answer) => show(verb, &verb.choose(answer), style())?,
        None if refused.is_empty() => return Err(Failure::Answer),
        None => CommandOutput::done(String::new()),
    };
    for failure in refused {
        if report.status == CommandStatus::Done {
            report.status = failure.status();
        }
        report.remarks.push_str(&failure.report(json));
    }
    Ok(report)
}

/// One answer of all: the children of several, where there can be several.
fn together(answers: Vec<Response>, of_several: bool) -> Result<Option<Response>, Failure> {
    let mut answers = answers.into_iter().map(|answer| match answer {
        Response::Child(child) if of_several => Response::Children(vec![child]),
        other => other,
    });
    let Some(mut first) = answers.next() else { return Ok(None) };
    for answer in answers {
        let (Response::Children(all), Response::Children(more)) = (&mut first, answer) else {
            return Err(Failure::Answer);
        };
        for child in more {
            // A child can be named by its id and by its name.
            if !all.iter().any(|present| present.id == child.id) {
                all.push(child);
            }
        }
    }
    Ok(Some(first))
}

/// Shows the answer to a verb's request.
pub(super) fn show(verb: &dyn Ask, answer: &Response, style: Style) -> Result<CommandOutput, Failure> {
    let report = match style {
        Style::Json => CommandOutput::done(json(answer)?),
        Style::Plain => CommandOutput::done(verb.plain(answer)?),
        Style::Terminal(screen) => verb.human(answer, screen)?,
    };
    let report = match verb.remark(answer).filter(|_| style != Style::Json) {
        Some(remark) => report.with_remark(remark),
        None => report,
    };
    match verb.verdict(answer) {
        Verdict::Done => Ok(report),
        Verdict::Failed { why } => {
            let report = if style == Style::Json { report } else { report.with_remark(&why) };
            Ok(CommandOutput { status: CommandStatus::Failed, ..report })
        }
        Verdict::Ended(exit) => Ok(CommandOutput { status: CommandStatus::of_child(exit), ..report }),
    }
}

/// The answer as it is on the wire, on one line.
pub(super) fn json(answer: &Response) -> Result<String, Failure> {
    let line = serde_json::to_string(&ResultObject(answer));
    line.map(|line| escaped_json(&line) + "\n").map_err(|error| Failure::Output(error.into()))
}

/// The children of an answer that has any number of them.
pub(super) fn children_of(answer: &Response) -> Result<&[Arc<Child>], Failure> {
    if let Response::Children(children) = answer { Ok(children) } else { Err(Failure::Answer) }
}

/// The child of an answer that has one.
pub(super) fn child_of(answer: &Response) -> Result<&Child, Failure> {
    match answer {
        Response::Child(child) => Ok(child),
        Response::Got(got) => Ok(&got.child),
        Response::Created(_)
        | Response::Children(_)
        | Response::Logs(_)
        | Response::Subscribed(_)
        | Response::Status(_)
        | Response::ShutDown(_)
        | Response::Upgraded
        | Response::PartialChildren(_)
        | Response::Metrics(_) => Err(Failure::Answer),
    }
}
