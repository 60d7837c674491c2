//! Reads whose child a process is marked as, by the environment that it started with (`proc_pid_environ(5)`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use procbroker_core::{Pid, counterpart};
use procbroker_protocol::ChildId;
use procbroker_protocol::socket_path::SOCKET_VARIABLE;

use super::proc::{fields, is_dead, read_stat};
use crate::os::process::variables::{CHILD_ID_VARIABLE, EXIT_REASON_VARIABLE, PROBE_VARIABLE};

/// How long a process that executes a program right now is asked for its mark by those who can come back to it.
const MARK_MOMENT: Duration = Duration::from_millis(10);

/// How long it is asked where a child would be taken for gone that has not come to have its mark: the program may have to
/// come from a slow disk, and the processor be somebody else's.
const MARK_PATIENCE: Duration = Duration::from_secs(2);

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

/// Reads the mark of a process. That of a command which asks whether a child is ready is the child's [`counterpart`].
pub(crate) fn mark(pid: Pid) -> Mark {
    match environment(pid) {
        Environment::Changing => Mark::Changing,
        Environment::Unreadable => Mark::Nobody,
        Environment::Read(environment) => {
            let value = variable(&environment, CHILD_ID_VARIABLE);
            let child = value.and_then(|value| uuid::Uuid::try_parse_ascii(value).ok());
            let Some(child) = child.map(ChildId::from_uuid) else { return Mark::Nobody };
            let is_probe = variable(&environment, PROBE_VARIABLE).is_some();
            Mark::Child(if is_probe { counterpart(child) } else { child })
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

/// The variables that a process started with, each with a zero byte behind it.
enum Environment {
    Read(Vec<u8>),
    /// It belongs to somebody else, or is gone.
    Unreadable,
    /// It cannot be told at this moment.
    Changing,
}

fn environment(pid: Pid) -> Environment {
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
    match read_at_once(&format!("{folder}/environ")) {
        Ok(environment) if environment.is_empty() && !has_no_environment(folder) => Environment::Changing,
        Ok(environment) => Environment::Read(environment),
        // There is no descriptor or memory to read it with at the moment.
        Err(error) if is_shortage(&error) => Environment::Changing,
        Err(_) => Environment::Unreadable,
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

/// Whether a process was started without any variable. The kernel tells where in its memory the environment begins and ends
/// (fields 50 and 51). While it executes a program both are at first zero, and then the same until the variables are in
/// place; only after that it is known where the code begins (field 26; `load_elf_binary` in `fs/binfmt_elf.c`).
fn has_no_environment(folder: &str) -> bool {
    let text = read_stat(&format!("{folder}/stat"));
    let Some(mut fields) = text.as_deref().and_then(fields) else { return true };
    let (code, begin, end) = (fields.nth(23), fields.nth(23), fields.next());
    code.is_some_and(|code| code != "0") && begin.is_some_and(|begin| begin != "0") && begin == end
}

/// The mark of a process, which may be about to execute a program.
pub(crate) fn settled_mark(pid: Pid) -> Mark {
    until_settled(|| mark(pid), |mark| *mark == Mark::Changing, MARK_MOMENT)
}

/// The mark of a process that is not asked again if it cannot be told now.
pub(crate) fn awaited_mark(pid: Pid) -> Mark {
    until_settled(|| mark(pid), |mark| *mark == Mark::Changing, MARK_PATIENCE)
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
