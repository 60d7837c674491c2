//! The order of the core to start a process, turned into the specification of one: with what it is started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use procbroker_core::{Confinement, HardLimit, Login, Purpose, RunAs, SpawnOrder, paired_id};
use procbroker_protocol::create::{self, Check, Probe, Ready, StandardError, StandardOutput};
use procbroker_protocol::request::LogStream;
use procbroker_protocol::socket_path::SOCKET_VARIABLE;
use procbroker_protocol::{ChildId, CreateParams, Exit, ExitStatus};

use crate::os::host::nofile::Nofile;
use crate::os::host::terminal;
use crate::os::logs::pipes::Pipes;
use crate::os::process::variables::{
    CHILD_ID_VARIABLE, CHILD_NAME_VARIABLE, EXIT_CODE_VARIABLE, EXIT_REASON_VARIABLE, EXIT_SIGNAL_VARIABLE,
    NOTIFY_VARIABLE, PROBE_VARIABLE, UPGRADE_VARIABLES,
};
use crate::os::spawn::{
    BaseEnvironment, Bounding, Credentials, ErrorOutput, LaunchName, Output, Resource, ResourceLimit,
    Restraint, SpawnError, SpawnSpec, StdinSource, Step,
};

/// What tells one child from another: no child has it from the broker.
const OF_ONE_CHILD: [&str; 7] = [
    SOCKET_VARIABLE,
    CHILD_ID_VARIABLE,
    CHILD_NAME_VARIABLE,
    EXIT_CODE_VARIABLE,
    EXIT_SIGNAL_VARIABLE,
    EXIT_REASON_VARIABLE,
    PROBE_VARIABLE,
];

/// What a child starts from that says where to go on nothing.
const DEFAULT_CWD: &str = "/";

/// What is the same for all children of a broker.
#[derive(Clone, Debug)]
pub struct ChildEnvironment {
    /// The broker's own environment, less what was meant for the broker alone, and what each child has a value of its own
    /// for.
    base: BaseEnvironment,
    socket: PathBuf,
    pipes: Pipes,
    nofile: Nofile,
    /// Who has the broker's own standard input.
    interactive: Option<ChildId>,
}

impl ChildEnvironment {
    /// Takes note of the broker's own environment. `nofile` is the limit on open files that children get.
    #[must_use]
    pub fn new(socket: PathBuf, pipes: Pipes, nofile: Nofile) -> Self {
        Self::with_environment(std::env::vars_os(), socket, pipes, nofile)
    }

    fn with_environment(
        environment: impl Iterator<Item = (OsString, OsString)>,
        socket: PathBuf,
        pipes: Pipes,
        nofile: Nofile,
    ) -> Self {
        let base: BTreeMap<_, _> =
            environment.filter(|(name, _)| !is_the_brokers_own(name.as_bytes())).collect();
        let base = base.into_iter().collect();
        Self { base, socket, pipes, nofile, interactive: None }
    }

    /// Lends the broker's standard input to this child, and its terminal if that is one.
    pub fn lend_input(&mut self, to: ChildId) {
        self.interactive = Some(to);
    }

    /// Whether this child was lent the broker's terminal.
    #[must_use]
    pub fn has_terminal(&self, child: ChildId) -> bool {
        self.interactive == Some(child) && terminal::is_own()
    }

    fn stdin(&self, child: ChildId, purpose: &Purpose) -> StdinSource {
        match purpose {
            Purpose::Main if self.interactive == Some(child) => {
                if terminal::is_own() {
                    StdinSource::Terminal
                } else {
                    StdinSource::Inherit
                }
            }
            Purpose::Main | Purpose::Probe | Purpose::Cleanup { .. } => StdinSource::Null,
        }
    }

