//! The output that a follower reads: where it is, and what comes next.

use std::path::PathBuf;

use crate::limits::LOG_PIECE_BYTES;
use crate::os::logs::LogsError;
use crate::os::logs::output::OutputFile;
use crate::os::logs::text::{Decoder, first_line};
use crate::os::logs::wakeups::Awaited;

/// A place in an output.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// None as long as there is no file.
    file: Option<OutputFile>,
    position: u64,
    decoder: Decoder,
}

/// What a look has shown.
#[derive(Debug)]
pub(super) enum Seen {
    /// More output.
    Output {
        /// Whether something was released before it was read.
        missed: bool,
        /// The output; empty where it is the beginning of a character.
        text: String,
        /// Whether there is probably more.
        more: bool,
    },
    /// No more output than before.
    Nothing,
    /// The system refuses.
    Failed(LogsError),
}

impl Source {
    /// A place in the file of this path, which may come to be later.
    pub(super) fn new(path: PathBuf, position: u64) -> Self {
        Self { path, file: None, position, decoder: Decoder::default() }
    }

    /// Reads what comes next, on a thread that may wait for the disk.
    pub(super) async fn look(self) -> (Self, Seen) {
        let lost = Self::new(self.path.clone(), self.position);
        let look = move || {
            let mut source = self;
            let seen = source.look_now().unwrap_or_else(Seen::Failed);
            (source, seen)
        };
        // Reading does not panic; if it did, it would be tried again from the same place.
        tokio::task::spawn_blocking(look).await.unwrap_or((lost, Seen::Nothing))
    }

    fn look_now(&mut self) -> Result<Seen, LogsError> {
        if self.file.is_none() {
            self.file = OutputFile::open(&self.path)?;
        }
        let Some(file) = &self.file else { return Ok(Seen::Nothing) };
        let Some(found) = file.read(self.position, LOG_PIECE_BYTES)? else { return Ok(Seen::Nothing) };
        let missed = found.at != self.position;
        if found.bytes.is_empty() && !missed {
            return Ok(Seen::Nothing);
        }
        self.position = found.at.saturating_add(found.bytes.len() as u64);
        let mut text = String::new();
        let mut from = 0;
        if missed {
            // The rest of a character that has begun there will not come.
            text = self.decoder.finish();
            from = if found.at == 0 { 0 } else { first_line(&found.bytes) };
        }
        text.push_str(&self.decoder.decode(found.bytes.get(from..).unwrap_or_default()));
        Ok(Seen::Output { missed, text, more: found.bytes.len() == LOG_PIECE_BYTES })
    }

    /// What is still to be shown when nothing more comes.
    pub(super) fn finish(mut self) -> String {
        self.decoder.finish()
    }

    /// What has to happen before there is more.
    pub(super) fn awaited(&self) -> Awaited<'_> {
        match &self.file {
            Some(_) => Awaited::Written(&self.path),
            None => Awaited::Made,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn output(seen: Seen) -> (bool, String, bool) {
        match seen {
            Seen::Output { missed, text, more } => (missed, text, more),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_later_is_found_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        let mut source = Source::new(path.clone(), 0);
        assert!(matches!(source.look_now(), Ok(Seen::Nothing)));
        fs::write(&path, "first").unwrap();
        assert_eq!(output(source.look_now().unwrap()), (false, "first".to_owned(), false));
        assert!(matches!(source.look_now(), Ok(Seen::Nothing)));
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b" second\xe2\x82").unwrap();
        assert_eq!(output(source.look_now().unwrap()), (false, " second".to_owned(), false));
        assert_eq!(source.finish(), "\u{fffd}");
    }

    #[test]
    fn much_output_comes_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        fs::write(&path, vec![b'x'; LOG_PIECE_BYTES + 5]).unwrap();
        let mut source = Source::new(path, 0);
        let (missed, text, more) = output(source.look_now().unwrap());
        assert_eq!((missed, text.len(), more), (false, LOG_PIECE_BYTES, true));
        let (missed, text, more) = output(source.look_now().unwrap());
        assert_eq!((missed, text.len(), more), (false, 5, false));
    }

    #[test]
    fn a_file_that_was_emptied_is_read_from_its_beginning_and_that_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        fs::write(&path, "before").unwrap();
        let mut source = Source::new(path.clone(), 6);
        assert!(matches!(source.look_now(), Ok(Seen::Nothing)));
        fs::write(&path, "new").unwrap();
        assert_eq!(output(source.look_now().unwrap()), (true, "new".to_owned(), false));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop.out");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(Source::new(path, 0).look_now().is_err());
    }
}
