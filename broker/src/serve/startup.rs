//! Everything that has to be in place before the first client: settings, locks, sockets, facilities.

mod accounts;
mod kept_out;
mod machine;
mod make_way;
mod sockets;
mod take;

use std::fmt;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use nix::sys::stat::{Mode, umask};
use procbroker_core::{Config, EventHistory, MainCommand};
use procbroker_protocol::create::{CreateParams, StandardError, StandardOutput, Umask};
use procbroker_protocol::socket_path::{self, Place};
use procbroker_protocol::status::FailedUpgrade;
use procbroker_protocol::{ChildId, Containment, Timestamp};
use uuid::Uuid;

pub(crate) use machine::{Machine, own_main};
use take::Taken;

use super::{ServeError, bounds};
use crate::causes::with_causes;
use crate::cli::{ChildrenLog, ContainmentChoice, MainArguments, ServeArguments};
use crate::metrics::Counters;
use crate::os::host::listening::Sockets;
use crate::os::journal;
use crate::os::logs::pipes::{PIPES_FOLDER, Pipes};
use crate::os::logs::{Destination, LineReader, LogBounds};
use crate::os::service::activation;
use crate::os::store::state_dir::StateDir;
use crate::os::tree::cgroup;
use crate::recovery::{PreviousBroker, PreviousRecord};
use crate::serve::facilities::{self, ProbedFacilities};
use crate::upgrade::{Beginning, Inherited, Predecessor, Program};

/// A broker that is ready to be put together.
pub(crate) struct Prepared {
    pub(crate) config: Config,
    pub(crate) machine: Machine,
    pub(crate) sockets: Sockets,
    pub(crate) places: Addresses,
    /// Where metrics are fetched, if they are to be.
    pub(crate) metrics: Option<TcpListener>,
    /// Whether the main command has the broker's own standard input.
    pub(crate) interactive: bool,
    /// The events that an earlier program of this process has told of.
    pub(crate) events: Option<EventHistory>,
    /// What it has counted.
    pub(crate) counters: Option<Counters>,
}

/// Where a broker is to be found, for its log.
pub(crate) struct Addresses {
    pub(crate) sockets: String,
    pub(crate) state_dir: String,
}

/// Takes everything that a broker needs, from the machine or from the program before this one, or says what is missing.
pub(crate) fn prepare(
    arguments: &ServeArguments,
    predecessor: Option<&mut Predecessor>,
) -> Result<Prepared, ServeError> {
    // First of all: it changes the environment, which no other thread may read meanwhile.
    let passed = activation::passed()?;
    let program = Program::own().map_err(ServeError::Program)?;
    let failed_upgrade = predecessor.as_ref().and_then(|former| former.failure()).map(failed_upgrade);
    let mut inherited = predecessor.map(Predecessor::take_over).transpose()?;
    let events = inherited.as_mut().and_then(|inherited| inherited.events.take());
    let counters = inherited.as_mut().and_then(|inherited| inherited.counters.take());
    let beginning = beginning(inherited.as_ref(), failed_upgrade.is_some());
    let previous = if inherited.is_some() { PreviousBroker::HandedOver } else { PreviousBroker::Ended };
    let metrics = metrics_socket(arguments, previous)?;
    let uid = nix::unistd::geteuid().as_raw();
    let state_place = state_place(arguments, uid);
    let taken = match inherited {
        Some(inherited) => take::from_predecessor(arguments, &state_place, inherited)?,
        None => take::from_machine(arguments, &state_place, passed, uid)?,
    };
    let Taken {
        state,
        runtime,
        sockets,
        socket,
        nofile,
        folder,
        processes,
        outputs,
        handed_over,
        kept,
        accounts,
        account_flags,
    } = taken;
    let (store, stored) = match previous {
        PreviousBroker::Ended => journal::open(&state.record(), runtime.folder())?,
        PreviousBroker::HandedOver => journal::go_on(&state.record(), runtime.folder())?,
    };
    // SQLite opens its files by their paths.
    state.check_in_place()?;
    let former = PreviousRecord::read(stored, &state.record())?;
    let groups = former.cgroup_folder.clone().map(|path| cgroup::PreviousFolder { path, folder });
    let found = probed_facilities(arguments, groups, &sockets, &state)?;
    let config = Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        instance: beginning.instance,
        started_at: beginning.at,
        failed_upgrade,
        broker_uid: uid,
        allow_users: accounts.allow_users,
        allow_groups: accounts.allow_groups,
        subordinates: accounts.subordinates,
        bounds: bounds::within(arguments.bounds(), wishes(arguments), nofile),
        shutdown_timeout: arguments.shutdown_timeout,
        exit_when_idle: arguments.exit_when_idle,
        main: arguments.main.as_ref().map(main_command).transpose()?,
        log_folder: state.logs().display().to_string(),
        containment: found.containment,
        lacking: found.offer.lacking.clone(),
        facilities: found.facilities.clone(),
    };
    let places =
        Addresses { sockets: socket.display().to_string(), state_dir: state.path().display().to_string() };
    let pipes = Pipes::open(runtime.path().join(PIPES_FOLDER))?;
    let machine = Machine {
        found,
        nofile,
        runtime,
        state,
        socket,
        program,
        account_flags,
        store,
        former,
        processes,
        kept,
        previous,
        log_bounds: LogBounds { per_child: arguments.log_bytes.bytes(), in_all: arguments.log_total.bytes() },
        forward: forward(arguments),
        outputs,
        handed_over,
        pipes,
    };
    Ok(Prepared {
        config,
        machine,
        sockets,
        places,
        metrics,
        interactive: arguments.is_interactive(),
        events,
        counters,
    })
}

