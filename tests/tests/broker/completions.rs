//! The scripts that complete in a shell, as the shells themselves read them.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::children::{willing, with};
use crate::harness::{Said, TestBroker, procbroker};

/// What a shell says, where it is installed.
fn said_by(shell: &mut Command) -> Option<Said> {
    match shell.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: {} is not installed", shell.get_program().display());
            None
        }
        output => Some(Said::from(output.expect("the shell"))),
    }
}

/// Has a shell read its script without running it: with these flags it does no more than that.
fn is_read_by(shell: &str, flags: &[&str]) {
    let printed = Said::by(Command::new(procbroker()).args(["completions", shell]));
    assert_eq!((printed.status, printed.err.as_str()), (0, ""), "{printed:?}");
    let folder = tempfile::tempdir().expect("a scratch folder");
    let script = folder.path().join("script");
    std::fs::write(&script, &printed.out).expect("the script");
    let Some(said) = said_by(Command::new(shell).args(flags).arg(&script)) else { return };
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "", ""), "{said:?}");
    // One that lacks its end is not.
    std::fs::write(&script, printed.out + "\necho \"").expect("the script");
    let said = said_by(Command::new(shell).args(flags).arg(&script)).expect("the same shell");
    assert_ne!(said.status, 0, "{said:?}");
}

#[test]
fn bash_finds_nothing_wrong_with_its_script() {
    is_read_by("bash", &["--norc", "-n"]);
}

#[test]
fn zsh_finds_nothing_wrong_with_its_script() {
    is_read_by("zsh", &["-f", "-n"]);
}

#[test]
fn fish_finds_nothing_wrong_with_its_script() {
    is_read_by("fish", &["--no-config", "--no-execute"]);
}

#[test]
fn fish_completes_the_names_of_children() {
    let broker = TestBroker::start();
    for name in ["render-1", "render-2", "mail"] {
        broker.json().create(with(willing(), &json!({"name": name})));
    }
    // Its rules ask the program of that name.
    std::os::unix::fs::symlink(procbroker(), broker.path("procbroker")).expect("a link");
    let path = std::env::var("PATH").expect("a search path");
    let script = "procbroker completions fish | source; complete --do-complete='procbroker rm render'";
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "--command", script])
        .env("PATH", format!("{}:{path}", broker.folder().display()))
        .env("HOME", Path::new("/nonexistent"))
        .env("PROCBROKER_SOCKET", broker.socket());
    let Some(said) = said_by(&mut fish) else { return };
    assert_eq!((said.status, said.out.as_str()), (0, "render-1\nrender-2\n"), "{said:?}");
}
