//! The place of one child that is on its way to its program: its stack, its plan, where it reports, and the pipe that
//! tells when it has left.
#![expect(unsafe_code, reason = "a child in the broker's memory; a descriptor that fcntl has made")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2};

use super::child::{ChildPlan, ChildTask, Tether};
use super::clone::{self, Birth, CloneMethod, Memory};
use super::failure::SpawnError;
use super::memory::{Shared, Stack};
use super::oom_score::OomScore;
use super::report::{ReportTo, StepReports};
use super::signals::SignalSet;

/// How a child is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) method: CloneMethod,
    pub(super) memory: Memory,
    pub(super) oom_score: OomScore,
    /// Those to be given their default dispositions.
    pub(super) signals: SignalSet,
}

/// The lowest number of the descriptor of a pipe: those of the standard streams are a program's own.
const LOWEST_DESCRIPTOR: i32 = 3;

/// One slot. No two children are in it at a time.
#[derive(Debug)]
pub(super) struct Slot {
    /// Has no copy of the other end: it hangs up when the child lets go of it.
    pipe: OwnedFd,
    tether: Tether,
    stack: Stack,
    report: ReportTo,
    occupant: Option<Occupant>,
}

/// A child on its way.
struct Occupant {
    pid: Pid,
    pidfd: OwnedFd,
    /// Read by the child: neither moved nor changed while it may do that.
    plan: Box<ChildPlan>,
}

/// A child that has left.
pub(super) struct Departed {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) task: ChildTask,
    pub(super) birth: Birth,
    /// What it has reported.
    pub(super) failure: Option<SpawnError>,
}

/// The broker's own `/proc/PID/fd`, held open: its descriptors by their numbers.
#[derive(Debug)]
pub(super) struct DescriptorFolder(OwnedFd);

impl DescriptorFolder {
    /// Opens it; none where that is not to be had. To be called before the slots are made.
    pub(super) fn open() -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open("/proc/self/fd", flags, Mode::empty()).ok()?;
        above_streams(folder).ok().map(Self)
    }
}

impl Slot {
    /// Makes an empty one. Its children look for their end of the pipe in this folder, if there is one.
    pub(super) fn new(
        number: usize,
        reports: &Arc<Shared<StepReports>>,
        descriptors: Option<&DescriptorFolder>,
    ) -> io::Result<Self> {
        let (read, _write) = pipe2(OFlag::O_CLOEXEC)?;
        let pipe = above_streams(read)?;
        let descriptor = number_of(&pipe);
        // A child has a copy of nothing that is above its pipe.
        let folder = descriptors.map(|DescriptorFolder(folder)| number_of(folder));
        let folder = folder.filter(|folder| *folder < descriptor);
        let name = CString::new(descriptor.to_string())?;
        let path = CString::new(format!("/proc/self/fd/{descriptor}"))?;
        let tether = Tether { descriptor, folder, name, path };
        let report = ReportTo::of_slot(number, reports);
        Ok(Self { pipe, tether, stack: Stack::new()?, report, occupant: None })
    }

    /// Hangs up when a child has executed its program, or has died after it took hold of the other end.
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// The child that is here.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.occupant.as_ref().map(|occupant| occupant.pidfd.as_fd())
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.occupant.as_ref().map(|occupant| occupant.pid)
    }

    /// Makes a child, which has the slot until [`leave`](Self::leave) says that it has left.
    pub(super) fn enter(
        &mut self,
        way: Way,
        task: ChildTask,
        into: Option<BorrowedFd<'_>>,
    ) -> Result<(), (ChildTask, Errno)> {
        if self.occupant.is_some() {
            return Err((task, Errno::EBUSY));
        }
        let Way { method, memory, oom_score, signals } = way;
        self.report.begin();
        let plan = Box::new(ChildPlan {
            report: self.report.clone(),
            broker: std::process::id() as usize,
            tether: self.tether.clone(),
            signals,
            oom_score,
            task,
        });
        // SAFETY: the slot is empty, so that nobody has its stack; both stay as they are while there is an occupant.
        match unsafe { clone::start(method, memory, &raw const *plan, &self.stack, into) } {
            Ok((pid, pidfd)) => {
                self.occupant = Some(Occupant { pid, pidfd, plan });
                Ok(())
            }
            Err(errno) => Err((plan.task, errno)),
        }
    }

    /// What has become of the child that was here, if it is not underway any more. The slot is empty then.
    pub(super) fn leave(&mut self) -> Option<Departed> {
        let birth = clone::outcome(self.occupant.as_ref()?.pidfd.as_fd());
        match birth {
            Birth::Underway => None,
            Birth::Executed | Birth::Exited | Birth::Killed { .. } => {
                let Occupant { pid, pidfd, plan } = self.occupant.take()?;
                let failure = self.report.failure();
                Some(Departed { pid, pidfd, task: plan.task, birth, failure })
            }
        }
    }
}

impl std::fmt::Debug for Occupant {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Occupant").field("pid", &self.pid).finish_non_exhaustive()
    }
}

fn number_of(descriptor: &OwnedFd) -> usize {
    descriptor.as_raw_fd().cast_unsigned() as usize
}

/// Moves a descriptor above the numbers of the standard streams.
fn above_streams(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() >= LOWEST_DESCRIPTOR {
        return Ok(descriptor);
    }
    let above = fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(LOWEST_DESCRIPTOR))?;
    // SAFETY: it was made by this call.
    Ok(unsafe { OwnedFd::from_raw_fd(above) })
}
