//! What every row works with: a scratch folder, the child's program, the broker's binary, and how much to measure.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use procbroker::os::spawn::SpawnFacilities;
use tempfile::TempDir;

use crate::failure::{Attempt, Failure};
use crate::limits;

const CHILD_SOURCE: &str = include_str!("child.c");

/// The name of the child's program, by which a child that was left behind is known.
pub(crate) const CHILD_NAME: &str = "figures-child";

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For a first look.
    Quick,
    /// For figures to be quoted.
    Full,
}

impl Effort {
    /// How often ours and what it is set beside are measured in turn.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Quick => 3,
            Self::Full => 9,
        }
    }

    /// The same for rounds that take seconds.
    pub(crate) fn long_rounds(self) -> usize {
        match self {
            Self::Quick => 1,
            Self::Full => 5,
        }
    }

    /// How many single requests are timed in a round.
    pub(crate) fn samples(self) -> usize {
        match self {
            Self::Quick => 100,
            Self::Full => 300,
        }
    }
}

/// Where the rows are measured. Its folder is removed with it.
#[derive(Debug)]
pub(crate) struct Scene {
    folder: TempDir,
    child: PathBuf,
    binary: PathBuf,
    /// Arguments of the broker beside those that every row needs.
    pub(crate) serve: Vec<String>,
    pub(crate) facilities: SpawnFacilities,
    pub(crate) effort: Effort,
    /// How many children this machine can hold beside each other, at most 10,000.
    pub(crate) crowd: usize,
}

impl Scene {
    pub(crate) fn new(effort: Effort, serve: Vec<String>) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("procbroker-figures-")
            .tempdir_in(scratch())
            .attempting("make a scratch folder")?;
        let binary = find_binary()?;
        let child = compile_child(folder.path())?;
        let facilities = SpawnFacilities::probe()
            .map_err(|error| Failure::unexpected("find the fastest way to spawn", error.to_string()))?;
        let crowd = limits::crowd()?;
        Ok(Self { folder, child, binary, serve, facilities, effort, crowd })
    }

    /// A new folder inside the scratch folder.
    pub(crate) fn subfolder(&self) -> Result<PathBuf, Failure> {
        let made = tempfile::Builder::new().prefix("r").tempdir_in(self.folder.path());
        Ok(made.attempting("make a folder for a broker")?.keep())
    }

    /// A path inside the scratch folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The command line of a child, which says hello through this FIFO if there is one.
    pub(crate) fn child_command(&self, hello: Option<&Path>) -> Vec<String> {
        let parts = [Some(self.child.as_path()), hello];
        parts.into_iter().flatten().map(|path| path.to_string_lossy().into_owned()).collect()
    }
}

/// Where the scratch folder is made: below TMPDIR where that is set, else in memory. Files on a disk get slower as thousands
/// are made and removed, so that two runs could not be compared.
pub(crate) fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match env::var_os("TMPDIR") {
        None if memory.is_dir() => memory.to_owned(),
        None | Some(_) => env::temp_dir(),
    }
}

/// The release binary: cargo puts benchmarks into the folder `deps` beside it.
fn find_binary() -> Result<PathBuf, Failure> {
    let attempt = "find the broker's binary";
    let candidate = if let Some(path) = env::var_os("PROCBROKER_BIN") {
        PathBuf::from(path)
    } else {
        let own = env::current_exe().attempting(attempt)?;
        own.ancestors().nth(2).unwrap_or(Path::new("/")).join("procbroker")
    };
    if candidate.is_file() {
        return Ok(candidate);
    }
    let advice = "run 'cargo build --release -p procbroker' first, or set PROCBROKER_BIN";
    Err(Failure::unexpected(attempt, format!("there is no {}; {advice}", candidate.display())))
}

fn compile_child(folder: &Path) -> Result<PathBuf, Failure> {
    let [source, program] = ["child.c", CHILD_NAME].map(|name| folder.join(name));
    fs::write(&source, CHILD_SOURCE).attempting("write the source of the child")?;
    let attempt = "compile the child with cc (a C compiler is needed, such as the package gcc)";
    let output = Command::new("cc")
        .args(["-static", "-O2", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-o"])
        .args([&program, &source])
        .output()
        .attempting(attempt)?;
    if output.status.success() {
        return Ok(program);
    }
    Err(Failure::unexpected(attempt, String::from_utf8_lossy(&output.stderr)))
}
