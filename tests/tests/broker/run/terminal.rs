//! A broker in a terminal, with its main command.

use super::*;

/// Executes the broker in a terminal of its own: see `pty.py`.
const PTY: &str = include_str!("pty.py");

/// Executes the broker as a shell does its jobs: see `job.py`.
const JOB: &str = include_str!("job.py");

/// A main command that repeats every line, and ends with 3 after `bye`.
const REPEATING: &str = "exec 3>\"$1\"; echo there >&3
    while read line; do echo \"read $line\" >&3; [ \"$line\" = bye ] && exit 3; done";

/// A setup whose broker has a terminal, a pipe for what is done there, and one for what is shown there.
fn in_a_terminal() -> (Setup, Fifo, Fifo) {
    let setup = Setup::new();
    let (orders, shown) = (fifo(&setup, "orders"), fifo(&setup, "orders.shown"));
    let words = ["python3", "-c", PTY, &text(orders.path())].map(str::to_owned);
    (setup.through(words), orders, shown)
}

#[test]
fn a_terminal_that_is_resized_tells_the_main_command_nothing() {
    let (setup, mut orders, mut shown) = in_a_terminal();
    let (mut broker, mut pipe) = telling_broker(setup, &[], &[]);
    orders.say("resize");
    assert_eq!(shown.line(), "resized");
    broker.signal(Signal::SIGUSR1);
    assert_eq!(pipe.line(), "SIGUSR1");
    broker.signal(Signal::SIGTERM);
    assert_eq!(pipe.line(), "SIGTERM");
    ends_with(&mut broker, 3);
    assert_eq!(pipe.rest(), Vec::<String>::new());
}

#[test]
fn a_window_change_that_somebody_sends_is_passed_on_in_a_terminal_too() {
    let (setup, _orders, _shown) = in_a_terminal();
    let (mut broker, mut pipe) = telling_broker(setup, &[], &[]);
    broker.signal(Signal::SIGWINCH);
    assert_eq!(pipe.line(), "SIGWINCH");
    broker.signal(Signal::SIGTERM);
    ends_with(&mut broker, 3);
}

#[test]
fn an_interactive_main_command_has_the_terminal_in_its_foreground() {
    let (setup, mut orders, _shown) = in_a_terminal();
    let mut pipe = fifo(&setup, "pipe");
    // Its process group, and that of the terminal's foreground: fields 5 and 8.
    let tell = "exec 3>\"$1\"; trap 'echo interrupted >&3' INT; tty >/dev/null && echo terminal >&3
        cut -d' ' -f5,8 /proc/$$/stat >&3; read line; echo \"read $line\" >&3; until read line; do :; done; exit 3";
    let mut broker = running(setup, &["--interactive"], script(&pipe, tell)).start();
    assert_eq!(pipe.line(), "terminal");
    let groups = pipe.line();
    let (own, foreground) = groups.split_once(' ').expect("two numbers");
    assert_eq!(own, foreground);
    orders.say("hello");
    assert_eq!(pipe.line(), "read hello");
    // What is typed is its own, and tells the broker nothing.
    orders.say("\u{3}");
    assert_eq!(pipe.line(), "interrupted");
    orders.say("bye");
    ends_with(&mut broker, 3);
}

#[test]
fn an_interactive_main_command_without_a_terminal_reads_what_the_broker_would() {
    let setup = Setup::new();
    let mut pipe = fifo(&setup, "pipe");
    let input = setup.folder().join("input");
    std::fs::write(&input, "from a file\n").unwrap();
    let redirect =
        ["sh", "-c", "input=$1; shift; exec \"$@\" <\"$input\"", "sh", &text(&input)].map(str::to_owned);
    let main = script(&pipe, "read line; echo \"$line\" >\"$1\"; exit 4");
    let mut broker = running(setup.through(redirect), &["-i"], main).start();
    assert_eq!(pipe.line(), "from a file");
    ends_with(&mut broker, 4);
}

#[test]
fn a_main_command_that_the_terminal_stops_is_one_job_with_the_broker() {
    let (setup, mut orders, _shown) = in_a_terminal();
    let (mut pipe, mut told) = (fifo(&setup, "pipe"), fifo(&setup, "told"));
    let words = ["python3", "-c", JOB, &text(told.path())].map(str::to_owned);
    let mut broker = running(setup.through(words), &["--interactive"], script(&pipe, REPEATING)).start();
    assert_eq!(pipe.line(), "there");
    for _ in 0..2 {
        orders.say("\u{1a}");
        assert_eq!(told.line(), "stopped in front");
        // What was typed with the Ctrl-Z, and what comes then.
        assert_eq!(pipe.line(), "read");
        orders.say("hello");
        assert_eq!(pipe.line(), "read hello");
        // Nor is it forgotten in an upgrade.
        assert_eq!(broker.run(&["upgrade"]).status, 0);
    }
    orders.say("bye");
    assert_eq!(pipe.line(), "read bye");
    ends_with(&mut broker, 3);
}

#[test]
fn a_main_command_that_nobody_could_continue_is_not_stopped_by_the_terminal() {
    // Nobody waits for the leader of a session: its process group is orphaned.
    let (setup, mut orders, _shown) = in_a_terminal();
    let mut pipe = fifo(&setup, "pipe");
    let mut broker = running(setup, &["--interactive"], script(&pipe, REPEATING)).start();
    assert_eq!(pipe.line(), "there");
    orders.say("\u{1a}");
    assert_eq!(pipe.line(), "read");
    orders.say("bye");
    assert_eq!(pipe.line(), "read bye");
    ends_with(&mut broker, 3);
}
