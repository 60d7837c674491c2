//! One figure of the table: what was measured in each round, what it is set beside, and the goal.

use std::time::Duration;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds.
    Time,
    /// Per second.
    Rate,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

/// What section "what it must reach" asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Ours divided by what it is set beside is at most this.
    RatioAtMost(f64),
    /// Ours divided by what it is set beside is at least this.
    RatioAtLeast(f64),
    /// Ours is at most this, in the figure's unit.
    AtMost(f64),
}

/// The middle and the ends of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// The spread of these values. Without any it is not a number, and no goal is met.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, lowest: at(0), highest: at(last) }
    }
}

/// The middle of these durations, in seconds.
pub(crate) fn median(samples: &[Duration]) -> f64 {
    Spread::of(&seconds(samples)).median
}

/// The duration that one in a hundred exceeds, in seconds.
pub(crate) fn percentile_99(samples: &[Duration]) -> f64 {
    let mut sorted = seconds(samples);
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_mul(99) / 100).copied().unwrap_or(f64::NAN)
}

fn seconds(samples: &[Duration]) -> Vec<f64> {
    samples.iter().map(Duration::as_secs_f64).collect()
}

/// One round: ours, and what it is set beside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) beside: f64,
}

/// What ours is set beside.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    /// What was measured there.
    pub(crate) what: String,
    pub(crate) value: Spread,
    /// Of each round, not of the medians.
    pub(crate) ratio: Spread,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) work: String,
    pub(crate) unit: Unit,
    pub(crate) ours: Spread,
    pub(crate) beside: Option<Beside>,
    pub(crate) goal: Option<Goal>,
    pub(crate) notes: Vec<String>,
}

impl Figure {
    /// A figure beside another of the same rounds.
    pub(crate) fn beside(
        work: impl Into<String>,
        unit: Unit,
        what: impl Into<String>,
        rounds: &[Pair],
    ) -> Self {
        let spread = |value: fn(&Pair) -> f64| Spread::of(&rounds.iter().map(value).collect::<Vec<_>>());
        let beside = Beside {
            what: what.into(),
            value: spread(|round| round.beside),
            ratio: spread(|round| round.ours / round.beside),
        };
        Self { beside: Some(beside), ..Self::alone(work, unit, spread(|round| round.ours)) }
    }

    /// A figure that is set beside nothing.
    pub(crate) fn alone(work: impl Into<String>, unit: Unit, ours: Spread) -> Self {
        Self { work: work.into(), unit, ours, beside: None, goal: None, notes: Vec::new() }
    }

    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Whether the goal is reached, by the medians; nothing where there is no goal.
    pub(crate) fn reached(&self) -> Option<bool> {
        let ratio = self.beside.as_ref().map_or(f64::NAN, |beside| beside.ratio.median);
        self.goal.map(|goal| match goal {
            Goal::RatioAtMost(most) => ratio <= most,
            Goal::RatioAtLeast(least) => ratio >= least,
            Goal::AtMost(most) => self.ours.median <= most,
        })
    }
}
