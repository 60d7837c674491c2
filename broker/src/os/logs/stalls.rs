//! The `stalls` thread: it sees to it that the log thread comes back from every pipe that it touches.
//!
//! Whoever holds a child's pipe within the kernel holds up the one thread that moves everybody's output, and nothing but their end
//! helps (see [`pipe_use`](super::pipe_use)). So a step of the log thread that takes longer than this thread is patient has whoever
//! holds that pipe ended ([`holders`](super::holders)). As long as the log thread sleeps, so does this one.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use procbroker_core::Pid;

use super::holders::{self, HeldPipe, Reach, Release};
use super::pipe_use::{PipeUse, Step};
use super::pipes::Pipes;

/// How long a step may take: the kernel's own share is microseconds, and a machine may be short of memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one may take while somebody waits for the log thread, or where the user has held a pipe before.
const SHORT_PATIENCE: Duration = Duration::from_millis(100);

/// How long whoever needs the log thread waits for it to come back from a pipe, in all.
pub(super) const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// How long is rested where nobody was found whose end helps.
const REST: Duration = Duration::from_secs(10);

/// So many users who have held pipes are remembered.
const OFFENDERS_MAX: usize = 4_096;

/// How much memory the thread may use for its calls, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// What the thread works with.
#[derive(Debug)]
struct Stalls {
    pipe_use: Arc<PipeUse>,
    pipes: Pipes,
    /// The step that was under way when it was looked last, and since when.
    seen: Option<(Step, Instant)>,
    /// The step that nothing has ended so far.
    lasting: Option<Step>,
    offenders: HashSet<u32>,
}

/// Starts the thread. It ends with the log thread ([`PipeUse::finish`]).
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn start(pipe_use: Arc<PipeUse>, pipes: Pipes) -> io::Result<()> {
    let stalls = Stalls { pipe_use, pipes, seen: None, lasting: None, offenders: HashSet::new() };
    let builder = thread::Builder::new().name("stalls".to_owned()).stack_size(STACK_BYTES);
    builder.spawn(move || stalls.run()).map(drop)
}

impl Stalls {
    fn run(mut self) {
        while self.pipe_use.wait() {
            match self.look() {
                Release::Free => self.pipe_use.go_on(),
                Release::StillHeld => self.pipe_use.look_after(REST),
            }
        }
    }

    /// Looks at the step that is under way, and ends who holds its pipe if it takes too long.
    fn look(&mut self) -> Release {
        let now = Instant::now();
        let Some(step) = self.pipe_use.step() else {
            self.seen = None;
            return Release::Free;
        };
        let known = self.seen.filter(|(seen, _)| *seen == step && !self.pipe_use.could_go_on());
        let since = known.map_or(now, |(_, since)| since);
        self.seen = Some((step, since));
        let passed = now.saturating_duration_since(since);
        if passed < self.patience(step.user) {
            return Release::Free;
        }
        let is_long = passed >= PATIENCE || self.offenders.contains(&step.user);
        self.end_holders(step, if is_long { Reach::TheSuspicious } else { Reach::TheSure })
    }

    fn patience(&self, user: u32) -> Duration {
        let is_short = self.pipe_use.is_in_haste() || self.offenders.contains(&user);
        if is_short { SHORT_PATIENCE } else { PATIENCE }
    }

