//! `events`: what happens to children, a line for each event.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use procbroker_client::{Broker, Events, Happening};
use procbroker_protocol::event::{Event, Notification};
use procbroker_protocol::json_lines::objects::NotificationObject;
use procbroker_protocol::request::EventsParams;

use super::arguments::EventsArguments;
use super::call;
use super::failure::Failure;
use super::print::{Style, event};
use super::reader::{self, Reader, reader_gone};
use super::status::CommandStatus;

/// Shows what the arguments ask for, until the broker is gone or nobody reads any more.
pub(super) fn show(socket: Option<PathBuf>, arguments: &EventsArguments) -> CommandStatus {
    let style = Style::of_standard_output(arguments.print);
    let stdout = io::stdout();
    let params = arguments.params().map_err(|error| Failure::usage(&error));
    let shown = params.and_then(|params| {
        call::runtime()?.block_on(async {
            let broker = call::connect(socket).await?;
            run(&broker, params, &mut stdout.lock(), style, reader_gone()).await
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

async fn run(
    broker: &Broker,
    params: EventsParams,
    output: &mut impl Write,
    style: Style,
    reader_gone: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut events: Events = broker.events(params).await?;
    tokio::pin!(reader_gone);
    loop {
        let happening = tokio::select! {
            biased;
            happening = events.next() => happening?,
            () = &mut reader_gone => return Ok(()),
        };
        let reader = match happening {
            Happening::Event(event) => {
                let text = line(&event, events.subscription(), style)?;
                reader::write(output, &text)?
            }
            Happening::Lagged { missed } => lagged(missed, events.subscription(), output, style)?,
            Happening::Restarted => {
                super::complain(
                    "procbroker: the broker was started anew; its events count from the beginning\n",
                );
                Reader::Reads
            }
        };
        if reader == Reader::Gone {
            return Ok(());
        }
    }
}

fn line(event: &Arc<Event>, subscription: u64, style: Style) -> Result<String, Failure> {
    match style {
        Style::Json => json(&Notification::Event { subscription, event: Arc::clone(event) }),
        Style::Plain => Ok(event::fields(event)),
        Style::Terminal { .. } => Ok(event::sentence(event)),
    }
}

fn lagged(missed: u64, subscription: u64, output: &mut impl Write, style: Style) -> Result<Reader, Failure> {
    match style {
        Style::Json => reader::write(output, &json(&Notification::Lagged { subscription, missed })?),
        Style::Plain | Style::Terminal { .. } => {
            super::complain(&format!(
                "procbroker: {missed} events were missed; `procbroker list` shows how things are\n"
            ));
            Ok(Reader::Reads)
        }
    }
}

fn json(notification: &Notification) -> Result<String, Failure> {
    let line = serde_json::to_string(&NotificationObject(notification));
    line.map(|line| line + "\n").map_err(|error| Failure::Output(error.into()))
}
