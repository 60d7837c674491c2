//! Makes way for a start where the broker before was killed and does not go: it has all that only one broker can have until then.
//!
//! What keeps it is somebody who holds a child's pipe within the kernel, and is ended for it.

use std::thread;
use std::time::{Duration, Instant};

use procbroker_protocol::socket_path::Place;

use crate::causes::with_causes;
use crate::limits::LEFT_LOCK_PATIENCE;
use crate::os::logs;
use crate::os::logs::pipes::PIPES_FOLDER;
use crate::os::store::state_dir::{DyingBroker, StateDir};

/// How long one that was killed may take to go by itself.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it is looked whether it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Returns when no broker with this state folder is on its way out, or has been for so long that nothing helps.
pub(super) fn make_way(state: &Place) {
    let Some(DyingBroker { pid, .. }) = left_after(PATIENCE, state) else { return };
    tracing::info!(%pid, "the broker before was killed and is kept from going: looking for who keeps it");
    let began = Instant::now();
    while let Some(dying) = left_after(PATIENCE, state).filter(|_| began.elapsed() < LEFT_LOCK_PATIENCE) {
        if let Err(error) = logs::release_all(&dying.runtime.join(PIPES_FOLDER), dying.pid) {
            tracing::warn!("cannot look at what keeps the broker before: {}", with_causes(&error));
            return;
        }
    }
}

/// What is left of an earlier broker after so long.
fn left_after(patience: Duration, state: &Place) -> Option<DyingBroker> {
    let began = Instant::now();
    loop {
        let dying = StateDir::left(state)?;
        if began.elapsed() >= patience {
            return Some(dying);
        }
        thread::sleep(LOOK_EVERY);
    }
}
