//! Each verb's request, and how its answer is shown.

use procbroker_protocol::Request;

use super::arguments::{Ask, PrintArguments, StatusArguments};
use super::failure::Failure;
use super::print::View;

impl Ask {
    /// The request that the verb sends.
    pub(super) fn request(&self) -> Result<Request, Failure> {
        match self {
            Self::Create(arguments) => arguments.request().map_err(|error| Failure::usage(&error)),
            Self::Destroy(arguments) => arguments.request().map_err(|error| Failure::usage(&error)),
            Self::List(arguments) => arguments.request().map_err(|error| Failure::usage(&error)),
            Self::Get(arguments) => Ok(arguments.request()),
            Self::Wait(arguments) => Ok(arguments.request()),
            Self::Signal(arguments) => Ok(arguments.request()),
            Self::Status(_) => Ok(StatusArguments::request()),
            Self::Shutdown(arguments) => Ok(arguments.request()),
        }
    }

    /// How the verb was asked to print.
    pub(super) fn print(&self) -> PrintArguments {
        match self {
            Self::Create(arguments) => arguments.print,
            Self::Destroy(arguments) => arguments.print,
            Self::List(arguments) => arguments.print,
            Self::Get(arguments) => arguments.print,
            Self::Wait(arguments) => arguments.print,
            Self::Signal(arguments) => arguments.print,
            Self::Status(arguments) => arguments.print,
            Self::Shutdown(arguments) => arguments.print,
        }
    }

    /// How the answer is shown.
    pub(super) fn view(&self) -> View {
        match self {
            Self::Create(_) => View::Created,
            Self::Destroy(_) => {
                View::Children { exits: true, none: "no live child matches; nothing was destroyed" }
            }
            Self::List(arguments) => View::Children { exits: arguments.all(), none: arguments.none() },
            Self::Get(_) => View::Child,
            Self::Wait(arguments) => View::Waited(arguments.until()),
            Self::Signal(_) => {
                View::Children { exits: false, none: "no live child matches; no signal was sent" }
            }
            Self::Status(_) => View::Status,
            Self::Shutdown(_) => View::Shutdown,
        }
    }
}
