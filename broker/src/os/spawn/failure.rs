//! Why a spawn failed: the step that failed, and what the kernel said.

use std::fmt;

use nix::errno::Errno;
use thiserror::Error;

/// One step between the request to the kernel for a new process and its first instruction.
///
/// The discriminant is what the child writes into the memory that it shares with the broker; 0 stands there for
/// "no failure".
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u32)]
pub enum Step {
    /// The new process itself: `clone3(2)` or `clone(2)`.
    Clone = 1,
    /// Entry into the cgroup of the child.
    Cgroup,
    /// The descriptors of the broker, left behind.
    Descriptors,
    /// `setsid(2)`.
    Session,
    /// `/dev/null` as standard input.
    Stdin,
    /// The file or device of standard output.
    Stdout,
    /// The file or device of standard error.
    Stderr,
    /// `prlimit(2)`.
    Rlimits,
    /// `setgroups(2)` or `setresgid(2)`.
    Groups,
    /// `setresuid(2)`.
    User,
    /// What confined its creator: its capability bounding set, and `PR_SET_NO_NEW_PRIVS`.
    Confinement,
    /// `umask(2)`; the kernel never refuses it.
    Umask,
    /// `chdir(2)`, with the permissions of the child's user.
    Cwd,
    /// Default dispositions and an empty signal mask.
    Signals,
    /// `execve(2)`, or an argument or variable that it could not take.
    Exec,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 15] = [
        Self::Clone,
        Self::Cgroup,
        Self::Descriptors,
        Self::Session,
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::Rlimits,
        Self::Groups,
        Self::User,
        Self::Confinement,
        Self::Umask,
        Self::Cwd,
        Self::Signals,
        Self::Exec,
    ];

    /// The name that goes over the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Cgroup => "cgroup",
            Self::Descriptors => "descriptors",
            Self::Session => "session",
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Rlimits => "rlimits",
            Self::Groups => "groups",
            Self::User => "user",
            Self::Confinement => "confinement",
            Self::Umask => "umask",
            Self::Cwd => "cwd",
            Self::Signals => "signals",
            Self::Exec => "exec",
        }
    }

    /// What was attempted, for a person.
    const fn attempt(self) -> &'static str {
        match self {
            Self::Clone => "create a process",
            Self::Cgroup => "enter the child's cgroup",
            Self::Descriptors => "close the broker's descriptors",
            Self::Session => "start a session",
            Self::Stdin => "open standard input",
            Self::Stdout => "open standard output",
            Self::Stderr => "open standard error",
            Self::Rlimits => "set the resource limits",
            Self::Groups => "set the groups",
            Self::User => "become the user",
            Self::Confinement => "confine the process as its creator was",
            Self::Umask => "set the umask",
            Self::Cwd => "change to the working directory",
            Self::Signals => "reset the signals",
            Self::Exec => "execute the program",
        }
    }

    /// The step of a discriminant that a child wrote.
    pub(super) fn from_discriminant(discriminant: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&step| step as u32 == discriminant)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A spawn that left no process behind.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SpawnError {
    /// A step was refused, by the kernel or by the checks before it is asked.
    #[error("could not {}: {errno}", .step.attempt())]
    Refused {
        /// The step that was refused.
        step: Step,
        /// What the system said.
        errno: Errno,
    },
    /// The child was killed before its program began.
    ///
    /// The kernel does it at birth to every child of a cgroup that was ever killed by `cgroup.kill`, and
    /// [`Launcher::kill`](super::Launcher::kill) does it on purpose.
    #[error("the process was killed by signal {signal} before its program began")]
    Killed {
        /// The number of the signal.
        signal: i32,
    },
}

impl SpawnError {
    /// The name of the failed step, as it goes over the wire.
    #[must_use]
    pub const fn step_name(&self) -> &'static str {
        match self {
            Self::Refused { step, .. } => step.name(),
            Self::Killed { .. } => "killed",
        }
    }

    /// Whether it failed for want of a place for its output.
    #[must_use]
    pub const fn is_of_output(&self) -> bool {
        matches!(self, Self::Refused { step: Step::Stdout | Step::Stderr, .. })
    }

    /// Whether it failed for want of its working directory.
    #[must_use]
    pub const fn is_of_directory(&self) -> bool {
        matches!(self, Self::Refused { step: Step::Cwd, .. })
    }

    /// The error number; ECANCELED for a child that was killed, where the kernel gives none.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Refused { errno, .. } => *errno,
            Self::Killed { .. } => Errno::ECANCELED,
        }
    }

    /// Says that `step` was refused with `errno`.
    pub(super) const fn refused(step: Step, errno: Errno) -> Self {
        Self::Refused { step, errno }
    }
}
