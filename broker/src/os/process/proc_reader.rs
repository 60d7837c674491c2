//! Reads what `/proc` tells of processes that may be anybody's, on a thread of its own: such a read can take for as long as
//! the process likes.
//!
//! The environment is in the process's memory, and its `stat` tells where: both wait for an execve(2) of the process to be past its
//! middle (`exec_update_lock` in the kernel's `fs/exec.c`). Whoever has a file there that is closed meanwhile, on a file system
//! that does not answer, as a dead server's or one of their own (fuse(4)), stands still in there, and so does the reader: only
//! the end of the reader's own process ends that. So the thread is given up then, and another one takes its place.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

/// A read takes microseconds, unless the machine is so busy that the thread does not get to run.
const READ_PATIENCE: Duration = Duration::from_millis(500);

/// At most so many threads are given up. Nothing more is read then, until one of them comes back.
const GIVEN_UP_MAX: usize = 16;

/// Bytes of the stack of a thread that only reads a file.
const STACK_BYTES: usize = 64 << 10;

/// Bytes of the first attempt to read an environment; execve(2) takes up to a quarter of the limit on the stack.
const ENVIRONMENT_BYTES: usize = 32 << 10;

/// What came of a read.
#[derive(Debug)]
pub(super) enum Reading {
    /// It is over.
    Done(io::Result<Vec<u8>>),
    /// The kernel keeps it, or there is no thread to be had.
    Kept,
}

/// Reads such a file, for whoever asks on this thread.
pub(super) fn read(path: &str) -> Reading {
    thread_local! {
        static READER: RefCell<Reader> = RefCell::new(Reader::new(read_at_once));
    }
    READER.with_borrow_mut(|reader| reader.read(path))
}

/// What is to be read, and where the answer goes.
type Order = (String, Sender<io::Result<Vec<u8>>>);

/// One thread that reads, and those that do not come back.
#[derive(Debug)]
struct Reader {
    look: fn(&str) -> io::Result<Vec<u8>>,
    orders: Option<Sender<Order>>,
    /// What the threads that were given up read.
    kept: HashMap<String, Receiver<io::Result<Vec<u8>>>>,
}

impl Reader {
    fn new(look: fn(&str) -> io::Result<Vec<u8>>) -> Self {
        Self { look, orders: None, kept: HashMap::new() }
    }

    fn read(&mut self, path: &str) -> Reading {
        if !self.kept.is_empty() {
            self.kept.retain(|_, answer| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        }
        if self.kept.contains_key(path) || self.kept.len() >= GIVEN_UP_MAX {
            return Reading::Kept;
        }
        let Some(answer) = self.order(path) else { return Reading::Kept };
        match answer.recv_timeout(READ_PATIENCE) {
            Ok(read) => Reading::Done(read),
            Err(RecvTimeoutError::Timeout) => {
                // It ends when it comes back, as nobody gives it anything to read any more.
                self.orders = None;
                self.kept.insert(path.to_owned(), answer);
                Reading::Kept
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.orders = None;
                Reading::Kept
            }
        }
    }

    /// Has a thread read this, if one is to be had.
    fn order(&mut self, path: &str) -> Option<Receiver<io::Result<Vec<u8>>>> {
        if self.orders.is_none() {
            let (orders, taken) = channel::<Order>();
            let look = self.look;
            let thread = thread::Builder::new().name("proc".to_owned()).stack_size(STACK_BYTES);
            let started = thread.spawn(move || {
                for (path, answer) in taken {
                    // Whoever asked may have given up.
                    let _late = answer.send(look(&path));
                }
            });
            started.ok()?;
            self.orders = Some(orders);
        }
        let (answer, come) = channel();
        self.orders.as_ref()?.send((path.to_owned(), answer)).ok()?;
        Some(come)
    }
}

/// Reads a file of a process's memory by one system call: it ends early for the next one when the process has executed another
/// program meanwhile (`environ_read` in the kernel's `fs/proc/base.c`), and a part would be taken for all of it.
fn read_at_once(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; ENVIRONMENT_BYTES];
    loop {
        let count = file.read_at(&mut bytes, 0)?;
        if count < bytes.len() {
            bytes.truncate(count);
            return Ok(bytes);
        }
        bytes.resize(2 * bytes.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a named pipe, which keeps its reader until somebody writes to it.
    fn look(path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    #[test]
    fn a_read_that_the_kernel_keeps_holds_up_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, file) = (folder.path().join("pipe"), folder.path().join("file"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&file, "b").unwrap();
        let [pipe, file] = [pipe, file].map(|path| path.to_str().unwrap().to_owned());
        let mut reader = Reader::new(look);
        assert!(matches!(reader.read(&pipe), Reading::Kept));
        assert!(matches!(reader.read(&file), Reading::Done(Ok(bytes)) if bytes == b"b"));
        assert!(matches!(reader.read(&pipe), Reading::Kept), "it was asked for a second time");
        assert_eq!(reader.kept.len(), 1);
        std::fs::write(&pipe, "a").unwrap();
        let come_back = reader.kept.remove(&pipe).unwrap();
        assert_eq!(come_back.recv().unwrap().unwrap(), b"a");
    }

    #[test]
    fn so_many_threads_are_given_up_and_no_more() {
        let mut reader = Reader::new(look);
        let mut answers = Vec::new();
        for number in 0..GIVEN_UP_MAX {
            let (answer, come) = channel();
            answers.push(answer);
            reader.kept.insert(number.to_string(), come);
        }
        assert!(matches!(reader.read("/dev/null"), Reading::Kept));
        assert!(reader.orders.is_none(), "a thread was started");
        answers.pop().unwrap().send(Ok(Vec::new())).unwrap();
        assert!(matches!(reader.read("/dev/null"), Reading::Done(Ok(bytes)) if bytes.is_empty()));
    }
}
