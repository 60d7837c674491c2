//! Why a broker could not start.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::flagged_accounts::FlaggedAccountsError;
use crate::os::host::nofile::NofileError;
use crate::os::host::socket::SocketError;
use crate::os::journal::JournalError;
use crate::os::logs::LogsError;
use crate::os::process::identity::BootIdError;
use crate::os::process::reaper::ReaperError;
use crate::os::service::activation::ActivationError;
use crate::os::store::runtime_dir::RuntimeDirError;
use crate::os::store::state_dir::StateDirError;
use crate::os::tree::ProcessTreesError;
use crate::recovery::RecordError;
use crate::recovery::processes::RecoveryError;
use crate::serve::facilities::FacilitiesError;
use crate::upgrade::UpgradeError;

/// Why a broker could not start. What it had taken by then is given back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A flag names an account that the system does not know.
    #[error("cannot start")]
    Account(#[from] FlaggedAccountsError),
    /// The flag asks for control groups, and there are none to be had.
    #[error("cannot start: --containment cgroup was asked for, and there is none to be had: {reason}")]
    NoCgroup {
        /// Why there are no control groups to be had.
        reason: String,
    },
    /// The sockets that were passed are of no use.
    #[error("cannot start with the sockets that were passed")]
    Activation(#[from] ActivationError),
    /// The socket could not be made.
    #[error("cannot start")]
    Socket(#[from] SocketError),
    /// The state folder could not be taken.
    #[error("cannot start")]
    StateDir(#[from] StateDirError),
    /// The runtime folder could not be taken.
    #[error("cannot start")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The record of the children could not be opened.
    #[error("cannot start")]
    Journal(#[from] JournalError),
    /// The record of one child makes no sense.
    #[error("cannot start")]
    Record(#[from] RecordError),
    /// It cannot be told what became of the children on record.
    #[error("cannot start: it cannot be told what became of the children on record")]
    Recovery(#[from] RecoveryError),
    /// One run of the kernel cannot be told from another.
    #[error("cannot start")]
    Boot(#[from] BootIdError),
    /// The main command has to start in the folder of this program.
    #[error("cannot tell the working folder, in which the main command is to start")]
    WorkingFolder(#[source] io::Error),
    /// An earlier program has handed over no socket.
    #[error("cannot take over: no listening socket was handed over")]
    NoSocket,
    /// This program was to take over and cannot, and neither can the one before it go on.
    #[error("{}; and the program before it cannot go on", crate::causes::with_causes(failure.as_ref()))]
    NoReturn {
        /// Why this one cannot.
        failure: Box<ServeError>,
        /// Why the other one cannot.
        source: UpgradeError,
    },
    /// The program has a fault.
    #[error("the broker has failed by a fault of its own, with a panic: {0}")]
    Panic(String),
    /// What another program handed over is of no use.
    #[error("cannot take over")]
    Upgrade(#[from] UpgradeError),
    /// It cannot be told how this program was started.
    #[error("cannot tell how this program was started")]
    Program(#[source] io::Error),
    /// The output of children cannot be bounded.
    #[error("cannot start")]
    Logs(#[from] LogsError),
    /// The machine does not offer what the broker cannot do without.
    #[error("cannot start on this machine")]
    Facilities(#[from] FacilitiesError),
    /// The limit on descriptors could not be read or raised.
    #[error("cannot start")]
    Nofile(#[from] NofileError),
    /// Ended processes could not be watched for.
    #[error("cannot start")]
    Reaper(#[from] ReaperError),
    /// What holds descendants could not be set up.
    #[error("cannot start")]
    Containment(#[from] ProcessTreesError),
    /// The slots in which children are started could not be made.
    #[error("cannot make the slots in which children are started; raise the limits on memory and open files")]
    Launcher(#[source] io::Error),
    /// What has come of children that are started cannot be watched.
    #[error("cannot watch what comes of children that are started")]
    Launches(#[source] io::Error),
    /// What children tell of themselves cannot be watched.
    #[error("cannot watch what children tell of themselves")]
    Notices(#[source] io::Error),
    /// The processes that children's lives hang on cannot be watched.
    #[error(
        "cannot watch the processes that children's lives hang on; raise the limit on open files (ulimit -n)"
    )]
    Anchors(#[source] io::Error),
    /// There is no alarm to be had for the deadlines.
    #[error("cannot make a timer for deadlines (timerfd_create)")]
    Alarm(#[source] io::Error),
    /// The thread that everything is decided and done on could not be started.
    #[error("cannot start the driver's thread; raise the limit on processes (ulimit -u)")]
    Thread(#[source] io::Error),
    /// The event loop could not be started.
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    /// What confines the broker's own process cannot be told.
    #[error("cannot find out what confines the broker itself")]
    Baseline(#[source] io::Error),
    /// No thread for work that may block.
    #[error("cannot start the threads for work that may block")]
    Blocking(#[source] io::Error),
    /// The driver has ended without an order to.
    #[error("the driver of the broker has failed")]
    Driver(#[source] tokio::task::JoinError),
    /// Metrics cannot be served where the flag says.
    #[error("cannot serve metrics at {address}; give another address with --metrics")]
    Metrics {
        /// The address of `--metrics`.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The signals could not be taken over.
    #[error("cannot take over the signals")]
    Signals(#[source] io::Error),
    /// The ends of an earlier broker's children could not be watched for.
    #[error("cannot watch the children of an earlier broker")]
    Announcer(#[source] io::Error),
    /// A listening socket could not be given to the event loop.
    #[error("cannot listen on a socket")]
    Listen(#[source] io::Error),
}
