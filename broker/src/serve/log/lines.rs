//! Lines of the log on their way to whoever reads them: written by a thread of its own, many at a time.
//!
//! To wake that thread costs whoever writes a line more than the line itself, and takes a processor from the children that
//! are being started. So it rests after each piece of work, and is woken by the first line after a quiet time alone.

use std::fmt;
use std::io::{self, Write};
use std::iter;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::limits::{LOG_BYTES_WAITING, LOG_LINES_WAITING, LOG_REST};

/// How long the last lines may take to be written when the broker exits: whoever reads them slowly holds it up no longer.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);

/// How much memory the thread may use for its calls, in bytes.
const STACK_BYTES: usize = 64 << 10;

/// Room for so many bytes is kept from one piece of work to the next.
const KEPT_BYTES: usize = 16 << 10;

/// And for so many lines.
const KEPT_LINES: usize = 128;

/// What lines are written to. It never waits.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<Queue>);

/// Where lines are written to, as many as there are at a time. It may wait.
pub(super) trait Sink: Send + 'static {
    /// Whoever has closed the log has seen enough: it does not fail.
    fn write(&mut self, batch: &LineBatch);
}

/// Lines one after the other.
#[derive(Debug, Default)]
pub(super) struct LineBatch {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// How many found no room after these.
    lost: u64,
}

/// Writes the last lines when it is dropped.
#[derive(Debug)]
pub(in crate::serve) struct Guard(LogWriter);

struct Queue {
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// The thread has ended.
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: LineBatch,
    phase: Phase,
    /// Whether the thread waits for a line, rather than for a moment.
    sleeps: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Closing,
    Over,
}

impl LogWriter {
    /// Starts the thread, which writes lines to `output`.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn to(output: impl Sink) -> io::Result<(Self, Guard)> {
        let queue = Queue { state: Mutex::default(), work: Condvar::new(), done: Condvar::new() };
        let lines = Self(Arc::new(queue));
        let own = lines.clone();
        let builder = thread::Builder::new().name("log".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || own.0.serve(output))?;
        let guard = Guard(lines.clone());
        Ok((lines, guard))
    }
}

impl LineBatch {
    fn add(&mut self, line: &[u8]) {
        let is_full = self.ends.len() >= LOG_LINES_WAITING
            || self.bytes.len().saturating_add(line.len()) > LOG_BYTES_WAITING;
        if is_full {
            self.lost = self.lost.saturating_add(1);
        } else {
            self.bytes.extend_from_slice(line);
            self.ends.push(self.bytes.len());
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.lost = 0;
        // Many came at once, which seldom happens.
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.shrink_to(KEPT_LINES);
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        let begins = iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }

    /// How many found no room after these.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

impl<W: Write + Send + 'static> Sink for W {
    fn write(&mut self, batch: &LineBatch) {
        let written = match batch.lost {
            0 => self.write_all(&batch.bytes),
            lost => {
                let remark =
                    format!("{lost} lines of the log were lost here: they came faster than they were read\n");
                self.write_all(&[batch.bytes.as_slice(), remark.as_bytes()].concat())
            }
        };
        let _ = written.and_then(|()| self.flush());
    }
}

impl LogWriter {
    /// Has one line written.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        state.waiting.add(line);
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.0.work.notify_one();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        self.0.0.work.notify_one();
        // It is given up on together with the process.
        let _over =
            self.0.0.done.wait_timeout_while(state, CLOSING_PATIENCE, |state| state.phase != Phase::Over);
    }
}

impl Queue {
    fn serve(&self, mut output: impl Sink) {
        let mut batch = LineBatch::default();
        while self.take(&mut batch) {
            output.write(&batch);
            self.rest();
        }
        self.lock().phase = Phase::Over;
        self.done.notify_all();
    }

    /// Waits for lines, and takes all there are. False when no more can come.
    fn take(&self, batch: &mut LineBatch) -> bool {
        batch.clear();
        let mut state = self.lock();
        while state.waiting.ends.is_empty() {
            if state.phase != Phase::Open {
                return false;
            }
            state.sleeps = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeps = false;
        std::mem::swap(&mut state.waiting, batch);
        true
    }

    /// Lets lines come together, unless it is time to go.
    fn rest(&self) {
        let state = self.lock();
        // What a line does not wake it for, it looks for afterwards.
        let _rested = self.work.wait_timeout_while(state, LOG_REST, |state| state.phase == Phase::Open);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is half done at any point at which a holder could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells what was written at a time, and waits for the word to go on.
    struct Gate {
        written: mpsc::Sender<String>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            self.go_on.recv().unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Scene {
        lines: LogWriter,
        guard: Guard,
        written: mpsc::Receiver<String>,
        go_on: mpsc::Sender<()>,
    }

    fn scene() -> Scene {
        let ((tell, written), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
        let (lines, guard) = LogWriter::to(Gate { written: tell, go_on: may_go_on }).unwrap();
        Scene { lines, guard, written, go_on }
    }

    #[test]
    fn lines_are_written_in_their_order_and_those_that_wait_together() {
        let Scene { lines, guard, written, go_on } = scene();
        lines.push(b"one\n");
        assert_eq!(written.recv().unwrap(), "one\n");
        lines.push(b"two\n");
        lines.push(b"three\n");
        go_on.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), "two\nthree\n", "what has come while it rested is not forgotten");
        lines.push(b"last\n");
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        drop(guard);
        assert_eq!(written.recv().unwrap(), "last\n", "what is there when the broker exits is written");
        assert!(written.recv().is_err(), "and then the thread ends");
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_lines_and_is_told_how_many() {
        let Scene { lines, guard, written, go_on } = scene();
        lines.push(b"one\n");
        assert_eq!(written.recv().unwrap(), "one\n");
        for _ in 0..LOG_LINES_WAITING + 2 {
            lines.push(b"x\n");
        }
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        let rest = written.recv().unwrap();
        assert_eq!(rest.matches("x\n").count(), LOG_LINES_WAITING);
        assert!(
            rest.ends_with("2 lines of the log were lost here: they came faster than they were read\n"),
            "{rest}"
        );
        drop(guard);
    }
    #[test]
    fn long_lines_that_nobody_reads_take_no_more_memory_than_that_and_are_counted() {
        let line = vec![b'x'; 20_000];
        let mut batch = LineBatch::default();
        let fit = LOG_BYTES_WAITING / line.len();
        for _ in 0..fit + 3 {
            batch.add(&line);
        }
        assert_eq!((batch.ends.len(), batch.lost()), (fit, 3));
        assert!(batch.bytes.len() <= LOG_BYTES_WAITING);
        batch.add(b"short\n");
        assert_eq!(batch.lost(), 3, "what still has room is not lost");
    }
}
