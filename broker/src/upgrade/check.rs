//! Asks another program whether it can take over, before anything is changed.
//!
//! It is started as `procbroker can-take-over`, looks at what it would be given, and says yes in so many words. Any other
//! program says something else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procbroker_core::Pid;
use procbroker_protocol::Signal;
use thiserror::Error;

use super::handover::FORMAT;
use super::program::Program;
use crate::os::host::own_folder::{OwnError, OwnFolder};
use crate::os::process::pidfd;
use crate::os::process::variables::{NOTIFY_VARIABLE, UPGRADE_VARIABLES};

/// How long the other program may take to answer: ten thousand children on record are read in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of its answer that are looked at.
const ANSWER_BYTES_MAX: usize = 4096;

/// The file, beside the record, that shows whether there can be one.
const PROBE: &str = "room-for-upgrade";

/// Bytes of it: several times what the new program writes to the record before it is ready.
const ROOM: u64 = 64 << 10;

/// The verb by which it is asked.
const VERB: &str = "can-take-over";

/// Why another program will not take over.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It cannot be started.
    #[error("cannot start {program}: {source}; put the new program there")]
    Start {
        /// The path of the program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The record could not be gone on with.
    #[error(
        "cannot write beside {record}: {source}; see that the disk is in order and has room, for the new program has to \
         write there when it begins"
    )]
    Disk {
        /// The file in which the children are on record.
        record: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is kept for the new program is not where it would look for it.
    #[error(
        "the runtime folder is not in its place: {0}; put it back, or stop the broker and start it again"
    )]
    Runtime(#[from] OwnError),
    /// It did not answer.
    #[error("{program} did not say within {patience:?} whether it can take over; is it a procbroker?")]
    Silent {
        /// The path of the program.
        program: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It cannot take over, or is something else.
    #[error("{program} cannot take over: {answer}")]
    Refused {
        /// The path of the program.
        program: PathBuf,
        /// The first line of what it wrote.
        answer: String,
    },
}

/// What a program says that can take over, and nothing else.
#[must_use]
pub fn promise() -> String {
    format!("can take over in form {FORMAT}")
}

/// Asks a program whether it can take over what is on record in this file and in this runtime folder, with the arguments that this one was started
/// with. It takes as long as the other program does, within ten seconds.
///
/// # Errors
/// Why it will not.
pub fn check(program: &Program, record: &Path, runtime: &OwnFolder) -> Result<(), CheckError> {
    runtime.check_in_place()?;
    check_disk(record).map_err(|source| CheckError::Disk { record: record.to_owned(), source })?;
    check_within(program, record, PATIENCE)
}

/// Whether there is room beside the record. The new program could not begin without; then nobody would have the children.
pub(super) fn check_disk(record: &Path) -> io::Result<()> {
    let probe = record.with_file_name(PROBE);
    // Whether there is room can turn out as late as when it is to be on the disk.
    let written = File::create(&probe).and_then(|mut file| {
        io::copy(&mut io::repeat(0).take(ROOM), &mut file)?;
        file.sync_all()
    });
    // One that is left, by a crash in this moment, is written over by the next.
    match (written, fs::remove_file(&probe)) {
        (Ok(()), removed) => removed,
        (Err(error), _) => Err(error),
    }
}

pub(super) fn check_within(program: &Program, record: &Path, patience: Duration) -> Result<(), CheckError> {
    let path = program.path().to_owned();
    let mut command = Command::new(&path);
    command.arg(VERB).arg("--form").arg(FORMAT.to_string()).arg("--record").arg(record);
    // What it does not understand would end it when it has taken over.
    command.arg("--").args(program.arguments.iter().skip(1));
    for own in UPGRADE_VARIABLES {
        command.env_remove(own);
    }
    command.env_remove(NOTIFY_VARIABLE).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|source| CheckError::Start { program: path.clone(), source })?;
    let Some((said, complained)) = listen(child, patience) else {
        return Err(CheckError::Silent { program: path, patience });
    };
    if said.trim() == promise() {
        return Ok(());
    }
    let words = if complained.trim().is_empty() { said } else { complained };
    let answer = words.lines().next().unwrap_or_default().trim();
    let answer = answer.strip_prefix("procbroker: ").unwrap_or(answer).to_owned();
    let answer = if answer.is_empty() { "it said nothing; is it a procbroker?".to_owned() } else { answer };
    Err(CheckError::Refused { program: path, answer })
}

/// What a process writes until it has closed both of its outputs; none when it does not in time. It is killed then, with
/// whatever it has started.
fn listen(mut child: Child, patience: Duration) -> Option<(String, String)> {
    // Held as long as it is known: its number may be another's when the broker has reaped it.
    let pidfd = Pid::new(child.id()).and_then(|pid| pidfd::open(pid).ok());
    let deadline = Instant::now().checked_add(patience);
    let pipes: [Option<OwnedFd>; 2] =
        [child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
    let texts = read_all(pipes, deadline);
    if let Some(pidfd) = &pidfd
        && pidfd::send_to_group(pidfd.as_fd(), Signal::KILL).is_err()
    {
        // Before Linux 6.9, and when it is gone: the process alone.
        let _ = pidfd::send(pidfd.as_fd(), Signal::KILL);
    }
    // It was killed, if it has not ended by itself.
    let _ = child.wait();
    texts
}

/// Reads from pipes until all of them are closed; none when that takes too long.
fn read_all(pipes: [Option<OwnedFd>; 2], deadline: Option<Instant>) -> Option<(String, String)> {
    let mut texts = [Vec::new(), Vec::new()];
    let mut open: Vec<(usize, File)> =
        pipes.into_iter().enumerate().filter_map(|(index, pipe)| Some((index, pipe?.into()))).collect();
    while !open.is_empty() {
        let left = deadline?.checked_duration_since(Instant::now())?;
        let mut waiting: Vec<PollFd<'_>> =
            open.iter().map(|(_, pipe)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        // Rounded up, so that the last wait does not end just before the deadline, again and again.
        let left = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1))).ok()?;
        match poll(&mut waiting, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        let ready: Vec<bool> = waiting.iter().map(|pipe| pipe.any().unwrap_or(true)).collect();
        let mut ready = ready.into_iter();
        open.retain_mut(|(index, pipe)| {
            !ready.next().unwrap_or(false) || texts.get_mut(*index).is_some_and(|text| read_some(pipe, text))
        });
    }
    let [said, complained] = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
    Some((said, complained))
}

/// Reads what is there; false when nothing more is to come, or wanted.
fn read_some(pipe: &mut File, text: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 1024];
    match pipe.read(&mut chunk) {
        Ok(length) => {
            text.extend_from_slice(chunk.get(..length).unwrap_or_default());
            length > 0 && text.len() < ANSWER_BYTES_MAX
        }
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}
