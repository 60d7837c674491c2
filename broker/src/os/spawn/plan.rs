//! What to spawn: checked, and converted to what the kernel takes, before there is a process.
#![expect(unsafe_code, reason = "lists of pointers, as execve takes them, to what the same value owns")]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::ptr;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use super::base_environment::BaseEnvironment;
use super::failure::{SpawnFailure, Step};
use super::name::LaunchName;
use super::own_pid::OwnPid;
use super::resource::Rlimit;

/// Where a program is looked up when its environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Everything about a new process, in plain types.
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
    pub rlimits: Vec<Rlimit>,
    /// Where its standard input comes from.
    pub stdin: StandardInput,
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
pub enum StandardInput {
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
    pub(super) stdin: StandardInput,
    pub(super) stdout: PlannedOutput,
    /// `None`: the same as `stdout`.
    pub(super) stderr: Option<PlannedOutput>,
    pub(super) rlimits: Vec<Rlimit>,
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

/// Strings with a list of pointers to them that ends with a null pointer.
#[derive(Debug)]
pub(super) struct Strings {
    pointers: Vec<*const c_char>,
    /// What they point to, beside what is appended, and what stays where it is when this is moved.
    _owned: Vec<CString>,
    /// What else they point to.
    _shared: BaseEnvironment,
}

// SAFETY: the pointers lead to what the same value, or the program that it is a part of, owns. Nobody writes there but to
// atomic bytes.
unsafe impl Send for Strings {}
// SAFETY: as for `Send`.
unsafe impl Sync for Strings {}

impl Strings {
    /// The address of the list, as a number.
    pub(super) fn address(&self) -> usize {
        self.pointers.as_ptr().expose_provenance()
    }

    /// An environment: a process's own variables, and those of the others that it has not itself.
    fn environment(own: Vec<(OsString, OsString)>, inherited: BaseEnvironment) -> Result<Self, SpawnFailure> {
        let mut names: Vec<&OsStr> = own.iter().map(|(name, _)| name.as_os_str()).collect();
        names.sort_unstable();
        let others = inherited.iter().filter(|(name, ..)| names.binary_search(name).is_err());
        let others: Vec<*const c_char> = others.map(|(_, _, text)| text.as_ptr()).collect();
        let own = own.into_iter().map(variable).collect::<Result<Vec<CString>, _>>()?;
        let pointers = own.iter().map(|text| text.as_ptr()).chain(others).chain([ptr::null()]).collect();
        Ok(Self { pointers, _owned: own, _shared: inherited })
    }

    /// Adds a string at the end that somebody else owns, who lives as long.
    fn append(&mut self, string: *const c_char) {
        self.pointers.pop();
        self.pointers.extend([string, ptr::null()]);
    }
}

impl FromIterator<CString> for Strings {
    fn from_iter<T: IntoIterator<Item = CString>>(strings: T) -> Self {
        let owned: Vec<CString> = strings.into_iter().collect();
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned, _shared: BaseEnvironment::default() }
    }
}

impl SpawnPlan {
    /// Checks a specification.
    ///
    /// # Errors
    /// `exec` with EINVAL for an empty command, and for a NUL byte in it or in the environment, or an equals
    /// sign in the name of a variable; `cwd`, `stdout` or `stderr` with EINVAL for a NUL byte there; `rlimits`
    /// with EPERM for a limit above the broker's own hard one, even where the broker could raise it, and
    /// with EINVAL for a soft limit above its hard one.
    pub fn prepare(spec: SpawnSpec) -> Result<Self, SpawnFailure> {
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

/// Without its NUL byte, a string would silently be a shorter one to the kernel.
fn c_string(text: OsString, step: Step) -> Result<CString, SpawnFailure> {
    CString::new(text.into_vec()).map_err(|_| SpawnFailure::refused(step, Errno::EINVAL))
}

fn planned_output(output: Output, step: Step) -> Result<PlannedOutput, SpawnFailure> {
    Ok(match output {
        Output::Null => PlannedOutput::Null,
        Output::Inherit => PlannedOutput::Inherit,
        Output::Append(path) => PlannedOutput::Append(c_string(path.into_os_string(), step)?),
    })
}

fn variable((name, value): (OsString, OsString)) -> Result<CString, SpawnFailure> {
    if name.as_bytes().contains(&b'=') {
        return Err(SpawnFailure::refused(Step::Exec, Errno::EINVAL));
    }
    let mut assignment = name;
    assignment.push("=");
    assignment.push(value);
    c_string(assignment, Step::Exec)
}

fn check_rlimit(limit: Rlimit) -> Result<(), SpawnFailure> {
    let refused = |errno| SpawnFailure::refused(Step::Rlimits, errno);
    if limit.soft > limit.hard {
        return Err(refused(Errno::EINVAL));
    }
    // The kernel would let a privileged broker raise it, and so hand its child more than it has itself.
    if limit.hard > limit.resource.own_hard_limit().map_err(refused)? {
        return Err(refused(Errno::EPERM));
    }
    Ok(())
}

/// The paths that `execvp(3)` would try: the name itself if it has a slash, else below each element of PATH,
/// where an empty element stands for the working directory.
fn candidates(spec: &SpawnSpec) -> Result<Vec<CString>, SpawnFailure> {
    let program = spec.command.first().ok_or(SpawnFailure::refused(Step::Exec, Errno::EINVAL))?;
    if program.is_empty() {
        return Err(SpawnFailure::refused(Step::Exec, Errno::ENOENT));
    }
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(program.clone(), Step::Exec)?]);
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
    path.as_bytes().split(|&byte| byte == b':').map(below).collect()
}

#[cfg(test)]
mod tests {
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
            stdin: StandardInput::Null,
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

    fn environment(own: &[(&str, &str)], inherited: &[(&str, &str)]) -> Vec<String> {
        let pair = |&(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let own = own.iter().map(pair).collect();
        let strings = Strings::environment(own, inherited.iter().map(pair).collect()).unwrap();
        let (last, pointers) = strings.pointers.split_last().unwrap();
        assert!(last.is_null());
        // SAFETY: each leads to a string that `strings` owns or shares.
        let text = |pointer: &*const c_char| {
            unsafe { std::ffi::CStr::from_ptr(*pointer) }.to_str().unwrap().to_owned()
        };
        pointers.iter().map(text).collect()
    }

    #[test]
    fn a_process_has_its_own_variables_and_those_of_all_that_it_has_not_itself() {
        let shared = [("A", "1"), ("AB", "2=3"), ("B", "")];
        assert_eq!(environment(&[], &shared), ["A=1", "AB=2=3", "B="]);
        assert_eq!(environment(&[("C", "5"), ("AB", "4")], &shared), ["C=5", "AB=4", "A=1", "B="]);
        assert_eq!(environment(&[("A", "x")], &[("A\0", "1"), ("A", "\0")]), ["A=x"]);
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
