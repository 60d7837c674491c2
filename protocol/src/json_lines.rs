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
mod tree;
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
    /// To the id that it has itself.
    Id(JsonId),
    /// To `null`: its id could not be read, or it is not even clear whether it wants an answer.
    Null,
    /// To none: it is a well-formed notification, which is not answered whatever comes of it.
    Nobody,
}

/// The refusal of a line that is over the cap, and begins with these bytes: to its id, where that is among them.
#[must_use]
pub fn refuse_oversize(length: usize, head: &[u8]) -> Refusal {
    let reply = envelope::id_at_the_beginning(head).map_or(ReplyTo::Null, ReplyTo::Id);
    Refusal { reply, error: crate::binary::too_long(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_over_the_cap_is_refused_to_the_id_that_its_beginning_tells() {
        let long = format!("\"{}\"", "x".repeat(1024));
        let with_long = format!(r#"{{"jsonrpc":"2.0","id":{long},"method":"list","#);
        let cases = [
            (r#"{"jsonrpc":"2.0","id":7,"method":"create","params":{"command":["aaaa"#, Some("7")),
            (r#"{"id":"\u00e4 7","params":{"id":9,"a":[{"id":8},"#, Some(r#""\u00e4 7""#)),
            (r#" { "method" : "list" , "id" : -1.5 , "params" :"#, Some("-1.5")),
            (with_long.as_str(), Some(long.as_str())),
            // It may go on, or be another one.
            (r#"{"jsonrpc":"2.0","id":7"#, None),
            (r#"{"jsonrpc":"2.0","id":7,"meth"#, None),
            (r#"{"id":7,"id":8,"params":{"#, None),
            (r#"{"id":7,"method":"x","id":8,"params":{"#, None),
            // Not within what was read, in something else, or none.
            (r#"{"params":{"id":7,"command":["aaaa"#, None),
            (r#"{"id":null,"params":["#, None),
            (r#"{"method":"list","params":["#, None),
            (r#"[{"id":7,"params":["#, None),
            ("", None),
            ("xxxx", None),
        ];
        for (head, id) in cases {
            let reply = id.map_or(ReplyTo::Null, |id| ReplyTo::Id(JsonId::from_json(id).unwrap()));
            assert_eq!(refuse_oversize(1 << 21, head.as_bytes()).reply, reply, "{head}");
        }
        let cut = refuse_oversize(1 << 21, b"{\"id\":7,\"method\":\"x\",\"params\":{\"a\":\"\xc3");
        assert_eq!(cut.reply, ReplyTo::Id(JsonId::from_number(7)));
    }
}
