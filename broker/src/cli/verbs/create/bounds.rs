//! What bounds the child: how many there may be beside it, and what it may use.

use std::time::Duration;

use clap::Args;
use procbroker_protocol::create::{Limit, Resources, Rlimit};

use crate::cli::size::ByteSize;
use crate::cli::values::bounds::{CgroupBound, limit, resource, rlimit};
use crate::cli::values::{ValueError, duration};

/// What bounds the child.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bounds of the child")]
pub(super) struct BoundsArguments {
    /// Fail, with exit status 4, when MAX live children have this key already
    #[arg(long, value_name = "KEY=MAX", value_parser = limit)]
    limit: Option<Limit>,
    /// With --limit: how long to wait for a place, in the order of arrival, before that
    #[arg(long, value_name = "DURATION", requires = "limit", value_parser = duration)]
    pub(super) limit_wait: Option<Duration>,
    /// A resource limit, soft and hard, such as nofile=1024, as=512M or core=unlimited; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = rlimit)]
    pub(super) rlimit: Vec<(String, Rlimit)>,
    /// A bound of its control group, such as `memory_max=512M`; may be repeated
    ///
    /// There are `memory_max` and `memory_high` (bytes, or with k, M, G or T, or max), `cpu_weight` and `io_weight` (1 to
    /// 10000), `cpu_max` (processors such as 1.5, or 150%, or a quota and a period in microseconds such as "150000
    /// 100000") and `pids_max`. It needs a broker that has a control group (version 2) delegated to it: `procbroker status`
    /// tells, under `facilities.controllers`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = resource)]
    resource: Vec<CgroupBound>,
}

impl BoundsArguments {
    /// How many there may be of a key, and how long to wait for a place among them.
    pub(super) fn limit(&self) -> Option<Limit> {
        self.limit.clone().map(|limit| Limit { wait: self.limit_wait, ..limit })
    }

    /// The bounds of its control group; none where none is given.
    pub(super) fn resources(&self) -> Result<Option<Resources>, ValueError> {
        let mut resources = Resources::default();
        for (index, resource) in self.resource.iter().enumerate() {
            if self.resource.iter().take(index).any(|earlier| earlier.name() == resource.name()) {
                return Err(ValueError::Twice { key: resource.name().to_owned(), flag: "--resource" });
            }
            match resource {
                CgroupBound::MemoryMax(size) => resources.memory_max = size.map(ByteSize::bytes),
                CgroupBound::MemoryHigh(size) => resources.memory_high = size.map(ByteSize::bytes),
                CgroupBound::CpuWeight(weight) => resources.cpu_weight = Some(*weight),
                CgroupBound::CpuMax(bound) => resources.cpu_max = Some(*bound),
                CgroupBound::PidsMax(pids) => resources.pids_max = Some(*pids),
                CgroupBound::IoWeight(weight) => resources.io_weight = Some(*weight),
            }
        }
        Ok((!self.resource.is_empty()).then_some(resources))
    }
}
