//! What a child and its descendants may use together: which bounds it is given, and whether they can be had here.

use std::collections::BTreeMap;

use procbroker_protocol::create::Resources;
use procbroker_protocol::{Error, ErrorKind};

/// One of the bounds that a control group sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceBound {
    /// `memory.max`.
    MemoryMax,
    /// `memory.high`.
    MemoryHigh,
    /// `cpu.weight`.
    CpuWeight,
    /// `cpu.max`.
    CpuMax,
    /// `pids.max`.
    PidsMax,
    /// `io.weight`.
    IoWeight,
}

impl ResourceBound {
    /// Every bound, in the order of the names.
    pub const ALL: [Self; 6] =
        [Self::MemoryMax, Self::MemoryHigh, Self::CpuWeight, Self::CpuMax, Self::PidsMax, Self::IoWeight];

    /// Returns the member of `resources` that asks for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory_max",
            Self::MemoryHigh => "memory_high",
            Self::CpuWeight => "cpu_weight",
            Self::CpuMax => "cpu_max",
            Self::PidsMax => "pids_max",
            Self::IoWeight => "io_weight",
        }
    }

    /// Returns the file of a group that it is written to.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory.max",
            Self::MemoryHigh => "memory.high",
            Self::CpuWeight => "cpu.weight",
            Self::CpuMax => "cpu.max",
            Self::PidsMax => "pids.max",
            Self::IoWeight => "io.weight",
        }
    }

    /// Returns the controller that has to be enabled for it.
    #[must_use]
    pub const fn controller(self) -> &'static str {
        match self {
            Self::MemoryMax | Self::MemoryHigh => "memory",
            Self::CpuWeight | Self::CpuMax => "cpu",
            Self::PidsMax => "pids",
            Self::IoWeight => "io",
        }
    }

    /// Returns what is to be written for it, where it is asked for.
    #[must_use]
    pub fn value(self, resources: &Resources) -> Option<String> {
        let Resources { memory_max, cpu_weight, cpu_max, pids_max, memory_high, io_weight } = resources;
        match self {
            Self::MemoryMax => memory_max.map(|bytes| bytes.to_string()),
            Self::MemoryHigh => memory_high.map(|bytes| bytes.to_string()),
            Self::CpuWeight => cpu_weight.map(|weight| weight.to_string()),
            Self::CpuMax => cpu_max.map(|bound| bound.to_string()),
            Self::PidsMax => pids_max.map(|pids| pids.to_string()),
            Self::IoWeight => io_weight.map(|weight| weight.to_string()),
        }
    }
}

/// Refuses bounds that no child can be given here, rather than do without them in silence.
pub(crate) fn check(
    lacking: &BTreeMap<ResourceBound, String>,
    resources: Option<&Resources>,
) -> Result<(), Error> {
    let Some(resources) = resources else { return Ok(()) };
    let mut wanted = ResourceBound::ALL.into_iter().filter(|bound| bound.value(resources).is_some());
    let Some((bound, why)) = wanted.find_map(|bound| Some((bound, lacking.get(&bound)?))) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "resources.{} cannot be had here, which needs the {} controller of control groups (version 2): {why}; nothing \
             was started",
            bound.name(),
            bound.controller()
        ),
    ))
}
