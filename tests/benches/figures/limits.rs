//! How many children this machine can hold.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::failure::{Attempt, Failure};

/// What the rows ask for.
const CROWD: usize = 10_000;
/// Left for the machine's other processes and for the rows' own.
const RESERVE: usize = 2_000;

/// What a broker holds open for each child: its pidfd and the pipe of its output.
const DESCRIPTORS_A_CHILD: u64 = 2;

/// How many children can live beside each other: by the broker's descriptors, and because the kernel counts each thread of
/// the machine.
pub(crate) fn crowd() -> Result<usize, Failure> {
    let (_, descriptors) =
        getrlimit(Resource::RLIMIT_NOFILE).attempting("read the limit of open descriptors")?;
    let (processes, _) = getrlimit(Resource::RLIMIT_NPROC).attempting("read the limit of processes")?;
    let pids = read_number("/proc/sys/kernel/pid_max").unwrap_or(usize::MAX);
    let free_pids = pids.saturating_sub(running());
    let room = [descriptors / DESCRIPTORS_A_CHILD, processes]
        .into_iter()
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
        .chain([free_pids])
        .min()
        .unwrap_or_default();
    Ok(CROWD.min(room.saturating_sub(RESERVE)))
}

/// What is to be said when it is fewer than the rows ask for.
pub(crate) fn remark(crowd: usize) -> Option<String> {
    (crowd < CROWD).then(|| {
        format!(
            "rows with {CROWD} children are measured with {crowd}: the limits of descriptors, processes or \
             pids allow no more here"
        )
    })
}

fn read_number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The threads of the machine, from the fourth field of /proc/loadavg (`proc_loadavg(5)`).
fn running() -> usize {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let counts = text.split_whitespace().nth(3).and_then(|field| field.split_once('/'));
    counts.and_then(|(_, all)| all.parse().ok()).unwrap_or_default()
}
