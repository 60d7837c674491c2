//! What to spawn, in plain types.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use super::base_environment::BaseEnvironment;
use super::name::LaunchName;
use super::resource::ResourceLimit;

/// Everything about a new process.
#[derive(Debug)]
pub struct SpawnSpec {
    /// What the process is called until it executes its program.
    pub name: LaunchName,
    /// The program and its arguments. A program without a slash is looked up in the PATH of `env`; one with a
    /// slash that is relative starts at `cwd`.
    pub command: Vec<OsString>,
    /// Its own environment, in order.
    pub env: Vec<(OsString, OsString)>,
    /// The rest of it, as far as its own has no variables of these names.
    pub inherited: BaseEnvironment,
    /// The variable of its environment, beside those, that has its own number as its value.
    pub own_pid: Option<&'static str>,
    /// The working directory, entered with the permissions of the child's user.
    pub cwd: PathBuf,
    /// The file mode creation mask.
    pub umask: Mode,
    /// Who the process runs as.
    pub credentials: Credentials,
    /// What it is denied beside that.
    pub restraint: Restraint,
    /// The limits that differ from the broker's own. A broker that has raised its own soft `nofile` gives the
    /// original one here, for each child that asks for none.
    pub rlimits: Vec<ResourceLimit>,
    /// Where its standard input comes from.
    pub stdin: StdinSource,
    /// Where its standard output goes.
    pub stdout: Output,
    /// Where its standard error goes.
    pub stderr: ErrorOutput,
    /// The directory of the cgroup v2 group that the process is born into.
    pub cgroup: Option<OwnedFd>,
    /// What may become of it there for what it uses.
    pub bounding: Bounding,
}

/// Whether the kernel ends a process, or holds it up, for what it uses with others in its cgroup.
///
/// For want of memory in a cgroup the kernel kills all processes that share the memory of its victim
/// (`__oom_kill_process` in `mm/oom_kill.c`), and one that waits for its processor may hold a lock of its memory: so one of
/// these has never any of the broker's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Bounding {
    /// No more than the broker itself.
    #[default]
    Free,
    /// The cgroup has bounds of its own.
    Bounded,
}

/// Who a process runs as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// As the broker itself.
    Unchanged,
    /// With these ids, real, effective and saved, and exactly these supplementary groups.
    Become {
        /// The real, effective and saved user id.
        uid: Uid,
        /// The real, effective and saved group id.
        gid: Gid,
        /// The ids of the supplementary groups, and no others.
        groups: Vec<Gid>,
    },
}

impl Credentials {
    /// Returns the id of the user whose the process becomes.
    #[must_use]
    pub fn uid(&self) -> Uid {
        match self {
            Self::Unchanged => nix::unistd::geteuid(),
            Self::Become { uid, .. } => *uid,
        }
    }
}

/// What keeps a process from rights that the broker may have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Restraint {
    /// No program gives it more rights than it has (`PR_SET_NO_NEW_PRIVS`, `prctl(2)`).
    pub no_new_privs: bool,
    /// Its capability bounding set has none beside these (`capabilities(7)`), one bit for each; `None`: it is the broker's.
    pub capabilities: Option<u64>,
}

/// Where standard input comes from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum StdinSource {
    /// Nowhere: `/dev/null`.
    #[default]
    Null,
    /// From where the broker's own comes; nowhere if the broker has it closed.
    Inherit,
    /// From the terminal of the broker's session, in whose foreground the process is: it has a process group of its own
    /// there, and no session.
    Terminal,
}

/// Where a stream of output goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Nowhere: `/dev/null`.
    Null,
    /// Where the broker's own goes; nowhere if the broker has it closed.
    Inherit,
    /// To this file or FIFO, which the broker's user opens for reading and writing, and never follows when its last part
    /// is a symbolic link. It has to be there.
    Append(PathBuf),
}

/// Where standard error goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ErrorOutput {
    /// Where standard output goes, through the same open file.
    Stdout,
    /// Where this says, through an open file of its own.
    Own(Output),
}
