//! Where a child stands on the way to what is waited for, in words.

use std::time::Duration;

use procbroker_core::steps_within;
use procbroker_protocol::ChildState;
use procbroker_protocol::create::StopStep;

use super::awaited::End;

/// What is told of a stop that had begun before: its steps are somebody else's, but a shutdown over it ends it.
pub(super) fn joined(end: &End, lasted: Duration) -> String {
    match end {
        End::ShutDown(Some(within)) => {
            format!("stopping, {} of at most {} s", lasted.as_secs(), within.as_secs_f64())
        }
        End::ShutDown(None) | End::Stopped(_) | End::Restarted | End::Seen(_) | End::Started(_) => {
            "stopping".to_owned()
        }
    }
}

/// Where a child stands on the way to what is waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is waited for, in this way.
    Awaited(String),
    /// Its stop has not begun.
    InTurn,
    /// It is not waited for any more.
    Over,
}

/// `stop` are the steps of the child's own stop, where they are known.
pub(super) fn phase(state: ChildState, end: &End, stop: Option<&[StopStep]>, lasted: Duration) -> Phase {
    let seconds = lasted.as_secs();
    match (state, end) {
        (ChildState::Ended, _) | (ChildState::Running, End::Restarted | End::Started(_)) => Phase::Over,
        (_, End::Seen(bound)) => Phase::Awaited(match bound {
            Some(bound) => format!("{}, {seconds} of {} s", state.as_str(), bound.as_secs()),
            None => format!("{}, {seconds} s", state.as_str()),
        }),
        (ChildState::Stopping, End::Stopped(Some(steps))) => Phase::Awaited(step_at(steps, lasted)),
        (ChildState::Stopping, End::ShutDown(Some(within))) if stop.is_some() => {
            let steps = steps_within(stop.unwrap_or_default(), *within);
            Phase::Awaited(step_at(&steps, lasted))
        }
        (ChildState::Starting, End::Started(start)) => Phase::Awaited(start.starting(lasted)),
        (ChildState::Stopping, End::Stopped(None) | End::ShutDown(_) | End::Restarted | End::Started(_)) => {
            let told = |steps| step_at(steps, lasted);
            Phase::Awaited(stop.map_or_else(|| format!("stopping, {seconds} s"), told))
        }
        (ChildState::Cleaning, End::Stopped(_) | End::ShutDown(_) | End::Restarted | End::Started(_)) => {
            Phase::Awaited(format!("cleaning up, {seconds} s"))
        }
        (ChildState::Starting | ChildState::Backoff, End::Restarted)
        | (ChildState::Backoff, End::Started(_)) => {
            Phase::Awaited(format!("{}, {seconds} s", state.as_str()))
        }
        (
            ChildState::Running | ChildState::Starting | ChildState::Backoff,
            End::Stopped(_) | End::ShutDown(_),
        ) => Phase::InTurn,
    }
}

/// Which step a stop has come to after so long: `SIGTERM, 3 of 10 s`.
fn step_at(steps: &[StopStep], lasted: Duration) -> String {
    let mut left = lasted;
    for step in steps {
        let grace = step.grace;
        match left.checked_sub(grace) {
            Some(rest) => left = rest,
            None => return format!("{}, {} of {} s", step.signal, left.as_secs(), grace.as_secs_f64()),
        }
    }
    format!("SIGKILL, {} s", left.as_secs())
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::Signal;

    use super::super::start::Start;
    use super::*;

    fn steps() -> Vec<StopStep> {
        let step = |signal, seconds| StopStep { signal, grace: Duration::from_secs(seconds) };
        vec![step(Signal::HUP, 2), step(Signal::TERM, 10)]
    }

    #[test]
    fn a_stop_is_at_the_step_that_its_time_has_come_to() {
        let at = |millis| step_at(&steps(), Duration::from_millis(millis));
        assert_eq!(at(0), "SIGHUP, 0 of 2 s");
        assert_eq!(at(1_999), "SIGHUP, 1 of 2 s");
        assert_eq!(at(2_000), "SIGTERM, 0 of 10 s");
        assert_eq!(at(5_500), "SIGTERM, 3 of 10 s");
        assert_eq!(at(13_000), "SIGKILL, 1 s");
    }

    #[test]
    fn a_stop_by_the_childs_own_steps_tells_them_where_they_are_known() {
        let second = Duration::from_secs(1);
        for end in [End::Stopped(None), End::Restarted] {
            let phase = phase(ChildState::Stopping, &end, Some(&steps()), second);
            assert_eq!(phase, Phase::Awaited("SIGHUP, 1 of 2 s".to_owned()), "{end:?}");
        }
    }

    #[test]
    fn a_shutdown_that_has_less_time_than_the_steps_tells_what_they_have_in_it() {
        let steps = [StopStep { signal: Signal::TERM, grace: Duration::from_secs(10) }];
        let at =
            |end: End, seconds| phase(ChildState::Stopping, &end, Some(&steps), Duration::from_secs(seconds));
        let awaited = |text: &str| Phase::Awaited(text.to_owned());
        let within = |seconds| End::ShutDown(Some(Duration::from_secs(seconds)));
        assert_eq!(at(within(5), 4), awaited("SIGTERM, 4 of 4.5 s"));
        assert_eq!(at(within(60), 4), awaited("SIGTERM, 4 of 10 s"));
        assert_eq!(at(End::ShutDown(None), 4), awaited("SIGTERM, 4 of 10 s"));
    }

    #[test]
    fn only_those_on_their_way_are_waited_for() {
        let stopped = || End::Stopped(None);
        let start = || Start {
            place_within: None,
            ready_within: Some(Duration::from_secs(30)),
            is_bound_to_connection: false,
        };
        let second = Duration::from_secs(1);
        let awaited = |text: &str| Phase::Awaited(text.to_owned());
        let cases = [
            (ChildState::Stopping, stopped(), awaited("stopping, 1 s")),
            (ChildState::Stopping, End::Stopped(Some(steps())), awaited("SIGHUP, 1 of 2 s")),
            (ChildState::Cleaning, stopped(), awaited("cleaning up, 1 s")),
            (ChildState::Running, stopped(), Phase::InTurn),
            (ChildState::Ended, stopped(), Phase::Over),
            (ChildState::Running, End::Restarted, Phase::Over),
            (ChildState::Starting, End::Restarted, awaited("starting, 1 s")),
            (ChildState::Starting, End::Started(start()), awaited("starting, 1 of 30 s")),
            (ChildState::Stopping, End::Started(start()), awaited("stopping, 1 s")),
            (ChildState::Cleaning, End::Started(start()), awaited("cleaning up, 1 s")),
            (ChildState::Backoff, End::Started(start()), awaited("backoff, 1 s")),
            (ChildState::Running, End::Started(start()), Phase::Over),
            (ChildState::Running, End::Seen(None), awaited("running, 1 s")),
            (ChildState::Running, End::Seen(Some(Duration::from_secs(60))), awaited("running, 1 of 60 s")),
            (ChildState::Ended, End::Seen(None), Phase::Over),
        ];
        for (state, end, expected) in cases {
            assert_eq!(phase(state, &end, None, second), expected, "{state:?} {end:?}");
        }
    }
}
