//! Which ways of spawning the kernel and the sandbox around the broker let through.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::Spawner;
use super::clone::Method;
use super::failure::{SpawnFailure, Step};

/// The ways in use.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Facilities {
    /// How a child is made.
    pub method: Method,
    /// How it leaves the broker's descriptors behind.
    pub descriptors: DescriptorClosing,
    /// How it gets into its cgroup.
    pub cgroup_entry: CgroupEntry,
}

/// How a child leaves the broker's descriptors behind.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DescriptorClosing {
    /// All at once, by `close_range(2)`, Linux 5.9.
    CloseRange,
    /// One after the other, in a copy of the table.
    OneByOne,
}

/// How a child gets into its cgroup.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CgroupEntry {
    /// By its birth: `CLONE_INTO_CGROUP`, Linux 5.7.
    AtBirth,
    /// By writing itself to `cgroup.procs`. For where the kernel cannot do better, and for a subtree that was
    /// once killed by `cgroup.kill`, where the kernel kills each newborn.
    ByItself,
}

impl Facilities {
    /// Tries each way, the best first, with a child that executes nothing.
    ///
    /// `cgroup` is the directory of a cgroup v2 group that may have children, such as the one in which each
    /// child will get its group; without it `cgroup_entry` is not tried.
    ///
    /// # Errors
    /// What the last way failed with, and EAGAIN, ENOMEM, EMFILE or ENFILE at once, since they say nothing
    /// about the way.
    pub fn probe(cgroup: Option<BorrowedFd<'_>>) -> Result<Self, ProbeError> {
        let mut facilities = Self {
            method: Method::Clone3,
            descriptors: DescriptorClosing::CloseRange,
            cgroup_entry: CgroupEntry::AtBirth,
        };
        let mut result = facilities.rehearse(None)?;
        if let Err(SpawnFailure::Refused { step: Step::Clone, errno }) = result
            && !is_shortage(errno)
        {
            facilities.method = Method::Clone;
            result = facilities.rehearse(None)?;
        }
        if let Err(SpawnFailure::Refused { step: Step::Descriptors, .. }) = result {
            facilities.descriptors = DescriptorClosing::OneByOne;
            result = facilities.rehearse(None)?;
        }
        result?;
        let born_there = match (facilities.method, cgroup) {
            (Method::Clone, _) => false,
            (Method::Clone3, None) => true,
            (Method::Clone3, Some(_)) => facilities.rehearse(cgroup)?.is_ok(),
        };
        if !born_there {
            facilities.cgroup_entry = CgroupEntry::ByItself;
        }
        Ok(facilities)
    }

    fn rehearse(self, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Result<(), SpawnFailure>> {
        Ok(Spawner::new(self)?.rehearse(cgroup))
    }
}

/// Whether it is for want of something that may be there the next moment.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
}

/// No way of spawning works.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No memory for a spawner.
    #[error("could not map the memory of a spawner: {0}")]
    Memory(#[from] io::Error),
    /// Not even the simplest way works.
    #[error("no process can be created here: {0}")]
    Spawn(#[from] SpawnFailure),
}
