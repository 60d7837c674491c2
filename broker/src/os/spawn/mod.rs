//! Starts processes without waiting for them, at the same cost however large the broker is and however many descriptors it
//! has open.
//!
//! A [`SpawnSpec`] says what to start, [`SpawnPlan::prepare`] checks and converts it, and a [`Launcher`] starts it, which
//! tells later of a process that executes its program, or of the step that failed and why, with nothing left.
//! [`environment`] turns an order of the core into a specification; [`SpawnFacilities::probe`] finds out, once, which ways the kernel lets through.
//!
//! [`PathLooks`] are children as well, which execute nothing. Inside, `clone` is the birth, `child` what the child does until it executes its program, and `slot` what the
//! two share.

mod base_environment;
mod bonds;
mod child;
mod clone;
pub mod environment;
mod facilities;
mod failure;
mod launcher;
mod listens;
mod look;
mod memory;
mod name;
mod oom_score;
mod own_pid;
mod plan;
mod probe;
mod raw;
mod report;
mod resource;
mod signals;
mod slot;
mod spec;
mod strings;
#[cfg(test)]
pub(in crate::os) mod tests;

pub use base_environment::BaseEnvironment;
pub use clone::CloneMethod;
pub use facilities::SpawnFacilities;
pub use failure::{SpawnError, Step};
pub use launcher::{LaunchOutcome, Launcher, Spawned};
pub use look::{PathLook, PathLooks, kill};
pub use name::LaunchName;
pub use plan::SpawnPlan;
pub use probe::ProbeError;
pub use resource::{Resource, ResourceLimit};
pub use spec::{Bounding, Credentials, ErrorOutput, Output, Restraint, SpawnSpec, StdinSource};
