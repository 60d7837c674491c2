//! The folders in which a broker keeps what outlives it: the state folder, for good, and the runtime folder, until the machine
//! is started again.

pub mod runtime_dir;
pub mod state_dir;
