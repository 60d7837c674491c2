//! A process of somebody else's that a child's life hangs on (`lifetime: {"pid": N}`), and who may name it.

use procbroker_protocol::create::Lifetime;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{CreateParams, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::authorize::Peer;
use crate::ids::Pid;
use crate::launch::Shortage;

/// A process for good: one that gets its number later is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number in the broker's pid namespace.
    pub pid: Pid,
    /// What tells it from others of that number.
    pub birthmark: Birthmark,
    /// The boot id of the run of the kernel that it lives in (`random(4)`).
    pub boot: Uuid,
}

/// By what a process is told from one that has the same number earlier or later in the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Birthmark {
    /// The inode number of its pidfd, which no other process gets (pidfs, Linux 6.9).
    Inode(u64),
    /// When it was started, in clock ticks (10 ms, mostly) since boot (`proc_pid_stat(5)`, field 22): all that there
    /// is before Linux 6.9.
    StartTicks(u64),
}

/// A process that a `create` names, as it was when the request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorSeen {
    /// The process, by its number and what tells it from others of that number.
    pub anchor: Anchor,
    /// The user that started it (real UID).
    pub real_uid: u32,
    /// The user that it may become again (saved UID).
    pub saved_uid: u32,
}

/// Why a process that a `create` names cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorUnknown {
    /// There is none of this number, or it has ended.
    Gone,
    /// The kernel does not tell whose it is.
    Closed,
    /// The caller counts its processes in a pid namespace of its own, and the number is not that of the caller itself.
    Elsewhere,
    /// There is nothing left to look with.
    Short(Shortage),
}

/// What a `create` has found of the process that it names; none where it names none.
pub type AnchorFound = Option<Box<Result<AnchorSeen, AnchorUnknown>>>;

/// Decides which process a child's life may hang on, if on one.
///
/// Root may name any. Anybody else may name a process that it may signal by its user, as `kill(2)` looks at it: its own uid
/// is the real or the saved one of the process.
pub(crate) fn anchor(
    peer: &Peer,
    params: &CreateParams,
    found: &AnchorFound,
) -> Result<Option<Anchor>, Error> {
    let Lifetime::Pid(number) = params.lifetime else {
        return Ok(None);
    };
    let found = found.as_deref().copied().unwrap_or(Err(AnchorUnknown::Gone));
    let seen = found.map_err(|unknown| not_held(number, unknown))?;
    if peer.uid != 0 && peer.uid != seen.real_uid && peer.uid != seen.saved_uid {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "user {} cannot have a child live as long as process {number}, which belongs to user {}; name a process \
                of your own",
                peer.uid, seen.real_uid
            ),
        ));
    }
    Ok(Some(seen.anchor))
}

fn not_held(number: u32, unknown: AnchorUnknown) -> Error {
    let attempt = format!("cannot have a child live as long as process {number}");
    match unknown {
        AnchorUnknown::Gone => Error::new(
            ErrorKind::NotFound,
            format!("{attempt}: there is no such process, or it has ended; nothing was started"),
        ),
        AnchorUnknown::Closed => Error::new(
            ErrorKind::PermissionDenied,
            format!("{attempt}: the kernel does not tell the broker whose it is (/proc/PID/status)"),
        ),
        AnchorUnknown::Elsewhere => Error::new(
            ErrorKind::Unsupported,
            format!(
                "{attempt}: its number is one of the caller's own pid namespace, which the broker does not look into; \
                give the caller's own pid, or use the lifetime connection or ttl"
            ),
        ),
        AnchorUnknown::Short(shortage) => {
            let (errno, name) = shortage.errno();
            let failure = SpawnFailure { errno, errno_name: name.to_owned(), step: "lifetime".to_owned() };
            Error::new(
                ErrorKind::SpawnFailed(failure),
                format!("{attempt}: there is nothing left to look at it with ({name})"),
            )
        }
    }
}
