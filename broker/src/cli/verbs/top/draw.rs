//! How `top` looks: a function of what is known to the cells of a screen.

use procbroker_protocol::ChildState;
use procbroker_protocol::request::LogStream;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthStr as _;

use super::model::{Mode, Model, pane_lines};
use super::rows::{ChildRow, HISTORY};
use crate::cli::print::elapsed::between;
use crate::cli::print::width::cut;
use crate::counted;

/// From so many columns on there is room for graphs and long names.
const WIDE: u16 = 110;

/// The bars of a graph, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The heading of the last column.
const COMMAND: &str = "COMMAND";

/// What the keys do, in one line.
const KEYS: &str = "Enter output  s stop  r restart  x signal  / filter  o order  ? help  q quit";

/// What `?` shows.
const HELP: [&str; 21] = [
    "arrows, j, k               select a child",
    "PgUp, PgDn                 a page further; of the output while that is shown",
    "Enter                      show or hide its output",
    "e                          show its standard error, if that has a log of its own",
    "s                          stop it, by its own stop steps",
    "r                          restart it",
    "x                          send it a signal",
    "/                          show only those whose name or command has a text,",
    "                           or that have a label (key=value); Esc shows all",
    "o                          order by age, name, state, cpu, memory, restarts",
    "Ctrl-Z                     back to the shell, whose fg continues it",
    "q, Ctrl-C                  leave; nothing is stopped by it",
    "",
    "AGE        since its last start",
    "CPU%       of one processor, with all that descends from it; CPU TREND: of each",
    "           of the last ten seconds, where the screen is wide",
    "MEM        what it and its descendants have in memory now",
    "RST        how often it was restarted",
    "backoff    it waits to be started again, by its restart policy",
    "",
    "any key goes back",
];

pub(super) fn draw(model: &Model, has_colours: bool, area: Rect, buffer: &mut Buffer) {
    let canvas = &mut Canvas { area, buffer, has_colours };
    let height = area.height;
    if model.mode == Mode::Help {
        return help(canvas);
    }
    let visible = model.visible();
    canvas.line(0, &summary(model), Style::new().add_modifier(Modifier::BOLD));
    let columns = Columns::of(area.width, model);
    canvas.line(1, &columns.titles(), Style::new().add_modifier(Modifier::REVERSED));
    // The header, the titles and the last line are always there.
    let pane = if model.has_pane { pane_lines(height) } else { 0 };
    let rows = height.saturating_sub(3).saturating_sub(pane);
    table(canvas, model, &visible, &columns, rows);
    if model.has_pane {
        output(canvas, model, 2 + rows, pane);
    }
    footer(canvas, model, height.saturating_sub(1));
}

/// A screen that is drawn on.
struct Canvas<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
    has_colours: bool,
}

impl Canvas<'_> {
    /// Writes a whole line; what does not fit is cut, and one below the screen is left out.
    fn line(&mut self, y: u16, text: &str, style: Style) {
        if y >= self.area.height {
            return;
        }
        let width = usize::from(self.area.width);
        let text = cut(text, width);
        let padded = text.clone() + &" ".repeat(width.saturating_sub(text.width()));
        let style = if self.has_colours { style } else { Style { fg: None, bg: None, ..style } };
        self.buffer.set_stringn(self.area.x, self.area.y + y, padded, width, style);
    }
}

fn summary(model: &Model) -> String {
    const STATES: [ChildState; 5] = [
        ChildState::Starting,
        ChildState::Running,
        ChildState::Stopping,
        ChildState::Cleaning,
        ChildState::Backoff,
    ];
    let live: Vec<&ChildRow> = model.all().filter(|row| row.state != ChildState::Ended).collect();
    let mut text = counted::children(live.len());
    let counts = STATES.map(|state| (state, live.iter().filter(|row| row.state == state).count()));
    let words: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {}", state.as_str()))
        .collect();
    if !words.is_empty() {
        text = format!("{text}: {}", words.join(", "));
    }
    let shares: Vec<f64> = live.iter().filter_map(|row| row.cpu).collect();
    if !shares.is_empty() {
        text = format!("{text}   cpu {:.0}%", 100.0 * shares.iter().sum::<f64>());
    }
    let memory: Vec<u64> = live.iter().filter_map(|row| row.memory).collect();
    if !memory.is_empty() {
        text = format!("{text}   memory {}", bytes(memory.iter().sum()));
    }
    text = format!("{text}   ordered by {}", model.order.word());
    // First, because it says what is missing below, and the end is what a narrow screen cuts.
    if model.filter.is_empty() { text } else { format!("filter {:?}   {text}", model.filter) }
}

