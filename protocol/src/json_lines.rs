//! The textual encoding: JSON-RPC 2.0, one message a line, for scripts and other languages.
//!
//! What the objects look like is written down in one place, [`objects`], apart from the Rust types, so that
//! a change of a type does not change the wire by accident.

mod answer;
mod envelope;
mod id;
pub mod objects;
mod params;
mod refusal_line;
mod value;

pub use answer::{encode_answer, encode_notification, encode_request};
pub use id::JsonId;
pub use params::decode_request;
pub use refusal_line::{ErrorLineError, decode_error_line};

use crate::error::Error;
use crate::request::Request;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonRequest {
    /// Its id; a request without one is carried out and not answered.
    pub id: Option<JsonId>,
    /// What is asked for.
    pub request: Request,
}

/// A message to the broker that is no request that it can carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether and to which id it is answered.
    pub reply: ReplyTo,
    /// What is wrong with it.
    pub error: Error,
}

/// To which id a refused message is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// To its own.
    Id(JsonId),
    /// To `null`: its id could not be read, or it is not even clear whether it wants an answer.
    Null,
    /// To none: it is a well-formed notification, which is not answered whatever comes of it.
    Nobody,
}

/// The refusal of a line that is over the cap, of which only the beginning was read.
#[must_use]
pub fn refuse_oversize(length: usize) -> Refusal {
    Refusal { reply: ReplyTo::Null, error: crate::binary::too_long(length) }
}
