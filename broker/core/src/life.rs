//! What a child goes through: its start, its stop, its cleanup, and how they go on after a crash.

mod cleanup;
mod main_command;
mod recovery;
mod start;
mod stop;
