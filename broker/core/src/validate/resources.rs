//! Whether the kernel takes the bounds of a child's control group (cgroup-v2, in the kernel's documentation).

use procbroker_protocol::Error;
use procbroker_protocol::create::Resources;

use super::invalid;

/// The least and the greatest weight of a group.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=10_000;

/// The shortest quota, and the shortest period, in microseconds.
const CPU_TIME_MIN: u64 = 1_000;

/// The longest period, in microseconds.
const CPU_PERIOD_MAX: u64 = 1_000_000;

/// Checks `resources`.
pub(super) fn check(resources: &Resources) -> Result<(), Error> {
    let Resources { memory_max, cpu_weight, cpu_max, pids_max, memory_high, io_weight } = resources;
    for (field, bytes) in [("resources.memory_max", memory_max), ("resources.memory_high", memory_high)] {
        if *bytes == Some(0) {
            return Err(invalid(field, "it is 0, which lets nothing run"));
        }
    }
    if *pids_max == Some(0) {
        return Err(invalid("resources.pids_max", "it is 0, which lets nothing run"));
    }
    for (field, weight) in [("resources.cpu_weight", cpu_weight), ("resources.io_weight", io_weight)] {
        if weight.is_some_and(|weight| !WEIGHTS.contains(&weight)) {
            return Err(invalid(field, "it is from 1 to 10000"));
        }
    }
    match cpu_max {
        Some(text) if !is_quota(text) => Err(invalid(
            "resources.cpu_max",
            &format!(
                "{text:?} is no quota; give microseconds and a period from {CPU_TIME_MIN} to {CPU_PERIOD_MAX}, such as \"50000 100000\", or \"max\""
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Whether `cpu.max` takes this text: a quota or `max`, and a period or none.
fn is_quota(text: &str) -> bool {
    let (quota, period) = match text.split_once(' ') {
        Some((quota, period)) => (quota, Some(period)),
        None => (text, None),
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    let is_period =
        |text| number(text).is_some_and(|period| (CPU_TIME_MIN..=CPU_PERIOD_MAX).contains(&period));
    let is_quota = quota == "max" || number(quota).is_some_and(|quota| quota >= CPU_TIME_MIN);
    is_quota && period.is_none_or(is_period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_what_the_kernel_takes() {
        for text in ["max", "max 100000", "50000", "50000 100000", "1000 1000", "400000 1000000"] {
            assert!(is_quota(text), "{text}");
        }
        for text in
            ["", "max ", " max", "999", "+5000", "50000 999", "50000 1000001", "50000  100000", "50 %", "0.5"]
        {
            assert!(!is_quota(text), "{text}");
        }
    }
}
