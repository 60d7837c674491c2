//! Single processes: their descriptors, their numbers, their ends, and what `/proc` tells of them.

#[cfg(test)]
pub(crate) mod alone;
pub mod anchor;
pub mod anchor_watch;
pub(crate) mod apart;
pub mod child_signal;
pub mod descriptor;

mod exit_status;
pub mod identity;
pub mod mark;
pub mod pidfd;
pub mod priority;
pub mod probation;
pub mod proc;
pub mod reaper;
pub mod signal_mask;
pub mod subreaper;
pub mod variables;
pub mod whereabouts;
