//! `events`: what happens to children, a line for each event.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use procbroker_client::{Broker, Events, Happening};
use procbroker_protocol::event::{Event, EventKind, Notification};
use procbroker_protocol::json_lines::objects::NotificationObject;
use procbroker_protocol::request::EventsParams;
use procbroker_protocol::Child;

use crate::cli::call;
use crate::cli::command_status::CommandStatus;
use crate::cli::failure::Failure;
use crate::cli::output::complain;
use crate::cli::print::PrintArguments;
use crate::cli::print::Style;
use crate::cli::print::escape::shown_command_line;
use crate::cli::print::words::{ABSENT, exit_word, how_ended, title};
use crate::cli::reader::{self, Reader, reader_gone};
use crate::cli::values::{ValueError, event_number, map, pair};
use crate::counted::counted;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Output:
  On a terminal, lines for people. Elsewhere fields between tabs, `-` for one
  that is absent:
    SEQ AT KIND ID NAME PID EXIT
  SEQ is the number of the event, for --since; a restarted broker counts anew.
  With --json the notifications as they are on the wire, one a line.
  The orderly end of the broker (`shutting_down`, and what follows) ends it with
  exit status 0; a broker that is lost and does not come back, with 5.

Examples:
  procbroker events --label pool=render
  procbroker events --since 0 --json | jq -r 'select(.kind == \"exited\")'";

/// The longest kind is `shutting_down`.
const KIND_WIDTH: usize = 13;

/// The arguments of `events`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArguments {
    /// The first sequence number wanted [default: only what happens from now on]
    #[arg(long, value_name = "NUMBER", value_parser = event_number)]
    since: Option<u64>,
    /// Only of children with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    print: PrintArguments,
}

impl EventsArguments {
    /// The parameters that these arguments ask for.
    fn params(&self) -> Result<EventsParams, ValueError> {
        let Self { since, label, print: _ } = self;
        Ok(EventsParams { since: *since, labels: map("--label", label)? })
    }
}

/// Shows what the arguments ask for, until the broker is gone or nobody reads any more.
pub(in crate::cli) fn show(socket: Option<PathBuf>, arguments: &EventsArguments) -> CommandStatus {
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
            complain(&failure.report(arguments.print.json));
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
    let since = params.since;
    let mut events: Events = broker.events(params).await?;
    if let Some(since) = since.filter(|since| *since > events.next_seq()) {
        let next = events.next_seq();
        let message =
            format!("--since {since} is beyond the end: the next event of this broker has the number {next}");
        return Err(Failure::Usage { message });
    }
    tokio::pin!(reader_gone);
    let mut is_ending = false;
    loop {
        let happening = tokio::select! {
            biased;
            happening = next(&mut events, is_ending) => happening?,
            () = &mut reader_gone => return Ok(()),
        };
        let Some(happening) = happening else { return Ok(()) };
        is_ending |= is_shutdown(&happening);
        let reader = match happening {
            Happening::Event(event) => {
                let text = line(&event, events.subscription(), style)?;
                reader::write(output, &text)?
            }
            Happening::Lagged { missed } => lagged(missed, events.subscription(), output, style)?,
            Happening::Restarted => {
                complain("procbroker: the broker was started anew; its events count from the beginning\n");
                Reader::Reads
            }
        };
        if reader == Reader::Gone {
            return Ok(());
        }
    }
}

/// The next thing that happens; none where that was all of a broker that has ended in order.
async fn next(events: &mut Events, is_ending: bool) -> Result<Option<Happening>, Failure> {
    if is_ending { Ok(events.next_until_lost().await?) } else { Ok(Some(events.next().await?)) }
}

fn is_shutdown(happening: &Happening) -> bool {
    matches!(happening, Happening::Event(event) if event.kind == EventKind::ShuttingDown)
}

fn line(event: &Arc<Event>, subscription: u64, style: Style) -> Result<String, Failure> {
    match style {
        Style::Json => json(&Notification::Event { subscription, event: Arc::clone(event) }),
        Style::Plain => Ok(fields(event)),
        Style::Terminal(_) => Ok(sentence(event)),
    }
}

fn lagged(missed: u64, subscription: u64, output: &mut impl Write, style: Style) -> Result<Reader, Failure> {
    match style {
        Style::Json => reader::write(output, &json(&Notification::Lagged { subscription, missed })?),
        Style::Plain | Style::Terminal(_) => {
            let were_missed = counted(missed, "event was", "events were") + " missed";
            complain(&format!("procbroker: {were_missed}; 'procbroker list' shows how things are\n"));
            Ok(Reader::Reads)
        }
    }
}

fn json(notification: &Notification) -> Result<String, Failure> {
    let line = serde_json::to_string(&NotificationObject(notification));
    line.map(|line| line + "\n").map_err(|error| Failure::Output(error.into()))
}

/// For programs: fields between tabs. They and their order are documented in the help.
fn fields(event: &Event) -> String {
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
fn sentence(event: &Event) -> String {
    let (at, kind) = (event.at, event.kind.as_str());
    let Some(child) = event.child.as_deref() else { return format!("{at}  {kind}\n") };
    let matter = matter(event.kind, child);
    let line = format!("{at}  {kind:KIND_WIDTH$}  {}  {matter}", title(child));
    line.trim_end().to_owned() + "\n"
}

fn matter(kind: EventKind, child: &Child) -> String {
    match kind {
        EventKind::Created => shown_command_line(&child.command, child.shortened),
        EventKind::Started | EventKind::Ready | EventKind::Stopping => {
            child.pid.map_or_else(String::new, |pid| format!("pid {pid}"))
        }
        EventKind::Exited | EventKind::Ended => child.exit.as_ref().map_or_else(String::new, |exit| format!("exit {}", how_ended(exit, child.cleanup.as_ref()))),
        EventKind::Restarting => format!("restart {}", child.restarts),
        EventKind::Cleaning | EventKind::ShuttingDown => String::new(),
    }
}
