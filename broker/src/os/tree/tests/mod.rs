//! The reaper and the containment together, against real processes, in a process of their own for each test.

mod adopted;
mod children;
mod late;
mod previous_broker;
mod scene;
mod strays;

use procbroker_core::{Input, Members, Run};
use procbroker_protocol::ExitStatus;

/// What the last report says is left of a child; none before its end was reported.
fn left(inputs: &[Input], run: Run) -> Option<Members> {
    inputs.iter().rev().find_map(|input| match input {
        Input::Exited { run: of, members, .. } | Input::MembersLeft { run: of, members } if *of == run => {
            Some(*members)
        }
        _ => None,
    })
}

/// How a child ended, if that was reported.
fn status(inputs: &[Input], run: Run) -> Option<ExitStatus> {
    inputs.iter().find_map(|input| match input {
        Input::Exited { run: of, status, .. } if *of == run => Some(*status),
        _ => None,
    })
}
