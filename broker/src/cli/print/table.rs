//! Children: a table of them for people, a line for each for programs.

use std::fmt::Write as _;
use std::sync::Arc;

use comfy_table::{Cell, Color, ColumnConstraint};
use procbroker_protocol::{Child, ChildState, Timestamp};
use unicode_width::UnicodeWidthStr as _;

use super::elapsed;
use super::escape::shown_command_line;
use super::sheet::{bytes, seconds};
use super::style::{Screen, painted};
use super::users::Users;
use super::width::{cut, packed};
use super::words::{ABSENT, exit_word, how_ended, how_ended_briefly, or_absent, title};

/// How many columns stand between two columns of the table.
const GAP: u16 = 2;

/// The least that is shown of a command in a table, in columns. Where that is too much, each child has lines of its own.
const COMMAND_WIDTH_MIN: usize = 10;

/// The most that is shown of the name of a user, in columns.
const USER_WIDTH_MAX: usize = 12;

/// How far the lines below the name of a child stand in.
const INDENT: &str = "  ";

/// One line for each child, its fields between tabs. The fields and their order are documented in the help.
pub(in crate::cli) fn lines(children: &[Arc<Child>]) -> String {
    let mut out = String::new();
    for child in children {
        out.push_str(&line(child));
        out.push('\n');
    }
    out
}

/// The same, with the processor time that each has used in seconds, and its memory in bytes.
pub(in crate::cli) fn lines_with_usage(children: &[Arc<Child>]) -> String {
    let mut out = String::new();
    for child in children {
        let usage = child.usage.as_deref();
        let cpu = usage.and_then(|usage| usage.cpu).map(seconds);
        let memory = usage.and_then(|usage| usage.memory);
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}\t{}\t{}", line(child), or_absent(cpu.as_ref()), or_absent(memory.as_ref()));
    }
    out
}

fn line(child: &Child) -> String {
    let exit = child.exit.as_ref();
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        child.id,
        child.name.as_ref().map_or(ABSENT, |name| name.as_str()),
        child.state.as_str(),
        or_absent(child.pid.as_ref()),
        or_absent(child.started_at.as_ref()),
        child.restarts,
        or_absent(exit.map(|exit| exit_word(exit.status)).as_ref()),
        shown_command_line(&child.command, child.shortened),
        exit.map_or(ABSENT, |exit| exit.reason.as_str()),
    )
}

/// The children for people: a table with a line for each, or some lines for each where a table is too wide.
///
/// No line is wider than the screen; a command that does not fit is cut. A name or an id that leaves too little room for the
/// rest stands whole on a line of its own, above what belongs to it: it is there to be given to another verb, and none
/// takes a part of it. Before that happens to names of a usual length, the reasons of ends are left out.
pub(in crate::cli) fn table(children: &[Arc<Child>], exits: bool, screen: Screen) -> String {
    let users = Users::of(children);
    let row = |child: &Arc<Child>| Row::of(child, exits, &users, screen.now);
    let rows: Vec<Row> = children.iter().map(row).collect();
    let columns = columns(&rows, exits);
    let wanted = NAME.width(&rows).min(NAME_WIDTH_WANTED);
    if let Some(room) = Room::left_by(&rows, &columns, screen).filter(|room| room.names >= wanted) {
        return grid(&rows, &columns, &room, screen);
    }
    let brief: Vec<Row> = children.iter().map(|child| row(child).brief(child)).collect();
    match Room::left_by(&brief, &columns, screen) {
        Some(room) if room.names >= wanted.min(NAME_WIDTH_MIN) => grid(&brief, &columns, &room, screen),
        Some(_) | None => rows.iter().map(|row| row.paragraph(screen)).collect(),
    }
}

/// What the other columns leave, in columns of the terminal.
struct Room {
    /// What names can have at the most.
    names: usize,
    /// The least that commands have.
    commands: usize,
}

impl Room {
    fn left_by(rows: &[Row], columns: &[Column], screen: Screen) -> Option<Self> {
        let taken: usize = columns.iter().map(|column| column.width(rows) + usize::from(GAP)).sum();
        let wanted = rows.iter().map(|row| row.command.width()).max().unwrap_or(0);
        let commands = wanted.min(COMMAND_WIDTH_MIN).max(COMMAND.width());
        let names = (usize::from(screen.width) + NAME.width(rows)).checked_sub(taken + commands)?;
        Some(Self { names, commands })
    }
}

/// The room that names have before reasons of ends are left out for them.
const NAME_WIDTH_WANTED: usize = 16;

/// The least room for names. Where there is less, each child has lines of its own.
const NAME_WIDTH_MIN: usize = 8;

const NAME: Column = Column { heading: "NAME", text: |row| Some(&row.title) };

/// The heading of the last column.
const COMMAND: &str = "COMMAND";

/// A column before that of the commands.
#[derive(Clone, Copy)]
struct Column {
    heading: &'static str,
    /// What stands in it for a child; nothing when there is nothing to say.
    text: fn(&Row) -> Option<&str>,
}

impl Column {
    fn width(self, rows: &[Row]) -> usize {
        let widths = rows.iter().map(|row| (self.text)(row).unwrap_or(ABSENT).width());
        widths.max().unwrap_or(0).max(self.heading.width())
    }
}

