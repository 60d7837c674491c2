//! What a service and its owner say to each other: the broker as a service, of systemd mostly, which passes it something, keeps
//! something and is told how it is; and the broker as the owner of its children, which tell it how they are.

pub mod activation;
pub mod fd_store;
pub mod journal;
pub mod notices;
pub mod notify;
