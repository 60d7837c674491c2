//! Feeds one target with what the engine makes up: `FUZZ_TARGET` says which.

#![no_main]
#![expect(clippy::panic, reason = "there is nobody to answer to but who has started it")]

use std::sync::LazyLock;

use procbroker_fuzz::{TARGETS, Target, find};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    find(&name).unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, and has to be one of {names:?}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
