//! What goes over the broker's socket, for both sides of it and in both encodings.
//!
//! One set of types serves the binary encoding (frames of bincode, for the Rust client) and the
//! textual one (JSON-RPC 2.0, one message a line, for scripts and other languages). The types derive
//! the binary form; where JSON reads differently, the type says so itself, by asking the serializer
//! whether it is writing for humans.

mod beginning;
pub mod binary;
pub mod byte_size;
pub mod child;
pub mod create;
pub mod duration;
pub mod error;
pub mod event;
pub mod frame;
pub mod json_lines;
pub mod limits;
pub mod name;
mod nullable;
pub mod partial;
pub mod request;
pub mod response;
pub mod signal;
pub mod since;
pub mod socket_path;
pub mod spec;
pub mod status;
pub mod target;
pub mod timestamp;
pub mod usage;
pub mod version;

pub use child::{
    Child, ChildId, ChildState, Cleaned, Containment, Exit, ExitReason, ExitStatus, Owner, StepTaken,
};
pub use create::CreateParams;
pub use error::{Error, ErrorKind, Holder};
pub use event::{Event, EventKind, Notification};
pub use name::Name;
pub use partial::{Field, Fields, PartialChild, PartialChildren};
pub use request::{Method, Request};
pub use response::{Got, Outcome, Response};
pub use signal::Signal;
pub use since::Since;
pub use spec::Spec;
pub use status::Status;
pub use target::Target;
pub use timestamp::Timestamp;
pub use usage::Usage;