    /// Says how a process of a child is to be spawned. `cgroup` is the directory of its group.
    ///
    /// # Errors
    /// The step `rlimits`, with EINVAL for a limit that nobody knows.
    pub fn spec(
        &self,
        child: ChildId,
        order: &SpawnOrder,
        purpose: &Purpose,
        cgroup: Option<OwnedFd>,
    ) -> Result<SpawnSpec, SpawnError> {
        let params = &*order.params;
        let confinement = order.launch.confinement.as_deref();
        let hard_limits = confinement.map_or(&[][..], |confinement| &confinement.hard_limits);
        let child = match purpose {
            Purpose::Main | Purpose::Cleanup { .. } => child,
            Purpose::Probe => paired_id(child),
        };
        let name = LaunchName::of(child);
        let command = match purpose {
            Purpose::Main => params.command.as_slice(),
            Purpose::Probe => probe_command(&params.ready),
            Purpose::Cleanup { .. } => params.cleanup.as_ref().map_or(&[][..], |cleanup| &cleanup.command),
        };
        let log = Output::Append(self.pipes.path(child, LogStream::Stdout));
        Ok(SpawnSpec {
            name,
            command: command.iter().map(OsString::from).collect(),
            env: self.environment(child, order, purpose),
            inherited: if params.env_clear { BaseEnvironment::default() } else { self.base.clone() },
            own_pid: None,
            cwd: params.cwd.as_deref().unwrap_or(DEFAULT_CWD).into(),
            umask: Mode::from_bits_truncate(params.umask.bits().into()),
            credentials: credentials(&order.run_as),
            restraint: confinement.map_or_else(Restraint::default, restraint),
            rlimits: self.rlimits(params, purpose, hard_limits)?,
            stdin: self.stdin(child, purpose),
            stdout: match (params.stdout, purpose) {
                // What a cleanup says is wanted most when it fails.
                (StandardOutput::Log, Purpose::Main | Purpose::Cleanup { .. })
                | (StandardOutput::Null, Purpose::Cleanup { .. }) => log,
                (StandardOutput::Inherit, Purpose::Main | Purpose::Cleanup { .. }) => Output::Inherit,
                // What a command says again and again that asks a child is none of the child's output.
                (StandardOutput::Null, Purpose::Main) | (_, Purpose::Probe) => Output::Null,
            },
            stderr: match (params.stderr, purpose) {
                (_, Purpose::Probe)
                | (StandardError::Stdout, _)
                | (StandardError::Null, Purpose::Cleanup { .. }) => ErrorOutput::Stdout,
                (StandardError::Log, _) => {
                    ErrorOutput::Own(Output::Append(self.pipes.path(child, LogStream::Stderr)))
                }
                (StandardError::Inherit, _) => ErrorOutput::Own(Output::Inherit),
                (StandardError::Null, Purpose::Main) => ErrorOutput::Own(Output::Null),
            },
            cgroup,
            bounding: match order.resources_for(purpose) {
                None => Bounding::Free,
                Some(_) => Bounding::Bounded,
            },
        })
    }

    /// What a process has of its own. What the child is known by comes last: its creator cannot say otherwise.
    fn environment(
        &self,
        child: ChildId,
        order: &SpawnOrder,
        purpose: &Purpose,
    ) -> Vec<(OsString, OsString)> {
        let params = &*order.params;
        let mut environment = BTreeMap::new();
        if let Some(login) = order.launch.login.as_ref().filter(|_| !params.env_clear) {
            let Login { name, home, shell } = &**login;
            let told = [("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", shell)];
            environment.extend(told.map(|(variable, value)| (variable.into(), value.into())));
        }
        environment.extend(params.env.iter().map(|(name, value)| (name.into(), value.into())));
        environment.insert(SOCKET_VARIABLE.into(), self.socket.clone().into());
        environment.insert(CHILD_ID_VARIABLE.into(), child.to_string().into());
        let name = CHILD_NAME_VARIABLE.into();
        match &params.name {
            Some(value) => environment.insert(name, value.to_string().into()),
            None => environment.remove(&name),
        };
        for variable in [EXIT_CODE_VARIABLE, EXIT_SIGNAL_VARIABLE, EXIT_REASON_VARIABLE, PROBE_VARIABLE] {
            environment.remove(OsStr::new(variable));
        }
        match purpose {
            Purpose::Main => {}
            Purpose::Probe => drop(environment.insert(PROBE_VARIABLE.into(), "1".into())),
            Purpose::Cleanup { exit } => tell_exit(exit, &mut environment),
        }
        environment.into_iter().collect()
    }

