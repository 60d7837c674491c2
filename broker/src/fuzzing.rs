//! The broker's readers of what others may have written, for `tests/fuzz` alone.

use std::path::Path;

use crate::os::journal;
use crate::os::process::{mark, proc};
use crate::os::tree::cgroup;
use crate::upgrade;

/// Reads any bytes as a log of intents, and as the entries of one whose signatures are right.
pub fn intent_log(bytes: &[u8]) {
    journal::read_any_intents(bytes);
}

/// Reads any bytes as what a program hands over to the next.
pub fn handover(bytes: &[u8]) {
    upgrade::read_any_manifest(bytes);
}

/// Reads any text as `/proc/PID/stat`.
pub fn process_stat(text: &str) {
    proc::read_any_stat(text);
}

/// Reads any bytes as `/proc/PID/environ`.
pub fn environment(bytes: &[u8]) {
    mark::read_any_environment(bytes);
}

/// Reads any text as `/proc/PID/mountinfo`.
pub fn mounts(text: &str) {
    cgroup::read_any_mounts(text, Path::new("/sys/fs/cgroup/a"));
}
