//! A specification that has been checked, and converted to what the kernel takes, before there is a process.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::failure::{SpawnError, Step};
use super::name::LaunchName;
use super::own_pid::OwnPid;
use super::resource::ResourceLimit;
use super::spec::{Bounding, Credentials, ErrorOutput, Output, Restraint, SpawnSpec, StdinSource};
use super::strings::{Strings, c_string};

/// Where a program is looked up when its environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A [`SpawnSpec`] that has been checked, ready to be launched.
#[derive(Debug)]
pub struct SpawnPlan {
    pub(super) program: Box<ExecPlan>,
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) bounding: Bounding,
}

/// A program and its surroundings, in the form that the child reads them. Nothing in it is borrowed.
#[derive(Debug)]
pub(super) struct ExecPlan {
    pub(super) name: LaunchName,
    pub(super) stdin: StdinSource,
    pub(super) stdout: PlannedOutput,
    /// `None`: the same as `stdout`.
    pub(super) stderr: Option<PlannedOutput>,
    pub(super) rlimits: Vec<ResourceLimit>,
    /// `None`: those of the broker.
    pub(super) ids: Option<Ids>,
    pub(super) restraint: Restraint,
    pub(super) umask: libc::mode_t,
    pub(super) cwd: CString,
    pub(super) argv: Strings,
    pub(super) env: Strings,
    /// What it writes its own number to, in its environment.
    pub(super) own_pid: Option<OwnPid>,
    /// The paths to execute, tried in turn.
    pub(super) candidates: Vec<CString>,
}

impl ExecPlan {
    /// Whether it runs as another user than the broker.
    pub(super) fn is_of_another_user(&self) -> bool {
        self.ids.as_ref().is_some_and(|ids| ids.is_other)
    }
}

/// An [`Output`] whose path the kernel can take.
#[derive(Debug)]
pub(super) enum PlannedOutput {
    Null,
    Inherit,
    Append(CString),
}

/// The ids to take on.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: Vec<libc::gid_t>,
    /// Whether the user is another one than the broker's.
    pub(super) is_other: bool,
}

impl SpawnPlan {
    /// Checks a specification.
    ///
    /// # Errors
    /// `exec` with EINVAL for an empty command, and for a NUL byte in it or in the environment, or an equals
    /// sign in the name of a variable; `cwd`, `stdout` or `stderr` with EINVAL for a NUL byte there; `rlimits`
    /// with EPERM for a limit above the broker's own hard one, even where the broker could raise it, and
    /// with EINVAL for a soft limit above its hard one.
    pub fn prepare(spec: SpawnSpec) -> Result<Self, SpawnError> {
        let candidates = candidates(&spec)?;
        let argv = spec
            .command
            .into_iter()
            .map(|argument| c_string(argument, Step::Exec))
            .collect::<Result<_, _>>()?;
        let mut env = Strings::environment(spec.env, spec.inherited)?;
        let own_pid = spec.own_pid.map(OwnPid::new);
        if let Some(own_pid) = &own_pid {
            env.append(own_pid.pointer());
        }
        for &limit in &spec.rlimits {
            check_rlimit(limit)?;
        }
        let program = ExecPlan {
            name: spec.name,
            stdin: spec.stdin,
            stdout: planned_output(spec.stdout, Step::Stdout)?,
            stderr: match spec.stderr {
                ErrorOutput::Stdout => None,
                ErrorOutput::Own(output) => Some(planned_output(output, Step::Stderr)?),
            },
            rlimits: spec.rlimits,
            ids: ids(&spec.credentials),
            restraint: spec.restraint,
            umask: spec.umask.bits(),
            cwd: c_string(spec.cwd.into_os_string(), Step::Cwd)?,
            argv,
            env,
            own_pid,
            candidates,
        };
        Ok(Self { program: Box::new(program), cgroup: spec.cgroup, bounding: spec.bounding })
    }

    /// Lets the process start in the root directory. Says whether it was to start elsewhere.
    pub fn start_at_root(&mut self) -> bool {
        let elsewhere = self.program.cwd.as_c_str() != c"/";
        c"/".clone_into(&mut self.program.cwd);
        elsewhere
    }

