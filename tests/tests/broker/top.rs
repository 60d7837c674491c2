//! `top` in a real terminal, that of tmux: driven by keys, and gone without a trace.

use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::command_line::{USAGE, failed};
use crate::harness::children::{stubborn, willing, with};
use crate::harness::{PATIENCE, Process, Said, TestBroker, await_death, procbroker};

/// A terminal of tmux's, in which a shell runs `top` and says how it has left the terminal.
struct Screen {
    socket: String,
    /// The server, and the shell in its one pane.
    processes: Vec<Process>,
}

impl Screen {
    fn open(broker: &TestBroker, columns: u16, lines: u16) -> Self {
        let script = format!(
            "before=$(stty -g); echo was here; {} top; echo \"left with $?\"; \
             [ \"$before\" = \"$(stty -g)\" ] && echo as before; exec sleep infinity",
            procbroker().display()
        );
        Self::with(broker, columns, lines, &script)
    }

    /// A shell that somebody types at, and that knows jobs.
    fn with_jobs(broker: &TestBroker) -> Self {
        Self::with(broker, 80, 24, "PS1='ready> ' exec bash --norc --noprofile -i")
    }

    fn with(broker: &TestBroker, columns: u16, lines: u16, script: &str) -> Self {
        let socket = broker.path("tmux").to_str().expect("a path of text").to_owned();
        let mut tmux = Command::new("tmux");
        tmux.args(["-S", &socket, "-f", "/dev/null", "new-session", "-d"]);
        tmux.args(["-x", &columns.to_string(), "-y", &lines.to_string(), script]);
        tmux.env("PROCBROKER_SOCKET", broker.socket()).env("SHELL", "/bin/sh").env("LC_ALL", "C.UTF-8");
        let said = Said::by(&mut tmux);
        assert_eq!(said.status, 0, "{said:?}");
        let said = tmux_says(&socket, &["display-message", "-p", "#{pid} #{pane_pid}"]);
        let processes =
            said.split_whitespace().map(|pid| Process::executing(pid.parse().expect("a pid"))).collect();
        Self { socket, processes }
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        tmux_says(&self.socket, arguments)
    }

    /// Types these keys, by tmux's names of them.
    fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// What can be seen as soon as that is so.
    fn shows(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let seen = self.tmux(&["capture-pane", "-p"]);
            if is_so(&seen) {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "it never shows {what}:\n{seen}");
        }
    }

    /// What can be seen as soon as a line of it has all of these words.
    fn has_line(&self, words: &[&str]) -> String {
        self.shows(&words.join(" "), |seen| {
            seen.lines().any(|line| words.iter().all(|word| line.contains(word)))
        })
    }

    /// The process of `top`.
    fn top(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let pid = std::fs::read_to_string(children).unwrap().trim().parse().expect("one child");
        Pid::from_raw(pid)
    }

    /// The terminal is the shell's again, as it was before.
    fn is_given_back(&self, status: i32) {
        let seen = self.has_line(&["as before"]);
        assert!(seen.contains("was here") && seen.contains(&format!("left with {status}\n")), "{seen}");
        assert!(!seen.contains("COMMAND"), "{seen}");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
        // What runs in it is told to end, and not waited for by the server.
        for process in self.processes.drain(..) {
            await_death(process);
        }
    }
}

fn tmux_says(socket: &str, arguments: &[&str]) -> String {
    let said = Said::by(Command::new("tmux").args(["-S", socket]).args(arguments));
    assert_eq!(said.status, 0, "{arguments:?}: {said:?}");
    said.out
}

/// Whether there is a tmux. It says so when not, because a skipped check should be seen.
fn has_tmux() -> bool {
    let is_there = Command::new("tmux").arg("-V").output().is_ok();
    if !is_there {
        eprintln!("skipped: tmux is not installed");
    }
    is_there
}

#[test]
fn children_come_and_go_and_are_stopped_by_keys() {
    if !has_tmux() {
        return;
    }
    for (columns, lines) in [(80, 24), (200, 60)] {
        let broker = TestBroker::start();
        let mut client = broker.json();
        client.create(with(willing(), &json!({"name": "one"})));
        let screen = Screen::open(&broker, columns, lines);
        screen.has_line(&["one", "running", "sleep infinity"]);
        client.create(json!({"name": "two", "command": ["sh", "-c", "echo it speaks; exec sleep infinity"]}));
        screen.has_line(&["two", "running"]);
        screen.types(&["Down", "Enter"]);
        screen.has_line(&["it speaks"]);
        screen.types(&["/", "one", "Enter"]);
        screen.shows("one alone", |seen| !seen.contains("two") && seen.contains("one"));
        screen.types(&["Enter", "Escape"]);
        screen.has_line(&["two", "running"]);
        screen.types(&["Home", "Down", "s"]);
        screen.has_line(&["stop two? (y/n)"]);
        screen.types(&["y"]);
        let exit = client.ok("wait", json!({"target": "two"}))["child"]["exit"].take();
        assert_eq!(exit["reason"], "destroyed");
        screen.has_line(&["two", "ended", "SIGTERM (destroyed)"]);
        screen.types(&["Home", "x", "usr1", "Enter"]);
        let exit = client.ok("wait", json!({"target": "one"}))["child"]["exit"].take();
        assert_eq!(exit["signal"], "SIGUSR1");
        screen.types(&["q"]);
        screen.is_given_back(0);
    }
}

