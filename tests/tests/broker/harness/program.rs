//! Where the program under test is.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program `procbroker`, of the same profile as this test.
///
/// `$PROCBROKER_BIN` names another one. Otherwise it is built: cargo builds the programs of a package for
/// the tests of that package alone, and these stand in another one.
pub(crate) fn procbroker() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os("PROCBROKER_BIN").map_or_else(build, PathBuf::from))
}

/// Builds it once in a test run. The processes of one run (cargo-nextest has one for each test) know each
/// other by the run's id, which the first leaves in a file that serves as their lock too.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/broker-0123456789abcdef
    let folder = test.parent().and_then(Path::parent).expect("the folder of the profile");
    let program = folder.join("procbroker");
    let run = env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("process {}", std::process::id()));
    let built_for = folder.join("procbroker.built-for-tests");
    let lock = File::options().create(true).append(true).open(&built_for).expect("the lock of the build");
    lock.lock().expect("the lock of the build");
    if fs::read_to_string(&built_for).is_ok_and(|built| built == run) && program.exists() {
        return program;
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "procbroker", "--bin", "procbroker"]);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    command.arg("--target-dir").arg(folder.parent().expect("the target folder"));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound && program.exists() => return program,
        Err(error) => panic!("cannot run cargo to build the program: {error}; name one in PROCBROKER_BIN"),
    };
    assert!(output.status.success(), "building the program: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(&built_for, run).expect("the lock of the build");
    program
}

/// The program at a path that every user can reach: that of the checkout may be closed to them.
pub(crate) fn procbroker_in(folder: &Path) -> PathBuf {
    let program = folder.join("procbroker");
    if !program.exists() && fs::hard_link(procbroker(), &program).is_err() {
        // Another file system.
        fs::copy(procbroker(), &program).expect("a copy of the program");
    }
    program
}
