//! The service's owner, which is systemd mostly: what it passes, what it keeps, and what it is told.

pub mod activation;
pub mod fd_store;
pub mod journal;
pub mod notify;
