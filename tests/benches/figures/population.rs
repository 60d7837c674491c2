//! Children by the thousand.

use procbroker_protocol::CreateParams;
use std::time::Duration;

use crate::broker::Broker;
use crate::failure::Failure;
use crate::together::together;

/// How many clients create at once.
pub(crate) const CLIENTS: usize = 8;

/// Lets 8 clients create so many children, and says how long it took. Each has a connection of its own and one
/// request at a time.
pub(crate) fn create_many(
    broker: &Broker,
    params: &CreateParams,
    children: usize,
) -> Result<Duration, Failure> {
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let share = children / CLIENTS + usize::from(client < children % CLIENTS);
        clients.push((broker.connect()?, share));
    }
    together(&mut clients, |(connection, share)| {
        for _ in 0..*share {
            connection.create(params.clone())?;
        }
        Ok(())
    })
}
