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

#[test]
fn zsh_is_given_a_name_with_a_colon_as_one_word() {
    let broker = TestBroker::start();
    for name in ["web:8080", "mail"] {
        broker.json().create(with(willing(), &json!({"name": name})));
    }
    std::os::unix::fs::symlink(procbroker(), broker.path("procbroker")).expect("a link");
    let path = std::env::var("PATH").expect("a search path");
    // To _describe of zshcompsys(1), a colon that has no backslash ends the word.
    let script = "_call_program() { shift; \"$@\" }
        compdef() {}
        _describe() { print -rl -- ${(P)4} }
        source <(procbroker completions zsh)
        _procbroker_children";
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", script])
        .env("PATH", format!("{}:{path}", broker.folder().display()))
        .env("PROCBROKER_SOCKET", broker.socket());
    let Some(said) = said_by(&mut zsh) else { return };
    assert_eq!((said.status, said.out.as_str()), (0, "web\\:8080\nmail\n"), "{said:?}");
}

/// What bash would put in the place of what it completes, for a line with its cursor at the end: with the words as bash
/// itself takes the line apart, and the one that it completes.
fn bash_completes(broker: &TestBroker, words: &[&str], completed: &str) -> String {
    let line: String = words.concat();
    let quoted: Vec<String> = words
        .iter()
        .map(|word| word.trim_start())
        .chain(line.ends_with(' ').then_some(""))
        .filter(|word| !word.is_empty() || line.ends_with(' '))
        .map(|word| format!("'{word}'"))
        .collect();
    let script = format!(
        "source <(procbroker completions bash); compopt() {{ :; }}
         COMP_LINE='{line}' COMP_POINT={} COMP_WORDS=({}) COMP_CWORD={}
         _procbroker_or_ask procbroker '{completed}' x; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.len(),
        quoted.join(" "),
        quoted.len() - 1
    );
    let path = std::env::var("PATH").expect("a search path");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script])
        .env("PATH", format!("{}:{path}", broker.folder().display()))
        .env("PROCBROKER_SOCKET", broker.socket());
    let said = Said::by(&mut bash);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{said:?}");
    said.out
}

#[test]
fn bash_completes_what_has_an_equals_sign_or_a_colon_as_one_word() {
    let broker = TestBroker::start();
    for name in ["web:8080", "mail"] {
        broker.json().create(with(willing(), &json!({"name": name})));
    }
    std::os::unix::fs::symlink(procbroker(), broker.path("procbroker")).expect("a link");
    let completes = |words: &[&str], completed: &str| bash_completes(&broker, words, completed);
    // A line is given by the words that bash makes of it.
    assert_eq!(completes(&["procbroker", " get", " "], ""), "web:8080\nmail\n");
    assert_eq!(completes(&["procbroker", " get", " we"], "we"), "web:8080\n");
    assert_eq!(completes(&["procbroker", " get", " web", ":"], ""), "8080\n");
    assert_eq!(completes(&["procbroker", " get", " web", ":", "80"], "80"), "8080\n");
    assert_eq!(completes(&["procbroker", " get", " \"web:8"], "web:8"), "web:8080\n");
    // No child is a value of a label.
    assert_eq!(completes(&["procbroker", " stop", " --label", " pool", "="], ""), "\n");
    assert_eq!(completes(&["procbroker", " stop", " --label", " pool", "=", "x", " ma"], "ma"), "mail\n");
    let socket = broker.socket().to_str().expect("a path of text");
    let named = ["procbroker", " --socket", "=", socket, " get", " ma"];
    assert_eq!(completes(&named, "ma"), "mail\n");
    let none = ["procbroker", " --socket", "=", "/nowhere", " get", " ma"];
    assert_eq!(completes(&none, "ma"), "\n");
}

#[test]
fn bash_completes_the_command_that_is_to_be_started() {
    let broker = TestBroker::start();
    std::os::unix::fs::symlink(procbroker(), broker.path("procbroker")).expect("a link");
    let completes = |words: &[&str], completed: &str| bash_completes(&broker, words, completed);
    for verb in [" create", " run"] {
        let commands = completes(&["procbroker", verb, " --", " procbro"], "procbro");
        assert!(commands.lines().any(|command| command == "procbroker"), "{commands}");
        // The rest is the command's own: bash offers files.
        assert_eq!(completes(&["procbroker", verb, " --", " sleep", " pro"], "pro"), "\n");
    }
}
