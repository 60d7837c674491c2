//! The names of the variables by which the broker, its children and a broker that takes over know of each other.

/// The variable by which a child and all that inherit its environment are known.
pub const CHILD_ID_VARIABLE: &str = "PROCBROKER_CHILD_ID";

/// The variable that names the manifest of an upgrade: the process that it is for, and the descriptor.
pub const MANIFEST_VARIABLE: &str = "PROCBROKER_MANIFEST";

/// The variable that names the open file of the program that has handed over, and can be executed again.
pub const FORMER_VARIABLE: &str = "PROCBROKER_FORMER_PROGRAM";

/// The variable that names the file with what that program was started with.
pub const START_VARIABLE: &str = "PROCBROKER_FORMER_START";

/// The variable that names the file in which a program that could not take over says why. The program that finds it is the
/// former one, which goes on.
pub const FAILURE_VARIABLE: &str = "PROCBROKER_FAILED_UPGRADE";

/// Those that are for the program that takes over in an upgrade, and nobody else.
pub const UPGRADE_VARIABLES: [&str; 4] =
    [MANIFEST_VARIABLE, FORMER_VARIABLE, START_VARIABLE, FAILURE_VARIABLE];

/// The variable for the socket that a child tells on how it is.
pub(crate) const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// The variable for the child's name.
pub(crate) const CHILD_NAME_VARIABLE: &str = "PROCBROKER_CHILD_NAME";

/// The variable for the exit code of a child, for its cleanup.
pub(crate) const EXIT_CODE_VARIABLE: &str = "PROCBROKER_EXIT_CODE";

/// The variable for the name of the signal that ended a child, for its cleanup.
pub(crate) const EXIT_SIGNAL_VARIABLE: &str = "PROCBROKER_EXIT_SIGNAL";

/// The variable for why a child ended, for its cleanup.
pub(crate) const EXIT_REASON_VARIABLE: &str = "PROCBROKER_EXIT_REASON";

/// The variable that tells a command, and all that it starts, that it is to find out whether the child is ready.
pub(crate) const PROBE_VARIABLE: &str = "PROCBROKER_PROBE";
