//! What the state machine decides, asked through its public interface only.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod anchors;
#[cfg(test)]
mod authorize;
#[cfg(test)]
mod bytes;
#[cfg(test)]
mod cleanup;
#[cfg(test)]
mod cleanup_at_shutdown;
#[cfg(test)]
mod cleanup_attempts;
#[cfg(test)]
mod contest;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod create;
#[cfg(test)]
mod events;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod launching;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod main_command;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod places;
#[cfg(test)]
mod promises;
mod query;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod ready_commands;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod recovery_of_cleanups;
#[cfg(test)]
mod recovery_of_main;
#[cfg(test)]
mod recovery_of_restarts;
#[cfg(test)]
mod recovery_of_stops;
#[cfg(test)]
mod request_id;
#[cfg(test)]
mod resources;
mod restart;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod start;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod unready;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod validate;
#[cfg(test)]
mod waves;
#[cfg(test)]
mod world;
