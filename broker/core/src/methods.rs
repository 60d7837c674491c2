//! What clients ask for, one file a method; and how its children are found, and looked at again.

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
