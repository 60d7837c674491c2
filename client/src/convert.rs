//! What programs may give where the protocol wants a target, a signal or a step of a stop.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::ListParams;
use procbroker_protocol::{ChildId, Name, Signal, Target, duration};

use crate::error::Invalid;

/// Something that says which children are meant: a name or id as text, a [`ChildId`], a [`Name`], a
/// [`Child`](crate::Child), a [`Select`] with labels, or a [`Target`].
pub trait ToTarget {
    /// The children that it means.
    ///
    /// # Errors
    /// When a text is neither an id nor a well-formed name, or a selection has no label.
    fn to_target(&self) -> Result<Target, Invalid>;
}

impl<T: ToTarget + ?Sized> ToTarget for &T {
    fn to_target(&self) -> Result<Target, Invalid> {
        (**self).to_target()
    }
}

impl ToTarget for str {
    fn to_target(&self) -> Result<Target, Invalid> {
        Ok(Target::from_text(self)?)
    }
}

impl ToTarget for String {
    fn to_target(&self) -> Result<Target, Invalid> {
        self.as_str().to_target()
    }
}

impl ToTarget for Target {
    fn to_target(&self) -> Result<Target, Invalid> {
        Ok(self.clone())
    }
}

impl ToTarget for ChildId {
    fn to_target(&self) -> Result<Target, Invalid> {
        Ok(Target::Id(*self))
    }
}

impl ToTarget for Name {
    fn to_target(&self) -> Result<Target, Invalid> {
        Ok(Target::Name(self.clone()))
    }
}

impl ToTarget for Select {
    fn to_target(&self) -> Result<Target, Invalid> {
        if self.labels.is_empty() {
            return Err(Invalid::EmptyLabels);
        }
        Ok(Target::Labels(self.labels.clone()))
    }
}

/// Which children a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    labels: BTreeMap<String, String>,
    ended_too: bool,
}

impl Select {
    /// Those that have not ended.
    #[must_use]
    pub fn live() -> Self {
        Self::default()
    }

    /// Those that ended of late, too.
    #[must_use]
    pub fn all() -> Self {
        Self { ended_too: true, ..Self::default() }
    }

    /// Only those that carry this label with this value.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

impl From<&Select> for ListParams {
    fn from(select: &Select) -> Self {
        Self { labels: select.labels.clone(), all: select.ended_too, fields: None }
    }
}

/// Something that says which signal is meant: a [`Signal`], a name such as `"SIGHUP"` or `"HUP"`, or a
/// number.
pub trait ToSignal {
    /// The signal.
    ///
    /// # Errors
    /// When there is no such signal.
    fn to_signal(&self) -> Result<Signal, Invalid>;
}

impl ToSignal for Signal {
    fn to_signal(&self) -> Result<Signal, Invalid> {
        Ok(*self)
    }
}

impl ToSignal for &str {
    fn to_signal(&self) -> Result<Signal, Invalid> {
        Ok(self.parse()?)
    }
}

impl ToSignal for i32 {
    fn to_signal(&self) -> Result<Signal, Invalid> {
        Ok(Signal::from_number((*self).into())?)
    }
}

/// Something that says a step of a stop: a [`StopStep`], or a signal and how long to wait for its effect.
pub trait ToStopStep {
    /// The step.
    ///
    /// # Errors
    /// When there is no such signal, or the time is longer than the broker takes.
    fn to_stop_step(&self) -> Result<StopStep, Invalid>;
}

impl ToStopStep for StopStep {
    fn to_stop_step(&self) -> Result<StopStep, Invalid> {
        Ok(*self)
    }
}

impl<S: ToSignal> ToStopStep for (S, Duration) {
    fn to_stop_step(&self) -> Result<StopStep, Invalid> {
        Ok(StopStep { signal: self.0.to_signal()?, grace: duration::in_range(self.1)? })
    }
}

/// The text in UTF-8, as the protocol carries it.
pub(crate) fn utf8(what: &'static str, value: &OsStr) -> Result<String, Invalid> {
    let refusal = || Invalid::NotUtf8 { what, value: value.to_owned() };
    value.to_str().map(str::to_owned).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_an_id_or_a_name() {
        assert!(matches!("67e55044-10b1-426f-9247-bb680e5fe0c8".to_target(), Ok(Target::Id(_))));
        assert!(matches!("render-42".to_target(), Ok(Target::Name(_))));
        assert!(matches!("a b".to_string().to_target(), Err(Invalid::Name(_))));
    }

    #[test]
    fn a_selection_without_a_label_is_no_target() {
        assert_eq!(Select::live().to_target(), Err(Invalid::EmptyLabels));
        let target = Select::live().label("pool", "render").to_target();
        assert_eq!(target, Ok(Target::Labels([("pool".to_owned(), "render".to_owned())].into())));
    }

    #[test]
    fn signals_are_taken_by_name_and_number() {
        for signal in ["HUP".to_signal(), 1.to_signal(), Signal::HUP.to_signal()] {
            assert_eq!(signal, Ok(Signal::HUP));
        }
        assert!(matches!("SIGFOO".to_signal(), Err(Invalid::Signal(_))));
        let too_long = ("HUP", Duration::from_secs(u64::MAX)).to_stop_step();
        assert!(matches!(too_long, Err(Invalid::Duration(_))));
    }
}
