//! The client of procbroker: a program asks the broker to start, stop and show long-lived processes.
//!
//! It reads like [`std::process`], except that a child belongs to the broker: it lives on when this
//! program ends, and is stopped with the broker, in order.
//!
//! ```no_run
//! use std::time::Duration;
//! use procbroker_client::{Broker, IfExists, Outcome, Select};
//!
//! # async fn example() -> Result<(), procbroker_client::Error> {
//! let broker = Broker::connect().await?;
//! let child = broker
//!     .command("python3")
//!     .args(["render.py", "42"])
//!     .name("render-42")
//!     .label("pool", "render")
//!     .if_exists(IfExists::Reuse)
//!     .stop([("SIGHUP", Duration::from_secs(10))])
//!     .spawn()
//!     .await?;
//! match child.outcome {
//!     Outcome::Created => println!("started {}", child.id()),
//!     Outcome::Existing { same_spec } => println!("it runs already; equally specified: {same_spec}"),
//!     Outcome::Replaced => println!("another one had to go"),
//! }
//! for child in broker.list(&Select::live().label("pool", "render")).await? {
//!     println!("{} {:?} {:?}", child.id(), child.name(), child.info().state);
//! }
//! let ended = child.destroy().await?;
//! println!("{:?}", ended.exit);
//! # Ok(())
//! # }
//! ```
//!
//! Whoever has only the name, or labels, needs no handle:
//!
//! ```no_run
//! # use procbroker_client::{Broker, Select};
//! # async fn example() -> Result<(), procbroker_client::Error> {
//! let broker = Broker::connect().await?;
//! broker.signal("render-42", "SIGUSR1").await?;
//! broker.signal(Select::live().label("pool", "render"), "SIGHUP").await?;
//! println!("{:?}", broker.wait("render-42").await?.exit);
//! print!("{}", broker.logs("render-42").await?.text);
//! # Ok(())
//! # }
//! ```
//!
//! A server that is ready when it accepts connections, and comes back when it crashes:
//!
//! ```no_run
//! use std::time::Duration;
//! use procbroker_client::{Broker, IfExists, Ready, Restart};
//!
//! # async fn example() -> Result<(), procbroker_client::Error> {
//! let broker = Broker::connect().await?;
//! let mut server = broker
//!     .command("./server")
//!     .name("server-42")
//!     .if_exists(IfExists::Reuse)
//!     .ready(Ready::tcp(([127, 0, 0, 1], 8080)))
//!     .restart(Restart::on_failure().at_most(3, Duration::from_secs(60)))
//!     .limit_and_wait("servers", 10, Duration::from_secs(5))
//!     .spawn()
//!     .await?;
//! let usage = server.child.refresh().await?.usage.clone();
//! println!("{:?}, {:?}", usage, server.spec().and_then(|spec| spec.log.as_ref()));
//! # Ok(())
//! # }
//! ```
//!
//! A helper that ends with this program, however that ends, and lives on when the broker is upgraded meanwhile:
//!
//! ```no_run
//! use procbroker_client::{Broker, IfExists, Lifetime};
//!
//! # async fn example() -> Result<(), procbroker_client::Error> {
//! let broker = Broker::connect().await?;
//! let helper = broker
//!     .command("./helper")
//!     .name("helper")
//!     .if_exists(IfExists::Reuse)
//!     .lifetime(Lifetime::Connection)
//!     .spawn()
//!     .await?;
//! println!("{} lives as long as this broker's handles", helper.id());
//! # Ok(())
//! # }
//! ```
//!
//! All clones of a [`Broker`] share one connection. It is made again when the broker is restarted or
//! upgraded, and calls in progress go on where that is safe; a create always is, since each carries an
//! id. It needs a tokio runtime with its I/O and time drivers enabled; programs without one use
//! [`blocking`].

pub mod blocking;
mod broker;
mod by_target;
mod child;
mod command;
mod connection;
mod convert;
mod dial;
mod error;
mod holds;
mod link;
mod retry;
mod route;
mod subscription;

pub use procbroker_protocol as protocol;
pub use procbroker_protocol::create::{
    CpuMax, IfExists, Lifetime, Ready, Resources, Restart, Rlimit, StandardError, StandardOutput,
};
pub use procbroker_protocol::{
    Child as ChildInfo, ChildId, ChildState, Cleaned, ErrorKind, Event, EventKind, Exit, ExitReason,
    ExitStatus, Field, Name, Outcome, PartialChild, PartialChildren, Request, Response, Signal, Spec, Status,
    Target, Usage,
};

pub use broker::{Broker, Builder, Upgrade};
pub use child::{Child, Created};
pub use command::Command;
pub use convert::{Select, ToSignal, ToStopStep, ToTarget};
pub use error::{Error, Invalid};
pub use route::default_socket;
pub use subscription::{Events, Happening, LogChunk, LogFollow};

/// The crate's page, whose program is compiled as its readers would, as an example in the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
