//! Finds out what children use: from their cgroups, and from `/proc` what those do not count.
//!
//! It takes some tens of microseconds for each child, and a disk's time never; all the same it is nothing for the driver's
//! thread.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use procbroker_core::Pid;
use procbroker_protocol::{ChildId, Usage};

use super::leader::GroupLeader;
use super::process_table::ProcessEntry;
use crate::os::process::apart::{self, AskOutcome};
use crate::os::process::{pidfd, proc};
use crate::os::tree::cgroup::{Cgroups, Group, GroupUsage};

/// So many processes of a child without a cgroup are looked at.
const PROCESSES_MAX: usize = 10_000;

/// What is to be found out.
#[derive(Debug)]
pub struct Meter {
    cgroups: Option<Arc<Cgroups>>,
    subjects: Vec<Subject>,
}

/// A child that is measured.
#[derive(Debug)]
pub(super) struct Subject {
    child: ChildId,
    leader: Option<GroupLeader>,
    group: Option<Group>,
}

impl Subject {
    pub(super) fn of(child: ChildId, entry: &ProcessEntry) -> Self {
        Self { child, leader: entry.leader.clone(), group: entry.group.map(|(group, _)| group) }
    }
}

impl Meter {
    pub(super) fn new(cgroups: Option<Arc<Cgroups>>, subjects: Vec<Subject>) -> Self {
        Self { cgroups, subjects }
    }

    /// Finds it out, for those of which anything can be told.
    #[must_use]
    pub fn read(self) -> HashMap<ChildId, Usage> {
        let Self { cgroups, subjects } = &self;
        let units = Units::of_the_system();
        let read = |subject: &Subject| {
            let leader = subject.leader.as_ref()?;
            let in_group = subject.group.zip(cgroups.as_ref()).and_then(|(group, all)| all.usage(group));
            let usage = match in_group {
                Some(usage) => units.of_group(&usage),
                None => units.of_descendants(leader.pid)?,
            };
            // What was read was another's if the number of the process or of its group has been given away meanwhile.
            (!pidfd::has_ended(leader.pidfd.as_fd())).then_some(usage)
        };
        subjects.iter().filter_map(|subject| Some((subject.child, read(subject)?))).collect()
    }
}

/// What the system counts in.
#[derive(Clone, Copy, Debug)]
struct Units {
    ticks_a_second: Option<u64>,
    page_bytes: Option<u64>,
}

impl Units {
    fn of_the_system() -> Self {
        let number =
            |variable| sysconf(variable).ok().flatten().and_then(|number| u64::try_from(number).ok());
        Self {
            ticks_a_second: number(SysconfVar::CLK_TCK).filter(|ticks| *ticks > 0),
            page_bytes: number(SysconfVar::PAGE_SIZE),
        }
    }

    fn of_group(self, usage: &GroupUsage) -> Usage {
        let cpu = usage.cpu_micros.map(Duration::from_micros);
        Usage {
            cpu: cpu.or_else(|| self.cpu(&usage.members)),
            memory: usage.memory.or_else(|| self.memory(&usage.members)),
            memory_peak: usage.memory_peak,
            processes: u32::try_from(usage.members.len()).ok(),
        }
    }

    /// What a main process and its descendants use, as far as they have their ancestors still; none where the kernel does
    /// not list them.
    fn of_descendants(self, leader: Pid) -> Option<Usage> {
        if !proc::lists_children() {
            return None;
        }
        let mut processes = vec![leader];
        let mut next = 0;
        while let Some(pid) = processes.get(next).copied().filter(|_| processes.len() < PROCESSES_MAX) {
            processes.extend(proc::children(pid));
            next += 1;
        }
        Some(Usage {
            cpu: self.cpu(&processes),
            memory: self.memory(&processes),
            memory_peak: None,
            processes: u32::try_from(processes.len()).ok(),
        })
    }

    fn cpu(self, processes: &[Pid]) -> Option<Duration> {
        let ticks = |pid: Pid| match apart::ask(pid, move || proc::cpu_ticks(pid)) {
            AskOutcome::Answered(ticks) => ticks,
            AskOutcome::Kept => None,
        };
        let ticks: u64 = processes.iter().copied().filter_map(ticks).sum();
        let ticks_a_second = self.ticks_a_second?;
        Some(Duration::from_micros(ticks.saturating_mul(1_000_000) / ticks_a_second))
    }

    /// What they share is counted for each of them.
    fn memory(self, processes: &[Pid]) -> Option<u64> {
        let pages: u64 = processes.iter().filter_map(|pid| proc::resident_pages(*pid)).sum();
        Some(pages.saturating_mul(self.page_bytes?))
    }
}
