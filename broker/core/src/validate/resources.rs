//! Whether the kernel takes the bounds of a child's control group (cgroup-v2, in the kernel's documentation).

use procbroker_protocol::Error;
use procbroker_protocol::create::{CpuMax, Resources};

use super::invalid;

/// The least and the greatest weight of a group.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=10_000;

/// The shortest and the longest period, in microseconds.
const CPU_PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

/// The shortest and the longest quota, in microseconds (`max_cfs_runtime` of the kernel).
const CPU_QUOTAS: std::ops::RangeInclusive<u64> = 1_000..=17_592_186_044;

/// Checks `resources`.
pub(super) fn check(resources: &Resources) -> Result<(), Error> {
    let Resources { memory_max, cpu_weight, cpu_max, pids_max, memory_high, io_weight } = resources;
    for (field, bytes) in [("resources.memory_max", memory_max), ("resources.memory_high", memory_high)] {
        if *bytes == Some(0) {
            return Err(invalid(field, "it is 0, which lets nothing run"));
        }
    }
    if let (Some(high), Some(max)) = (memory_high, memory_max)
        && high > max
    {
        let reason =
            format!("it is {high} bytes, which memory_max, {max} bytes, lets nothing reach; give less");
        return Err(invalid("resources.memory_high", &reason));
    }
    if *pids_max == Some(0) {
        return Err(invalid("resources.pids_max", "it is 0, which lets nothing run"));
    }
    for (field, weight) in [("resources.cpu_weight", cpu_weight), ("resources.io_weight", io_weight)] {
        if weight.is_some_and(|weight| !WEIGHTS.contains(&weight)) {
            return Err(invalid(field, "it is from 1 to 10000"));
        }
    }
    let Some(CpuMax { quota, period }) = cpu_max else { return Ok(()) };
    if !CPU_PERIODS.contains(period) {
        return Err(invalid(
            "resources.cpu_max",
            &format!(
                "its period is {period} microseconds, and has to be from {} to {}",
                CPU_PERIODS.start(),
                CPU_PERIODS.end()
            ),
        ));
    }
    match quota {
        Some(quota) if !CPU_QUOTAS.contains(quota) => Err(invalid(
            "resources.cpu_max",
            &format!(
                "its quota is {quota} microseconds in each {period}, and has to be from {} to {}",
                CPU_QUOTAS.start(),
                CPU_QUOTAS.end()
            ),
        )),
        Some(_) | None => Ok(()),
    }
}
