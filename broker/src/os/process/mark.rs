//! Reads whose child a process is marked as, by the environment that it started with (`proc_pid_environ(5)`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use procbroker_core::{Pid, paired_id};
use procbroker_protocol::ChildId;
use procbroker_protocol::socket_path::SOCKET_VARIABLE;

use super::apart::{self, AskOutcome};
use super::proc::{fields, is_dead, read_stat};
use crate::os::process::variables::{CHILD_ID_VARIABLE, EXIT_REASON_VARIABLE, PROBE_VARIABLE};

/// How long a process that executes a program right now is asked for its mark by those who can come back to it.
const MARK_MOMENT: Duration = Duration::from_millis(10);

/// How long it is asked where a child would be taken for gone that has not come to have its mark: the program may have to
/// come from a slow disk, and the processor be somebody else's. Whoever means it can stand still there for ever.
pub(crate) const MARK_PATIENCE: Duration = Duration::from_secs(2);

/// How long all processes together are waited for in one look at all that there are: each may be somebody's who means to hold
/// the broker up.
const MOMENTS_OF_A_SCAN: Duration = Duration::from_millis(100);

/// How long is rested between two questions. To yield instead would leave it to others how long it takes: on a busy machine
/// each time is as long as their share of the processor.
const MARK_REST: Duration = Duration::from_millis(1);

/// Bytes of the first attempt to read an environment; execve(2) takes up to a quarter of the limit on the stack.
const ENVIRONMENT_BYTES: usize = 32 << 10;

/// What the environment that a process started with says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is that of a child.
    Child(ChildId),
    /// It is no child's, or cannot be read.
    Nobody,
    /// It cannot be told at this moment: the process is about to execute another program, and has no environment
    /// so far.
    Changing,
}

/// Reads the mark of a process. That of a command which asks whether a child is ready is the child's [`paired_id`].
pub(crate) fn mark(pid: Pid) -> Mark {
    match environment(pid) {
        Environment::Changing => Mark::Changing,
        Environment::Unreadable => Mark::Nobody,
        Environment::Read(environment) => {
            let value = variable(&environment, CHILD_ID_VARIABLE);
            let child = value.and_then(|value| uuid::Uuid::try_parse_ascii(value).ok());
            let Some(child) = child.map(ChildId::from_uuid) else { return Mark::Nobody };
            let is_probe = variable(&environment, PROBE_VARIABLE).is_some();
            Mark::Child(if is_probe { paired_id(child) } else { child })
        }
    }
}

/// The socket of the broker that a process was told of, if its environment can be read.
pub(crate) fn broker_socket(pid: Pid) -> Option<Vec<u8>> {
    match environment(pid) {
        Environment::Read(environment) => variable(&environment, SOCKET_VARIABLE).map(<[u8]>::to_vec),
        Environment::Unreadable | Environment::Changing => None,
    }
}

/// How long processes are still waited for, all in all, that execute a program right now.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
}

impl Patience {
    /// For those who look once, and never again.
    pub(crate) fn for_recovery() -> Self {
        Self { left: MARK_PATIENCE }
    }

    /// For those who can come back.
    pub(crate) fn for_scan() -> Self {
        Self { left: MOMENTS_OF_A_SCAN }
    }

    /// Asks until there is an answer, for as long as this is not used up.
    fn ask<T>(&mut self, ask: impl FnMut() -> T, is_changing: impl Fn(&T) -> bool, at_most: Duration) -> T {
        let began = Instant::now();
        let answer = until_settled(ask, is_changing, self.left.min(at_most));
        self.left = self.left.saturating_sub(began.elapsed());
        answer
    }
}

/// The variables that a process started with, each with a zero byte behind it.
enum Environment {
    Read(Vec<u8>),
    /// It belongs to somebody else, or is gone.
    Unreadable,
    /// It cannot be told at this moment.
    Changing,
}

fn environment(pid: Pid) -> Environment {
    match apart::ask(pid, move || environment_of(pid)) {
        AskOutcome::Answered(environment) => environment,
        // It may be on its way to a program.
        AskOutcome::Kept => Environment::Changing,
    }
}

fn environment_of(pid: Pid) -> Environment {
    match environment_at(&format!("/proc/{pid}")) {
        // A first thread that has ended has no memory any more, but the other threads have.
        Environment::Changing => match living_thread(pid) {
            Some(thread) => environment_at(&thread),
            None => Environment::Changing,
        },
        found @ (Environment::Read(_) | Environment::Unreadable) => found,
    }
}

