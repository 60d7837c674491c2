//! What a child is surrounded by: the order of the core, turned into what the spawner takes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use procbroker_core::{Confinement, HardLimit, Login, Purpose, RunAs, SpawnOrder, counterpart};
use procbroker_protocol::create::{self, Check, Probe, Ready, StandardError, StandardOutput};
use procbroker_protocol::request::LogStream;
use procbroker_protocol::socket_path::SOCKET_VARIABLE;
use procbroker_protocol::{ChildId, CreateParams, Exit, ExitStatus};

use crate::os::host::nofile::Nofile;
use crate::os::host::terminal;
use crate::os::logs::pipes::Pipes;
use crate::os::process::proc::CHILD_ID_VARIABLE;
use crate::os::spawn::{
    ErrorOutput, Identity, LaunchName, Output, Resource, Restraint, Rlimit, SpawnFailure, SpawnSpec,
    StandardInput, Step,
};
use crate::upgrade::MANIFEST_VARIABLE;

/// The variable for the socket that a child tells on how it is.
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// The variable for the child's name.
const CHILD_NAME_VARIABLE: &str = "PROCBROKER_CHILD_NAME";

/// The variable for the exit code of a child, for its cleanup.
const EXIT_CODE_VARIABLE: &str = "PROCBROKER_EXIT_CODE";

/// The variable for the name of the signal that ended a child, for its cleanup.
const EXIT_SIGNAL_VARIABLE: &str = "PROCBROKER_EXIT_SIGNAL";

/// The variable for why a child ended, for its cleanup.
pub(crate) const EXIT_REASON_VARIABLE: &str = "PROCBROKER_EXIT_REASON";

/// The variable that tells a command, and all that it starts, that it is to find out whether the child is ready.
pub(crate) const PROBE_VARIABLE: &str = "PROCBROKER_PROBE";

/// What a child starts from that says where to go on nothing.
const DEFAULT_CWD: &str = "/";

/// What is the same for all children of a broker.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The broker's own environment, less what was meant for the broker alone.
    base: BTreeMap<OsString, OsString>,
    socket: PathBuf,
    pipes: Pipes,
    nofile: Nofile,
    /// Who has the broker's own standard input.
    interactive: Option<ChildId>,
}

