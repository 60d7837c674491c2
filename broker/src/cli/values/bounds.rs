//! How the bounds of a child are read from the command line: how many have its key, what its process may use (`setrlimit(2)`),
//! and what its control group may.

use procbroker_protocol::create::{CpuMax, Limit, Rlimit};

use super::{ValueError, number, split};
use crate::cli::size::ByteSize;

/// Takes `KEY=MAX`; the key may contain `=`.
pub(in crate::cli) fn limit(text: &str) -> Result<Limit, ValueError> {
    let (key, max) = text
        .rsplit_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or(ValueError::Pair { form: "KEY=MAX" })?;
    Ok(Limit { key: key.to_owned(), max: number(max)?, wait: None })
}

/// The resource limits that count bytes; see getrlimit(2).
const RLIMITS_IN_BYTES: [&str; 8] = ["as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"];

/// Takes `NAME=VALUE`, where the value is a number, a size where the limit is one of bytes, or `unlimited`.
pub(in crate::cli) fn rlimit(text: &str) -> Result<(String, Rlimit), ValueError> {
    let (name, value) = split(text, "NAME=VALUE")?;
    let name = name.to_ascii_lowercase();
    let rlimit = match value {
        "unlimited" | "infinity" => Rlimit::Unlimited,
        size if RLIMITS_IN_BYTES.contains(&name.as_str()) => Rlimit::Value(size.parse::<ByteSize>()?.bytes()),
        number => Rlimit::Value(
            number.parse().map_err(|_| ValueError::Number { text: number.to_owned(), max: u64::MAX })?,
        ),
    };
    Ok((name, rlimit))
}

/// One bound of a child's control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum CgroupBound {
    /// `memory.max`, in bytes; none is no bound.
    MemoryMax(Option<ByteSize>),
    /// `memory.high`, in bytes; none is no bound.
    MemoryHigh(Option<ByteSize>),
    CpuWeight(u32),
    CpuMax(CpuMax),
    PidsMax(u32),
    IoWeight(u32),
}

impl CgroupBound {
    /// The key that it was given under.
    pub(in crate::cli) fn name(&self) -> &'static str {
        match self {
            Self::MemoryMax(_) => "memory_max",
            Self::MemoryHigh(_) => "memory_high",
            Self::CpuWeight(_) => "cpu_weight",
            Self::CpuMax(_) => "cpu_max",
            Self::PidsMax(_) => "pids_max",
            Self::IoWeight(_) => "io_weight",
        }
    }
}

/// Takes `KEY=VALUE`, where the key is one of the resources.
pub(in crate::cli) fn resource(text: &str) -> Result<CgroupBound, ValueError> {
    let (name, value) = split(text, "KEY=VALUE")?;
    match name {
        "memory_max" => memory(value).map(CgroupBound::MemoryMax),
        "memory_high" => memory(value).map(CgroupBound::MemoryHigh),
        "cpu_weight" => number(value).map(CgroupBound::CpuWeight),
        "cpu_max" => Ok(CgroupBound::CpuMax(value.parse()?)),
        "pids_max" => number(value).map(CgroupBound::PidsMax),
        "io_weight" => number(value).map(CgroupBound::IoWeight),
        other => Err(ValueError::Resource { name: other.to_owned() }),
    }
}

fn memory(text: &str) -> Result<Option<ByteSize>, ValueError> {
    if text == "max" { Ok(None) } else { Ok(Some(text.parse()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_bytes_is_taken_as_a_size() {
        let value = |text| match rlimit(text).unwrap().1 {
            Rlimit::Value(value) => value,
            Rlimit::Unlimited => panic!("{text}"),
        };
        for (text, expected) in [
            ("as=50M", 50 << 20),
            ("AS=1GiB", 1 << 30),
            ("core=0", 0),
            ("stack=65536", 65536),
            ("nofile=9", 9),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        assert!(rlimit("as=much").unwrap_err().to_string().contains("16MiB"));
        assert!(rlimit("nofile=1k").unwrap_err().to_string().contains("is not a number"));
    }

    #[test]
    fn a_limit_is_split_at_its_last_equals_sign() {
        assert_eq!(limit("a=b=4").unwrap(), Limit { key: "a=b".to_owned(), max: 4, wait: None });
        for text in ["", "a", "=4", "a=", "a=-1", "a=4294967296"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resource_limits_are_numbers_or_unlimited() {
        assert_eq!(rlimit("nofile=1024").unwrap(), ("nofile".to_owned(), Rlimit::Value(1024)));
        assert_eq!(rlimit("NPROC=unlimited").unwrap(), ("nproc".to_owned(), Rlimit::Unlimited));
        for text in ["nofile", "nofile=", "nofile=-1", "nofile=1K", "=1"] {
            assert!(rlimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_suffixes() {
        for text in ["memory_max=512M", "memory_max=512m", "memory_max=512MiB", "memory_max=536870912"] {
            assert_eq!(
                resource(text).unwrap(),
                CgroupBound::MemoryMax(Some(ByteSize::new(512 << 20))),
                "{text}"
            );
        }
        assert_eq!(resource("memory_max=max").unwrap(), CgroupBound::MemoryMax(None));
        let half = CpuMax { quota: Some(50_000), period: 100_000 };
        for text in ["cpu_max=50000 100000", "cpu_max=0.5", "cpu_max=50%"] {
            assert_eq!(resource(text).unwrap(), CgroupBound::CpuMax(half), "{text}");
        }
        assert_eq!(resource("cpu_weight=100").unwrap(), CgroupBound::CpuWeight(100));
        assert_eq!(resource("pids_max=64").unwrap(), CgroupBound::PidsMax(64));
        assert_eq!(resource("io_weight=50").unwrap(), CgroupBound::IoWeight(50));
        assert_eq!(resource("memory_high=1k").unwrap(), CgroupBound::MemoryHigh(Some(ByteSize::new(1024))));
        for text in [
            "memory_max=",
            "memory_max=K",
            "memory_max=1MB",
            "memory_max=99999999T",
            "memory_max=é",
            "cpu_max=half",
        ] {
            assert!(resource(text).is_err(), "{text}");
        }
        assert!(resource("memory=1").unwrap_err().to_string().contains("memory_max"));
    }
}
