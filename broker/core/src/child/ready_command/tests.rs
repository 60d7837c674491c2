//! The table of [`super`], asked cell by cell.

use std::collections::BTreeMap;

use procbroker_protocol::ExitStatus;
use procbroker_protocol::error::SpawnFailure;

use super::CommandStage;
use crate::child::tests::Life;
use crate::input::Members;

/// How a command came to where it is: its inputs.
type Way = &'static [&'static str];

/// The columns of the table.
const COLUMNS: [Way; 7] = [
    &[],
    &["enqueue"],
    &["enqueue", "start"],
    &["enqueue", "start", "cut short"],
    &["enqueue", "start", "spawned"],
    &["enqueue", "start", "spawned", "cut short"],
    &["enqueue", "start", "spawned", "exited, leaving"],
];

/// What each input makes of each stage: a dash where it comes too early or too late and changes nothing, else the stage after it,
/// and what the command has found where nothing of it is left.
const TABLE: &str = "
                  | Idle     | Queued   | Spawning  | Unwanted  | Running   | Killing   | Clearing
enqueue           | Queued   | -        | -         | -         | -         | -         | -
start             | -        | Spawning | -         | -         | -         | -         | -
spawned           | -        | -        | Running   | Killing   | -         | -         | -
not spawned       | -        | -        | Idle(no)  | Idle(no)  | -         | -         | -
exited            | -        | -        | -         | -         | Idle(yes) | Idle(no)  | Idle(yes)
exited with 1     | -        | -        | -         | -         | Idle(no)  | Idle(no)  | Idle(yes)
exited, leaving   | -        | -        | -         | -         | Clearing  | Clearing  | Clearing
left              | -        | -        | -         | -         | -         | -         | Idle(yes)
left some         | -        | -        | -         | -         | -         | -         | -
due               | -        | -        | Unwanted  | -         | Killing   | Killing   | Clearing
end               | -        | Idle     | Unwanted  | -         | Killing   | -         | -
cut short         | -        | -        | Unwanted  | -         | Killing   | -         | -
resume            | Clearing | -        | -         | -         | -         | -         | -
resume nothing    | -        | -        | -         | -         | -         | -         | -
";

/// Gives the command an input, as its child does, and returns what it has found.
fn take(life: &mut Life, input: &str) -> Option<bool> {
    life.with(|child, orders| {
        let (command, common) = (&mut child.ready_command, &child.common);
        let (ok, not_ok) = (ExitStatus::Code(0), ExitStatus::Code(1));
        match input {
            "enqueue" => command.enqueue(common, orders),
            "start" => command.start(common, orders),
            "spawned" => command.spawned(common, orders),
            "not spawned" => {
                let (errno_name, step) = ("ENOENT".to_owned(), "exec".to_owned());
                let failure = SpawnFailure { errno: 2, errno_name, step };
                return command.not_spawned(&failure, common, orders);
            }
            "exited" => return command.exited(ok, Members::Nothing, common, orders),
            "exited with 1" => return command.exited(not_ok, Members::Nothing, common, orders),
            "exited, leaving" => return command.exited(ok, Members::Group, common, orders),
            "left" => return command.left(Members::Nothing, common, orders),
            "left some" => return command.left(Members::Outside, common, orders),
            "due" => command.due(common, orders),
            "end" => command.end(common, orders),
            "cut short" => command.cut_short(common, orders),
            "resume" => command.resume(Members::Outside, common, orders),
            "resume nothing" => command.resume(Members::Nothing, common, orders),
            other => panic!("there is no input {other}"),
        }
        None
    })
}

/// A command that has come so far.
fn after(way: Way) -> Life {
    let mut life = Life::new(&["recorded", "start", "spawned"]);
    for input in way {
        take(&mut life, input);
    }
    life.forget_effects();
    life
}

fn stage(life: &Life) -> &'static str {
    match life.child().ready_command.stage {
        CommandStage::Idle => "Idle",
        CommandStage::Queued => "Queued",
        CommandStage::Spawning => "Spawning",
        CommandStage::Unwanted => "Unwanted",
        CommandStage::Running => "Running",
        CommandStage::Killing { .. } => "Killing",
        CommandStage::Clearing { .. } => "Clearing",
    }
}

/// Says what an input makes of a command that has come so far.
fn cell(way: Way, input: &str) -> String {
    let mut life = after(way);
    let before = format!("{:?}", life.child());
    let found = take(&mut life, input);
    if format!("{:?}", life.child()) == before {
        assert_eq!(found, None, "{input} in {} says something and leaves no trace", stage(&life));
        assert_eq!(life.effects(), [], "{input} in {} orders something and leaves no trace", stage(&life));
        return "-".to_owned();
    }
    let found = found.map_or("", |is_ready| if is_ready { "(yes)" } else { "(no)" });
    format!("{}{found}", stage(&life))
}

#[test]
fn every_stage_answers_every_input_as_the_table_says() {
    let rows = TABLE.trim_start_matches('\n').lines();
    let found: Vec<String> = rows
        .map(|row| {
            let input = row.split('|').next().unwrap_or_default().trim();
            let cells = COLUMNS.map(|way| match input {
                "" => stage(&after(way)).to_owned(),
                input => cell(way, input),
            });
            format!("{input} | {}", cells.join(" | "))
        })
        .collect();
    let squeezed = |table: &str| table.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = found.join("\n");
    assert_eq!(squeezed(&found), squeezed(TABLE), "the table that was found:\n{found}");
}

#[test]
fn the_table_that_people_read_leaves_out_nothing_that_happens() {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut asked: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for row in TABLE.trim_start_matches('\n').lines().skip(1).map(cells) {
        let input = row[0].split([' ', ',']).next().unwrap_or_default();
        let input = if ["cut", "not"].contains(&input) { row[0].replace(' ', "_") } else { input.to_owned() };
        asked.entry(input).or_default().push(row);
    }
    let read = include_str!("../ready_command.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<_> = read.map(|line| cells(line.trim_end_matches('|'))).collect();
    assert_eq!(rows[0][1..], cells(TABLE.trim_start_matches('\n').lines().next().expect("a head"))[1..]);
    for row in &rows[2..] {
        let found = asked.remove(row[0].trim_matches('`')).unwrap_or_else(|| panic!("nobody asks {row:?}"));
        for (column, says) in row.iter().enumerate().skip(1) {
            let happens = found.iter().any(|row| row[column] != "-");
            assert_eq!(happens, says != "-", "{} in {}", row[0], rows[0][column]);
        }
    }
    assert!(asked.is_empty(), "the table says nothing of {:?}", asked.keys());
}
