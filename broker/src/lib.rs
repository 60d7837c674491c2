//! The edge of the process broker: it carries out what the pure core decides.
//!
//! Facts come in through [`listener`] and [`connection`] (clients), [`os::process::reaper`] (ended processes) and
//! [`spawners`] (started ones), go through the one queue of the [`driver`] to the core, and its orders go
//! out to the modules of [`os`]. [`serve`] puts these together; [`cli`] is the program around it.

pub mod blocking_pool;
mod causes;
pub mod cli;
pub mod connection;
pub mod driver;
pub mod follower;
pub mod limits;
pub mod listener;
pub mod os;
pub mod recovery;
pub mod report;
pub mod serve;
pub mod spawners;
pub mod upgrade;
