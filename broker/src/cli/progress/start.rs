//! What a create waits for before there is a child to look at, and what becomes of it after Ctrl-C.
//!
//! A create that nobody waits for any more is dropped by the broker unless its child was started: then that goes on.

use std::time::Duration;

use procbroker_protocol::ChildState;

use super::line::Line;

/// What becomes of a start where the broker does not say how far it has come.
pub(super) const FATE_UNKNOWN: &str =
    "a child that was started goes on, and none is started later: 'procbroker list' shows it";

const GOES_ON: &str = "the child was started, and goes on: 'procbroker list' shows it";

const NOTHING: &str = "nothing was started";

/// What a create waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Start {
    /// How long it waits for a place, where it does.
    pub(in crate::cli) place_within: Option<Duration>,
    /// How long its child may take to become ready, where that is waited for.
    pub(in crate::cli) ready_within: Option<Duration>,
    /// Whether the child ends with the connection of whoever has created it.
    pub(in crate::cli) is_bound_to_connection: bool,
}

impl Start {
    /// What is waited for while there is no child of that name, or none that has a name.
    pub(super) fn line(self, lasted: Duration) -> Option<Line> {
        let seconds = lasted.as_secs();
        let what = match (self.place_within, self.ready_within) {
            (Some(within), None) => format!("waiting for a place, {seconds} of {} s", within.as_secs_f64()),
            (Some(_), Some(_)) => format!("waiting for a place, and then until it is ready, {seconds} s"),
            (None, Some(_)) => self.starting(lasted),
            (None, None) => return None,
        };
        Some(Line::of_several(what))
    }

    /// How long its child is on its way.
    pub(super) fn starting(self, lasted: Duration) -> String {
        let seconds = lasted.as_secs();
        match self.ready_within {
            Some(within) => format!("starting, {seconds} of {} s", within.as_secs_f64()),
            None => format!("starting, {seconds} s"),
        }
    }

    /// What becomes of it where the child of its name is in this state, or there is none.
    pub(super) fn fate(self, state: Option<ChildState>) -> &'static str {
        match state {
            Some(ChildState::Starting | ChildState::Running | ChildState::Backoff) => self.of_one_started(),
            Some(ChildState::Stopping | ChildState::Cleaning) => {
                "the stop of the child before goes on, and nothing is started in its place"
            }
            Some(ChildState::Ended) | None => NOTHING,
        }
    }

    /// What becomes of it where nothing tells whether its child is there.
    pub(super) fn fate_of_one_without_a_name(self) -> &'static str {
        match (self.place_within, self.ready_within) {
            (Some(_), Some(_)) => FATE_UNKNOWN,
            (None, Some(_)) => self.of_one_started(),
            (_, None) => NOTHING,
        }
    }

    fn of_one_started(self) -> &'static str {
        if self.is_bound_to_connection {
            return "the child ends with this command's connection, after --linger";
        }
        GOES_ON
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(place: Option<u64>, ready: Option<u64>) -> Start {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        Start { place_within: seconds(place), ready_within: seconds(ready), is_bound_to_connection: false }
    }

    #[test]
    fn what_is_waited_for_is_told_where_there_is_no_child_to_tell_of() {
        let line =
            |place, ready| start(place, ready).line(Duration::from_millis(3_500)).map(|line| line.what);
        assert_eq!(line(Some(10), None).as_deref(), Some("waiting for a place, 3 of 10 s"));
        assert_eq!(line(None, Some(30)).as_deref(), Some("starting, 3 of 30 s"));
        let both = "waiting for a place, and then until it is ready, 3 s";
        assert_eq!(line(Some(10), Some(30)).as_deref(), Some(both));
        assert_eq!(line(None, None), None);
    }

    #[test]
    fn what_goes_on_depends_on_how_far_it_has_come() {
        let place = start(Some(10), None);
        assert_eq!([place.fate(None), place.fate_of_one_without_a_name()], [NOTHING, NOTHING]);
        let ready = start(None, Some(30));
        assert_eq!(ready.fate(Some(ChildState::Starting)), GOES_ON);
        assert_eq!(ready.fate_of_one_without_a_name(), GOES_ON);
        assert_eq!(ready.fate(Some(ChildState::Ended)), NOTHING);
        assert!(ready.fate(Some(ChildState::Stopping)).contains("nothing is started in its place"));
        let both = start(Some(10), Some(30));
        assert_eq!(both.fate_of_one_without_a_name(), FATE_UNKNOWN);
        assert_eq!([both.fate(None), both.fate(Some(ChildState::Starting))], [NOTHING, GOES_ON]);
        let bound = Start { is_bound_to_connection: true, ..ready };
        assert!(bound.fate(Some(ChildState::Starting)).contains("ends with this command's connection"));
    }
}
