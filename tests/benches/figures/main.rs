//! What the broker reaches beside the bare system calls that do the same work in the same run, as one table.
//!
//! `cargo build --release -p procbroker && cargo bench -p procbroker-tests --bench figures -- [--quick] [ROW]...`
//!
//! The brokers keep their state in memory (`/dev/shm`), or below TMPDIR where that is set, so that another file system can be
//! tried. ext4 is slow to make files for some minutes after thousands were removed, for whoever makes them: a run then
//! differs from the first one.

mod bare;
mod broker;
mod connection;
mod failure;
mod figure;
mod hello;
mod in_turn;
mod interrupt;
mod limits;
mod orphans;
mod peer;
mod population;
mod rows;
mod scene;
mod table;
mod together;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use failure::Failure;
use figure::Figure;
use peer::Answers;
use rows::Row;
use scene::{Effort, Scene};

/// Measures the broker beside bare system calls.
#[derive(Debug, Parser)]
#[command(name = "figures")]
struct Arguments {
    /// What to measure [default: everything]
    #[arg(value_enum, value_name = "ROW")]
    rows: Vec<Row>,
    /// Fewer rounds
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of a table: seconds, per second, bytes
    #[arg(long)]
    json: bool,
    /// One more argument of `procbroker serve`, such as --containment=subreaper; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    serve: Vec<String>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the other end of a bare socket.
    #[arg(long, hide = true, value_name = "SOCKET")]
    peer: Option<PathBuf>,
    /// What to send for each line, instead of an echo.
    #[arg(long, hide = true, value_name = "FILE", requires = "peer")]
    peer_answer: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.peer {
        Some(socket) => {
            let answers = arguments.peer_answer.clone().map_or(Answers::Echo, Answers::File);
            peer::serve(socket, &answers).map(|()| ExitCode::SUCCESS)
        }
        None => run(&arguments),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("figures: {failure}");
        ExitCode::FAILURE
    })
}

/// Measures row by row. One that fails takes its figures with it, and no other's.
fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    interrupt::catch()?;
    orphans::catch()?;
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let scene = Scene::new(effort, arguments.serve.clone())?;
    let rows = if arguments.rows.is_empty() { Row::value_variants() } else { &arguments.rows };
    let mut figures: Vec<Figure> = Vec::new();
    let mut failures = 0;
    for row in rows {
        interrupt::check()?;
        eprintln!("measuring {row:?} ...");
        match row.measure(&scene) {
            Ok(more) => figures.extend(more),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => {
                eprintln!("figures: no figure for {row:?}: {failure}");
                failures += 1;
            }
        }
    }
    if arguments.json {
        println!("{:#}", table::as_json(&figures));
    } else {
        println!("{}\n{}", heading(&scene), table::render(&figures));
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn heading(scene: &Scene) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let mut lines = vec![format!(
        "Linux {}, {processors} processors, load at the end {load}; medians of {} rounds ({} of the long rows), ours and the bare \
         calls in turn; spread: lowest .. highest round; bare spawn: {:?}; scratch folder below {}",
        kernel.trim(),
        scene.effort.rounds(),
        scene.effort.long_rounds(),
        scene.facilities.method,
        scene::scratch().display(),
    )];
    lines.extend(limits::remark(scene.crowd));
    lines.join("\n")
}
