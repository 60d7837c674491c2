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
