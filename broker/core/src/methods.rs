//! What clients ask for: a file for each method, and files for connections, for targets, and for creates that wait.

mod connect;
mod contest;
mod create;
mod destroy;
mod events;
mod first_answer;
mod get;
mod list;
mod logs;
mod metrics;
mod recheck;
mod renew;
mod restart;
mod room;
mod shutdown;
mod signal;
mod status;
mod targets;
mod upgrade;
mod wait;
