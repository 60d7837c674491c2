//! Integration tests: the real program, real processes, real signals. One file for each promise or topic.
//!
//! Nothing here waits for time. Every wait is for an event, with a bound that only a hanging broker
//! reaches. A test that ends without a failure has, whatever else it does, stopped its broker in order
//! and found no process left (see `harness::TestBroker`).

#[cfg(test)]
mod harness;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod bound_to_a_process;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod child_surroundings;
#[cfg(test)]
mod children_log;
#[cfg(test)]
mod cleanup;
#[cfg(test)]
mod cleanup_surroundings;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod completions;
mod confinement;
#[cfg(test)]
mod destroy;
#[cfg(test)]
mod ended_children;
#[cfg(test)]
mod events;
#[cfg(test)]
mod hanging;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hostile_clients;
#[cfg(test)]
mod kept_bytes;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod one_owner;
#[cfg(test)]
mod orderly_stop;
#[cfg(test)]
mod output;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod ready_commands;
#[cfg(test)]
mod record;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod refused_creates;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod run;
#[cfg(test)]
mod rust_client;
#[cfg(test)]
mod shortage;
#[cfg(test)]
mod start;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod top;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod who_may;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod wire_reference;
