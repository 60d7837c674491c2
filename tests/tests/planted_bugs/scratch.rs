//! A copy of the workspace with only the state machine and its simulator, in which bugs are planted.
//!
//! It stays below `target`, so that the next run builds what has changed only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::planted::Planted;

/// The tests crate, without anything but the simulator.
const MANIFEST: &str = r#"[package]
name = "procbroker-tests"
version.workspace = true
edition.workspace = true

[dependencies]
fastrand.workspace = true
procbroker-core.workspace = true
procbroker-protocol.workspace = true
uuid.workspace = true
"#;

/// What speeds up many small builds: a simulator that is not optimized finds its bug sooner than it would be optimized.
const PROFILE: &str = r"
[profile.dev]
opt-level = 0
debug = false
";

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace").to_path_buf()
}

/// The copy.
pub(crate) struct Scratch {
    folder: PathBuf,
    /// The files of the copy, without a bug.
    files: BTreeMap<PathBuf, String>,
}

/// What the simulator said.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It ran all seeds and found nothing.
    Nothing,
    /// It found something.
    Found { seed: u64, check: String },
    /// It did not get so far.
    Broken { output: String },
}

impl Scratch {
    /// A copy of the workspace as it is.
    pub(crate) fn new() -> Self {
        let root = root();
        let mut files = BTreeMap::new();
        for part in
            ["protocol/Cargo.toml", "broker/core/Cargo.toml", "Cargo.lock", "tests/tests/simulator.rs"]
        {
            files.insert(PathBuf::from(part), read(&root.join(part)));
        }
        for folder in ["protocol/src", "broker/core/src", "tests/src"] {
            collect(&root, Path::new(folder), &mut files);
        }
        files.insert("tests/src/lib.rs".into(), "//! The simulator alone.\npub mod sim;\n".to_owned());
        files.insert("tests/Cargo.toml".into(), MANIFEST.to_owned());
        files.insert("Cargo.toml".into(), manifest(&read(&root.join("Cargo.toml"))));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
        Self { folder, files }
    }

    /// The source of a file, without a bug.
    pub(crate) fn source(&self, file: &str) -> &str {
        self.files.get(Path::new(file)).unwrap_or_else(|| panic!("there is no {file} in the copy"))
    }

    /// Builds the copy, with one of its files changed, and answers with its simulator, which the next build leaves alone.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn build(&self, change: Option<(&Planted, &str)>) -> Result<PathBuf, String> {
        let changed = change.map(|(bug, text)| (Path::new(&bug.file), text));
        for (path, text) in &self.files {
            let text = changed.filter(|(file, _)| file == path).map_or(text.as_str(), |(_, text)| text);
            write_if_other(&self.folder.join(path), text);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["test", "--offline", "--quiet", "--test", "simulator", "--no-run"])
            .args(["--target-dir", "target", "--message-format", "json-render-diagnostics"])
            .current_dir(&self.folder)
            .env("CARGO_INCREMENTAL", "1")
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .expect("cargo runs");
        let name = change.map_or("nothing", |(bug, _)| &bug.name);
        let Some(built) = output.status.success().then(|| executable(&output.stdout)).flatten() else {
            return Err(format!("{name}: cannot be built:\n{}", String::from_utf8_lossy(&output.stderr)));
        };
        let kept = self.folder.join("built").join(name);
        fs::create_dir_all(self.folder.join("built")).expect("the copy's folder");
        fs::copy(&built, &kept).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        Ok(kept)
    }
}

/// What cargo says that it has built.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = String::from_utf8_lossy(messages);
    messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    })
}

/// Runs a simulator over so many seeds, and removes it.
pub(crate) fn run(simulator: &Path, seeds: u64) -> Verdict {
    let output = Command::new(simulator)
        .args(["seeds::every_seed_keeps_every_promise", "--exact"])
        .env("PROCBROKER_SEEDS", seeds.to_string())
        .env("RUST_BACKTRACE", "0")
        .env_remove("PROCBROKER_SEED")
        .env_remove("PROCBROKER_FIRST_SEED")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", simulator.display()));
    fs::remove_file(simulator).expect("a simulator that has run");
    if output.status.success() {
        return Verdict::Nothing;
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    finding(&text).unwrap_or(Verdict::Broken { output: text })
}

/// What the simulator's last words say.
fn finding(output: &str) -> Option<Verdict> {
    let (_, words) = output.split_once("the simulator found, with PROCBROKER_SEED=")?;
    let (seed, words) = words.split_once(":\n")?;
    let (check, _) = words.split_once(": ")?;
    Some(Verdict::Found { seed: seed.parse().ok()?, check: check.to_owned() })
}

/// The root's manifest, for three members.
fn manifest(root: &str) -> String {
    let lines = root.lines().map(|line| {
        if line.starts_with("members = ") {
            "members = [\"protocol\", \"broker/core\", \"tests\"]"
        } else {
            line
        }
    });
    let kept: Vec<&str> = lines.collect();
    let text = kept.join("\n");
    let (before, _) = text.split_once("[profile.").unwrap_or((&text, ""));
    format!("{before}{PROFILE}")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder of the workspace") {
        let entry = entry.expect("an entry");
        let path = folder.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            collect(root, &path, files);
        } else {
            files.insert(path.clone(), read(&root.join(&path)));
        }
    }
}

/// A file that stays as it is keeps its time, so that nothing is built anew for it.
fn write_if_other(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("the copy's folder");
    fs::write(path, text).expect("the copy");
}
