//! Who reads the lines of children, and where.

use std::path::PathBuf;

use crate::os::service::journal;

/// Who reads the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineReader {
    /// systemd's journal, by its native protocol.
    Journal,
    /// A syslog daemon, by the datagrams of RFC 3164.
    Syslog,
}

impl LineReader {
    /// Where it listens by default.
    #[must_use]
    pub fn usual_socket(self) -> &'static str {
        match self {
            Self::Journal => journal::SOCKET,
            Self::Syslog => "/dev/log",
        }
    }

    /// What people call it.
    pub(super) fn called(self) -> &'static str {
        match self {
            Self::Journal => "the journal",
            Self::Syslog => "syslog",
        }
    }
}

/// Where lines go beside the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Who reads them, which decides the form of a line.
    pub reader: LineReader,
    /// The datagram socket that it listens at.
    pub socket: PathBuf,
}
