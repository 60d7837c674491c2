//! What the broker reads beside requests: its own log of intents, what a program hands over to the next, what children tell of
//! themselves, and what the kernel shows.

use procbroker::fuzzing;
use procbroker_core::{Notice, Unreadable};

/// How long the text may be that a child says it does, in bytes.
const STATUS_BYTES_MAX: usize = 1024;

/// The log of intents: as a whole, and as one whose signatures are right.
pub(super) fn intent_log(bytes: &[u8]) {
    fuzzing::intent_log(bytes);
}

/// What a program hands over to the one that takes its place.
pub(super) fn handover(bytes: &[u8]) {
    fuzzing::handover(bytes);
}

/// What a child tells of itself (`sd_notify(3)`): no more of it than lines are in it, and no text beyond its bound.
pub(super) fn notices(bytes: &[u8]) {
    let (notices, unreadable) = Notice::parse(bytes);
    let lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).count();
    assert!(notices.len() + usize::from(unreadable.is_some()) <= lines, "{notices:?}");
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    assert_eq!(unreadable == Some(Unreadable::Datagram), text.contains(&0));
    for notice in notices {
        if let Notice::Status(text) = notice {
            assert!(text.len() <= STATUS_BYTES_MAX, "{} bytes", text.len());
        }
    }
}

/// What `/proc` and the hierarchy of control groups show.
pub(super) fn proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    fuzzing::process_stat(&text);
    fuzzing::environment(bytes);
    fuzzing::mounts(&text);
}
