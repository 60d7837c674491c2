//! Who has written a line.

use std::sync::Arc;

use procbroker_core::Pid;
use procbroker_protocol::CreateParams;

/// Who has written something, as far as its reader is told.
#[derive(Clone, Debug)]
pub(in crate::os::logs) struct Author {
    /// The user whose share it takes.
    pub(super) user: u32,
    pub(super) params: Arc<CreateParams>,
    /// Its main process, or that of its cleanup.
    pub(super) pid: Option<Pid>,
}

impl Author {
    /// A child with these parameters, and its process if there is one already.
    pub(in crate::os::logs) fn new(user: u32, params: Arc<CreateParams>, pid: Option<Pid>) -> Self {
        Self { user, params, pid }
    }
}