    /// What was asked for, which binds the child and not what releases its resources, and what bound its creator, which
    /// binds both.
    fn rlimits(
        &self,
        params: &CreateParams,
        purpose: &Purpose,
        bounds: &[HardLimit],
    ) -> Result<Vec<ResourceLimit>, SpawnError> {
        let refused = |errno| SpawnError::Refused { step: Step::Rlimits, errno };
        let bound = |resource| {
            let mut bounds = bounds.iter();
            let bound = bounds.find(|bound| Resource::from_number(bound.resource) == Some(resource));
            bound.map_or(u64::MAX, |bound| bound.value)
        };
        let mut rlimits = Vec::new();
        let asked = match purpose {
            Purpose::Main | Purpose::Probe => Some(&params.rlimits),
            Purpose::Cleanup { .. } => None,
        };
        for (name, value) in asked.into_iter().flatten() {
            let resource = Resource::from_name(name).ok_or(refused(Errno::EINVAL))?;
            let value = limit(*value);
            if value > bound(resource) {
                return Err(refused(Errno::EPERM));
            }
            rlimits.push(ResourceLimit::both(resource, value));
        }
        let bounded = bounds.iter().filter_map(|bound| Resource::from_number(bound.resource));
        for resource in bounded.chain([Resource::NOFILE]) {
            if rlimits.iter().any(|limit| limit.resource == resource) {
                continue;
            }
            let (soft, hard) = if resource == Resource::NOFILE {
                (self.nofile.soft, self.nofile.hard)
            } else {
                resource.own_limits().map_err(refused)?
            };
            let hard = hard.min(bound(resource));
            rlimits.push(ResourceLimit { resource, soft: soft.min(hard), hard });
        }
        Ok(rlimits)
    }
}

/// Tells a child where to send its words to, and how often it itself has to say that it is well (`sd_watchdog_enabled(3)`). Whatever
/// else stood there was meant for somebody else.
pub fn tell_where_to_notify(spec: &mut SpawnSpec, socket: PathBuf, watchdog: Option<Duration>) {
    spec.env.retain(|(name, _)| {
        let name = name.as_bytes();
        !name.starts_with(b"WATCHDOG_") && name != NOTIFY_VARIABLE.as_bytes()
    });
    spec.env.push((NOTIFY_VARIABLE.into(), socket.into()));
    if let Some(period) = watchdog {
        spec.env.push(("WATCHDOG_USEC".into(), period.as_micros().to_string().into()));
        // What inherits it by chance is not meant.
        spec.own_pid = Some("WATCHDOG_PID");
    }
}

/// The command that finds out whether a child is ready.
fn probe_command(ready: &Ready) -> &[String] {
    match ready {
        Ready::Probe(Probe { check: Check::Command(command), .. }) => command,
        Ready::Probe(_) | Ready::Spawn | Ready::Notify => &[],
    }
}

/// Tells a cleanup how the child ended. What is unknown is absent.
fn tell_exit(exit: &Exit, environment: &mut BTreeMap<OsString, OsString>) {
    match exit.status {
        ExitStatus::Code(code) => {
            environment.insert(EXIT_CODE_VARIABLE.into(), code.to_string().into());
        }
        ExitStatus::Signal(signal) => {
            environment.insert(EXIT_SIGNAL_VARIABLE.into(), signal.to_string().into());
        }
        ExitStatus::Unknown => {}
    }
    environment.insert(EXIT_REASON_VARIABLE.into(), exit.reason.as_str().into());
}

/// Variables that tell the broker about its own sockets, its own owner, its own watchdog, what was handed over to it, and which
/// child of an outer broker it is.
fn is_the_brokers_own(name: &[u8]) -> bool {
    name.starts_with(b"LISTEN_")
        || name.starts_with(b"WATCHDOG_")
        || name == NOTIFY_VARIABLE.as_bytes()
        || UPGRADE_VARIABLES.iter().any(|own| own.as_bytes() == name)
        || OF_ONE_CHILD.iter().any(|variable| name == variable.as_bytes())
}

fn limit(value: create::Rlimit) -> u64 {
    match value {
        create::Rlimit::Value(value) => value,
        create::Rlimit::Unlimited => libc::RLIM_INFINITY,
    }
}

fn restraint(confinement: &Confinement) -> Restraint {
    let Confinement { no_new_privs, capabilities, hard_limits: _ } = confinement;
    Restraint { no_new_privs: *no_new_privs, capabilities: *capabilities }
}

fn credentials(run_as: &RunAs) -> Credentials {
    match run_as {
        RunAs::Broker => Credentials::Unchanged,
        RunAs::User { uid, gid, groups } => Credentials::Become {
            uid: Uid::from_raw(*uid),
            gid: Gid::from_raw(*gid),
            groups: groups.iter().copied().map(Gid::from_raw).collect(),
        },
    }
}

#[cfg(test)]
mod tests;
