//! What the machine lends to the broker: sockets, folders, locks, accounts, time, memory, descriptors; and the folders that are the broker's own.

pub mod accounts;
pub mod caller;
pub mod client_socket;
pub mod clock;
pub mod code;
pub mod disposal;
pub mod exposed_socket;
pub mod folder;
pub mod fs_rights;
pub mod heap;
pub mod listening;
pub mod local_time;
pub mod lock;
pub mod nofile;
pub mod own_folder;
pub mod peer;
pub mod socket;
pub mod subordinates;
pub mod terminal;
pub mod window;
