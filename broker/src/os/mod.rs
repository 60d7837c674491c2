//! The operating system's interfaces, one file each; the only place with `unsafe` code.

pub mod accounts;
pub mod activation;
#[cfg(test)]
mod alone;
pub mod cgroup;
pub mod client_socket;
pub mod containment;
pub mod descendants;
pub mod environment;
pub mod facilities;
pub mod fd_store;
pub mod heap;
pub mod identity;
pub mod journal;
pub mod limits;
pub mod lock;
pub mod logs;
pub mod notify;
pub mod own;
pub mod peer;
pub mod pidfd;
pub mod reaper;
pub mod recovery;
pub mod runtime_dir;
pub mod socket;
pub mod spawn;
pub mod state_dir;
pub mod upgrade;
