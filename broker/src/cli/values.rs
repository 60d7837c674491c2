//! How single values are read from the command line: pairs, signals with a grace, lifetimes, readiness.

pub(in crate::cli) mod bounds;
mod durations;
mod error;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use glob::Pattern;
use procbroker_protocol::create::{Account, Check, Lifetime, Ready, StopStep, default_stop};
use procbroker_protocol::duration as on_wire;
use procbroker_protocol::name::NameError;
use procbroker_protocol::{Signal, Target};
use uuid::Uuid;

pub(in crate::cli) use durations::{duration, since};
pub(in crate::cli) use error::ValueError;

/// One of a few words, each with the value that it means and a line of help.
pub(in crate::cli) struct Choice<T: 'static> {
    pub(in crate::cli) word: &'static str,
    pub(in crate::cli) value: T,
    /// What `--help` says about it.
    pub(in crate::cli) help: &'static str,
}

/// Takes one of these words.
pub(in crate::cli) fn one_of<T: Copy + Send + Sync>(
    choices: &'static [Choice<T>],
) -> impl TypedValueParser<Value = T> {
    let possible = choices.iter().map(|choice| PossibleValue::new(choice.word).help(choice.help));
    PossibleValuesParser::new(possible).try_map(move |word| {
        let found = choices.iter().find(|choice| choice.word == word);
        found.map(|choice| choice.value).ok_or("it is none of the possible values")
    })
}

/// Takes `KEY=VALUE`; the value may be empty and may contain further `=`.
pub(in crate::cli) fn pair(text: &str) -> Result<(String, String), ValueError> {
    split(text, "KEY=VALUE").map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn split<'a>(text: &'a str, form: &'static str) -> Result<(&'a str, &'a str), ValueError> {
    text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or(ValueError::Pair { form })
}

/// Collects pairs into a map, in which no key may come twice: one of the two would be lost in silence.
pub(in crate::cli) fn map<T: Clone>(
    flag: &'static str,
    pairs: &[(String, T)],
) -> Result<BTreeMap<String, T>, ValueError> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value.clone()).is_some() {
            return Err(ValueError::Twice { key: key.clone(), flag });
        }
    }
    Ok(map)
}

/// Takes an id or a name.
pub(in crate::cli) fn target(text: &str) -> Result<Target, NameError> {
    Target::from_text(text)
}

/// Takes an id or a name, where labels are taken as well.
pub(in crate::cli) fn one_of_several_targets(text: &str) -> Result<Target, ValueError> {
    match target(text) {
        Err(NameError::Character { name, character: '*' | '?' | '[' }) => {
            Err(ValueError::Pattern { text: name })
        }
        target => Ok(target?),
    }
}

/// Takes a whole number of this range.
pub(in crate::cli) fn whole<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, ValueError> + Clone + Send + Sync + 'static
where
    T: Copy + TryFrom<i64> + Into<i64> + Send + Sync + 'static,
{
    let (min, max) = ((*range.start()).into(), (*range.end()).into());
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| ValueError::Whole { text: text.to_owned(), min, max })
    }
}

/// Takes the id of a request.
pub(in crate::cli) fn request_id(text: &str) -> Result<Uuid, ValueError> {
    text.parse().map_err(|_| ValueError::Uuid { text: text.to_owned() })
}

/// Takes a pattern of names.
pub(in crate::cli) fn glob(text: &str) -> Result<Pattern, ValueError> {
    Pattern::new(text).map_err(|error| ValueError::Glob { text: text.to_owned(), problem: error.msg })
}

/// Takes the number of an event.
pub(in crate::cli) fn event_number(text: &str) -> Result<u64, ValueError> {
    text.parse().map_err(|_| ValueError::Event { text: text.to_owned() })
}

/// Takes the name or the number of a user or a group.
pub(in crate::cli) fn account(text: &str) -> Result<Account, ValueError> {
    if text.is_empty() {
        return Err(ValueError::Account);
    }
    Ok(Account::from_text(text))
}

/// Takes a signal by its name or its number, with a dash or without.
pub(in crate::cli) fn signal(text: &str) -> Result<Signal, ValueError> {
    Ok(text.strip_prefix('-').unwrap_or(text).parse()?)
}

/// Takes `SIGNAL` or `SIGNAL:GRACE`.
pub(in crate::cli) fn stop_step(text: &str) -> Result<StopStep, ValueError> {
    let (signal, grace) = match text.split_once(':') {
        Some((signal, grace)) => (signal, duration(grace)?),
        None => (text, default_grace()),
    };
    Ok(StopStep { signal: signal.trim().parse()?, grace })
}

/// The grace of a step that names none: that of the stop which every child has by default.
fn default_grace() -> Duration {
    default_stop().first().map_or(Duration::ZERO, |step| step.grace)
}

