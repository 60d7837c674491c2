//! Which ways of spawning the kernel and the sandbox around the broker let through.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::clone::CloneMethod;
use super::facilities::SpawnFacilities;
use super::failure::{SpawnError, Step};
use super::launcher::Launcher;

impl SpawnFacilities {
    /// Tries each way, the best first, with a child that executes nothing.
    ///
    /// # Errors
    /// What the last way failed with, and EAGAIN, ENOMEM, EMFILE or ENFILE at once, since they say nothing
    /// about the way.
    pub fn probe() -> Result<Self, ProbeError> {
        let best = Self { method: CloneMethod::Clone3 };
        match best.rehearse(None)? {
            Err(SpawnError::Refused { step: Step::Clone, errno }) if !is_shortage(errno) => {
                let other = Self { method: CloneMethod::Clone };
                other.rehearse(None)??;
                Ok(other)
            }
            result => Ok(result.map(|()| best)?),
        }
    }

    /// Tries whether a child can be born into a cgroup v2 group that may have children, such as the one in which each
    /// child will get its group.
    ///
    /// # Errors
    /// Why not: no `clone3` here, or the group was once killed by `cgroup.kill`, or one that it is in, so that the
    /// kernel kills each newborn.
    pub fn try_birth_in(self, cgroup: BorrowedFd<'_>) -> Result<(), ProbeError> {
        match self.method {
            CloneMethod::Clone3 => Ok(self.rehearse(Some(cgroup))??),
            CloneMethod::Clone => Err(SpawnError::refused(Step::Cgroup, Errno::ENOSYS).into()),
        }
    }

    fn rehearse(self, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Result<(), SpawnError>> {
        let cgroup = cgroup.map(|cgroup| cgroup.try_clone_to_owned()).transpose()?;
        Ok(Launcher::with_slots(self, 1)?.rehearse(cgroup))
    }
}

/// Whether it is for want of something that may be there the next moment.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
}

/// No way of spawning works.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no memory or no descriptor for a launcher.
    #[error("could not make a slot to start processes in: {0}")]
    Memory(#[from] io::Error),
    /// Not even the simplest way works.
    #[error("no process can be created here: {0}")]
    Spawn(#[from] SpawnError),
}
