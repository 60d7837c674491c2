//! Reads from an open `/proc/PID/status` what confines a process, and whether it is there.

use std::fs::File;
use std::ops::ControlFlow;

use procbroker_core::CallerUnknown;

use super::unknown::refused;
use crate::os::process::proc;

/// What `/proc/PID/status` says (`proc_pid_status(5)`).
pub(super) struct Status {
    pub(super) no_new_privs: bool,
    /// The bounding set, or less where no program gives back what the process has given up.
    pub(super) capabilities: u64,
    pub(super) life: Life,
}

/// Whether its first thread is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Over,
}

/// The members of the file, as far as they have been read.
#[derive(Default)]
struct StatusMembers {
    no_new_privs: Option<bool>,
    bounding: Option<u64>,
    permitted: Option<u64>,
    life: Option<Life>,
    is_root: bool,
}

impl Status {
    pub(super) fn read(file: &File) -> Result<Self, CallerUnknown> {
        let mut members = StatusMembers::default();
        proc::each_line(file, |line| members.take(line)).map_err(refused)?;
        members.status().ok_or(CallerUnknown::Closed)
    }
}

impl StatusMembers {
    /// Takes in a line, and breaks off at the last that counts.
    fn take(&mut self, line: &[u8]) -> ControlFlow<()> {
        let set = |text: &[u8]| u64::from_str_radix(str::from_utf8(text).ok()?, 16).ok();
        if let Some(state) = line.strip_prefix(b"State:\t") {
            let is_over = matches!(state.first(), Some(b'Z' | b'X'));
            self.life = Some(if is_over { Life::Over } else { Life::Alive });
        } else if let Some(uids) = line.strip_prefix(b"Uid:\t") {
            self.is_root = uids.split(|&byte| byte == b'\t').any(|uid| uid == b"0");
        } else if let Some(text) = line.strip_prefix(b"CapPrm:\t") {
            self.permitted = set(text);
        } else if let Some(text) = line.strip_prefix(b"CapBnd:\t") {
            self.bounding = set(text);
        } else if let Some(word) = line.strip_prefix(b"NoNewPrivs:\t") {
            self.no_new_privs = Some(word != b"0");
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn status(&self) -> Option<Status> {
        let (no_new_privs, life) = (self.no_new_privs?, self.life?);
        // To root, a program gives the whole bounding set, unless it gives nothing.
        let is_kept = no_new_privs && self.is_root;
        let capabilities = if is_kept { self.bounding? & self.permitted? } else { self.bounding? };
        Some(Status { no_new_privs, capabilities, life })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::proc::TEXT_BYTES;

    #[test]
    fn a_long_status_is_read_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        let groups = "100000 ".repeat(2 * TEXT_BYTES);
        let text = format!(
            "Name:\tx\nState:\tS (sleeping)\nGroups:\t{groups}\nCapBnd:\t00000000000000ff\nNoNewPrivs:\t1\n"
        );
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let status = Status::read(&file).unwrap();
        assert_eq!((status.no_new_privs, status.capabilities, status.life), (true, 0xff, Life::Alive));
        file.set_len(text.len() as u64 - 1).unwrap();
        assert!(Status::read(&file).is_err(), "a line without its end is not believed");
    }
}