    /// Lets output go nowhere that would have been kept in a file.
    pub fn keep_no_output(&mut self) {
        let ExecPlan { stdout, stderr, .. } = &mut *self.program;
        for output in [Some(stdout), stderr.as_mut()].into_iter().flatten() {
            if let PlannedOutput::Append(_) = output {
                *output = PlannedOutput::Null;
            }
        }
    }
}

fn ids(credentials: &Credentials) -> Option<Ids> {
    match credentials {
        Credentials::Unchanged => None,
        Credentials::Become { uid, gid, groups } => Some(Ids {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            groups: groups.iter().map(|group| group.as_raw()).collect(),
            is_other: *uid != nix::unistd::geteuid(),
        }),
    }
}

fn planned_output(output: Output, step: Step) -> Result<PlannedOutput, SpawnError> {
    Ok(match output {
        Output::Null => PlannedOutput::Null,
        Output::Inherit => PlannedOutput::Inherit,
        Output::Append(path) => PlannedOutput::Append(c_string(path.into_os_string(), step)?),
    })
}

fn check_rlimit(limit: ResourceLimit) -> Result<(), SpawnError> {
    let refused = |errno| SpawnError::refused(Step::Rlimits, errno);
    if limit.soft > limit.hard {
        return Err(refused(Errno::EINVAL));
    }
    // The kernel would let a privileged broker raise it, and so hand its child more than it has itself.
    if limit.hard > limit.resource.own_hard_limit().map_err(refused)? {
        return Err(refused(Errno::EPERM));
    }
    Ok(())
}

/// `NAME_MAX` of Linux: no folder has a file with a longer name.
const FILE_NAME_BYTES_MAX: usize = 255;

/// At most so many elements of PATH are tried.
const PATH_ELEMENTS_MAX: usize = 1_024;