/// The start of this broker. A program that was executed before, and again because another one has failed, begins once.
fn beginning(inherited: Option<&Inherited>, is_executed_again: bool) -> Beginning {
    let before = inherited.and_then(|inherited| inherited.beginning).filter(|_| is_executed_again);
    before.unwrap_or_else(|| Beginning { instance: Uuid::new_v4(), at: Timestamp::from(SystemTime::now()) })
}

/// Where the state is kept, by the flag or by the rule for this user.
fn state_place(arguments: &ServeArguments, uid: u32) -> Place {
    match &arguments.state_dir {
        Some(path) => Place::given(path.clone()),
        None => socket_path::state_dir(uid, |name: &str| std::env::var_os(name)),
    }
}

/// What this kernel offers and the flags let be used, with what `status` tells of the socket and of the state.
fn probed_facilities(
    arguments: &ServeArguments,
    groups: Option<cgroup::PreviousFolder>,
    sockets: &Sockets,
    state: &StateDir,
) -> Result<ProbedFacilities, ServeError> {
    let leaf = if arguments.leaf_group { cgroup::Leaf::Enter } else { cgroup::Leaf::Stay };
    let mut found = facilities::probe(groups, leaf)?;
    choose_containment(arguments.containment, &mut found)?;
    sockets.activation().clone_into(&mut found.facilities.activation);
    found.facilities.state_dir = state.path().display().to_string();
    Ok(found)
}

/// Looks, for a broker that may become this program, at what this program would look at then, and changes nothing: the
/// accounts that the flags name, and what is in the folder of the record.
///
/// # Errors
/// Why it could not start.
pub(crate) fn rehearse(arguments: &ServeArguments, record: &Path) -> Result<(), String> {
    let rehearsed = || {
        accounts::of_those_allowed(arguments).look_up()?;
        StateDir::check(record.parent().unwrap_or(record))?;
        Ok::<_, ServeError>(())
    };
    rehearsed().map_err(|error| with_causes(&error))
}

/// Which of the bounds that descriptors are needed for were asked for.
fn wishes(arguments: &ServeArguments) -> bounds::Wishes {
    let is_wished = |flag: Option<u32>| {
        if flag.is_some() { bounds::BoundSource::Flag } else { bounds::BoundSource::Default }
    };
    bounds::Wishes {
        children: is_wished(arguments.bounds.max_children),
        connections: is_wished(arguments.bounds.max_connections),
    }
}

fn failed_upgrade(message: &str) -> FailedUpgrade {
    FailedUpgrade { at: Timestamp::from(SystemTime::now()), message: message.to_owned() }
}

/// Where lines of children go beside what is kept of them.
fn forward(arguments: &ServeArguments) -> Option<Destination> {
    let reader = match arguments.children_log? {
        ChildrenLog::Journal => LineReader::Journal,
        ChildrenLog::Syslog => LineReader::Syslog,
    };
    let socket = arguments.children_log_socket.clone();
    Some(Destination { reader, socket: socket.unwrap_or_else(|| reader.usual_socket().into()) })
}

/// Where metrics are fetched. A program that takes over does without when the address is not to be had any more: it has
/// children to look after.
fn metrics_socket(
    arguments: &ServeArguments,
    previous: PreviousBroker,
) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = arguments.metrics else { return Ok(None) };
    match (TcpListener::bind(address), previous) {
        (Ok(socket), _) => Ok(Some(socket)),
        (Err(source), PreviousBroker::Ended) => Err(ServeError::Metrics { address, source }),
        (Err(error), PreviousBroker::HandedOver) => {
            tracing::error!(%address, %error, "metrics cannot be served any more");
            Ok(None)
        }
    }
}

/// The main command, with the surroundings of this program itself.
fn main_command(main: &MainArguments) -> Result<MainCommand, ServeError> {
    let cwd = std::env::current_dir().map_err(ServeError::WorkingFolder)?;
    let cwd = cwd.into_os_string().into_string().map_err(|cwd| {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{} is not UTF-8", cwd.display()));
        ServeError::WorkingFolder(source)
    })?;
    let mut params = CreateParams::new(main.command.clone());
    params.cwd = Some(cwd);
    params.umask = own_umask();
    params.stdout = StandardOutput::Inherit;
    params.stderr = StandardError::Inherit;
    params.stop.clone_from(&main.stop);
    let id = ChildId::from_uuid(Uuid::now_v7());
    Ok(MainCommand { id, params: Arc::new(params), stop_scope: main.stop_scope })
}

/// The mask of this process. It can only be read by setting it (umask(2)): no file is made meanwhile.
fn own_umask() -> Umask {
    let own = umask(Mode::from_bits_truncate(0o077));
    umask(own);
    Umask::from_bits(u16::try_from(own.bits()).unwrap_or_default())
}

/// Goes without control groups, or does not start without them, as the flag says.
fn choose_containment(choice: ContainmentChoice, found: &mut ProbedFacilities) -> Result<(), ServeError> {
    match choice {
        ContainmentChoice::Auto => Ok(()),
        ContainmentChoice::Cgroup if found.cgroups.is_some() => Ok(()),
        ContainmentChoice::Cgroup => Err(ServeError::NoCgroup { reason: found.facilities.cgroup.clone() }),
        ContainmentChoice::Subreaper => {
            found.cgroups = None;
            found.containment = Containment::Subreaper;
            "subreaper".clone_into(&mut found.facilities.containment);
            "not used: --containment subreaper".clone_into(&mut found.facilities.cgroup);
            found.offer = cgroup::Offer::nothing("control groups are not used (--containment subreaper)");
            found.facilities.controllers = found.offer.shown();
            Ok(())
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}