/// Takes `broker`, `connection`, `pid:N` or `ttl:DURATION`.
pub(in crate::cli) fn lifetime(text: &str) -> Result<Lifetime, ValueError> {
    match text.split_once(':') {
        None if text == "broker" => Ok(Lifetime::Broker),
        None if text == "connection" => Ok(Lifetime::Connection),
        Some(("pid", pid)) => Ok(Lifetime::Pid(number(pid)?)),
        Some(("ttl", time)) => Ok(Lifetime::Ttl(duration(time)?)),
        None if on_wire::parse(text).is_ok() => Err(ValueError::LifetimeIsTime { text: text.to_owned() }),
        None | Some(_) => Err(ValueError::Lifetime),
    }
}

/// Takes `spawn`, `notify`, `tcp:[ADDRESS:]PORT`, `unix:PATH` or `log:TEXT`.
pub(in crate::cli) fn ready(text: &str) -> Result<Ready, ValueError> {
    match text.split_once(':') {
        None if text == "spawn" => Ok(Ready::Spawn),
        None if text == "notify" => Ok(Ready::Notify),
        Some(("tcp", port)) if port.parse::<u16>().is_ok() => {
            Ok(Check::tcp(&format!("{}:{port}", Ipv4Addr::LOCALHOST))?.into())
        }
        Some(("tcp", address)) => Ok(Check::tcp(address)?.into()),
        Some(("unix", path)) if !path.is_empty() => Ok(Check::Unix(path.to_owned()).into()),
        Some(("log", text)) if !text.is_empty() => Ok(Check::Log(text.to_owned()).into()),
        None | Some(_) => Err(ValueError::Ready),
    }
}

fn number(text: &str) -> Result<u32, ValueError> {
    text.parse().map_err(|_| ValueError::Number { text: text.to_owned(), max: u32::MAX.into() })
}

/// Takes the permissions of a file in octal digits.
pub(in crate::cli) fn file_mode(text: &str) -> Result<u32, ValueError> {
    let octal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777);
    mode.ok_or(ValueError::Mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(signal: Signal, seconds: u64) -> StopStep {
        StopStep { signal, grace: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_step_has_a_signal_and_may_have_a_grace() {
        assert_eq!(stop_step("SIGHUP:10s").unwrap(), step(Signal::HUP, 10));
        assert_eq!(stop_step("hup:1m 30s").unwrap(), step(Signal::HUP, 90));
        assert_eq!(stop_step("15:0").unwrap(), step(Signal::TERM, 0));
        assert_eq!(stop_step("SIGINT").unwrap(), step(Signal::INT, 10));
        for text in ["", ":5s", "SIGHUP:", "SIGHUP:soon", "SIGFOO:1s", "SIGHUP:-1"] {
            assert!(stop_step(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
        for text in ["", "a", "=b"] {
            assert_eq!(pair(text).unwrap_err().to_string(), "it is not of the form KEY=VALUE", "{text}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let pairs = ["a=1", "b=2", "a=3"].map(|text| pair(text).unwrap());
        let error = map("--label", &pairs).unwrap_err().to_string();
        assert_eq!(error, "\"a\" is given twice with --label; give each key once");
        assert_eq!(map("--label", &pairs[..2]).unwrap().len(), 2);
    }

    #[test]
    fn each_lifetime_has_its_form() {
        assert_eq!(lifetime("broker").unwrap(), Lifetime::Broker);
        assert_eq!(lifetime("connection").unwrap(), Lifetime::Connection);
        assert_eq!(lifetime("pid:12").unwrap(), Lifetime::Pid(12));
        assert_eq!(lifetime("ttl:1h").unwrap(), Lifetime::Ttl(Duration::from_secs(3600)));
        for text in ["", "pid", "pid:", "pid:-1", "ttl", "ttl:soon", "broker:1", "12"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_readiness_has_its_form() {
        assert_eq!(ready("spawn").unwrap(), Ready::Spawn);
        assert_eq!(ready("notify").unwrap(), Ready::Notify);
        assert_eq!(ready("tcp:[::1]:80").unwrap(), Check::tcp("[::1]:80").unwrap().into());
        assert_eq!(ready("unix:/run/a:b").unwrap(), Check::Unix("/run/a:b".to_owned()).into());
        assert_eq!(ready("log:it runs: now").unwrap(), Check::Log("it runs: now".to_owned()).into());
        for text in ["tcp:8080", "tcp:127.0.0.1:8080", "tcp:localhost:8080"] {
            assert_eq!(ready(text).unwrap(), Check::tcp("127.0.0.1:8080").unwrap().into(), "{text}");
        }
        for text in [
            "",
            "soon",
            "tcp",
            "tcp:",
            "tcp:0",
            "tcp:65536",
            "tcp:web",
            "unix:",
            "log:",
            "command:true",
            "spawn:1",
        ] {
            assert!(ready(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(file_mode("660").unwrap(), 0o660);
        assert_eq!(file_mode("0600").unwrap(), 0o600);
        for text in ["", "8", "1000", "+60", "rw", "0o60"] {
            assert!(file_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_account_is_a_name_or_a_number() {
        assert_eq!(account("33").unwrap(), Account::Id(33));
        assert_eq!(account("www-data").unwrap(), Account::Name("www-data".to_owned()));
        assert!(account("").is_err());
    }
}
