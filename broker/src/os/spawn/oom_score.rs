//! Whether the kernel spares the broker when memory runs out.

use std::fs;

/// How likely a child is to be killed when memory runs out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OomScore {
    Inherited,
    /// As a process is of which nothing was said.
    Default,
}

/// Whether this process is less likely than others to be killed when memory runs out: its `oom_score_adj` is below zero
/// (`proc_pid_oom_score_adj(5)`, `OOMScoreAdjust=` of systemd), which is a privilege.
///
/// A value above zero is none, and stays what it is for children: in a container all processes may have the same.
pub(super) fn is_spared() -> bool {
    fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|text| spares(&text))
}

fn spares(text: &str) -> bool {
    text.trim().parse::<i32>().is_ok_and(|value| value < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_value_below_zero_spares() {
        assert!(spares("-900\n") && spares("-1\n"));
        assert!(!spares("0\n") && !spares("1000\n") && !spares(""));
    }
}
