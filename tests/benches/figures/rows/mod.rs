//! The rows of the table, by name.

mod create;
mod crowd;
mod destroy;
mod hostile;
mod idle;
mod list;
mod memory;
mod output;
mod peers;
mod record;
mod recovery;
mod shutdown;
mod start;
mod status;
mod throughput;
mod upgrade;

use clap::ValueEnum;

use crate::failure::Failure;
use crate::figure::Figure;
use crate::scene::Scene;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// Create by one client, until the child's first instruction is known to run
    Create,
    /// Create by 8 clients at once
    Throughput,
    /// Both with 10,000 children alive
    Crowd,
    /// One user's work beside 2,000 hostile connections of others
    Hostile,
    /// The output of one child, and what it costs the creates of others
    Output,
    /// Create and destroy from Python, beside a multiprocessing manager and `subprocess.Popen`
    Peers,
    /// The round trip of `status`
    Status,
    /// The list of 1,000 in JSON to Python, and of 10,000 in the binary encoding
    List,
    /// Destroy one, until its exit is reported
    Destroy,
    /// Shutdown with 1,000 and 10,000 children
    Shutdown,
    /// Memory of the idle broker, and for each child
    Memory,
    /// Wake-ups of the broker while 1,000 children idle
    Idle,
    /// Start of the broker until it answers
    Start,
    /// The durable record of a create
    Record,
    /// Start after a SIGKILL with 10,000 children, and the memory after it
    Recovery,
    /// How long nobody is answered during an upgrade, with none and with 1,000 children
    Upgrade,
}

impl Row {
    pub(crate) fn measure(self, scene: &Scene) -> Result<Vec<Figure>, Failure> {
        match self {
            Self::Create => create::measure(scene),
            Self::Throughput => throughput::measure(scene),
            Self::Crowd => crowd::measure(scene),
            Self::Hostile => hostile::measure(scene),
            Self::Output => output::measure(scene),
            Self::Peers => peers::measure(scene),
            Self::Status => status::measure(scene),
            Self::List => list::measure(scene),
            Self::Destroy => destroy::measure(scene),
            Self::Shutdown => shutdown::measure(scene),
            Self::Memory => memory::measure(scene),
            Self::Idle => idle::measure(scene),
            Self::Start => start::measure(scene),
            Self::Record => record::measure(scene),
            Self::Recovery => recovery::measure(scene),
            Self::Upgrade => upgrade::measure(scene),
        }
    }
}

/// How many children of a crowd the machine really holds, for the name of a row.
fn thousands(children: usize) -> String {
    if children < 1_000 {
        return children.to_string();
    }
    format!("{},{:03}", children / 1_000, children % 1_000)
}
