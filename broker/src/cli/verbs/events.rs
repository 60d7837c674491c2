//! `events`: what happens to children, a line for each event.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, Args};
use procbroker_client::{Broker, Events, Happening};
use procbroker_protocol::Child;
use procbroker_protocol::event::{Event, EventKind, Notification};
use procbroker_protocol::json_lines::objects::NotificationObject;
use procbroker_protocol::request::EventsParams;
use unicode_width::UnicodeWidthStr as _;

use crate::cli::call;
use crate::cli::command_status::CommandStatus;
use crate::cli::failure::Failure;
use crate::cli::output::complain;
use crate::cli::print::PrintArguments;
use crate::cli::print::Style;
use crate::cli::print::escape::{escaped_json, shown_command_line};
use crate::cli::print::width::{cut, packed};
use crate::cli::print::words::{ABSENT, exit_word, how_ended, title};
use crate::cli::reader::{self, Readership, reader_gone};
use crate::cli::values::{ValueError, event_number, map, pair};
use crate::counted::counted;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Output:
  On a terminal, lines for people. Elsewhere fields between tabs, `-` for one
  that is absent:
    SEQ AT KIND ID NAME PID EXIT
  SEQ, which is first on a terminal too, is the number of the event, for --since;
  a restarted broker counts anew.
  With --json what the notifications on the wire carry (`params`), one a line.
  The orderly end of the broker (`shutting_down`, and what follows) ends it with
  exit status 0; a broker that is lost and does not come back, with 5.

Examples:
  procbroker events --label pool=render
  procbroker events --since 0 --json | jq -r 'select(.kind == \"exited\")'";

/// The longest kind of an event of a child is `restarting`.
const KIND_WIDTH: usize = 10;

/// The width of most numbers of events; longer ones push the rest of the line to the right.
const SEQ_WIDTH: usize = 4;

/// The least that is shown of a command, in columns.
const COMMAND_WIDTH_MIN: usize = 10;

/// How far what stands below an event stands in.
const INDENT: &str = "  ";

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

/// The flag `--json`, where many answers are printed and not one.
pub(super) fn json_flag(flag: Arg) -> Arg {
    flag.help(JSON_HELP).long_help(format!("{JSON_HELP}\n\n{JSON_HELP_MORE}"))
}

const JSON_HELP: &str = "Print each event as it is on the wire, a line of JSON for each";

const JSON_HELP_MORE: &str = "\
That is what the notification carries: `subscription`, `seq`, `at`, `kind`, and `child` as it was then; where events were \
missed, `subscription`, the kind `lagged`, and `missed`, the number of them. On failure it is the JSON-RPC error, on standard \
error; one that does not come from the broker (none is there, the connection broke) has a `message` alone.";

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
                Readership::Reads
            }
        };
        if reader == Readership::Gone {
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
        Style::Terminal(screen) => Ok(sentence(event, usize::from(screen.width))),
    }
}

fn lagged(
    missed: u64,
    subscription: u64,
    output: &mut impl Write,
    style: Style,
) -> Result<Readership, Failure> {
    match style {
        Style::Json => reader::write(output, &json(&Notification::Lagged { subscription, missed })?),
        Style::Plain | Style::Terminal(_) => {
            let were_missed = counted(missed, "event was", "events were") + " missed";
            complain(&format!("procbroker: {were_missed}; 'procbroker list' shows how things are\n"));
            Ok(Readership::Reads)
        }
    }
}

