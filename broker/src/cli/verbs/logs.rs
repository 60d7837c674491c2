//! `logs`: what a child has written, and writes, to standard output as it is.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use procbroker_client::{Broker, Error as ClientError, LogChunk, LogFollow};
use procbroker_protocol::create::StandardError;
use procbroker_protocol::event::Notification;
use procbroker_protocol::json_lines::objects::{NotificationObject, ResultObject};
use procbroker_protocol::request::{LogStream, LogsParams, OneParams};
use procbroker_protocol::response::Logs;
use procbroker_protocol::since::Since;
use procbroker_protocol::{Request, Response, Target};
use serde_json::Error as JsonError;

use crate::cli::call;
use crate::cli::command_status::CommandStatus;
use crate::cli::failure::Failure;
use crate::cli::output::complain;
use crate::cli::print::PrintArguments;
use crate::cli::print::Style;
use crate::cli::print::escape::escaped_json;
use crate::cli::reader::{self, Readership, reader_gone};
use crate::cli::values::{Choice, one_of, since, target, whole};
use crate::counted::counted;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!(
    "

Examples:
  procbroker logs render-42
  procbroker logs --tail 20 --follow render-42
  procbroker logs --since 5m --timestamps render-42
  procbroker logs --follow --json render-42 | jq -r .text

With --json and --follow, one object a line: the answer, then the
notifications, the last of them with `ended`."
);

/// The words of `--stream`.
const STREAMS: &[Choice<LogStream>] = &[
    Choice { word: "stdout", value: LogStream::Stdout, help: "Standard output" },
    Choice {
        word: "stderr",
        value: LogStream::Stderr,
        help: "Standard error: the same as standard output, unless the child was created with --stderr log",
    },
];

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    /// Only the last so many lines [default: all that is kept]
    #[arg(long, short = 'n', value_name = "LINES", value_parser = whole(0..=u32::MAX))]
    tail: Option<u32>,
    /// Go on with what the child writes, until it has ended
    ///
    /// Over an upgrade and a crash of the broker too: it goes on where it was.
    #[arg(long, short)]
    follow: bool,
    /// Only what was written since then: a time such as 2026-11-23T14:52:17Z, or an age such as 5m
    ///
    /// An age without a unit is a number of seconds.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Begin each line with the time at which it was written
    #[arg(long, short)]
    timestamps: bool,
    /// Which of its outputs [default: stdout]
    #[arg(long, value_name = "STREAM", value_parser = one_of(STREAMS))]
    stream: Option<LogStream>,
    #[command(flatten)]
    print: PrintArguments,
}

impl LogsArguments {
    /// The parameters that these arguments ask for.
    fn params(&self) -> LogsParams {
        let Self { target, tail, follow, since, timestamps, stream, print: _ } = self;
        LogsParams {
            target: target.clone(),
            stream: stream.unwrap_or(LogStream::Stdout),
            tail: *tail,
            follow: *follow,
            since: *since,
            timestamps: *timestamps,
            position: None,
        }
    }
}

/// Shows what the arguments ask for, until that is over or nobody reads any more.
pub(in crate::cli) fn show(socket: Option<PathBuf>, arguments: &LogsArguments) -> CommandStatus {
    let style = Style::of_standard_output(arguments.print);
    let stdout = io::stdout();
    let shown = call::runtime().and_then(|runtime| {
        let mut shown = Shown { output: stdout.lock(), style };
        runtime.block_on(async {
            let broker = call::connect(socket).await?;
            let is_told = arguments.stream.is_none() && matches!(style, Style::Terminal(_));
            // After what would scroll it away, unless that goes on.
            if is_told && arguments.follow {
                tell_of_standard_error(&broker, &arguments.target).await;
            }
            let shown = run(&broker, arguments.params(), &mut shown).await;
            if is_told && !arguments.follow && shown.is_ok() {
                tell_of_standard_error(&broker, &arguments.target).await;
            }
            shown
        })
    });
    match shown {
        Ok(()) => CommandStatus::Done,
        Err(failure) => {
            complain(&failure.report(arguments.print.json));
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
        | Response::Got(_)
        | Response::Metrics(_)
        | Response::Subscribed(_)
        | Response::Status(_)
        | Response::ShutDown(_)
        | Response::Upgraded
        | Response::PartialChildren(_) => Err(Failure::Answer),
    }
}

/// Says to a person where else the child writes, if it does.
async fn tell_of_standard_error(broker: &Broker, target: &Target) {
    let got = broker.call(Request::Get(OneParams { target: target.clone() })).await;
    let has_two = matches!(got, Ok(Response::Got(got))
        if got.spec.as_ref().is_some_and(|spec| spec.params.stderr == StandardError::Log));
    if has_two {
        complain("procbroker: its standard error has a log of its own; '--stream stderr' shows that\n");
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
    while reader == Readership::Reads {
        let chunk = tokio::select! {
            biased;
            chunk = follow.next() => chunk.map_err(interrupted)?,
            () = &mut reader_gone => return Ok(()),
        };
        let next = match chunk {
            Some(LogChunk::Text { stream, text }) => {
                let position = follow.position();
                Notification::Log { subscription, stream, text, ended: false, position }
            }
            Some(LogChunk::Lagged { missed }) => Notification::Lagged { subscription, missed },
            None => {
                let (text, position) = (String::new(), follow.position());
                let end = Notification::Log { subscription, stream, text, ended: true, position };
                return shown.next(&end).map(drop);
            }
        };
        reader = shown.next(&next)?;
    }
    Ok(())
}

/// What the text lacks, where it is not all that the child has written.
fn missing(logs: &Logs) -> Option<String> {
    match (logs.dropped, logs.truncated) {
        (0, false) => None,
        (0, true) => Some("the beginning is missing: older output is not kept any more".to_owned()),
        (dropped, _) => {
            let bytes = counted(dropped, "byte is", "bytes are");
            Some(format!("{bytes} missing: the disk was full when the child wrote them"))
        }
    }
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
    fn first(&mut self, logs: &Logs) -> Result<Readership, Failure> {
        match self.style {
            Style::Json => {
                let response = Response::Logs(logs.clone());
                self.line(serde_json::to_string(&ResultObject(&response)))
            }
            Style::Plain | Style::Terminal(_) => {
                if let Some(missing) = missing(logs) {
                    complain(&format!("procbroker: {missing}\n"));
                }
                reader::write(&mut self.output, &logs.text)
            }
        }
    }

    /// Shows what a subscription sends after the first answer.
    fn next(&mut self, notification: &Notification) -> Result<Readership, Failure> {
        match (self.style, notification) {
            (Style::Json, _) => self.line(serde_json::to_string(&NotificationObject(notification))),
            (Style::Plain | Style::Terminal(_), Notification::Log { text, .. }) => {
                reader::write(&mut self.output, text)
            }
            (Style::Plain | Style::Terminal(_), Notification::Lagged { .. }) => {
                complain("procbroker: some output was released before it was read here\n");
                Ok(Readership::Reads)
            }
            (Style::Plain | Style::Terminal(_), Notification::Event { .. }) => Err(Failure::Answer),
        }
    }

    fn line(&mut self, object: Result<String, JsonError>) -> Result<Readership, Failure> {
        let line = object.map_err(|error| Failure::Output(error.into()))?;
        reader::write(&mut self.output, &(escaped_json(&line) + "\n"))
    }
}

#[cfg(test)]
mod tests;
