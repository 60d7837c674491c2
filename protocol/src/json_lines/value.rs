//! Parameters as a tree of JSON values, from which the types read themselves, and the words for what does not fit.
//!
//! It stands between the parser and the types so that a refusal says in this broker's own words which field is
//! meant, what was expected there and what came. An object is read from an object alone, never from a list.

use std::collections::BTreeSet;
use std::fmt;

use crate::beginning::beginning;

use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// A JSON value; an object keeps its members in order, and one that is given twice twice.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// What does not fit, and where: the way to it from the inside out.
#[derive(Debug)]
pub(super) struct Misfit {
    reason: String,
    way: Vec<Step>,
}

/// One step of the way to what does not fit.
#[derive(Debug)]
pub(super) enum Step {
    Member(String),
    Element(usize),
}

impl Misfit {
    /// What does not fit, at the end of a way from the inside out.
    pub(super) fn at(way: Vec<Step>, reason: String) -> Self {
        Self { reason, way }
    }

    fn within(mut self, step: Step) -> Self {
        self.way.push(step);
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.way.iter().rev().enumerate() {
            match step {
                Step::Member(name) if depth == 0 => formatter.write_str(name)?,
                Step::Member(name) => write!(formatter, ".{name}")?,
                Step::Element(index) => write!(formatter, "[{index}]")?,
            }
        }
        if !self.way.is_empty() {
            formatter.write_str(": ")?;
        }
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { reason: message.to_string(), way: Vec::new() }
    }

    fn invalid_type(came: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, but got {}", wanted(&expected.to_string()), found(came)))
    }

    fn invalid_value(came: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(came, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, but got {length} elements", wanted(&expected.to_string())))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("{:?} is none of {}", beginning(variant), expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        if expected.is_empty() {
            return Self::custom(format_args!("unknown field {:?}; there are none", beginning(field)));
        }
        Self::custom(format_args!("unknown field {:?}; there are {}", beginning(field), expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field {field:?} is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field {field:?} is given twice"))
    }
}

/// What a type expects, in words for people: serde's own types name themselves as Rust does.
fn wanted(expected: &str) -> String {
    let number = |least: i64, most: u64| format!("a whole number from {least} to {most}");
    match expected {
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u16" => number(0, u16::MAX.into()),
        "u32" => number(0, u32::MAX.into()),
        "u64" => "a whole number of at least 0".to_owned(),
        "i32" => number(i32::MIN.into(), i32::MAX.unsigned_abs().into()),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

/// What came, in words for people.
fn found(came: Unexpected<'_>) -> String {
    match came {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => format!("{number:?}"),
        Unexpected::Str(text) => format!("the string {:?}", beginning(text)),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

impl Value {
    /// What it is, for a refusal of it.
    fn as_unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(number) => Unexpected::Unsigned(*number),
            Self::Signed(number) => Unexpected::Signed(*number),
            Self::Float(number) => Unexpected::Float(*number),
            Self::Text(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(number) => visitor.visit_u64(number),
            Self::Signed(number) => visitor.visit_i64(number),
            Self::Float(number) => visitor.visit_f64(number),
            Self::Text(text) => visitor.visit_string(text),
            Self::List(list) => visitor.visit_seq(Elements { rest: list.into_iter(), index: 0 }),
            Self::Object(object) => visitor.visit_map(Entries { rest: object.into_iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if let Self::Null = self { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self {
            Self::Object(_) => self.deserialize_any(visitor),
            other => Err(de::Error::invalid_type(other.as_unexpected(), &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let variant = match self {
            Self::Text(name) => Variant { name, value: None },
            Self::Object(object) => {
                let (name, value) = the_one(object, variants)?;
                Variant { name, value: Some(value) }
            }
            other => {
                let came = found(other.as_unexpected());
                let message = format_args!("expected one of {}, but got {came}", variants.join(", "));
                return Err(de::Error::custom(message));
            }
        };
        visitor.visit_enum(variant)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The member of an object that is there, of those of which one is to be: `null` is as good as absent.
fn the_one(object: Vec<(String, Value)>, known: &'static [&'static str]) -> Result<(String, Value), Misfit> {
    let mut names = BTreeSet::new();
    for (name, _) in &object {
        if !known.contains(&name.as_str()) {
            return Err(de::Error::unknown_variant(name, known));
        }
        if !names.insert(name.clone()) {
            return Err(de::Error::custom(format_args!("the field {name:?} is given twice")));
        }
    }
    let is_one = object.len() == 1;
    let mut there = object.into_iter().filter(|(_, value)| is_one || !matches!(value, Value::Null));
    match (there.next(), there.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            Err(de::Error::custom(format_args!("expected one of {}, but got an object", known.join(", "))))
        }
        (Some((first, _)), Some((second, _))) => {
            Err(de::Error::custom(format_args!("it has {first} and {second}; give one of them")))
        }
    }
}

struct Elements {
    rest: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some(element) = self.rest.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(element).map(Some).map_err(|misfit| misfit.within(Step::Element(index)))
    }
}

struct Entries {
    rest: std::vec::IntoIter<(String, Value)>,
    /// The member whose name was read last.
    value: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((name.clone(), value));
        seed.deserialize(StringDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misfit> {
        let (name, value) = self.value.take().unwrap_or((String::new(), Value::Null));
        seed.deserialize(value).map_err(|misfit| misfit.within(Step::Member(name)))
    }
}

/// One variant of an enum: its name, and what belongs to it where it came as an object.
struct Variant {
    name: String,
    value: Option<Value>,
}

/// What belongs to the variant of this name.
struct Content {
    name: String,
    value: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Misfit;
    type Variant = Content;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Content), Misfit> {
        let variant = seed.deserialize(StringDeserializer::new(self.name.clone()))?;
        Ok((variant, Content { name: self.name, value: self.value }))
    }
}

impl Content {
    fn required(self) -> Result<(String, Value), Misfit> {
        let Self { name, value } = self;
        let missing =
            || de::Error::custom(format_args!("give {0:?} as an object: {{{0:?}: ..}}", beginning(&name)));
        value.ok_or_else(missing).map(|value| (name, value))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        match self.value {
            None => Ok(()),
            Some(_) => {
                Err(de::Error::custom(format_args!("{:?} is given as a string alone", beginning(&self.name))))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misfit> {
        let (name, value) = self.required()?;
        seed.deserialize(value).map_err(|misfit| misfit.within(Step::Member(name)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        let (name, value) = self.required()?;
        value.deserialize_any(visitor).map_err(|misfit| misfit.within(Step::Member(name)))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let (name, value) = self.required()?;
        value.deserialize_struct("", fields, visitor).map_err(|misfit| misfit.within(Step::Member(name)))
    }
}
