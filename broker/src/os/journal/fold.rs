//! Brings what the state file does not have from an earlier broker's log of intents into it.

use std::path::Path;

use rusqlite::Connection;
use uuid::Uuid;

use super::abandoned::Abandoned;
use super::entry::Position;
use super::error::JournalError;
use super::file::with_room;
use super::intent_log::Place;
use super::pending::Unfolded;
use super::read::Numbered;
use super::unread::Unread;
use super::wal;
use super::writer::Writer;
use crate::os::host::own_folder::OwnFolder;
use crate::os::process::identity::BootId;

/// How many children are named that nothing is known of.
const NAMED_MAX: usize = 20;

/// Reads what is in the log of intents alone. What is missing between that and the file may have been in SQLite's log.
pub(super) fn unread(place: &Place, folded: Position, path: &Path) -> Result<Unread, JournalError> {
    let unread = place.unread(folded);
    match &unread {
        Ok(Unread::Abandoned(_)) | Err(JournalError::Log { .. } | JournalError::OtherState { .. }) => {
            wal::check_frames(path)?;
        }
        Ok(Unread::Own(_)) | Err(_) => {}
    }
    unread
}

/// Whose log of intents was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// That of the state file.
    Own,
    /// That of a state file which is gone. Nothing can go on from it.
    Abandoned,
}

/// Says what becomes of the children of a state file that is gone.
pub(super) fn tell_of(abandoned: &Abandoned, path: &Path) {
    let unknown = abandoned.unknown();
    let named: Vec<String> = unknown.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    tracing::warn!(path = %path.display(), log = %abandoned.log().display(),
        "the state file is not the one to which the log of intents belongs, which is gone, and no process was found of the \
         children of a broker with that: those of which the log has all are taken for ended, and their cleanups run; \
         whatever else was on record is unknown, and its cleanups do not run (such as of {} more, {})",
        unknown.len(), if named.is_empty() { "none".to_owned() } else { named.join(" ") });
}

/// Tells where the state file with this key has its log of intents.
pub(super) fn place(runtime: &OwnFolder, path: &Path, key: Uuid) -> Result<Place, JournalError> {
    Place::new(runtime, (path.to_owned(), key), BootId::current()?)
}

/// Writes what an earlier broker has left in its log of intents, in the order in which it was submitted and as one
/// transaction: a crash in its midst leaves everything as it was. The broker acts on it at once, so that it has to outlive the
/// machine. Says how far everything is in the file then.
pub(super) fn fold(
    connection: &Connection,
    found: &Numbered,
    unfolded: &mut Unfolded,
    folded: Position,
) -> rusqlite::Result<Position> {
    let up_to = Position(folded.0.saturating_add(unfolded.count));
    let mut writer = Writer::new(connection, found.index.clone(), found.next_seq, Some(folded));
    // Nobody waits for them any more.
    drop(writer.drop_unrecorded(&mut unfolded.due));
    let written = with_room(connection, || writer.write(&unfolded.due, up_to));
    connection.pragma_update(None, "synchronous", "NORMAL").and(written)?;
    Ok(up_to)
}
