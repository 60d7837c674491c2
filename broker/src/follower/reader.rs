//! Reads output on a thread that may wait for the disk.

use procbroker_protocol::{Error, ErrorKind};

use crate::blocking_pool::{BlockingPool, unavailable};
use crate::os::logs::output::Kept;
use crate::os::logs::{Excerpt, Wanted, read};

/// Reads output on a thread that may wait for the disk, in the turn of the user who asks.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) pool: BlockingPool,
    pub(super) user: u32,
}

impl Reader {
    pub(super) async fn excerpt(&self, kept: Kept, wanted: Wanted) -> Result<Excerpt, Error> {
        let found = self.pool.run(self.user, move || read(&kept, wanted)).await.map_err(unavailable)?;
        found.map_err(|error| {
            tracing::warn!(%error, "a request for output is refused");
            Error::new(ErrorKind::Internal, error.to_string())
        })
    }
}
