//! Tells the service's owner that the event loop turns (`WatchdogSec=`, systemd.service(5)).

use crate::os::notify::ServiceOwner;

/// Reports to the owner as often as it asks for, if it does.
///
/// It runs on the event loop itself, so that a loop that hangs is noticed.
pub async fn report(owner: ServiceOwner) {
    let Some(interval) = owner.watchdog_interval() else { return };
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        owner.alive();
    }
}