/// How wide the columns are; 0 for one that is left out.
struct Columns {
    name: usize,
    graph: usize,
}

/// What stands between the name and the graph: of each column its width, and whether it is one of numbers.
const MIDDLE: [(usize, bool); 6] = [(8, false), (7, true), (7, true), (5, true), (5, true), (3, true)];

/// What names leave to the last column, in columns of the screen, where it has more to say.
const LAST_WIDTH_MIN: usize = 10;

impl Columns {
    /// Names have what is left of a screen by what else there is to say.
    fn of(width: u16, model: &Model) -> Self {
        let (name, graph) = if width >= WIDE { (36, HISTORY) } else { (18, 0) };
        let middle: usize = MIDDLE.iter().map(|(width, _)| width + 1).sum();
        let taken = middle + if graph > 0 { graph + 2 } else { 0 } + 2;
        let longest =
            |text: fn(&ChildRow) -> &str| model.all().map(|row| text(row).width()).max().unwrap_or(0);
        let last = longest(last_of).clamp(COMMAND.len(), LAST_WIDTH_MIN);
        let left = usize::from(width).saturating_sub(taken + last);
        Self { name: longest(|row| &row.title).min(left).max(name), graph }
    }

    fn titles(&self) -> String {
        self.line(["NAME", "STATE", "PID", "AGE", "CPU%", "MEM", "RST", "CPU TREND", COMMAND])
    }

    fn row(&self, row: &ChildRow, now: procbroker_protocol::Timestamp) -> String {
        let since = row.started_at.unwrap_or(row.created_at);
        let told = |told: Option<String>| told.unwrap_or_else(|| "-".to_owned());
        self.line([
            &row.title,
            row.state.as_str(),
            &told(row.pid.map(|pid| pid.to_string())),
            &between(since, now),
            &told(row.cpu.map(|share| format!("{:.1}", 100.0 * share))),
            &told(row.memory.map(bytes)),
            &row.restarts.to_string(),
            &graph(row),
            last_of(row),
        ])
    }

    fn line(&self, [name, state, pid, age, cpu, memory, restarts, graph, command]: [&str; 9]) -> String {
        let mut line = left(name, self.name);
        for (text, (width, is_number)) in [state, pid, age, cpu, memory, restarts].into_iter().zip(MIDDLE) {
            line.push(' ');
            line.push_str(&if is_number { right(text, width) } else { left(text, width) });
        }
        if self.graph > 0 {
            line.push_str("  ");
            line.push_str(&left(graph, self.graph));
        }
        line.push_str("  ");
        line.push_str(command);
        line
    }
}

/// What is said of a child in the last column: how it ended, what it says of itself, or its command.
fn last_of(row: &ChildRow) -> &str {
    match (&row.exit, row.state) {
        (Some(exit), ChildState::Ended) => row.failed_cleanup.as_ref().unwrap_or(exit),
        (_, _) => row.status_text.as_ref().unwrap_or(&row.command),
    }
}

fn left(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let room = width.saturating_sub(text.width());
    text + &" ".repeat(room)
}

fn right(text: &str, width: usize) -> String {
    let text = cut(text, width);
    " ".repeat(width.saturating_sub(text.width())) + &text
}

/// What a child had of a processor lately, a bar for each second.
fn graph(row: &ChildRow) -> String {
    let room = HISTORY.saturating_sub(row.history.len());
    let bars = row.history.iter().map(|share| {
        let eighth = BARS.iter().zip(1_u32..).find(|(_, place)| *share * 8.0 <= f64::from(*place));
        eighth.map_or('█', |(bar, _)| *bar)
    });
    std::iter::repeat_n(' ', room).chain(bars).collect()
}

