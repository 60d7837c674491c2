//! The figures for people, as one table, and for programs, as JSON.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Value, json};

use crate::figure::{Figure, Goal, Spread, Unit};

/// The table, with a note below it for each line that has some.
pub(crate) fn render(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["", "work", "ours", "spread", "beside", "", "ratio", "spread", "goal", ""]);
    let mut notes = String::new();
    for (number, figure) in figures.iter().enumerate() {
        let number = (number + 1).to_string();
        for note in &figure.notes {
            notes.extend(["\n", &format!("{number:>3}"), "  ", note]);
        }
        table.add_row(line(number, figure));
    }
    for right in [0, 2, 4, 6] {
        if let Some(column) = table.column_mut(right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}{notes}")
}

fn line(number: String, figure: &Figure) -> [String; 10] {
    let unit = figure.unit;
    let (value, what, ratio, ratios) = figure.beside.as_ref().map_or_else(Default::default, |beside| {
        (
            quantity(unit, beside.value.median),
            beside.what.clone(),
            format!("{:.2}", beside.ratio.median),
            ends(beside.ratio, |ratio| format!("{ratio:.2}")),
        )
    });
    let mark = match figure.reached() {
        None => "",
        Some(true) => "pass",
        Some(false) => "MISS",
    };
    [
        number,
        figure.work.clone(),
        quantity(unit, figure.ours.median),
        ends(figure.ours, |value| quantity(unit, value)),
        value,
        what,
        ratio,
        ratios,
        figure.goal.map_or_else(String::new, |goal| goal_text(unit, goal)),
        mark.to_owned(),
    ]
}

fn ends(spread: Spread, text: impl Fn(f64) -> String) -> String {
    format!("{} .. {}", text(spread.lowest), text(spread.highest))
}

fn goal_text(unit: Unit, goal: Goal) -> String {
    match goal {
        Goal::RatioAtMost(most) => format!("<= {most} x"),
        Goal::RatioAtLeast(least) => format!(">= {least} x"),
        Goal::AtMost(most) => format!("<= {}", quantity(unit, most)),
    }
}

/// A value with its unit, in three digits or so.
pub(crate) fn quantity(unit: Unit, value: f64) -> String {
    let steps: &[(f64, &str)] = match unit {
        Unit::Time => &[(1e-6, "µs"), (1e-3, "ms"), (1.0, "s")],
        Unit::Rate => &[(1.0, "/s")],
        Unit::Bytes => &[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB")],
        Unit::Count => &[(1.0, "")],
    };
    let fits = |&&(size, _): &&(f64, &str)| value.abs() >= size;
    let (size, name) = steps.iter().rev().find(fits).or(steps.first()).copied().unwrap_or((1.0, ""));
    let scaled = value / size;
    let digits = match scaled.abs() {
        _ if unit == Unit::Count => 0,
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$} {name}").trim_end().to_owned()
}

/// The figures in plain units: seconds, per second, bytes.
pub(crate) fn as_json(figures: &[Figure]) -> Value {
    figures.iter().map(figure_json).collect()
}

fn figure_json(figure: &Figure) -> Value {
    let unit = match figure.unit {
        Unit::Time => "s",
        Unit::Rate => "1/s",
        Unit::Bytes => "B",
        Unit::Count => "1",
    };
    let beside = figure.beside.as_ref().map(|beside| {
        json!({ "what": beside.what, "value": spread_json(beside.value), "ratio": spread_json(beside.ratio) })
    });
    let goal = figure.goal.map(|goal| match goal {
        Goal::RatioAtMost(most) => json!({ "ratio_at_most": most }),
        Goal::RatioAtLeast(least) => json!({ "ratio_at_least": least }),
        Goal::AtMost(most) => json!({ "at_most": most }),
    });
    json!({
        "work": figure.work,
        "unit": unit,
        "ours": spread_json(figure.ours),
        "beside": beside,
        "goal": goal,
        "reached": figure.reached(),
        "notes": figure.notes,
    })
}

fn spread_json(spread: Spread) -> Value {
    json!({ "median": spread.median, "lowest": spread.lowest, "highest": spread.highest })
}
