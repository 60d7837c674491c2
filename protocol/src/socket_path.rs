//! Where the socket and the state are when nobody says.
//!
//! Nothing is read from the system here: the effective user, the environment and the answer to whether
//! a path exists are given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that names the socket.
pub const SOCKET_VARIABLE: &str = "PROCBROKER_SOCKET";

/// The socket of the machine's broker, which runs as root.
pub const SYSTEM_SOCKET: &str = "/run/procbroker/procbroker.sock";

/// The state folder of the machine's broker.
pub const SYSTEM_STATE_DIR: &str = "/var/lib/procbroker";

/// The longest path of a socket, in bytes: `sockaddr_un` has 108, the last of them a NUL (`unix(7)`).
pub const PATH_BYTES_MAX: usize = 107;

/// A path, and what it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path.
    pub path: PathBuf,
    /// What it follows from.
    pub origin: Origin,
}

impl Place {
    /// A path that was given, by a flag for instance.
    #[must_use]
    pub fn given(path: PathBuf) -> Self {
        Self { path, origin: Origin::Named }
    }
}

/// What a path follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody named it: a flag, or `PROCBROKER_SOCKET`.
    Named,
    /// It is the machine's.
    System,
    /// It is in a folder of the user.
    User,
    /// It is below `/tmp/procbroker-UID`, which anybody could have made first: that folder is to be refused
    /// when it is not its user's own, or open to others.
    Temporary,
}

/// Where a broker listens that runs as `uid` and was not told where.
pub fn broker_socket(uid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Place {
    named_socket(&variable).unwrap_or_else(|| own_socket(uid, &variable))
}

/// Where a client connects that runs as `uid` and was not told where: to its user's own broker when its socket
/// is there, else to the machine's.
pub fn client_socket(
    uid: u32,
    variable: impl Fn(&str) -> Option<OsString>,
    exists: impl FnOnce(&Place) -> bool,
) -> Place {
    if let Some(named) = named_socket(&variable) {
        return named;
    }
    let own = own_socket(uid, &variable);
    if own.origin == Origin::System || exists(&own) { own } else { system_socket() }
}

/// Where a broker keeps its state that runs as `uid` and was not told where.
pub fn state_dir(uid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Place {
    if uid == 0 {
        return Place { path: SYSTEM_STATE_DIR.into(), origin: Origin::System };
    }
    let home = || absolute(&variable, "HOME").map(|home| home.join(".local/state"));
    match absolute(&variable, "XDG_STATE_HOME").or_else(home) {
        Some(folder) => Place { path: folder.join("procbroker"), origin: Origin::User },
        None => Place { path: temporary_folder(uid).join("state"), origin: Origin::Temporary },
    }
}

fn named_socket(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Place> {
    let path = variable(SOCKET_VARIABLE).filter(|value| !value.is_empty())?;
    Some(Place { path: path.into(), origin: Origin::Named })
}

fn system_socket() -> Place {
    Place { path: SYSTEM_SOCKET.into(), origin: Origin::System }
}

fn own_socket(uid: u32, variable: &impl Fn(&str) -> Option<OsString>) -> Place {
    if uid == 0 {
        return system_socket();
    }
    match absolute(variable, "XDG_RUNTIME_DIR") {
        Some(folder) => Place { path: folder.join("procbroker/procbroker.sock"), origin: Origin::User },
        None => Place { path: temporary_folder(uid).join("procbroker.sock"), origin: Origin::Temporary },
    }
}

fn temporary_folder(uid: u32) -> PathBuf {
    Path::new("/tmp").join(format!("procbroker-{uid}"))
}

/// The folder that a variable names. Relative ones are ignored, as the XDG base directory specification
/// asks, and an empty one counts as unset.
fn absolute(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    fn place(path: &str, origin: Origin) -> Place {
        Place { path: path.into(), origin }
    }

    const XDG: &[(&str, &str)] = &[("XDG_RUNTIME_DIR", "/run/user/7"), ("PROCBROKER_SOCKET", "")];

    #[test]
    fn the_broker_listens_where_its_user_is() {
        let own = place("/run/user/7/procbroker/procbroker.sock", Origin::User);
        assert_eq!(broker_socket(7, environment(XDG)), own);
        assert_eq!(broker_socket(0, environment(XDG)), place(SYSTEM_SOCKET, Origin::System));
        let temporary = place("/tmp/procbroker-7/procbroker.sock", Origin::Temporary);
        assert_eq!(broker_socket(7, environment(&[])), temporary);
        assert_eq!(broker_socket(7, environment(&[("XDG_RUNTIME_DIR", "run")])), temporary);
        assert_eq!(broker_socket(7, environment(&[("XDG_RUNTIME_DIR", "")])), temporary);
        let named = environment(&[("PROCBROKER_SOCKET", "here.sock"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(broker_socket(0, &named), place("here.sock", Origin::Named));
        assert_eq!(broker_socket(7, &named), place("here.sock", Origin::Named));
    }

    #[test]
    fn a_client_prefers_its_users_own_broker_when_that_is_there() {
        let own = place("/run/user/7/procbroker/procbroker.sock", Origin::User);
        assert_eq!(client_socket(7, environment(XDG), |asked| *asked == own), own);
        assert_eq!(client_socket(7, environment(XDG), |_| false), place(SYSTEM_SOCKET, Origin::System));
        assert_eq!(client_socket(0, environment(XDG), |_| false), place(SYSTEM_SOCKET, Origin::System));
        let named = environment(&[("PROCBROKER_SOCKET", "/a.sock")]);
        assert_eq!(client_socket(7, named, |_| true), place("/a.sock", Origin::Named));
    }

    #[test]
    fn state_is_kept_where_the_user_keeps_it() {
        const BOTH: &[(&str, &str)] = &[("XDG_STATE_HOME", "/s"), ("HOME", "/home/u")];
        assert_eq!(state_dir(0, environment(BOTH)), place("/var/lib/procbroker", Origin::System));
        assert_eq!(state_dir(7, environment(BOTH)), place("/s/procbroker", Origin::User));
        let home = environment(&[("XDG_STATE_HOME", "relative"), ("HOME", "/home/u")]);
        assert_eq!(state_dir(7, home), place("/home/u/.local/state/procbroker", Origin::User));
        let none = environment(&[("XDG_STATE_HOME", ""), ("HOME", "")]);
        assert_eq!(state_dir(7, none), place("/tmp/procbroker-7/state", Origin::Temporary));
    }
}