fn environment_at(folder: &str) -> Environment {
    let path = format!("{folder}/environ");
    let read = || match read_at_once(&path) {
        Ok(environment) => Environment::Read(environment),
        // There is no descriptor or memory to read it with at the moment.
        Err(error) if is_shortage(&error) => Environment::Changing,
        Err(_) => Environment::Unreadable,
    };
    match read() {
        Environment::Read(environment) if environment.is_empty() => match Layout::read(folder) {
            Layout::Empty => Environment::Read(environment),
            Layout::Changing => Environment::Changing,
            before @ Layout::Variables { .. } => match read() {
                // No program was executed meanwhile: that would have put its variables elsewhere.
                Environment::Read(environment)
                    if environment.is_empty() && Layout::read(folder) == before =>
                {
                    Environment::Unreadable
                }
                Environment::Read(environment) if environment.is_empty() => Environment::Changing,
                found => found,
            },
        },
        found => found,
    }
}

/// Reads a file of a process's memory by one system call: it ends early for the next one when the process has executed another
/// program meanwhile (`environ_read` in the kernel's `fs/proc/base.c`), and a part would be taken for all of it.
fn read_at_once(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; ENVIRONMENT_BYTES];
    loop {
        let count = file.read_at(&mut bytes, 0)?;
        if count < bytes.len() {
            bytes.truncate(count);
            return Ok(bytes);
        }
        bytes.resize(2 * bytes.len(), 0);
    }
}

/// The folder of a thread that lives in a process whose first thread has ended; `None` where that one lives.
pub(crate) fn living_thread(pid: Pid) -> Option<String> {
    let is_dead_at = |folder: &str| {
        let text = read_stat(&format!("{folder}/stat"));
        text.as_deref().and_then(fields).and_then(|mut fields| fields.next()).is_none_or(is_dead)
    };
    if !is_dead_at(&format!("/proc/{pid}")) {
        return None;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    threads
        .filter_map(|thread| thread.path().into_os_string().into_string().ok())
        .find(|path| !is_dead_at(path))
}

/// Reads any bytes as the environment of a process.
pub(crate) fn read_any_environment(bytes: &[u8]) {
    let _ = variable(bytes, CHILD_ID_VARIABLE);
}

/// The value of a variable.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut variables = environment.split(|&byte| byte == 0);
    variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Where a process has the variables that it started with, as the kernel tells of one whose environment reads as empty.
///
/// The kernel tells where in its memory the environment begins and ends (fields 50 and 51). While it executes a program both are
/// at first zero, and then the same until the variables are in place; only after that it is known where the code begins (field
/// 26; `load_elf_binary` in `fs/binfmt_elf.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// It was started without any, or is gone.
    Empty,
    /// There are some: the process has let go of the memory that they were in, or executed a program a moment ago.
    Variables { code: String, begin: String, end: String },
    /// It is executing a program.
    Changing,
}

impl Layout {
    fn read(folder: &str) -> Self {
        let text = read_stat(&format!("{folder}/stat"));
        let Some(mut fields) = text.as_deref().and_then(fields) else { return Self::Empty };
        match (fields.nth(23), fields.nth(23), fields.next()) {
            (Some(code), Some(begin), Some(end)) if code != "0" && begin != "0" => {
                if begin == end {
                    return Self::Empty;
                }
                Self::Variables { code: code.to_owned(), begin: begin.to_owned(), end: end.to_owned() }
            }
            _ => Self::Changing,
        }
    }
}

/// The mark of a process, which may be about to execute a program.
pub(crate) fn settled_mark(pid: Pid, patience: &mut Patience) -> Mark {
    patience.ask(|| mark(pid), |mark| *mark == Mark::Changing, MARK_MOMENT)
}

/// The mark of a process that is not asked again if it cannot be told now.
pub(crate) fn awaited_mark(pid: Pid, patience: &mut Patience) -> Mark {
    patience.ask(|| mark(pid), |mark| *mark == Mark::Changing, MARK_PATIENCE)
}

fn until_settled<T>(mut ask: impl FnMut() -> T, is_changing: impl Fn(&T) -> bool, patience: Duration) -> T {
    let began = Instant::now();
    loop {
        let answer = ask();
        if !is_changing(&answer) || began.elapsed() >= patience {
            return answer;
        }
        std::thread::sleep(MARK_REST);
    }
}