/// The columns in which something stands for at least one child.
fn columns(rows: &[Row], exits: bool) -> Vec<Column> {
    let all = [
        NAME,
        Column { heading: "STATE", text: |row| Some(row.state.as_str()) },
        Column { heading: "PID", text: |row| row.pid.as_deref() },
        Column { heading: "USER", text: |row| row.user.as_deref() },
        Column { heading: if exits { "SINCE" } else { "UPTIME" }, text: |row| row.since.as_deref() },
        Column { heading: "RESTARTS", text: |row| row.restarts.as_deref() },
        Column { heading: "CPU", text: |row| row.cpu.as_deref() },
        Column { heading: "MEMORY", text: |row| row.memory.as_deref() },
        Column { heading: "EXIT", text: |row| row.exit.as_deref() },
    ];
    all.into_iter().filter(|column| rows.iter().any(|row| (column.text)(row).is_some())).collect()
}

/// Names that are wider than their column stand above their rows.
fn grid(rows: &[Row], columns: &[Column], room: &Room, screen: Screen) -> String {
    let fitting = rows.iter().map(|row| row.title.width()).filter(|width| *width <= room.names);
    let name_width = fitting.max().unwrap_or(0).max(NAME.heading.width());
    let command_width = (room.commands + room.names).saturating_sub(name_width);
    let mut table = screen.table();
    let stands_above = |row: &Row| row.title.width() > name_width;
    table.set_header(columns.iter().map(|column| column.heading).chain([COMMAND]));
    for row in rows {
        let cells = columns.iter().map(|column| {
            let is_above = column.heading == NAME.heading && stands_above(row);
            let text = if is_above { "" } else { (column.text)(row).unwrap_or(ABSENT) };
            let cell = Cell::new(text);
            if column.heading == "STATE" { cell.fg(colour(row.state)) } else { cell }
        });
        table.add_row(cells.chain([Cell::new(cut(&row.command, command_width))]));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let gap = if index < columns.len() { GAP } else { 0 };
        column.set_padding((0, gap)).set_constraint(ColumnConstraint::ContentWidth);
    }
    let text = table.trim_fmt();
    let mut lines = text.lines();
    let mut out = lines.next().unwrap_or_default().to_owned() + "\n";
    for (row, line) in rows.iter().zip(lines) {
        if stands_above(row) {
            out.push_str(&cut(&row.title, usize::from(screen.width)));
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// What is said of a child.
struct Row {
    title: String,
    state: ChildState,
    pid: Option<String>,
    /// Whose it is, where there are those of several users.
    user: Option<String>,
    /// How long its process has run, or is gone.
    since: Option<String>,
    restarts: Option<String>,
    /// The processor time that it has used, where that was asked for and can be told.
    cpu: Option<String>,
    /// Its memory, likewise.
    memory: Option<String>,
    exit: Option<String>,
    command: String,
}

impl Row {
    fn of(child: &Child, exits: bool, users: &Users, now: Timestamp) -> Self {
        let usage = child.usage.as_deref();
        Self {
            title: title(child),
            state: child.state,
            pid: child.pid.map(|pid| pid.to_string()),
            user: users.owner(child).map(|user| cut(user, USER_WIDTH_MAX)),
            since: since(child, exits, now),
            restarts: (child.restarts > 0).then(|| child.restarts.to_string()),
            cpu: usage.and_then(|usage| usage.cpu).map(elapsed::lasting),
            memory: usage.and_then(|usage| usage.memory).map(bytes),
            exit: child.exit.as_ref().filter(|_| exits).map(|exit| how_ended(exit, child.cleanup.as_ref())),
            command: shown_command_line(&child.command, child.shortened),
        }
    }

    /// The same, without the reason of its end.
    fn brief(self, child: &Child) -> Self {
        let brief = |exit| how_ended_briefly(exit, child.cleanup.as_ref());
        Self { exit: self.exit.and(child.exit.as_ref()).map(brief), ..self }
    }

    /// The lines of one child: its name, what is known of it, and its command.
    fn paragraph(&self, screen: Screen) -> String {
        let width = usize::from(screen.width);
        let restarts = self
            .restarts
            .as_ref()
            .map(|count| format!("{count} {}", if count == "1" { "restart" } else { "restarts" }));
        let pid = self.pid.as_ref().map(|pid| format!("pid {pid}"));
        let state = painted(self.state.as_str(), colour(self.state), screen);
        let since = self
            .since
            .as_ref()
            .map(|since| if self.exit.is_some() { format!("{since} ago") } else { since.clone() });
        let user = self.user.as_ref().map(|user| format!("of {user}"));
        let cpu = self.cpu.as_ref().map(|cpu| format!("cpu {cpu}"));
        let facts = [pid, user, restarts, cpu, self.memory.clone(), self.exit.clone(), since];
        let first = (state, self.state.as_str().width());
        let facts = facts
            .into_iter()
            .flatten()
            .map(|fact| (cut(&fact, width.saturating_sub(INDENT.len())), fact.width()));
        let mut out = cut(&self.title, width) + "\n";
        for line in packed(std::iter::once(first).chain(facts), width.saturating_sub(INDENT.len())) {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{INDENT}{line}");
        }
        let _ = writeln!(out, "{INDENT}{}", cut(&self.command, width.saturating_sub(INDENT.len())));
        out
    }
}

/// The colour of a state.
pub(in crate::cli) fn colour(state: ChildState) -> Color {
    match state {
        ChildState::Running => Color::Green,
        ChildState::Starting | ChildState::Stopping | ChildState::Cleaning | ChildState::Backoff => {
            Color::Yellow
        }
        ChildState::Ended => Color::DarkGrey,
    }
}

/// How long its process has run, or, where ends are shown, is gone.
fn since(child: &Child, exits: bool, now: Timestamp) -> Option<String> {
    let exit = child.exit.as_ref().filter(|_| exits);
    let at = child.pid.and(child.started_at).or(exit.map(|exit| exit.at))?;
    Some(elapsed::between(at, now))
}
