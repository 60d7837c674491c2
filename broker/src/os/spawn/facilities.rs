//! By which system calls this broker makes children, as a probe at its start has found.

use super::clone::CloneMethod;

/// The ways in use.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SpawnFacilities {
    /// How a child is made.
    pub method: CloneMethod,
}
