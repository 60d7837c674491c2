//! Asks the kernel about a process that may be anybody's, on a thread of its own: an answer can take for as long as that process
//! likes.
//!
//! Whatever asks whether it might trace a process (`ptrace_may_access` in the kernel: `environ`, `exe`, `fd/N`, `ns/user`, and on
//! newer kernels `stat`) waits for an execve(2) of that process to be past its middle. Whoever has a file there that is closed
//! meanwhile, on a file system that does not answer, as a dead server's or one of their own (fuse(4)), stands still in there,
//! and so does who asks: only the end of the asking process ends that. So the thread is given up then, and another one takes
//! its place. What `status`, `comm`, `cgroup`, `children` and pidfds tell never waits, and is asked for directly.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use nix::unistd::gettid;
use procbroker_core::Pid;

use super::proc;

/// An answer takes microseconds. Whoever is not given a processor meanwhile is waited for all the same.
const PATIENCE: Duration = Duration::from_millis(500);

/// At most so many threads are given up by one that asks. It is told nothing more then, until one of them comes back.
const GIVEN_UP_MAX: usize = 16;

/// Bytes of the stack of a thread that asks.
const STACK_BYTES: usize = 128 << 10;

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    /// It was answered.
    Answered(T),
    /// The kernel keeps who asks, or there is no thread to be had.
    Kept,
}

/// Asks something about a process, for whoever calls this on the present thread.
pub(crate) fn ask<T: Send + 'static>(pid: Pid, question: impl FnOnce() -> T + Send + 'static) -> Asked<T> {
    thread_local! {
        static ASKER: RefCell<Asker> = RefCell::default();
    }
    ASKER.with_borrow_mut(|asker| asker.ask(pid, question))
}

/// A question, which sends its own answer.
type Question = Box<dyn FnOnce() + Send>;

/// One thread that asks, and those that do not come back.
#[derive(Debug, Default)]
struct Asker {
    thread: Option<AskingThread>,
    /// The processes about which threads ask that were given up. Each hangs up when it comes back.
    kept: HashMap<Pid, Receiver<()>>,
}

#[derive(Debug)]
struct AskingThread {
    questions: Sender<Question>,
    /// Its number, once it has been given a processor.
    number: Arc<AtomicI32>,
}

impl Asker {
    fn ask<T: Send + 'static>(
        &mut self,
        pid: Pid,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Asked<T> {
        self.kept.retain(|_, back| matches!(back.try_recv(), Err(TryRecvError::Empty)));
        if self.kept.contains_key(&pid) || self.kept.len() >= GIVEN_UP_MAX {
            return Asked::Kept;
        }
        let thread = match self.thread.take().map_or_else(AskingThread::start, Ok) {
            Ok(thread) => thread,
            Err(error) => {
                tracing::debug!(%error, "there is no thread to ask about a process");
                return Asked::Kept;
            }
        };
        let (tell, answer) = channel();
        let (comes_back, back) = channel::<()>();
        let asked = thread.questions.send(Box::new(move || {
            // Whoever has asked may have given up.
            let _late = tell.send(question());
            drop(comes_back);
        }));
        if asked.is_err() {
            return Asked::Kept;
        }
        loop {
            match answer.recv_timeout(PATIENCE) {
                Ok(answer) => {
                    self.thread = Some(thread);
                    return Asked::Answered(answer);
                }
                Err(RecvTimeoutError::Timeout) if thread.waits_for_a_processor() => {}
                Err(RecvTimeoutError::Timeout) => {
                    // The thread ends when it comes back, as nobody asks it anything any more.
                    self.kept.insert(pid, back);
                    return Asked::Kept;
                }
                Err(RecvTimeoutError::Disconnected) => return Asked::Kept,
            }
        }
    }
}

impl AskingThread {
    fn start() -> io::Result<Self> {
        let (questions, asked) = channel::<Question>();
        let number = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&number);
        let thread = thread::Builder::new().name("asker".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || {
            told.store(gettid().as_raw(), Ordering::Release);
            for question in asked {
                question();
            }
        })?;
        Ok(Self { questions, number })
    }

    /// Whether it could go on, and is not let: it is not the process it asks about that keeps it.
    fn waits_for_a_processor(&self) -> bool {
        match self.number.load(Ordering::Acquire) {
            0 => true,
            number => proc::is_runnable(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pid(number: u32) -> Pid {
        Pid::new(number).unwrap()
    }

    #[test]
    fn a_question_that_the_kernel_keeps_holds_up_no_other_one() {
        let (release, gate) = mpsc::channel::<()>();
        let mut asker = Asker::default();
        assert!(matches!(asker.ask(pid(1), move || gate.recv().is_ok()), Asked::Kept));
        assert!(matches!(asker.ask(pid(2), || 7), Asked::Answered(7)));
        assert!(matches!(asker.ask(pid(1), || 7), Asked::Kept), "it was asked about once more");
        drop(release);
        let back = asker.kept.remove(&pid(1)).unwrap();
        assert!(back.recv().is_err(), "it hangs up");
        assert!(matches!(asker.ask(pid(1), || 7), Asked::Answered(7)));
    }

    #[test]
    fn so_many_threads_are_given_up_and_no_more() {
        let mut asker = Asker::default();
        let mut held = Vec::new();
        for number in 0..u32::try_from(GIVEN_UP_MAX).unwrap() {
            let (comes_back, back) = channel();
            held.push(comes_back);
            asker.kept.insert(pid(number + 1), back);
        }
        assert!(matches!(asker.ask(pid(1_000), || 7), Asked::Kept));
        assert!(asker.thread.is_none(), "a thread was started");
        held.pop();
        assert!(matches!(asker.ask(pid(1_000), || 7), Asked::Answered(7)));
    }

    #[test]
    fn a_thread_that_waits_for_a_processor_is_waited_for() {
        let mut asker = Asker::default();
        let began = std::time::Instant::now();
        let busy = move || while began.elapsed() < 2 * PATIENCE {};
        assert!(matches!(asker.ask(pid(1), busy), Asked::Answered(())));
    }
}