/// Whether what is shown has its frame, with a child in each line between, from the top on: so no line is too long for the
/// screen, and none is left over. In the midst of being drawn it has not.
fn is_in_order(seen: &str, lines: u16) -> bool {
    const STATES: [&str; 5] = ["starting", "running", "stopping", "cleaning", "ended"];
    let shown: Vec<&str> = seen.lines().collect();
    let [first, titles, rows @ .., keys] = shown.as_slice() else { return false };
    let is_child = |row: &&&str| row.starts_with("crowd-") && STATES.iter().any(|state| row.contains(state));
    let count = rows.iter().take_while(is_child).count();
    let is_free = |row: &&str| row.is_empty() || row.starts_with("no child is alive");
    shown.len() == usize::from(lines)
        && first.contains("child")
        && titles.starts_with("NAME")
        && titles.ends_with("COMMAND")
        && keys.starts_with("Enter output")
        && rows[count..].iter().all(is_free)
}

#[test]
fn a_restart_by_a_key_tells_what_has_come_of_it() {
    if !has_tmux() {
        return;
    }
    let broker = TestBroker::start();
    let mut client = broker.json();
    let path = broker.path("may start");
    std::fs::write(&path, "").unwrap();
    let script = "test -e \"$0\" || exit 5; echo up; exec sleep infinity";
    client.create(json!({"name": "one", "command": ["sh", "-c", script, path], "ready": {"log": "up"}}));
    let screen = Screen::open(&broker, 120, 24);
    screen.has_line(&["one", "running"]);
    screen.types(&["r"]);
    screen.has_line(&["restart one? (y/n)"]);
    screen.types(&["y"]);
    screen.has_line(&["it was restarted"]);
    std::fs::remove_file(&path).unwrap();
    screen.types(&["r"]);
    screen.has_line(&["restart one? (y/n)"]);
    screen.types(&["y"]);
    screen.has_line(&["one has not come back: ended, exit code 5 (start_failed)"]);
}

#[test]
fn two_hundred_children_come_and_go_on_a_screen_of_any_size() {
    if !has_tmux() {
        return;
    }
    for (columns, lines) in [(80, 24), (200, 60)] {
        let broker = TestBroker::start();
        let mut client = broker.json();
        let screen = Screen::open(&broker, columns, lines);
        let shows = |what: &str| screen.shows(what, |seen| seen.contains(what) && is_in_order(seen, lines));
        shows("0 children");
        for round in 0..3 {
            let ids: Vec<u64> = (0..200)
                .map(|number| format!("crowd-{round}-{number:03}-{}", "x".repeat(60)))
                .map(|name| client.send("create", with(willing(), &json!({"name": name}))))
                .collect();
            // While they come.
            shows("child");
            for id in ids {
                client.answer(id).expect("a child");
            }
            shows("200 children: 200 running");
            screen.types(&["End"]);
            shows(&format!("\ncrowd-{round}-199"));
            let destroyed = client.send("destroy", json!({"target": {"all": true}}));
            // While they go.
            shows("child");
            client.answer(destroyed).expect("all destroyed");
            shows("0 children");
            screen.types(&["Home"]);
        }
        screen.types(&["q"]);
        screen.is_given_back(0);
    }
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    if !has_tmux() {
        return;
    }
    let mut broker = TestBroker::start();
    for (signal, status) in [(Signal::SIGTERM, 130), (Signal::SIGHUP, 130), (Signal::SIGINT, 130)] {
        let screen = Screen::open(&broker, 80, 24);
        screen.has_line(&["0 children"]);
        kill(screen.top(), signal).unwrap();
        screen.is_given_back(status);
    }
    // A broker that goes and comes again is no end.
    broker.json().create(with(willing(), &json!({"name": "one"})));
    let screen = Screen::open(&broker, 80, 24);
    screen.has_line(&["one", "running"]);
    broker.crash_and_start_again();
    broker.json().create(with(willing(), &json!({"name": "two"})));
    screen.has_line(&["two", "running"]);
    screen.types(&["C-c"]);
    screen.is_given_back(0);
}