/// An amount of memory in at most five characters.
fn bytes(amount: u64) -> String {
    let mut rest = amount;
    let mut tenths = 0;
    for unit in ["B", "K", "M", "G", "T"] {
        if rest < 1024 {
            return if rest < 10 && unit != "B" {
                format!("{rest}.{tenths}{unit}")
            } else {
                format!("{rest}{unit}")
            };
        }
        tenths = (rest % 1024) * 10 / 1024;
        rest /= 1024;
    }
    format!("{rest}P")
}

fn table(canvas: &mut Canvas<'_>, model: &Model, visible: &[&ChildRow], columns: &Columns, height: u16) {
    if visible.is_empty() {
        let nothing = if model.filter.is_empty() {
            "no child is alive; start one with 'procbroker create -- COMMAND'"
        } else {
            "no child has this text; Esc shows all"
        };
        return canvas.line(2, nothing, Style::new());
    }
    let selected = model.selected_place(visible);
    // Whole pages, so that rows keep their places while the selection moves.
    let page = usize::from(height.max(1));
    let first = selected / page * page;
    for (y, (place, row)) in (0..height).zip(visible.iter().enumerate().skip(first)) {
        let style = if place == selected {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            style_of(row.state)
        };
        canvas.line(2 + y, &columns.row(row, model.now), style);
    }
}

fn style_of(state: ChildState) -> Style {
    match state {
        ChildState::Running => Style::new(),
        ChildState::Starting => Style::new().fg(Color::Cyan),
        ChildState::Stopping | ChildState::Cleaning => Style::new().fg(Color::Yellow),
        ChildState::Backoff => Style::new().fg(Color::Magenta),
        ChildState::Ended => Style::new().fg(Color::DarkGray).add_modifier(Modifier::DIM),
    }
}

/// The selected child: how it ended last, its labels, and the end of its output.
fn output(canvas: &mut Canvas<'_>, model: &Model, top: u16, height: u16) {
    let Some(row) = model.selected() else { return };
    let (what, other) = match model.stream {
        LogStream::Stdout => ("output", "standard error"),
        LogStream::Stderr => ("standard error", "output"),
    };
    let mut title = vec![format!("── {what} of {}", row.title)];
    title.extend(
        (model.below > 0)
            .then(|| format!("{} more below (PgDn)", counted::counted(model.below, "line", "lines"))),
    );
    title.extend(model.has_two().then(|| format!("e: {other}")));
    title.extend(row.exit.as_ref().map(|exit| format!("last exit {exit}")));
    title.extend(row.labels.iter().cloned());
    title.push("──".to_owned());
    canvas.line(top, &title.join("  "), Style::new().fg(Color::Cyan));
    let room = height.saturating_sub(1);
    let Some(lines) = model.log() else {
        return canvas.line(top + 1, "its output is being asked for", Style::new());
    };
    if lines.is_empty() {
        return canvas.line(top + 1, "it has written nothing", Style::new());
    }
    let end = lines.len().saturating_sub(model.below);
    let first = end.saturating_sub(usize::from(room));
    for (y, line) in (0..room).zip(lines.iter().skip(first)) {
        canvas.line(top + 1 + y, line, Style::new());
    }
}

fn footer(canvas: &mut Canvas<'_>, model: &Model, y: u16) {
    let text = match (&model.mode, &model.notice) {
        (Mode::Filter, _) => format!("filter: {}_", model.filter),
        (Mode::Confirm { question, .. }, _) => question.clone(),
        (Mode::Signal { title, text, .. }, _) => format!("signal to {title}, such as HUP: {text}_"),
        (Mode::Browse | Mode::Help, Some(notice)) => notice.clone(),
        (Mode::Browse | Mode::Help, None) => KEYS.to_owned(),
    };
    canvas.line(y, &text, Style::new().add_modifier(Modifier::BOLD));
}

fn help(canvas: &mut Canvas<'_>) {
    for (y, line) in (0_u16..).zip(HELP) {
        canvas.line(y, line, Style::new());
    }
}