/// The paths that `execvp(3)` would try: the name itself if it has a slash, else below each element of PATH,
/// where an empty element stands for the working directory.
fn candidates(spec: &SpawnSpec) -> Result<Vec<CString>, SpawnError> {
    let program = spec.command.first().ok_or(SpawnError::refused(Step::Exec, Errno::EINVAL))?;
    if program.is_empty() {
        return Err(SpawnError::refused(Step::Exec, Errno::ENOENT));
    }
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(program.clone(), Step::Exec)?]);
    }
    // It would be written once for each element.
    if program.len() > FILE_NAME_BYTES_MAX {
        return Err(SpawnError::refused(Step::Exec, Errno::ENAMETOOLONG));
    }
    let own = spec.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let path = own.or_else(|| spec.inherited.get("PATH")).unwrap_or(OsStr::new(DEFAULT_PATH));
    let below = |element: &[u8]| {
        let mut candidate = OsStr::from_bytes(element).to_os_string();
        if !element.is_empty() {
            candidate.push("/");
        }
        candidate.push(program);
        c_string(candidate, Step::Exec)
    };
    let elements = path.as_bytes().split(|&byte| byte == b':');
    if elements.clone().nth(PATH_ELEMENTS_MAX).is_some() {
        return Err(SpawnError::refused(Step::Exec, Errno::E2BIG));
    }
    elements.map(below).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use nix::sys::stat::Mode;

    use super::super::base_environment::BaseEnvironment;
    use super::*;

    fn spec(command: &[&str], env: &[(&str, &str)]) -> SpawnSpec {
        SpawnSpec {
            name: LaunchName::NOBODY,
            command: command.iter().map(OsString::from).collect(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            inherited: BaseEnvironment::default(),
            own_pid: None,
            cwd: "/".into(),
            umask: Mode::from_bits_truncate(0o022),
            credentials: Credentials::Unchanged,
            restraint: Restraint::default(),
            rlimits: Vec::new(),
            stdin: StdinSource::Null,
            stdout: Output::Null,
            stderr: ErrorOutput::Stdout,
            cgroup: None,
            bounding: Bounding::Free,
        }
    }

    fn paths(program: &str, env: &[(&str, &str)]) -> Vec<String> {
        let plan = SpawnPlan::prepare(spec(&[program], env)).unwrap();
        plan.program.candidates.into_iter().map(|candidate| candidate.into_string().unwrap()).collect()
    }

    fn refusal(spec: SpawnSpec) -> (&'static str, Errno) {
        let failure = SpawnPlan::prepare(spec).unwrap_err();
        (failure.step_name(), failure.errno())
    }

    #[test]
    fn a_program_is_looked_up_in_what_is_inherited_where_its_own_environment_has_no_path() {
        let inherited = || [("PATH".into(), "/c".into())].into_iter().collect();
        let candidates = |env: &[(&str, &str)]| {
            let plan =
                SpawnPlan::prepare(SpawnSpec { inherited: inherited(), ..spec(&["ls"], env) }).unwrap();
            plan.program.candidates
        };
        assert_eq!(candidates(&[]), [c"/c/ls".to_owned()]);
        assert_eq!(candidates(&[("PATH", "/a")]), [c"/a/ls".to_owned()]);
    }

    #[test]
    fn a_program_is_looked_up_in_the_path_of_its_own_environment() {
        assert_eq!(paths("ls", &[("PATH", "/a:/b")]), ["/a/ls", "/b/ls"]);
        assert_eq!(paths("ls", &[("PATH", ":/a:")]), ["ls", "/a/ls", "ls"]);
        assert_eq!(paths("ls", &[("PATH", "")]), ["ls"]);
        assert_eq!(paths("ls", &[]), ["/usr/local/bin/ls", "/usr/bin/ls", "/bin/ls"]);
        assert_eq!(paths("./ls", &[("PATH", "/a:/b")]), ["./ls"]);
        assert_eq!(paths("/bin/ls", &[("PATH", "/a")]), ["/bin/ls"]);
    }

    #[test]
    fn no_more_is_written_for_a_program_that_is_looked_up_than_can_be_there() {
        let name = |bytes: usize| "a".repeat(bytes);
        let path = |elements: usize| vec!["/"; elements].join(":");
        let tried = |bytes, elements: usize| paths(&name(bytes), &[("PATH", &path(elements))]).len();
        let refused = |bytes, elements| refusal(spec(&[&name(bytes)], &[("PATH", &path(elements))]));
        assert_eq!(tried(FILE_NAME_BYTES_MAX, PATH_ELEMENTS_MAX), PATH_ELEMENTS_MAX);
        assert_eq!(refused(FILE_NAME_BYTES_MAX + 1, 1), ("exec", Errno::ENAMETOOLONG));
        assert_eq!(refused(1, PATH_ELEMENTS_MAX + 1), ("exec", Errno::E2BIG));
    }

    #[test]
    fn what_the_kernel_would_cut_short_is_refused() {
        assert_eq!(refusal(spec(&[], &[])), ("exec", Errno::EINVAL));
        assert_eq!(refusal(spec(&[""], &[])), ("exec", Errno::ENOENT));
        assert_eq!(refusal(spec(&["a\0b"], &[])), ("exec", Errno::EINVAL));
        assert_eq!(refusal(spec(&["a", "b\0c"], &[])), ("exec", Errno::EINVAL));
        assert_eq!(refusal(spec(&["a"], &[("B", "c\0d")])), ("exec", Errno::EINVAL));
        assert_eq!(refusal(spec(&["a"], &[("B=C", "d")])), ("exec", Errno::EINVAL));
        assert_eq!(refusal(SpawnSpec { cwd: "/\0".into(), ..spec(&["a"], &[]) }), ("cwd", Errno::EINVAL));
        let nul = || Output::Append("/\0".into());
        assert_eq!(refusal(SpawnSpec { stdout: nul(), ..spec(&["a"], &[]) }), ("stdout", Errno::EINVAL));
        let stderr = ErrorOutput::Own(nul());
        assert_eq!(refusal(SpawnSpec { stderr, ..spec(&["a"], &[]) }), ("stderr", Errno::EINVAL));
    }
}
