//! Which way of making a child is in use.

use super::clone::CloneMethod;

/// The ways in use.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SpawnFacilities {
    /// How a child is made.
    pub method: CloneMethod,
}
