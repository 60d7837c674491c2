//! The list of many children: in JSON to a Python client, and in the binary encoding to the Rust client.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use procbroker_client::Select;
use procbroker_protocol::binary::encode_answer;
use procbroker_protocol::{CreateParams, Response};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};

use super::thousands;
use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Spread, Unit};
use crate::peer::{Answers, Peer};
use crate::population::create_many;
use crate::scene::Scene;

const PARSED_RATIO_MAX: f64 = 1.3;
const BINARY_MAX_SECONDS: f64 = 0.008;
/// Lists in one round.
const LISTS: u32 = 20;
const PYTHON_CLIENT: &str = include_str!("../list.py");

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let mut figures = json_figures(scene, scene.crowd.min(1_000))?;
    figures.extend(binary_figures(scene, scene.crowd)?);
    Ok(figures)
}

/// A runtime for the asynchronous client, on this thread.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().attempting("make a runtime for the client")
}

fn json_figures(scene: &Scene, children: usize) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    create_many(&broker, &CreateParams::new(scene.child_command(None)), children)?;
    let answer = scene.path("list.json");
    let length = save_json_list(broker.socket(), &answer)?;
    let [mut received, mut parsed] = [Vec::new(), Vec::new()];
    for _ in 0..scene.effort.rounds() {
        let peer = Peer::start(scene, &Answers::File(answer.clone()))?;
        let beside = ask_in_python(peer.socket(), children)?;
        let ours = ask_in_python(broker.socket(), children)?;
        received.push(Pair { ours: ours.received, beside: beside.received });
        parsed.push(Pair { ours: ours.parsed, beside: beside.parsed });
    }
    broker.stop()?;
    let work = format!("list of {}, JSON to Python", thousands(children));
    let bare = "the same bytes from a bare socket";
    Ok(vec![
        Figure::beside(format!("{work}, received"), Unit::Time, bare, &received)
            .note(format!("{length} bytes")),
        Figure::beside(format!("{work}, received and parsed"), Unit::Time, bare, &parsed)
            .goal(Goal::RatioAtMost(PARSED_RATIO_MAX)),
    ])
}

/// Keeps the broker's answer, so that a bare socket can give the same; says how long it is.
fn save_json_list(socket: &Path, file: &Path) -> Result<usize, Failure> {
    let attempt = "ask for a list in JSON";
    let mut stream = UnixStream::connect(socket).attempting(attempt)?;
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n").attempting(attempt)?;
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).attempting(attempt)?;
    fs::write(file, &line).attempting("keep a list in JSON")?;
    Ok(line.len())
}

/// What the Python client prints.
#[derive(Deserialize)]
struct Times {
    received: Vec<f64>,
    parsed: Vec<f64>,
}

/// Medians, in seconds.
struct Asked {
    received: f64,
    parsed: f64,
}

fn ask_in_python(socket: &Path, children: usize) -> Result<Asked, Failure> {
    let attempt = "ask for a list from Python (python3 is needed)";
    let output = Command::new("python3")
        .args(["-c", PYTHON_CLIENT])
        .arg(socket)
        .args([LISTS.to_string(), children.to_string()])
        .output()
        .attempting(attempt)?;
    if !output.status.success() {
        return Err(Failure::unexpected(attempt, String::from_utf8_lossy(&output.stderr)));
    }
    let times: Times = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::unexpected(attempt, error.to_string()))?;
    let [received, parsed] = [times.received, times.parsed].map(|values| Spread::of(&values).median);
    Ok(Asked { received, parsed })
}

fn binary_figures(scene: &Scene, children: usize) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    create_many(&broker, &CreateParams::new(scene.child_command(None)), children)?;
    let mut connection = broker.connect()?;
    let listed = connection.list()?;
    if listed.len() != children {
        return Err(Failure::unexpected("list all children", format!("there are {}", listed.len())));
    }
    let answer = scene.path("list.bin");
    let mut bytes = Vec::new();
    encode_answer(Some(1), &Ok(Response::Children(listed)), &mut bytes);
    fs::write(&answer, &bytes).attempting("keep a list in the binary encoding")?;

    let runtime = runtime()?;
    let failed = |source| Failure::Client { attempt: "list all children".into(), source: Box::new(source) };
    let client = runtime.block_on(procbroker_client::Broker::at(broker.socket())).map_err(failed)?;
    let peer = Peer::start(scene, &Answers::File(answer))?;
    let mut stream = peer.connect()?;
    let mut rounds = Vec::new();
    for _ in 0..scene.effort.rounds() {
        let [mut bare, mut ours] = [Vec::new(), Vec::new()];
        for _ in 0..LISTS {
            bare.push(receive(&mut stream, &mut bytes)?);
            let begin = Instant::now();
            let list = runtime.block_on(client.list(&Select::default())).map_err(failed)?;
            ours.push(begin.elapsed().as_secs_f64());
            drop(list);
        }
        rounds.push(Pair { ours: Spread::of(&ours).median, beside: Spread::of(&bare).median });
    }
    drop((connection, client));
    broker.stop()?;
    let work = format!("list of {}, binary, Rust client", thousands(children));
    Ok(vec![
        Figure::beside(work, Unit::Time, "the same bytes from a bare socket", &rounds)
            .goal(Goal::AtMost(BINARY_MAX_SECONDS))
            .note(format!("{} bytes; the bare side does not decode them", bytes.len())),
    ])
}

/// Asks a bare peer, and reads as many bytes as there is room for. In seconds.
fn receive(stream: &mut UnixStream, bytes: &mut [u8]) -> Result<f64, Failure> {
    let begin = Instant::now();
    stream.write_all(b"\n").attempting("write to a bare socket")?;
    std::io::Read::read_exact(stream, bytes).attempting("read from a bare socket")?;
    Ok(begin.elapsed().as_secs_f64())
}
