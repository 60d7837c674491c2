//! A broker in a terminal, with its main command.

use super::*;

/// Executes the broker in a terminal of its own: see `pty.py`.
const PTY: &str = include_str!("pty.py");

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
