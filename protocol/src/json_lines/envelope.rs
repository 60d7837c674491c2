//! The outer object of a JSON-RPC request: `jsonrpc`, `id`, `method`, `params`.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::id::ID_BYTES_MAX;
use super::{JsonId, Refusal, ReplyTo};
use crate::beginning::beginning;
use crate::error::{Error, ErrorKind};

/// A sound envelope.
pub(super) struct Envelope<'a> {
    /// The id, where there is one.
    pub(super) id: Option<JsonId>,
    /// The name of the method, whether there is one of that name or not.
    pub(super) method: String,
    /// The parameters, where there are any.
    pub(super) params: Option<&'a str>,
}

/// Reads the envelope of one line.
pub(super) fn read(line: &[u8]) -> Result<Envelope<'_>, Refusal> {
    let not_json = |reason: String| {
        let error = Error::new(ErrorKind::ParseError, format!("the line is not JSON: {reason}"));
        Refusal { reply: ReplyTo::Null, error }
    };
    let text = std::str::from_utf8(line)
        .map_err(|error| not_json(format!("not UTF-8 after {} bytes", error.valid_up_to())))?;
    let message: Message<'_> = serde_json::from_str(text).map_err(|error| not_json(break_off(&error)))?;
    match message {
        Message::Object(members) => check(members),
        Message::Batch => Err(invalid(None, "batches are not taken; send one request a line")),
        Message::Other => Err(invalid(
            None,
            "a request is an object: {\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"list\"}",
        )),
    }
}

/// Where a line stops being JSON. What the parser expected there is about its own ways, and helps nobody who writes a line.
fn break_off(error: &serde_json::Error) -> String {
    let column = error.column();
    if error.is_eof() {
        format!("it ends early, after column {column}")
    } else {
        format!("it breaks off at column {column}")
    }
}

/// The id of a message of which only the beginning is there, where that tells it: it was read entirely, and something of
/// another name comes after it.
pub(super) fn id_at_the_beginning(head: &[u8]) -> Option<JsonId> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut, too.
        Err(error) => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
    };
    let mut found = Beginning::Nothing;
    // It ends early by its nature.
    let _ = (&mut found).deserialize(&mut serde_json::Deserializer::from_str(text));
    match found {
        Beginning::Told(json) => JsonId::from_json(json.get()),
        Beginning::Nothing | Beginning::Unsure(_) => None,
    }
}

/// What the beginning of a message tells of its id.
enum Beginning<'a> {
    Nothing,
    /// A number may go on where the text ends.
    Unsure(&'a RawValue),
    Told(&'a RawValue),
}

impl<'de> DeserializeSeed<'de> for &mut Beginning<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Beginning<'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the beginning of a JSON-RPC request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(key) = access.next_key::<String>()? {
            match *self {
                Beginning::Unsure(json) if key != "id" => *self = Beginning::Told(json),
                // Which of two ids would be the answer's is not known.
                Beginning::Unsure(_) | Beginning::Told(_) if key == "id" => {
                    *self = Beginning::Nothing;
                    return Ok(());
                }
                Beginning::Nothing | Beginning::Unsure(_) | Beginning::Told(_) => {}
            }
            if key == "id" {
                *self = Beginning::Unsure(access.next_value()?);
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// An invalid request is answered even without an id: it is not known whether it was meant to have one.
fn invalid(id: Option<JsonId>, message: impl Into<String>) -> Refusal {
    let reply = id.map_or(ReplyTo::Null, ReplyTo::Id);
    Refusal { reply, error: Error::new(ErrorKind::InvalidRequest, message) }
}

fn check(members: Members<'_>) -> Result<Envelope<'_>, Refusal> {
    let Members { jsonrpc, id, method, params, fault } = members;
    let unreadable =
        || invalid(None, format!("the id is not a number or a string of at most {ID_BYTES_MAX} bytes"));
    let id = id.map(|json| JsonId::from_json(json.get()).ok_or_else(unreadable)).transpose()?;
    match fault {
        Some(Fault::Unknown(name)) => {
            let message =
                format!("unknown field {:?}; a request has jsonrpc, id, method and params", beginning(&name));
            return Err(invalid(id, message));
        }
        // Which of two ids would be the answer's is not known.
        Some(Fault::Twice("id")) => return Err(invalid(None, "the field \"id\" is given twice")),
        Some(Fault::Twice(name)) => {
            return Err(invalid(id, format!("the field {:?} is given twice", beginning(name))));
        }
        None => {}
    }
    let text =
        |value: Option<&RawValue>| value.and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    if text(jsonrpc).as_deref() != Some("2.0") {
        return Err(invalid(id, "the field \"jsonrpc\" is not \"2.0\""));
    }
    let Some(method) = text(method) else {
        return Err(invalid(id, "the field \"method\" is not a string; give the name of a method"));
    };
    Ok(Envelope { id, method, params: params.map(RawValue::get) })
}

/// Any JSON value, taken apart as far as a request goes.
enum Message<'a> {
    Object(Members<'a>),
    Batch,
    Other,
}

#[derive(Default)]
struct Members<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    /// The first thing wrong with the members. It is kept so that the id can still be read after it.
    fault: Option<Fault>,
}

enum Fault {
    Unknown(String),
    Twice(&'static str),
}

impl<'de: 'a, 'a> Deserialize<'de> for Message<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MessageVisitor)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON-RPC request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Message<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(key) = access.next_key::<String>()? {
            let (name, member) = match key.as_str() {
                "jsonrpc" => ("jsonrpc", &mut members.jsonrpc),
                "id" => ("id", &mut members.id),
                "method" => ("method", &mut members.method),
                "params" => ("params", &mut members.params),
                _ => {
                    access.next_value::<IgnoredAny>()?;
                    members.fault.get_or_insert(Fault::Unknown(key));
                    continue;
                }
            };
            if member.replace(access.next_value()?).is_some() {
                members.fault.get_or_insert(Fault::Twice(name));
            }
        }
        Ok(Message::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Message<'de>, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Message::Batch)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Message<'de>, E> {
        Ok(Message::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Message<'de>, E> {
        Ok(Message::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Message<'de>, E> {
        Ok(Message::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Message<'de>, E> {
        Ok(Message::Other)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Message<'de>, E> {
        Ok(Message::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Message<'de>, E> {
        Ok(Message::Other)
    }
}
