//! How many of a verb's requests are on their way, and with it what goes on after Ctrl-C.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What goes on where nothing was asked for yet.
pub(super) const NOTHING: &str = "nothing was begun";

/// How many of a verb's requests are on their way, of how many.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Begun {
    all: usize,
    sent: Arc<AtomicUsize>,
}

impl Begun {
    /// None of so many.
    pub(in crate::cli) fn none_of(all: usize) -> Self {
        Self { all, sent: Arc::default() }
    }

    /// One more request has been sent.
    pub(in crate::cli) fn one_more(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// What goes on of them, when this is so of each that was sent.
    pub(super) fn shown(&self, goes_on: &'static str) -> Cow<'static, str> {
        let sent = self.sent.load(Ordering::Relaxed);
        match self.all.saturating_sub(sent) {
            0 => goes_on.into(),
            _ if sent == 0 => NOTHING.into(),
            left => format!("{left} of {} were not begun; as for the others, {goes_on}", self.all).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_of_what_was_begun_alone() {
        let begun = Begun::none_of(3);
        assert_eq!(begun.shown("the stop goes on"), NOTHING);
        begun.one_more();
        assert_eq!(
            begun.shown("the stop goes on"),
            "2 of 3 were not begun; as for the others, the stop goes on"
        );
        begun.one_more();
        begun.one_more();
        assert_eq!(begun.shown("the stop goes on"), "the stop goes on");
    }
}