fn json(notification: &Notification) -> Result<String, Failure> {
    let line = serde_json::to_string(&NotificationObject(notification));
    line.map(|line| escaped_json(&line) + "\n").map_err(|error| Failure::Output(error.into()))
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

/// For people: its number, when, what, to whom, and what matters of it. A command takes what is left of the line; what else
/// does not fit stands below it.
fn sentence(event: &Event, width: usize) -> String {
    let (seq, at, kind) = (event.seq, to_the_second(event), event.kind.as_str());
    let Some(child) = event.child.as_deref() else { return format!("{seq:SEQ_WIDTH$}  {at}  {kind}\n") };
    let (title, matter) = (title(child), matter(event.kind, child));
    let head = format!("{seq:SEQ_WIDTH$}  {at}  {kind:KIND_WIDTH$}");
    let line = format!("{head}  {title}  ");
    let left = width.saturating_sub(line.width());
    let least = if event.kind == EventKind::Created { COMMAND_WIDTH_MIN } else { usize::MAX };
    if line.trim_end().width() <= width && matter.width().min(least) <= left {
        return (line + &cut(&matter, left)).trim_end().to_owned() + "\n";
    }
    let room = width.saturating_sub(INDENT.len());
    let rest = [title, matter].into_iter().filter(|text| !text.is_empty()).map(|text| cut(&text, room));
    let below = packed(rest.map(|text| (text.clone(), text.width())), room);
    let lines = below.iter().map(|line| format!("{INDENT}{line}\n"));
    cut(head.trim_end(), width) + "\n" + &lines.collect::<String>()
}

/// When it was, without the part of a second: the numbers tell the order.
fn to_the_second(event: &Event) -> String {
    let at = event.at.to_string();
    at.split_once('.').map_or_else(|| at.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn matter(kind: EventKind, child: &Child) -> String {
    match kind {
        EventKind::Created => shown_command_line(&child.command, child.shortened),
        EventKind::Started | EventKind::Ready | EventKind::Stopping => {
            child.pid.map_or_else(String::new, |pid| format!("pid {pid}"))
        }
        EventKind::Exited | EventKind::Ended => child
            .exit
            .as_ref()
            .map_or_else(String::new, |exit| format!("exit {}", how_ended(exit, child.cleanup.as_ref()))),
        EventKind::Restarting => format!("restart {}", child.restarts),
        EventKind::Cleaning | EventKind::ShuttingDown => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::{ChildState, Cleaned, ExitReason, ExitStatus, Timestamp};
    use serde_json::json;

    use super::*;

    fn child(name: &str) -> Child {
        serde_json::from_value(json!({
            "id": "01900000-0000-7000-8000-000000000001", "name": name, "labels": {},
            "command": ["python3", "render.py", "--scene", "a long one.blend"], "pid": 4001,
            "owner": {"uid": 33, "gid": 33}, "state": "running", "created_at": Timestamp::default(),
            "started_at": null, "restarts": 0, "lifetime": "broker", "stop_order": 0, "exit": null,
            "cleanup": null, "containment": "cgroup", "status_text": null,
        }))
        .unwrap()
    }

    fn said(seq: u64, kind: EventKind, child: Option<Child>) -> String {
        let at = Timestamp::from_micros(1_795_445_537_123_456);
        sentence(&Event { seq, at, kind, child: child.map(Arc::new) }, 80)
    }

    #[test]
    fn a_line_for_people_begins_with_the_number_that_since_takes_and_fits_a_terminal() {
        let created = said(7, EventKind::Created, Some(child("render-42")));
        let expected = "   7  2026-11-23T14:52:17Z  created     render-42  python3 render.py --scene 'a…\n";
        assert_eq!(created, expected);
        assert!(created.trim_end().width() <= 80, "{created}");
        let ready = said(123_456, EventKind::Ready, Some(child("web")));
        assert_eq!(ready, "123456  2026-11-23T14:52:17Z  ready       web  pid 4001\n");
        let exit =
            procbroker_protocol::Exit::new(ExitStatus::Code(0), ExitReason::Exited, Timestamp::default());
        let cleanup = Some(Cleaned { ok: false, exit: None, attempts: 1 });
        let ended = Child { state: ChildState::Ended, exit: Some(exit), cleanup, ..child("web") };
        let expected = "   8  2026-11-23T14:52:17Z  ended       web  exit 0 (exited), cleanup failed\n";
        assert_eq!(said(8, EventKind::Ended, Some(ended)), expected);
        assert_eq!(said(9, EventKind::ShuttingDown, None), "   9  2026-11-23T14:52:17Z  shutting_down\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_an_id_stays_whole() {
        let at = Timestamp::from_micros(1_795_445_537_123_456);
        let shown =
            |kind, child, width| sentence(&Event { seq: 7, at, kind, child: Some(Arc::new(child)) }, width);
        let unnamed = || Child { name: None, ..child("web") };
        for width in [40, 60, 80, 100] {
            for kind in [EventKind::Created, EventKind::Started, EventKind::Cleaning, EventKind::Ended] {
                for child in [unnamed(), child("web"), child(&"n".repeat(60))] {
                    let text = shown(kind, child, width);
                    assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
                }
            }
            let text = shown(EventKind::Ended, unnamed(), width);
            assert!(text.contains("01900000-0000-7000-8000-000000000001"), "{text}");
        }
        let expected = concat!(
            "   7  2026-11-23T14:52:17Z  started\n",
            "  01900000-0000-7000-8000-000000000001\n",
            "  pid 4001\n",
        );
        assert_eq!(shown(EventKind::Started, unnamed(), 40), expected);
        let expected = concat!(
            "   7  2026-11-23T14:52:17Z  started\n",
            "  01900000-0000-7000-8000-000000000001  pid 4001\n",
        );
        assert_eq!(shown(EventKind::Started, unnamed(), 80), expected);
    }
}