    fn end_holders(&mut self, step: Step, reach: Reach) -> Release {
        let named = self.pipes.at(step.pipe);
        let name = named.map_or_else(|| "a pipe that was removed".to_owned(), |id| id.to_string());
        let held = HeldPipe { place: step.pipe, user: step.user, name };
        let own = Pid::new(std::process::id());
        let release = holders::release(&held, reach, own.as_slice(), || self.pipe_use.is_at(step));
        match (release, reach) {
            // It is looked at again in a moment.
            (Release::StillHeld, Reach::TheSure) => return Release::Free,
            (Release::Free, _) | (Release::StillHeld, Reach::TheSuspicious) => {}
        }
        if self.offenders.len() < OFFENDERS_MAX {
            self.offenders.insert(step.user);
        }
        self.pipe_use.note_offenders();
        if release == Release::StillHeld && self.lasting != Some(step) {
            self.lasting = Some(step);
            tracing::error!(
                output = %held.name, user = held.user,
                "the output of a child is held within the kernel, and everybody's with it, and nobody was found whose end \
                 helps: end the processes of that user, or abort their file systems (/sys/fs/fuse/connections)"
            );
        }
        release
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::captured;
    use crate::os::logs::pipe_use::PipePlace;

    const PIPE: PipePlace = PipePlace { device: 1, inode: 2 };

    /// No process is this user's.
    const USER: u32 = 4_000_000_001;

    struct Scene {
        _folder: tempfile::TempDir,
        pipe_use: Arc<PipeUse>,
        stalls: Stalls,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let pipes = Pipes::open(folder.path().join("output")).unwrap();
            let pipe_use = Arc::new(PipeUse::new().unwrap());
            let (seen, lasting, offenders) = (None, None, HashSet::new());
            let stalls = Stalls { pipe_use: Arc::clone(&pipe_use), pipes, seen, lasting, offenders };
            Self { _folder: folder, pipe_use, stalls }
        }

        /// Looks at a step that has been under way for so long.
        fn look_after(&mut self, passed: Duration) -> Release {
            assert_eq!(self.stalls.look(), Release::Free);
            let (step, since) = self.stalls.seen.unwrap();
            self.stalls.seen = Some((step, since.checked_sub(passed).unwrap()));
            self.stalls.look()
        }
    }

    #[test]
    fn a_step_that_takes_too_long_and_that_nothing_ends_is_told_of_once() {
        let mut scene = Scene::new();
        let pipe_use = Arc::clone(&scene.pipe_use);
        let log = captured(|| {
            pipe_use.during(PIPE, USER, || {
                assert_eq!(scene.look_after(PATIENCE / 2), Release::Free);
                pipe_use.set_haste(true);
                scene.stalls.seen = None;
                assert_eq!(scene.look_after(PATIENCE / 2), Release::Free);
                assert!(scene.stalls.offenders.is_empty());
                scene.stalls.seen = None;
                assert_eq!(scene.look_after(PATIENCE), Release::StillHeld);
                assert_eq!(scene.stalls.look(), Release::StillHeld);
            });
            assert_eq!(scene.stalls.look(), Release::Free);
        });
        let told: Vec<&str> = log.lines().filter(|line| line.contains("nobody was found")).collect();
        assert!(told.len() == 1 && told[0].contains(&format!("user={USER}")), "{log}");
    }

    #[test]
    fn who_has_held_a_pipe_and_everybody_in_haste_is_waited_for_no_longer_than_a_moment() {
        let mut scene = Scene::new();
        assert_eq!(scene.stalls.patience(USER), PATIENCE);
        scene.pipe_use.set_haste(true);
        assert_eq!(scene.stalls.patience(USER), SHORT_PATIENCE);
        scene.pipe_use.set_haste(false);
        let pipe_use = Arc::clone(&scene.pipe_use);
        pipe_use.during(PIPE, USER, || assert_eq!(scene.look_after(PATIENCE), Release::StillHeld));
        assert_eq!(scene.stalls.patience(USER), SHORT_PATIENCE);
        assert_eq!(scene.stalls.patience(USER + 1), PATIENCE);
    }

    #[test]
    fn a_step_that_has_ended_meanwhile_is_not_taken_for_the_next_one() {
        let mut scene = Scene::new();
        let pipe_use = Arc::clone(&scene.pipe_use);
        pipe_use.during(PIPE, USER, || assert_eq!(scene.stalls.look(), Release::Free));
        let (step, since) = scene.stalls.seen.unwrap();
        scene.stalls.seen = Some((step, since.checked_sub(PATIENCE).unwrap()));
        pipe_use.during(PIPE, USER, || assert_eq!(scene.stalls.look(), Release::Free));
    }
}
