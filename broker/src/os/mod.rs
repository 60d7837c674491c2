//! The operating system's interfaces, in wings; the only place with `unsafe` code.
//!
//! | wing | what is there |
//! | --- | --- |
//! | [`process`] | one process: its descriptor, its number, its mark, its end, and what `/proc` tells of it |
//! | [`tree`] | a child with all that descends from it: what is left, signals, kills, cgroups |
//! | [`spawn`] | how a process is started, what it is surrounded by, and which step failed |
//! | [`logs`] | what children write: from their pipes to files, and out of these again |
//! | [`journal`] | what is on record of children: the log of intents, and the state file |
//! | [`store`] | the folders that outlive the broker: the state folder and the runtime folder |
//! | [`service`] | `sd_notify` and what else a service and its owner say to each other: the broker to systemd, and children to the broker |
//! | [`host`] | what the machine lends: sockets, locks, accounts, time, memory, descriptors, and folders that are the broker's own |
//!
//! `process` and `host` stand below the others. `tree` and `spawn` know where children write, `store` knows the journal.

pub mod host;
pub mod journal;
pub mod logs;
pub mod process;
pub mod service;
pub mod spawn;
pub mod store;
pub mod tree;
