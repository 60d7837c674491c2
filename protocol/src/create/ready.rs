//! When a child counts as ready.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::beginning::beginning;
use crate::duration;

/// When a child counts as running.
///
/// In JSON `"spawn"`, `"notify"`, or a probe: one of `{"tcp": "127.0.0.1:8080"}`, `{"unix": "/path"}`,
/// `{"log": "text"}` and `{"command": [..]}`, which may have an `interval` beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Ready {
    /// As soon as its program has been executed.
    #[default]
    Spawn,
    /// When it says so through `NOTIFY_SOCKET` (`sd_notify(3)`).
    Notify,
    /// When the broker finds it so.
    Probe(Probe),
}

/// A question that the broker asks again and again until the answer is yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// The pause before it is tried for the second time; it doubles with each, to a second.
    #[serde(with = "duration")]
    pub interval: Duration,
}

/// What shows that a child is ready.
///
/// The order of the variants is part of the binary encoding: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Something accepts connections at this address.
    Tcp(SocketAddr),
    /// Something accepts connections on the Unix stream socket at this path.
    Unix(String),
    /// A line of its output contains this text.
    Log(String),
    /// This command exits with 0, within five seconds. It runs as the child does: with its user, environment, folder and
    /// limits. What it says is not kept.
    Command(Vec<String>),
}

impl Ready {
    /// When something accepts connections at this address, such as `([127, 0, 0, 1], 8080)`.
    pub fn tcp(address: impl Into<SocketAddr>) -> Self {
        Check::Tcp(address.into()).into()
    }

    /// When something accepts connections on the Unix stream socket at this path.
    pub fn unix(path: impl Into<String>) -> Self {
        Check::Unix(path.into()).into()
    }

    /// When a line of its output contains this text.
    pub fn log(text: impl Into<String>) -> Self {
        Check::Log(text.into()).into()
    }

    /// When this command, run as the child's user, exits with 0.
    pub fn command<I: IntoIterator<Item: Into<String>>>(command: I) -> Self {
        Check::Command(command.into_iter().map(Into::into).collect()).into()
    }

    /// Sets the pause before a probe is tried for the second time; what is no probe stays as it is.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        match self {
            Self::Probe(Probe { check, interval: _ }) => Self::Probe(Probe { check, interval }),
            word @ (Self::Spawn | Self::Notify) => word,
        }
    }
}

impl Probe {
    /// The pause between the first two tries where none is given: 0.1 seconds.
    pub const INTERVAL: Duration = Duration::from_millis(100);
}

impl From<Check> for Ready {
    fn from(check: Check) -> Self {
        Self::Probe(Probe { check, interval: Probe::INTERVAL })
    }
}

impl Check {
    /// Reads the address of a [`Check::Tcp`]; the name `localhost` means 127.0.0.1, and no other is looked up.
    ///
    /// # Errors
    /// When the text is no address with a port.
    pub fn tcp(text: &str) -> Result<Self, AddressError> {
        let refusal = || AddressError { text: beginning(text).into_owned() };
        let address = match text.strip_prefix("localhost:") {
            Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().map_err(|_| refusal())?)),
            None => text.parse().map_err(|_| refusal())?,
        };
        Self::Tcp(address).checked()
    }

    /// Refuses the port 0, which nothing listens at.
    fn checked(self) -> Result<Self, AddressError> {
        match self {
            Self::Tcp(address) if address.port() == 0 => Err(AddressError { text: address.to_string() }),
            check @ (Self::Tcp(_) | Self::Unix(_) | Self::Log(_) | Self::Command(_)) => Ok(check),
        }
    }
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address; give one with its port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"")]
pub struct AddressError {
    text: String,
}

/// The probes by their names.
const CHECKS: &str = "tcp, unix, log or command";

impl Serialize for Ready {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let Probe { check, interval } = match self {
            Self::Spawn => return serializer.serialize_str("spawn"),
            Self::Notify => return serializer.serialize_str("notify"),
            Self::Probe(probe) => probe,
        };
        let mut object = serializer.serialize_map(Some(2))?;
        match check {
            Check::Tcp(address) => object.serialize_entry("tcp", address)?,
            Check::Unix(path) => object.serialize_entry("unix", path)?,
            Check::Log(text) => object.serialize_entry("log", text)?,
            Check::Command(command) => object.serialize_entry("command", command)?,
        }
        object.serialize_entry("interval", &Interval(*interval))?;
        object.end()
    }
}

/// The value of the member `interval`.
#[derive(Serialize, Deserialize)]
struct Interval(#[serde(with = "duration")] Duration);

impl<'de> Deserialize<'de> for Ready {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Readable);
        }
        match Self::deserialize(deserializer)? {
            Self::Probe(Probe { check, interval }) => {
                Ok(Self::Probe(Probe { check: check.checked().map_err(de::Error::custom)?, interval }))
            }
            word @ (Self::Spawn | Self::Notify) => Ok(word),
        }
    }
}

/// Reads the JSON form.
struct Readable;

