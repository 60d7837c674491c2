//! Which entries of an earlier broker's log of intents the state file does not have.

use std::io::Read;

use nix::fcntl::OFlag;

use super::abandoned::Abandoned;
use super::entry::{Entry, Position};
use super::error::JournalError;
use super::intent_log::{self, FILE_BYTES, Left, NAME, Place};

/// What is in a log, and not in the state file.
#[derive(Debug)]
pub(super) enum Unread {
    /// What is to be written there, in this order.
    Own(Vec<Entry>),
    /// It belongs to a state file that is gone, and so are the processes of its children.
    Abandoned(Abandoned),
}

impl Place {
    /// What an earlier broker has left there that is not in the state file, which has everything up to `folded`.
    ///
    /// # Errors
    /// When something is missing that an earlier broker has promised, or when it made that promise with another state file
    /// and any of its children may live.
    pub(super) fn unread(&self, folded: Position) -> Result<Unread, JournalError> {
        if !self.folder.has_file(NAME)? {
            return Ok(Unread::Own(Vec::new()));
        }
        let path = self.path();
        let damaged = |finding: String| JournalError::Log { path: path.clone(), finding };
        let file = self.folder.file(NAME, OFlag::O_RDONLY)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(JournalError::file("read", &path))?;
        match intent_log::read(&bytes, self.key, self.boot, folded.0) {
            Ok(Left::Entries(entries)) => Ok(Unread::Own(entries)),
            Ok(Left::OtherBoot) => {
                tracing::info!(path = %path.display(), "the log of intents is of another boot, and not needed any more");
                Ok(Unread::Own(Vec::new()))
            }
            Ok(Left::Unused) => {
                tracing::info!(path = %path.display(),
                    "the log of intents was made for another state file and never used, and is replaced");
                Ok(Unread::Own(Vec::new()))
            }
            Ok(Left::OtherState) => {
                let abandoned = Abandoned::read(&self.folder, self.boot)?;
                let survivor =
                    abandoned.survivor().map_err(JournalError::file("look for children of", &path))?;
                match survivor {
                    Some(survivor) => Err(JournalError::OtherState {
                        path: self.state.clone(),
                        log: path.clone(),
                        survivor,
                    }),
                    None => Ok(Unread::Abandoned(abandoned)),
                }
            }
            Err(damage) => Err(damaged(damage.to_string())),
        }
    }

    /// What is left in a log that belongs to the state file.
    #[cfg(test)]
    pub(super) fn read(&self, folded: Position) -> Result<Vec<Entry>, JournalError> {
        self.unread(folded).map(|unread| match unread {
            Unread::Own(entries) => entries,
            Unread::Abandoned(abandoned) => panic!("{abandoned:?}"),
        })
    }
}