/// Whether a process that has the mark of a child is of its cleanup: only that is told how the child ended. The cleanup
/// passes it on to what it starts, as it does with the mark.
pub(crate) fn is_of_cleanup(pid: Pid) -> bool {
    let is_changing = |found: &Environment| matches!(found, Environment::Changing);
    match until_settled(|| environment(pid), is_changing, MARK_PATIENCE) {
        Environment::Read(environment) => variable(&environment, EXIT_REASON_VARIABLE).is_some(),
        Environment::Unreadable | Environment::Changing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_from_the_environment_and_its_absence_too() {
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let start = |variables: &[(&str, String)]| {
            let mut command = std::process::Command::new("/bin/cat");
            command.env_clear().envs(variables.iter().cloned()).stdin(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let marked = [("A", "b".to_owned()), (CHILD_ID_VARIABLE, child.to_string())];
        let forged = [(CHILD_ID_VARIABLE, "7".to_owned())];
        for (variables, expected) in [
            (&marked[..], Mark::Child(child)),
            (&marked[..1], Mark::Nobody),
            (&forged, Mark::Nobody),
            (&[], Mark::Nobody),
        ] {
            let mut process = start(variables);
            let pid = Pid::new(process.id()).unwrap();
            // It may be on its way to its program.
            let found = std::iter::repeat_with(|| mark(pid)).find(|mark| *mark != Mark::Changing);
            assert_eq!(found, Some(expected));
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_has_let_go_of_its_environment_has_no_mark_and_is_not_waited_for() {
        const LETS_GO: &str = "import ctypes, os, sys
fields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
begin, end = int(fields[47]) & ~4095, int(fields[48]) + 4095 & ~4095
assert ctypes.CDLL(None).munmap(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin)) == 0
os.write(1, b'.')
sys.stdin.read()
os._exit(0)";
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let mut command = std::process::Command::new("python3");
        // What stands before the environment is a page of this, and nothing that is needed.
        command.args(["-c", LETS_GO, &"x".repeat(3 * 4096)]).env(CHILD_ID_VARIABLE, child.to_string());
        let piped = std::process::Stdio::piped;
        let mut process = command.stdin(piped()).stdout(piped()).spawn().unwrap();
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert_eq!(mark(Pid::new(process.id()).unwrap()), Mark::Nobody);
        drop(process.stdin.take());
        assert!(process.wait().unwrap().success());
    }

    #[test]
    fn all_processes_together_use_up_the_patience_that_there_is() {
        let mut patience = Patience { left: MARK_REST };
        let is_changing = |mark: &Mark| *mark == Mark::Changing;
        let mut asked = 0;
        for _ in 0..100 {
            let mark = patience.ask(
                || {
                    asked += 1;
                    Mark::Changing
                },
                is_changing,
                MARK_PATIENCE,
            );
            assert_eq!(mark, Mark::Changing);
        }
        assert_eq!(patience.left, Duration::ZERO);
        assert!(asked <= 102, "one that comes later is asked once: {asked}");
    }

    #[test]
    fn a_mark_is_not_lost_while_its_process_executes_one_program_after_another() {
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let again = "exec sh -c \"$0\" \"$0\"";
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", again, again])
            .env("A", "x".repeat(9_000))
            .env(CHILD_ID_VARIABLE, child.to_string());
        let mut process = command.spawn().unwrap();
        let pid = Pid::new(process.id()).unwrap();
        let marks: Vec<Mark> = std::iter::repeat_with(|| mark(pid)).take(5_000).collect();
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(marks.contains(&Mark::Child(child)));
        assert!(!marks.contains(&Mark::Nobody), "a part of an environment was taken for all of it");
    }

    #[test]
    fn a_process_that_takes_its_time_to_execute_its_program_is_asked_for_its_mark_until_it_has_one() {
        let mark = Mark::Child(ChildId::from_uuid(uuid::Uuid::from_u128(1)));
        let is_changing = |mark: &Mark| *mark == Mark::Changing;
        let mut answers = [Mark::Changing; 20].into_iter().chain([mark]);
        assert_eq!(until_settled(|| answers.next().unwrap(), is_changing, Duration::from_secs(60)), mark);
        assert_eq!(until_settled(|| Mark::Changing, is_changing, Duration::ZERO), Mark::Changing);
    }
}