impl<'de> de::Visitor<'de> for Readable {
    type Value = Ready;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("\"spawn\", \"notify\" or a probe such as {\"tcp\": \"127.0.0.1:8080\"}")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Ready, E> {
        match word {
            "spawn" => Ok(Ready::Spawn),
            "notify" => Ok(Ready::Notify),
            "tcp" | "unix" | "log" | "command" => {
                Err(E::custom(format_args!("give {word:?} as an object: {{{word:?}: ..}}")))
            }
            other => {
                Err(E::custom(format_args!("{:?} is none of spawn, notify, {CHECKS}", beginning(other))))
            }
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Ready, A::Error> {
        let (mut check, mut interval, mut members) = (None, None, BTreeSet::new());
        while let Some(member) = map.next_key::<String>()? {
            let found = match member.as_str() {
                other if members.contains(other) => {
                    return Err(de::Error::custom(format_args!("the field {other:?} is given twice")));
                }
                "tcp" => {
                    let text = map.next_value::<Option<String>>()?;
                    text.map(|text| Check::tcp(&text)).transpose().map_err(de::Error::custom)?
                }
                "unix" => map.next_value::<Option<_>>()?.map(Check::Unix),
                "log" => map.next_value::<Option<_>>()?.map(Check::Log),
                "command" => map.next_value::<Option<_>>()?.map(Check::Command),
                "interval" => {
                    interval = map.next_value::<Option<Interval>>()?;
                    None
                }
                other => {
                    let known = &["tcp", "unix", "log", "command", "interval"];
                    return Err(de::Error::unknown_field(other, known));
                }
            };
            members.insert(member);
            if let Some(found) = found
                && check.replace(found).is_some()
            {
                return Err(de::Error::custom(format_args!("it has {CHECKS}; give one of them")));
            }
        }
        let check = check.ok_or_else(|| {
            de::Error::custom(format_args!("a probe has {CHECKS} beside its interval; give one of them"))
        })?;
        let interval = interval.map_or(Probe::INTERVAL, |Interval(interval)| interval);
        Ok(Ready::Probe(Probe { check, interval }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Ready, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn each_form_reads_back_as_written() {
        for json in [
            r#""spawn""#,
            r#""notify""#,
            r#"{"tcp":"127.0.0.1:8080","interval":0.1}"#,
            r#"{"tcp":"[::1]:8080","interval":5}"#,
            r#"{"unix":"/run/web.sock","interval":0.25}"#,
            r#"{"log":"listening on","interval":0.1}"#,
            r#"{"command":["curl","-f","http://localhost/"],"interval":0.1}"#,
        ] {
            let ready = read(json).unwrap();
            assert_eq!(serde_json::to_string(&ready).unwrap(), json);
            let config = bincode::config::standard();
            let bytes = bincode::serde::encode_to_vec(&ready, config).unwrap();
            let (back, length): (Ready, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
            assert_eq!((back, length), (ready, bytes.len()));
        }
    }

    #[test]
    fn an_interval_that_is_not_given_is_a_tenth_of_a_second() {
        let log = Ready::from(Check::Log("up".to_owned()));
        for json in
            [r#"{"log":"up"}"#, r#"{"interval":null,"log":"up"}"#, r#"{"log":"up","interval":"100ms"}"#]
        {
            assert_eq!(read(json).unwrap(), log, "{json}");
        }
    }

    #[test]
    fn each_probe_has_its_short_form() {
        let cases = [
            (Ready::tcp(([127, 0, 0, 1], 80)), r#"{"tcp":"127.0.0.1:80"}"#),
            (Ready::unix("/run/a"), r#"{"unix":"/run/a"}"#),
            (Ready::log("up").every(Duration::from_secs(1)), r#"{"log":"up","interval":1}"#),
            (Ready::command(["test", "-f", "a"]), r#"{"command":["test","-f","a"]}"#),
            (Ready::Notify.every(Duration::from_secs(1)), r#""notify""#),
        ];
        for (ready, json) in cases {
            assert_eq!(Ok(ready), read(json), "{json}");
        }
    }

    #[test]
    fn localhost_is_the_loopback_address() {
        assert_eq!(Check::tcp("localhost:80"), Check::tcp("127.0.0.1:80"));
        for text in [
            "8080",
            ":8080",
            "127.0.0.1",
            "example.org:80",
            "127.0.0.1:0",
            "localhost:0",
            "localhost:",
            "::1:80",
        ] {
            assert!(Check::tcp(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_probe_is_told_what_there_is() {
        for (json, told) in [
            (r#""tcp""#, r#"give "tcp" as an object: {"tcp": ..}"#),
            (r#""soon""#, "\"soon\" is none of spawn, notify, tcp, unix, log or command"),
            ("{}", "a probe has tcp, unix, log or command beside its interval"),
            (r#"{"interval":1}"#, "a probe has tcp, unix, log or command beside its interval"),
            (r#"{"log":"a","log":"b"}"#, "\"log\" is given twice"),
            (r#"{"log":"a","unix":"/b"}"#, "it has tcp, unix, log or command; give one of them"),
            (r#"{"log":null}"#, "give one of them"),
            (r#"{"log":"a","interval":1,"interval":1}"#, "\"interval\" is given twice"),
            (r#"{"http":"http://localhost/"}"#, "unknown field `http`"),
            (r#"{"tcp":8080}"#, "expected a string"),
            (r#"{"tcp":"web:8080"}"#, "\"web:8080\" is not an address"),
            (r#"{"log":"a","interval":-1}"#, "negative"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(told), "{json}: {error}");
        }
    }
}