impl Surroundings {
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
        let base = environment.filter(|(name, _)| !is_the_brokers_own(name.as_bytes())).collect();
        Self { base, socket, pipes, nofile, interactive: None }
    }

    /// Lends the broker's standard input to this child, and its terminal if that is one.
    pub fn lend_input(&mut self, to: ChildId) {
        self.interactive = Some(to);
    }

    fn stdin(&self, child: ChildId, purpose: &Purpose) -> StandardInput {
        match purpose {
            Purpose::Main if self.interactive == Some(child) => {
                if terminal::is_own() {
                    StandardInput::Terminal
                } else {
                    StandardInput::Inherit
                }
            }
            Purpose::Main | Purpose::Probe | Purpose::Cleanup { .. } => StandardInput::Null,
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
    ) -> Result<SpawnSpec, SpawnFailure> {
        let params = &*order.params;
        let confinement = order.launch.confinement.as_deref();
        let hard_limits = confinement.map_or(&[][..], |confinement| &confinement.hard_limits);
        let name = LaunchName::of(child);
        let child = match purpose {
            Purpose::Main | Purpose::Cleanup { .. } => child,
            Purpose::Probe => counterpart(child),
        };
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
            own_pid: None,
            cwd: params.cwd.as_deref().unwrap_or(DEFAULT_CWD).into(),
            umask: Mode::from_bits_truncate(params.umask.bits().into()),
            identity: identity(&order.run_as),
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
        })
    }

    /// What the child is known by comes last: neither its creator nor an outer broker can say otherwise.
    fn environment(
        &self,
        child: ChildId,
        order: &SpawnOrder,
        purpose: &Purpose,
    ) -> Vec<(OsString, OsString)> {
        let params = &*order.params;
        let mut environment = if params.env_clear { BTreeMap::new() } else { self.base.clone() };
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
    ) -> Result<Vec<Rlimit>, SpawnFailure> {
        let refused = |errno| SpawnFailure::Refused { step: Step::Rlimits, errno };
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
            rlimits.push(Rlimit::both(resource, value));
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
            rlimits.push(Rlimit { resource, soft: soft.min(hard), hard });
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

/// Variables that tell the broker about its own sockets, its own owner, its own watchdog and what was handed over to it.
fn is_the_brokers_own(name: &[u8]) -> bool {
    name.starts_with(b"LISTEN_")
        || name.starts_with(b"WATCHDOG_")
        || name == NOTIFY_VARIABLE.as_bytes()
        || name == MANIFEST_VARIABLE.as_bytes()
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

fn identity(run_as: &RunAs) -> Identity {
    match run_as {
        RunAs::Broker => Identity::Unchanged,
        RunAs::User { uid, gid, groups } => Identity::Become {
            uid: Uid::from_raw(*uid),
            gid: Gid::from_raw(*gid),
            groups: groups.iter().copied().map(Gid::from_raw).collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use procbroker_core::Launch;
    use procbroker_protocol::create::Umask;
    use procbroker_protocol::{ExitReason, Signal, Timestamp};
    use uuid::Uuid;

    use super::*;

    const OWN: &[(&str, &str)] = &[
        ("PATH", "/bin"),
        ("LANG", "C"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", "7"),
        ("LISTEN_FDNAMES", "a"),
        ("NOTIFY_SOCKET", "/n"),
        ("PROCBROKER_MANIFEST", "7:9"),
        ("WATCHDOG_USEC", "1"),
        ("WATCHDOG_PID", "7"),
        ("PROCBROKER_SOCKET", "/outer"),
        ("PROCBROKER_CHILD_ID", "outer"),
        ("PROCBROKER_CHILD_NAME", "outer"),
    ];

    fn surroundings(folder: &tempfile::TempDir) -> Surroundings {
        let environment = OWN.iter().map(|&(name, value)| (name.into(), value.into()));
        let pipes = Pipes::open(folder.path().join("output")).unwrap();
        Surroundings::with_environment(environment, "/s".into(), pipes, Nofile { soft: 10, hard: 20 })
    }

    fn child() -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(1))
    }

    fn spec(change: impl FnOnce(&mut CreateParams), run_as: RunAs) -> Result<SpawnSpec, SpawnFailure> {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CreateParams::new(vec!["a".to_owned(), "b".to_owned()]);
        change(&mut params);
        let order = SpawnOrder { params: Arc::new(params), run_as, launch: Launch::default() };
        surroundings(&folder).spec(child(), &order, &Purpose::Main, None)
    }

    fn environment(change: impl FnOnce(&mut CreateParams)) -> Vec<String> {
        let env = spec(change, RunAs::Broker).unwrap().env;
        env.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    const ID: &str = "PROCBROKER_CHILD_ID=00000000-0000-0000-0000-000000000001";

    #[test]
    fn a_child_gets_the_brokers_environment_less_what_was_meant_for_the_broker() {
        assert_eq!(environment(|_| ()), ["LANG=C", "PATH=/bin", ID, "PROCBROKER_SOCKET=/s"]);
        let added = |params: &mut CreateParams| {
            params.name = Some("n".parse().unwrap());
            params.env.insert("LANG".to_owned(), "D".to_owned());
        };
        let expected = ["LANG=D", "PATH=/bin", ID, "PROCBROKER_CHILD_NAME=n", "PROCBROKER_SOCKET=/s"];
        assert_eq!(environment(added), expected);
    }

    #[test]
    fn what_a_child_is_known_by_cannot_be_forged() {
        let forged = |params: &mut CreateParams| {
            params.env_clear = true;
            for name in [SOCKET_VARIABLE, CHILD_ID_VARIABLE, CHILD_NAME_VARIABLE, "NOTIFY_SOCKET"] {
                params.env.insert(name.to_owned(), "forged".to_owned());
            }
        };
        assert_eq!(environment(forged), ["NOTIFY_SOCKET=forged", ID, "PROCBROKER_SOCKET=/s"]);
    }

    #[test]
    fn output_goes_to_the_log_unless_it_is_said_otherwise() {
        let plain = spec(|_| (), RunAs::Broker).unwrap();
        let Output::Append(path) = plain.stdout else { panic!("{:?}", plain.stdout) };
        assert!(path.ends_with("output/00000000-0000-0000-0000-000000000001.out"));
        assert_eq!(plain.stderr, ErrorOutput::Stdout);
        assert_eq!((plain.cwd, plain.umask), (PathBuf::from("/"), Mode::from_bits_truncate(0o022)));
        let change = |params: &mut CreateParams| {
            params.stdout = StandardOutput::Null;
            params.stderr = StandardError::Log;
            params.cwd = Some("/tmp".to_owned());
            params.umask = Umask::from_bits(0o077);
        };
        let other = spec(change, RunAs::Broker).unwrap();
        assert_eq!(other.stdout, Output::Null);
        let ErrorOutput::Own(Output::Append(path)) = other.stderr else { panic!("{:?}", other.stderr) };
        assert!(path.ends_with("output/00000000-0000-0000-0000-000000000001.err"));
        assert_eq!((other.cwd, other.umask), (PathBuf::from("/tmp"), Mode::from_bits_truncate(0o077)));
    }

    #[test]
    fn a_child_gets_the_limit_on_files_that_the_broker_was_started_with() {
        let nofile = Rlimit { resource: Resource::NOFILE, soft: 10, hard: 20 };
        assert_eq!(spec(|_| (), RunAs::Broker).unwrap().rlimits, [nofile]);
        let own = |params: &mut CreateParams| {
            params.rlimits.insert("nofile".to_owned(), create::Rlimit::Value(5));
            params.rlimits.insert("core".to_owned(), create::Rlimit::Unlimited);
        };
        let core = Rlimit::both(Resource::from_name("core").unwrap(), u64::MAX);
        assert_eq!(spec(own, RunAs::Broker).unwrap().rlimits, [core, Rlimit::both(Resource::NOFILE, 5)]);
        let unknown = |params: &mut CreateParams| {
            params.rlimits.insert("files".to_owned(), create::Rlimit::Value(5));
        };
        let failure = spec(unknown, RunAs::Broker).unwrap_err();
        assert_eq!((failure.step_name(), failure.errno()), ("rlimits", Errno::EINVAL));
    }

    /// How a child of another user is spawned, who is known by this name and confined like this.
    fn spec_of_another(
        change: impl FnOnce(&mut CreateParams),
        purpose: &Purpose,
        hard_limits: Vec<HardLimit>,
    ) -> Result<SpawnSpec, SpawnFailure> {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CreateParams::new(vec!["a".to_owned()]);
        change(&mut params);
        let login =
            Login { name: "bob".to_owned(), home: "/home/bob".to_owned(), shell: "/bin/zsh".to_owned() };
        let confinement = Confinement { no_new_privs: true, capabilities: Some(3), hard_limits };
        let launch = Launch { login: Some(Arc::new(login)), confinement: Some(Arc::new(confinement)) };
        let run_as = RunAs::User { uid: 1, gid: 2, groups: Vec::new() };
        let order = SpawnOrder { params: Arc::new(params), run_as, launch };
        surroundings(&folder).spec(child(), &order, purpose, None)
    }

    fn login_variables(spec: &SpawnSpec) -> Vec<String> {
        let told = ["HOME", "LOGNAME", "SHELL", "USER"];
        let told = spec.env.iter().filter(|(name, _)| told.iter().any(|wanted| name == wanted));
        told.map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    #[test]
    fn another_users_child_is_told_of_its_user_unless_its_creator_says_otherwise() {
        let plain = spec_of_another(|_| (), &Purpose::Main, Vec::new()).unwrap();
        assert_eq!(login_variables(&plain), ["HOME=/home/bob", "LOGNAME=bob", "SHELL=/bin/zsh", "USER=bob"]);
        let own = |params: &mut CreateParams| {
            params.env.insert("HOME".to_owned(), "/srv".to_owned());
        };
        let own = spec_of_another(own, &Purpose::Main, Vec::new()).unwrap();
        assert_eq!(login_variables(&own)[0], "HOME=/srv");
        let cleared = spec_of_another(|params| params.env_clear = true, &Purpose::Main, Vec::new()).unwrap();
        assert!(login_variables(&cleared).is_empty());
    }

    #[test]
    fn what_confined_the_creator_binds_the_child_and_its_cleanup() {
        let nofile = HardLimit { resource: 7, value: 12 };
        let core = HardLimit { resource: 4, value: 0 };
        let own = |params: &mut CreateParams| {
            params.rlimits.insert("nofile".to_owned(), create::Rlimit::Value(11));
        };
        let [core_limit, nofile_limit] = ["core", "nofile"].map(|name| Resource::from_name(name).unwrap());
        let bounded = Rlimit { resource: nofile_limit, soft: 10, hard: 12 };
        let expected = [Rlimit::both(core_limit, 0), bounded];
        let plain = spec_of_another(|_| (), &Purpose::Main, vec![core, nofile]).unwrap();
        assert_eq!(plain.rlimits, expected);
        assert_eq!(plain.restraint, Restraint { no_new_privs: true, capabilities: Some(3) });
        let asked = spec_of_another(own, &Purpose::Main, vec![core, nofile]).unwrap();
        assert_eq!(asked.rlimits, [Rlimit::both(nofile_limit, 11), Rlimit::both(core_limit, 0)]);
        let tight = HardLimit { resource: 7, value: 10 };
        let refused = spec_of_another(own, &Purpose::Main, vec![tight]).unwrap_err();
        assert_eq!((refused.step_name(), refused.errno()), ("rlimits", Errno::EPERM));
        // A cleanup is bound by what bound its creator, and not by what was asked for the child.
        let at = Timestamp::from_micros(0);
        let exit = Exit::new(ExitStatus::Code(0), ExitReason::Destroyed, at);
        let cleanup = |params: &mut CreateParams| {
            let (command, timeout) = (vec!["b".to_owned()], Duration::from_secs(1));
            params.cleanup = Some(create::Cleanup { command, timeout });
            params.rlimits.insert("nofile".to_owned(), create::Rlimit::Value(5));
        };
        let cleanup = spec_of_another(cleanup, &Purpose::Cleanup { exit }, vec![core, nofile]).unwrap();
        assert_eq!(cleanup.rlimits, expected);
    }

    #[test]
    fn a_child_gets_the_rights_that_the_core_has_decided() {
        assert_eq!(spec(|_| (), RunAs::Broker).unwrap().identity, Identity::Unchanged);
        let user = RunAs::User { uid: 1, gid: 2, groups: vec![3, 4] };
        let expected = Identity::Become {
            uid: Uid::from_raw(1),
            gid: Gid::from_raw(2),
            groups: vec![Gid::from_raw(3), Gid::from_raw(4)],
        };
        assert_eq!(spec(|_| (), user).unwrap().identity, expected);
    }

    fn cleanup(change: impl FnOnce(&mut CreateParams), status: ExitStatus) -> SpawnSpec {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CreateParams::new(vec!["a".to_owned()]);
        let command = vec!["release".to_owned(), "it".to_owned()];
        params.cleanup = Some(create::Cleanup { command, timeout: Duration::from_secs(1) });
        params.env_clear = true;
        change(&mut params);
        let order = SpawnOrder { params: Arc::new(params), run_as: RunAs::Broker, launch: Launch::default() };
        let at = Timestamp::from_micros(0);
        let exit = Exit::new(status, ExitReason::Destroyed, at);
        surroundings(&folder).spec(child(), &order, &Purpose::Cleanup { exit }, None).unwrap()
    }

    fn exit_variables(spec: &SpawnSpec) -> Vec<String> {
        let told = spec.env.iter().filter(|(name, _)| name.as_bytes().starts_with(b"PROCBROKER_EXIT"));
        told.map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    const REASON: &str = "PROCBROKER_EXIT_REASON=destroyed";

    #[test]
    fn a_cleanup_is_told_how_the_child_ended_and_nothing_that_is_unknown() {
        let forged = |params: &mut CreateParams| {
            params.env.insert(EXIT_CODE_VARIABLE.to_owned(), "0".to_owned());
            params.env.insert(EXIT_SIGNAL_VARIABLE.to_owned(), "forged".to_owned());
        };
        let by_code = cleanup(forged, ExitStatus::Code(3));
        assert_eq!(by_code.command, ["release", "it"]);
        assert_eq!(exit_variables(&by_code), ["PROCBROKER_EXIT_CODE=3", REASON]);
        let by_signal = cleanup(forged, ExitStatus::Signal(Signal::KILL));
        assert_eq!(exit_variables(&by_signal), [REASON, "PROCBROKER_EXIT_SIGNAL=SIGKILL"]);
        assert_eq!(exit_variables(&cleanup(forged, ExitStatus::Unknown)), [REASON]);
        assert!(by_code.env.iter().any(|(name, _)| name == CHILD_ID_VARIABLE));
    }

    #[test]
    fn a_child_is_told_of_no_end_whatever_its_creator_says() {
        let forged = |params: &mut CreateParams| {
            for variable in [EXIT_CODE_VARIABLE, EXIT_SIGNAL_VARIABLE, EXIT_REASON_VARIABLE, PROBE_VARIABLE] {
                params.env.insert(variable.to_owned(), "0".to_owned());
            }
        };
        let spec = spec(forged, RunAs::Broker).unwrap();
        assert!(exit_variables(&spec).is_empty());
        assert!(
            !spec.env.iter().any(|(name, _)| name == PROBE_VARIABLE),
            "it would not be found as the child's"
        );
    }

    #[test]
    fn what_asks_a_child_has_all_that_is_the_childs_but_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CreateParams::new(vec!["a".to_owned()]);
        params.ready = Check::Command(vec!["up".to_owned(), "now".to_owned()]).into();
        params.cwd = Some("/tmp".to_owned());
        params.env.insert("A".to_owned(), "1".to_owned());
        params.rlimits.insert("nofile".to_owned(), create::Rlimit::Value(5));
        let run_as = RunAs::User { uid: 1, gid: 2, groups: vec![3] };
        let order = SpawnOrder { params: Arc::new(params), run_as, launch: Launch::default() };
        let surroundings = surroundings(&folder);
        let main = surroundings.spec(child(), &order, &Purpose::Main, None).unwrap();
        let probe = surroundings.spec(counterpart(child()), &order, &Purpose::Probe, None).unwrap();
        assert_eq!(probe.command, ["up", "now"]);
        assert_eq!((&probe.identity, &probe.cwd, &probe.rlimits), (&main.identity, &main.cwd, &main.rlimits));
        let own: Vec<_> = probe.env.iter().filter(|variable| !main.env.contains(variable)).collect();
        assert_eq!(own, [&(PROBE_VARIABLE.into(), "1".into())]);
        assert_eq!(probe.env.len(), main.env.len() + 1);
        assert_eq!((&probe.stdout, &probe.stderr), (&Output::Null, &ErrorOutput::Stdout));
    }

    #[test]
    fn a_cleanup_writes_to_the_log_of_its_child_even_if_that_kept_none() {
        let silent = |params: &mut CreateParams| {
            params.stdout = StandardOutput::Null;
            params.stderr = StandardError::Null;
        };
        let spec = cleanup(silent, ExitStatus::Code(0));
        let Output::Append(path) = spec.stdout else { panic!("{:?}", spec.stdout) };
        assert!(path.ends_with("output/00000000-0000-0000-0000-000000000001.out"));
        assert_eq!(spec.stderr, ErrorOutput::Stdout);
    }
}
