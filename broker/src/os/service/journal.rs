//! The journal's native protocol: one datagram an entry, in which each field has a name
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// A longer line than this is cut, as the journal itself does it with the output of services (`LineMax=`, journald.conf(5)).
pub const LINE_BYTES_MAX: usize = 48 << 10;

/// The facility of daemons, which the output of services has (`SyslogFacility=`, systemd.exec(5)).
pub const DAEMON: u8 = 3;

/// What systemd gives a service whose output goes to the journal: the device and the inode of that (systemd.exec(5)).
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";

/// Whether this goes to the journal. A service that has been given another output since is not taken for one.
pub fn takes(output: impl AsFd) -> bool {
    let stream = std::env::var(STREAM_VARIABLE).unwrap_or_default();
    fstat(output).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

/// Appends a field: as text, or with its length in front where it is none, or has more than one line.
pub fn append_field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    let is_text = !value.contains(&b'\n') && std::str::from_utf8(value).is_ok();
    if is_text {
        entry.push(b'=');
    } else {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}