#[test]
fn it_is_suspended_and_continued_as_any_job_of_a_shell() {
    if !has_tmux() {
        return;
    }
    let broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "one"})));
    let screen = Screen::with_jobs(&broker);
    screen.has_line(&["ready>"]);
    let program = procbroker().display().to_string();
    let types = |line: &str| screen.types(&[line, "Enter"]);
    // Each word is made of two, so that what is typed is none of what is waited for.
    let is_free = |word: &str| {
        types(&format!("[ \"$before\" = \"$(stty -g)\" ] && echo as be''{word}"));
        let seen = screen.has_line(&[&format!("as be{word}")]);
        assert!(!seen.contains("UPTIME") && !seen.contains("Enter output"), "{seen}");
    };
    types(&format!("before=$(stty -g); {program} top"));
    screen.has_line(&["one", "running"]);
    screen.types(&["C-z"]);
    screen.has_line(&["Stopped"]);
    is_free("fore-1");
    types("fg");
    screen.has_line(&["Enter output", "q quit"]);
    // By others, and by the signal that cannot be caught.
    for (signal, word) in [(Signal::SIGTSTP, "fore-2"), (Signal::SIGSTOP, "fore-3")] {
        kill(screen.top(), signal).unwrap();
        screen.has_line(&["ready>"]);
        types("clear");
        if signal == Signal::SIGTSTP {
            is_free(word);
        }
        types("fg");
        screen.has_line(&["Enter output", "q quit"]);
        screen.types(&["?"]);
        screen.has_line(&["any key goes back"]);
        screen.types(&["Escape"]);
        screen.has_line(&["one", "running"]);
    }
    screen.types(&["q"]);
    screen.has_line(&["ready>"]);
    is_free("fore-4");
}

#[test]
fn where_no_shell_could_continue_it_ctrl_z_says_so() {
    if !has_tmux() {
        return;
    }
    let broker = TestBroker::start();
    let screen = Screen::open(&broker, 80, 24);
    screen.has_line(&["0 children"]);
    screen.types(&["C-z"]);
    screen.has_line(&["no shell here that could continue it"]);
    kill(screen.top(), Signal::SIGTSTP).unwrap();
    screen.types(&["?"]);
    screen.has_line(&["any key goes back"]);
    screen.types(&["?", "q"]);
    screen.is_given_back(0);
}

#[test]
fn a_broker_that_does_not_answer_is_told_of_until_it_does() {
    if !has_tmux() {
        return;
    }
    let broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "one"})));
    let screen = Screen::open(&broker, 80, 24);
    screen.has_line(&["one", "running"]);
    broker.signal(Signal::SIGSTOP);
    screen.has_line(&["the broker does not answer"]);
    broker.signal(Signal::SIGCONT);
    screen.has_line(&["Enter output", "q quit"]);
    screen.types(&["q"]);
    screen.is_given_back(0);
}

#[test]
fn a_log_of_standard_error_is_shown_by_a_key_and_scrolled_by_pages() {
    if !has_tmux() {
        return;
    }
    let broker = TestBroker::start();
    let script = "echo to out; for n in $(seq 40); do echo to err $n >&2; done; exec sleep infinity";
    broker.json().create(json!({"name": "two", "stderr": "log", "command": ["sh", "-c", script]}));
    let screen = Screen::open(&broker, 80, 24);
    screen.has_line(&["two", "running"]);
    screen.types(&["Enter"]);
    screen.has_line(&["output of two", "e: standard error"]);
    screen.has_line(&["to out"]);
    screen.types(&["e"]);
    screen.has_line(&["to err 40"]);
    screen.types(&["PPage"]);
    screen
        .shows("what was written before", |seen| seen.contains("to err 24\n") && !seen.contains("to err 40"));
    screen.types(&["NPage"]);
    screen.has_line(&["to err 40"]);
    screen.types(&["q"]);
    screen.is_given_back(0);
}

#[test]
fn that_a_broker_shuts_down_is_told_until_another_serves() {
    if !has_tmux() {
        return;
    }
    let mut broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    broker
        .json()
        .create(with(stubborn(&hello), &json!({"name": "one", "stop": [{"signal": "TERM", "grace": 300}]})));
    hello.line();
    let screen = Screen::open(&broker, 80, 24);
    screen.has_line(&["one", "running"]);
    let mut client = broker.json();
    client.send("shutdown", json!({"timeout": 600}));
    screen.has_line(&["the broker is shutting down"]);
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
    broker.ended();
    broker.start_again();
    broker.json().create(with(willing(), &json!({"name": "two"})));
    screen.has_line(&["two", "running"]);
    screen.has_line(&["Enter output", "q quit"]);
    screen.types(&["q"]);
    screen.is_given_back(0);
}

#[test]
fn without_a_terminal_it_is_a_usage_error() {
    let broker = TestBroker::start();
    failed(&broker.run(&["top"]), USAGE, "procbroker list");
}
