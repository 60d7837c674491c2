//! Tests of what a child is surrounded by.

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
    ("PROCBROKER_FORMER_PROGRAM", "7:8"),
    ("PROCBROKER_FORMER_START", "7:5"),
    ("PROCBROKER_FAILED_UPGRADE", "7:6"),
    ("WATCHDOG_USEC", "1"),
    ("WATCHDOG_PID", "7"),
    ("PROCBROKER_SOCKET", "/outer"),
    ("PROCBROKER_CHILD_ID", "outer"),
    ("PROCBROKER_CHILD_NAME", "outer"),
];

fn surroundings(folder: &tempfile::TempDir) -> ChildEnvironment {
    let environment = OWN.iter().map(|&(name, value)| (name.into(), value.into()));
    let pipes = Pipes::open(folder.path().join("output")).unwrap();
    ChildEnvironment::with_environment(environment, "/s".into(), pipes, Nofile { soft: 10, hard: 20 })
}

fn child() -> ChildId {
    ChildId::from_uuid(Uuid::from_u128(1))
}

fn spec(change: impl FnOnce(&mut CreateParams), run_as: RunAs) -> Result<SpawnSpec, SpawnError> {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CreateParams::new(vec!["a".to_owned(), "b".to_owned()]);
    change(&mut params);
    let order = SpawnOrder { params: Arc::new(params), run_as, launch: Launch::default() };
    surroundings(&folder).spec(child(), &order, &Purpose::Main, None)
}

/// All of a process's variables.
fn whole(spec: &SpawnSpec) -> BTreeMap<OsString, OsString> {
    let inherited = spec.inherited.iter().map(|(name, value, _)| (name.to_owned(), value.to_owned()));
    inherited.chain(spec.env.iter().cloned()).collect()
}

fn environment(change: impl FnOnce(&mut CreateParams)) -> Vec<String> {
    let env = whole(&spec(change, RunAs::Broker).unwrap());
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
    let nofile = ResourceLimit { resource: Resource::NOFILE, soft: 10, hard: 20 };
    assert_eq!(spec(|_| (), RunAs::Broker).unwrap().rlimits, [nofile]);
    let own = |params: &mut CreateParams| {
        params.rlimits.insert("nofile".to_owned(), create::Rlimit::Value(5));
        params.rlimits.insert("core".to_owned(), create::Rlimit::Unlimited);
    };
    let core = ResourceLimit::both(Resource::from_name("core").unwrap(), u64::MAX);
    assert_eq!(spec(own, RunAs::Broker).unwrap().rlimits, [core, ResourceLimit::both(Resource::NOFILE, 5)]);
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
) -> Result<SpawnSpec, SpawnError> {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CreateParams::new(vec!["a".to_owned()]);
    change(&mut params);
    let login = Login { name: "bob".to_owned(), home: "/home/bob".to_owned(), shell: "/bin/zsh".to_owned() };
    let confinement = Confinement { no_new_privs: true, capabilities: Some(3), hard_limits };
    let launch = Launch { login: Some(Arc::new(login)), confinement: Some(Arc::new(confinement)) };
    let run_as = RunAs::User { uid: 1, gid: 2, groups: Vec::new() };
    let order = SpawnOrder { params: Arc::new(params), run_as, launch };
    surroundings(&folder).spec(child(), &order, purpose, None)
}

fn login_variables(spec: &SpawnSpec) -> Vec<String> {
    let told = ["HOME", "LOGNAME", "SHELL", "USER"];
    let told = whole(spec).into_iter().filter(|(name, _)| told.iter().any(|wanted| name == wanted));
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
    let bounded = ResourceLimit { resource: nofile_limit, soft: 10, hard: 12 };
    let expected = [ResourceLimit::both(core_limit, 0), bounded];
    let plain = spec_of_another(|_| (), &Purpose::Main, vec![core, nofile]).unwrap();
    assert_eq!(plain.rlimits, expected);
    assert_eq!(plain.restraint, Restraint { no_new_privs: true, capabilities: Some(3) });
    let asked = spec_of_another(own, &Purpose::Main, vec![core, nofile]).unwrap();
    assert_eq!(asked.rlimits, [ResourceLimit::both(nofile_limit, 11), ResourceLimit::both(core_limit, 0)]);
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
    assert_eq!(spec(|_| (), RunAs::Broker).unwrap().credentials, Credentials::Unchanged);
    let user = RunAs::User { uid: 1, gid: 2, groups: vec![3, 4] };
    let expected = Credentials::Become {
        uid: Uid::from_raw(1),
        gid: Gid::from_raw(2),
        groups: vec![Gid::from_raw(3), Gid::from_raw(4)],
    };
    assert_eq!(spec(|_| (), user).unwrap().credentials, expected);
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
    assert!(!spec.env.iter().any(|(name, _)| name == PROBE_VARIABLE), "it would not be found as the child's");
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
    let probe = surroundings.spec(paired_id(child()), &order, &Purpose::Probe, None).unwrap();
    assert_eq!(probe.command, ["up", "now"]);
    assert_eq!(
        (&probe.credentials, &probe.cwd, &probe.rlimits),
        (&main.credentials, &main.cwd, &main.rlimits)
    );
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
