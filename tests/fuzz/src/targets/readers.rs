//! Files that the broker reads: its own log of intents, what a program hands over to the next, and what the kernel shows.

use procbroker::fuzzing;

/// The log of intents: as a whole, and as one whose signatures are right.
pub(super) fn intent_log(bytes: &[u8]) {
    fuzzing::intent_log(bytes);
}

/// What a program hands over to the one that takes its place.
pub(super) fn handover(bytes: &[u8]) {
    fuzzing::handover(bytes);
}

/// What `/proc` and the hierarchy of control groups show.
pub(super) fn proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    fuzzing::process_stat(&text);
    fuzzing::environment(bytes);
    fuzzing::mounts(&text);
}
