//! Reads output on a thread that may wait for the disk.

use procbroker_protocol::{Error, ErrorKind};

use crate::blocking_pool::{BlockingPool, unavailable};
use crate::os::logs::output::KeptStream;
use crate::os::logs::{Excerpt, ExcerptRange, read};

/// Reads output on a thread that may wait for the disk, in the turn of the user who asks.
#[derive(Clone, Debug)]
pub(super) struct OutputReader {
    pub(super) pool: BlockingPool,
    pub(super) user: u32,
}

impl OutputReader {
    pub(super) async fn excerpt(&self, kept: KeptStream, wanted: ExcerptRange) -> Result<Excerpt, Error> {
        let found = self.pool.run(self.user, move || read(&kept, wanted)).await.map_err(unavailable)?;
        found.map_err(|error| {
            tracing::warn!(%error, "a request for output is refused");
            Error::new(ErrorKind::Internal, error.to_string())
        })
    }
}
