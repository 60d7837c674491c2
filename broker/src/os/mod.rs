//! The operating system's interfaces, in wings; the only place with `unsafe` code.

pub mod environment;
pub mod host;
pub mod journal;
pub mod logs;
pub mod notices;
pub mod own;
pub mod probation;
pub mod process;
pub mod runtime_dir;
pub mod service;
pub mod spawn;
pub mod state_dir;
pub mod tree;
pub mod variables;
