//! What is logged while something is done, for tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Where the lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does it, and gives what this thread has logged meanwhile: the level, and what was said.
pub(crate) fn captured(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
    tracing::subscriber::with_default(log.with_writer(move || writer.clone()).finish(), work);
    let written = lines.0.lock().unwrap();
    String::from_utf8(written.clone()).unwrap()
}
