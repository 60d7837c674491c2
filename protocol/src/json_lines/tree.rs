//! From the text of parameters to a tree of values, and what of a text that is JSON cannot be held.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::value::{Misfit, Step, Value};

/// How deep the parser follows lists and objects that stand in each other (`serde_json`, "recursion limit").
const DEPTH_MAX: usize = 127;

/// Reads a text that is JSON.
///
/// # Errors
/// What of it cannot be held, and where that is.
pub(super) fn read(json: &str) -> Result<Value, Misfit> {
    let mut way = Vec::new();
    let mut parser = serde_json::Deserializer::from_str(json);
    let read = Tree { way: &mut way }.deserialize(&mut parser);
    read.map_err(|error| {
        if let Some(escape) = lone_surrogate(json).filter(|escape| escape.end <= error.column()) {
            let escape = json.get(escape).unwrap_or_default();
            let reason = format!(
                "{escape} is half of a surrogate pair, which is no character; give both halves, or the character itself"
            );
            return Misfit::at(way, reason);
        }
        if way.len() >= DEPTH_MAX {
            way.drain(..way.len() - 1);
            return Misfit::at(way, format!("nested more than {DEPTH_MAX} deep"));
        }
        Misfit::at(way, "the number is out of range".to_owned())
    })
}

/// Finds the first escape of half a character, in a text that is JSON.
fn lone_surrogate(json: &str) -> Option<std::ops::Range<usize>> {
    let bytes = json.as_bytes();
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += match (byte, unit(at), unit(at + 6)) {
            (b'\\', Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff), _) => return Some(at..at + 6),
            (b'\\', _, _) => 2,
            (_, _, _) => 1,
        };
    }
    None
}

/// Reads a value, and keeps the way to what cannot be read, from the inside out.
struct Tree<'a> {
    way: &'a mut Vec<Step>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Signed(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            match elements.next_element_seed(Tree { way: &mut *self.way }) {
                Ok(Some(element)) => list.push(element),
                Ok(None) => return Ok(Value::List(list)),
                Err(error) => {
                    self.way.push(Step::Element(list.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            match members.next_value_seed(Tree { way: &mut *self.way }) {
                Ok(value) => object.push((name, value)),
                Err(error) => {
                    self.way.push(Step::Member(name));
                    return Err(error);
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        read(json).unwrap_err().to_string()
    }

    #[test]
    fn half_a_character_is_told_with_its_place() {
        for (json, place, escape) in [
            (r#"{"target":"\ud800"}"#, "target: ", r"\ud800"),
            (r#"{"labels":{"a":"x\uDC00"}}"#, "labels.a: ", r"\uDC00"),
            (r#"{"command":["a","\ud83d\ude00\uD83D!"]}"#, "command[1]: ", r"\uD83D"),
            (r#"{"command":["\ud83d\u0041"]}"#, "command[0]: ", r"\ud83d"),
            (r#"{"env":{"\\ud800\udc01":"a"}}"#, "env: ", r"\udc01"),
        ] {
            let message = refused(json);
            assert!(
                message.starts_with(&format!("{place}{escape} is half of a surrogate pair")),
                "{message}"
            );
        }
        for json in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#"["\\\\ud800", "\u00e4"]"#] {
            assert!(read(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_told_with_its_place() {
        assert_eq!(refused(r#"{"a":[1,1e400],"b":"\ud800"}"#), "a[1]: the number is out of range");
        for depth in [DEPTH_MAX + 1, 1000] {
            let json = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(refused(&json), "a: nested more than 127 deep");
        }
        let json = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(read(&json).is_ok());
    }
}
