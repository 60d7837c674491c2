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
///
/// The more threads are given up, the less is waited for the next one: half of this, a third, and so on, so that all of them
/// together cost a few seconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// At most so many threads are given up by one that asks. It is told nothing more then, until one of them comes back.
const GIVEN_UP_MAX: usize = 64;

/// At most so many of them ask about processes of one user, who can keep back no more than their own.
const GIVEN_UP_PER_USER_MAX: usize = 8;

/// Bytes of the stack of a thread that asks.
const STACK_BYTES: usize = 128 << 10;

/// What came of a question.
#[derive(Debug)]
pub(crate) enum AskOutcome<T> {
    /// It was answered.
    Answered(T),
    /// The kernel keeps who asks, or there is no thread to be had.
    Kept,
}

/// Asks something about a process, for whoever calls this on the present thread.
pub(crate) fn ask<T: Send + 'static>(
    pid: Pid,
    question: impl FnOnce() -> T + Send + 'static,
) -> AskOutcome<T> {
    thread_local! {
        static ASKER: RefCell<Asker> = RefCell::default();
    }
    let about = About { pid, owner: &|| proc::user_ids(pid).map(|[_, effective, ..]| effective) };
    ASKER.with_borrow_mut(|asker| asker.ask(about, question))
}

/// A question, which sends its own answer.
type Question = Box<dyn FnOnce() + Send>;

/// One thread that asks, and those that do not come back.
#[derive(Debug, Default)]
struct Asker {
    thread: Option<AskingThread>,
    kept: HashMap<Pid, KeptThread>,
}

/// A process that is asked about.
#[derive(Clone, Copy)]
struct About<'a> {
    pid: Pid,
    /// Finds out its effective user; none when it is gone.
    owner: &'a dyn Fn() -> Option<u32>,
}

/// A thread that was given up.
#[derive(Debug)]
struct KeptThread {
    /// The user of the process that it asks about.
    owner: Option<u32>,
    /// Hangs up when the thread comes back.
    back: Receiver<()>,
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
        about: About<'_>,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> AskOutcome<T> {
        self.kept.retain(|_, kept| matches!(kept.back.try_recv(), Err(TryRecvError::Empty)));
        if self.has_given_up(about) {
            return AskOutcome::Kept;
        }
        let patience = PATIENCE / u32::try_from(self.kept.len() + 1).unwrap_or(u32::MAX);
        let thread = match self.thread.take().map_or_else(AskingThread::start, Ok) {
            Ok(thread) => thread,
            Err(error) => {
                tracing::debug!(%error, "there is no thread to ask about a process");
                return AskOutcome::Kept;
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
            return AskOutcome::Kept;
        }
        loop {
            match answer.recv_timeout(patience) {
                Ok(answer) => {
                    self.thread = Some(thread);
                    return AskOutcome::Answered(answer);
                }
                Err(RecvTimeoutError::Timeout) if thread.waits_for_a_processor() => {}
                Err(RecvTimeoutError::Timeout) => {
                    // The thread ends when it comes back, as nobody asks it anything any more.
                    self.kept.insert(about.pid, KeptThread { owner: (about.owner)(), back });
                    return AskOutcome::Kept;
                }
                Err(RecvTimeoutError::Disconnected) => return AskOutcome::Kept,
            }
        }
    }

    /// Whether a thread asks about the process already, or no further one may.
    fn has_given_up(&self, about: About<'_>) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let owner = (about.owner)();
        let of_the_owner = self.kept.values().filter(|kept| kept.owner == owner).count();
        self.kept.contains_key(&about.pid)
            || of_the_owner >= GIVEN_UP_PER_USER_MAX
            || self.kept.len() >= GIVEN_UP_MAX
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

    /// A process of this number, of a user of this number.
    fn process(number: u32, owner: &dyn Fn() -> Option<u32>) -> About<'_> {
        About { pid: Pid::new(number).unwrap(), owner }
    }

    /// Asks with `number` as the process and as its user.
    fn ask<T: Send + 'static>(
        asker: &mut Asker,
        number: u32,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> AskOutcome<T> {
        asker.ask(process(number, &|| Some(number)), question)
    }

    /// Keeps the question about a process until the answer is dropped.
    fn keep(asker: &mut Asker, number: u32, owner: u32) -> Sender<()> {
        let (comes_back, back) = channel();
        asker.kept.insert(Pid::new(number).unwrap(), KeptThread { owner: Some(owner), back });
        comes_back
    }

    #[test]
    fn a_question_that_the_kernel_keeps_holds_up_no_other_one() {
        let (release, gate) = mpsc::channel::<()>();
        let mut asker = Asker::default();
        assert!(matches!(ask(&mut asker, 1, move || gate.recv().is_ok()), AskOutcome::Kept));
        assert!(matches!(ask(&mut asker, 2, || 7), AskOutcome::Answered(7)));
        assert!(matches!(ask(&mut asker, 1, || 7), AskOutcome::Kept), "it was asked about once more");
        drop(release);
        let kept = asker.kept.remove(&Pid::new(1).unwrap()).unwrap();
        assert!(kept.back.recv().is_err(), "it hangs up");
        assert!(matches!(ask(&mut asker, 1, || 7), AskOutcome::Answered(7)));
    }

    #[test]
    fn so_many_threads_are_given_up_and_no_more() {
        let mut asker = Asker::default();
        let mut held = Vec::new();
        for number in 1..=u32::try_from(GIVEN_UP_MAX).unwrap() {
            held.push(keep(&mut asker, number, number));
        }
        assert!(matches!(ask(&mut asker, 1_000, || 7), AskOutcome::Kept));
        assert!(asker.thread.is_none(), "a thread was started");
        held.pop();
        assert!(matches!(ask(&mut asker, 1_000, || 7), AskOutcome::Answered(7)));
    }

    #[test]
    fn a_user_keeps_back_what_is_asked_about_their_own_processes_only() {
        let mut asker = Asker::default();
        let mut held = Vec::new();
        for number in 1..=u32::try_from(GIVEN_UP_PER_USER_MAX).unwrap() {
            held.push(keep(&mut asker, number, 7));
        }
        assert!(matches!(asker.ask(process(100, &|| Some(7)), || 1), AskOutcome::Kept));
        assert!(matches!(asker.ask(process(100, &|| Some(8)), || 1), AskOutcome::Answered(1)));
        held.pop();
        assert!(matches!(asker.ask(process(100, &|| Some(7)), || 1), AskOutcome::Answered(1)));
    }

    #[test]
    fn a_thread_that_waits_for_a_processor_is_waited_for() {
        let mut asker = Asker::default();
        let began = std::time::Instant::now();
        let busy = move || while began.elapsed() < 2 * PATIENCE {};
        assert!(matches!(ask(&mut asker, 1, busy), AskOutcome::Answered(())));
    }
}
