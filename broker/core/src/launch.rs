//! What a child's process is given of its user's login, and of what confines its creator.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a child's process starts with, beside the ids of its user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The user that the environment names; none where the child runs as the broker's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Arc<Login>>,
    /// What the creator's process was confined by at the time of the create, if by anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Arc<Confinement>>,
}

impl Launch {
    /// Says whether the process starts as the broker itself does.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A user as programs look for it in their environment: HOME, USER and LOGNAME, SHELL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The name of the account, for USER and LOGNAME.
    pub name: String,
    /// The home directory of the account, for HOME.
    pub home: String,
    /// The login shell of the account, for SHELL.
    pub shell: String,
}

impl Login {
    /// A user without an account.
    #[must_use]
    pub fn of_number(uid: u32) -> Self {
        Self { name: uid.to_string(), home: "/".to_owned(), shell: "/bin/sh".to_owned() }
    }
}

/// What confines a process more tightly than the broker is confined itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// No program gives it more rights than it has (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
    #[serde(default)]
    pub no_new_privs: bool,
    /// Its capability bounding set (capabilities(7)), one bit for each capability; none where it has all of the broker's.
    #[serde(default)]
    pub capabilities: Option<u64>,
    /// Its hard resource limits that are below the broker's.
    #[serde(default)]
    pub hard_limits: Vec<HardLimit>,
}

/// How far a process may raise one of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardLimit {
    /// The kernel's number of the resource (getrlimit(2)).
    pub resource: u32,
    /// The limit, in the resource's own unit.
    pub value: u64,
}

/// The process that a create came from, as it was at that time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its user; none where nobody has to know.
    pub login: Option<Arc<Login>>,
    /// What confines it, if anything does.
    pub confinement: Option<Arc<Confinement>>,
}

/// Why it cannot be told what confines the process that a create came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerUnknown {
    /// It has ended, and whoever speaks for it on its connection may be less confined or more.
    Gone,
    /// The kernel does not let the broker look into it.
    Closed,
    /// There is nothing left to look with.
    Short(Shortage),
}

/// What the broker has no more of at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Descriptors of its own (EMFILE).
    Descriptors,
    /// Open files of the whole machine (ENFILE).
    Files,
    /// There is too little memory (ENOMEM).
    Memory,
}

impl Shortage {
    /// Returns the error number, with its name (errno(3)).
    #[must_use]
    pub const fn errno(self) -> (i32, &'static str) {
        match self {
            Self::Descriptors => (24, "EMFILE"),
            Self::Files => (23, "ENFILE"),
            Self::Memory => (12, "ENOMEM"),
        }
    }
}
