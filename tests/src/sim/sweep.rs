//! Many seeds, on several threads, to the lowest one that finds something.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::sim::finding::{Check, Finding};
use crate::sim::run::{Trace, run};
use crate::sim::tally::Tally;

/// What many seeds have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the runs have seen together.
    pub tally: Tally,
    /// The lowest seed that found something, and what.
    pub finding: Option<(u64, Finding)>,
}

/// Runs one seed; a panic of the broker is a finding too.
///
/// # Errors
/// What was found.
pub fn run_seed(seed: u64, trace: &mut Trace) -> Result<Tally, Finding> {
    catch_unwind(AssertUnwindSafe(|| run(seed, trace))).unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Check::Panic.broken(text.unwrap_or_default()))
    })
}

/// Runs these seeds on so many threads.
#[must_use]
pub fn sweep(seeds: Range<u64>, threads: u64) -> Verdict {
    let lowest = AtomicU64::new(u64::MAX);
    let found: Mutex<Option<(u64, Finding)>> = Mutex::new(None);
    let tally = Mutex::new(Tally::default());
    let (lowest, found_by, tallied) = (&lowest, &found, &tally);
    thread::scope(|scope| {
        for first in (0..threads).map(|thread| seeds.start.saturating_add(thread)) {
            scope.spawn(move || {
                let (mut seed, mut own) = (first, Tally::default());
                while seed < seeds.end.min(lowest.load(Ordering::Relaxed)) {
                    match run_seed(seed, &mut Trace::default()) {
                        Ok(tally) => own.add(&tally),
                        Err(finding) => {
                            lowest.fetch_min(seed, Ordering::Relaxed);
                            if let Ok(mut found) = found_by.lock()
                                && found.as_ref().is_none_or(|(other, _)| seed < *other)
                            {
                                *found = Some((seed, finding));
                            }
                        }
                    }
                    seed += threads;
                }
                if let Ok(mut tally) = tallied.lock() {
                    tally.add(&own);
                }
            });
        }
    });
    let finding = found.into_inner().unwrap_or_default();
    Verdict { tally: tally.into_inner().unwrap_or_default(), finding }
}
