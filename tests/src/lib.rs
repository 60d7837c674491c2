//! What proves the process broker: the simulator of its state machine, and what its tests share.

pub mod sim;
