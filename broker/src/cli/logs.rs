//! `logs`: what a child has written, and writes, to standard output as it is.

use std::io::{self, Write};
use std::path::PathBuf;

use procbroker_client::{Broker, Error as ClientError, LogChunk, LogFollow};
use procbroker_protocol::event::Notification;
use procbroker_protocol::json_lines::objects::{NotificationObject, ResultObject};
use procbroker_protocol::request::{LogStream, LogsParams};
use procbroker_protocol::response::Logs;
use procbroker_protocol::{Request, Response};
use serde_json::Error as JsonError;

use super::arguments::LogsArguments;
use super::call;
use super::failure::Failure;
use super::print::Style;
use super::reader::{self, Reader, reader_gone};
use super::status::CommandStatus;

/// Shows what the arguments ask for, until that is over or nobody reads any more.
pub(super) fn show(socket: Option<PathBuf>, arguments: &LogsArguments) -> CommandStatus {
    let style = Style::of_standard_output(arguments.print);
    let stdout = io::stdout();
    let shown = call::runtime().and_then(|runtime| {
        let mut shown = Shown { output: stdout.lock(), style };
        runtime.block_on(async {
            let broker = call::connect(socket).await?;
            run(&broker, arguments.params(), &mut shown).await
        })
    });
    match shown {
        Ok(()) => CommandStatus::Done,
        Err(failure) => {
            super::complain(&failure.report(arguments.print.json));
            failure.status()
        }
    }
}

async fn run(broker: &Broker, params: LogsParams, shown: &mut Shown<impl Write>) -> Result<(), Failure> {
    let stream = params.stream;
    if params.follow {
        let follow = broker.follow(params).await?;
        return follow_to_the_end(follow, stream, shown, reader_gone()).await;
    }
    match broker.call(Request::Logs(params)).await? {
        Response::Logs(logs) => shown.first(&logs).map(drop),
        Response::Created(_)
        | Response::Children(_)
        | Response::Child(_)
        | Response::Subscribed(_)
        | Response::Status(_)
        | Response::ShutDown(_)
        | Response::Upgraded => Err(Failure::Answer),
    }
}

/// Shows what comes until the child has ended, or the reader of the output has gone.
async fn follow_to_the_end(
    mut follow: LogFollow,
    stream: LogStream,
    shown: &mut Shown<impl Write>,
    reader_gone: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let Some(subscription) = follow.first().subscription else {
        return shown.first(follow.first()).map(drop);
    };
    let mut reader = shown.first(follow.first())?;
    tokio::pin!(reader_gone);
    while reader == Reader::Reads {
        let chunk = tokio::select! {
            biased;
            chunk = follow.next() => chunk.map_err(interrupted)?,
            () = &mut reader_gone => return Ok(()),
        };
        let next = match chunk {
            Some(LogChunk::Text { stream, text }) => {
                Notification::Log { subscription, stream, text, ended: false }
            }
            Some(LogChunk::Lagged { missed }) => Notification::Lagged { subscription, missed },
            None => {
                let end = Notification::Log { subscription, stream, text: String::new(), ended: true };
                return shown.next(&end).map(drop);
            }
        };
        reader = shown.next(&next)?;
    }
    Ok(())
}

/// Nothing was to be carried out, so that a lost connection leaves no doubt whether it was.
fn interrupted(error: ClientError) -> Failure {
    match error {
        ClientError::ConnectionLost { .. } => Failure::Interrupted,
        other => Failure::Client(other),
    }
}

/// Where output is shown, and how.
struct Shown<W> {
    output: W,
    style: Style,
}

impl<W: Write> Shown<W> {
    /// What the child had written when this began.
    fn first(&mut self, logs: &Logs) -> Result<Reader, Failure> {
        match self.style {
            Style::Json => {
                let response = Response::Logs(logs.clone());
                self.line(serde_json::to_string(&ResultObject(&response)))
            }
            Style::Plain => reader::write(&mut self.output, &logs.text),
            Style::Terminal { .. } => {
                if logs.truncated {
                    super::complain("procbroker: older output is not kept any more\n");
                }
                reader::write(&mut self.output, &logs.text)
            }
        }
    }

    /// What comes then.
    fn next(&mut self, notification: &Notification) -> Result<Reader, Failure> {
        match (self.style, notification) {
            (Style::Json, _) => self.line(serde_json::to_string(&NotificationObject(notification))),
            (Style::Plain | Style::Terminal { .. }, Notification::Log { text, .. }) => {
                reader::write(&mut self.output, text)
            }
            (Style::Plain | Style::Terminal { .. }, Notification::Lagged { .. }) => {
                super::complain("procbroker: some output was released before it was read here\n");
                Ok(Reader::Reads)
            }
            (Style::Plain | Style::Terminal { .. }, Notification::Event { .. }) => Err(Failure::Answer),
        }
    }

    fn line(&mut self, object: Result<String, JsonError>) -> Result<Reader, Failure> {
        let line = object.map_err(|error| Failure::Output(error.into()))?;
        reader::write(&mut self.output, &(line + "\n"))
    }
}

#[cfg(test)]
mod tests;
