//! When the driver wakes by itself, and what it does then: it takes in what was said before, kills launches that have hung too long,
//! and does what is due.
//!
//! A broker that did not run (it was stopped, starved, or its machine slept) finds words beside deadlines which they were in time
//! for. It takes them in first.

use std::time::{Duration, Instant};

use procbroker_core::Input;

use super::Driver;
use crate::inbox;
use crate::limits::{FACTS_A_TURN, SPAWN_PATIENCE};
use crate::messages::Fact;
use crate::os::host::clock;

/// How long something is overdue where the broker did not run. A turn of the loop is far shorter.
const BEHIND_AFTER: Duration = Duration::from_millis(5);

/// How many rounds of the loop without anything new show that nothing more is there: a user's connections read in turn.
const QUIET_ROUNDS: usize = 8;

/// How long what was said meanwhile may go before what is due.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);

impl Driver {
    /// Returns when something is due that nothing else tells of, as the time since the machine's start.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let due = self.broker.next_deadline().map(|deadline| Duration::from_nanos(deadline.as_nanos()));
        let overdue = self.handler.launcher.overdue_at(SPAWN_PATIENCE).map(clock::after_boot);
        let rested = self.handler.notices.rest_until().map(clock::after_boot);
        let again = self.handler.anchors.again_at().map(clock::after_boot);
        due.into_iter().chain(overdue).chain(rested).chain(again).min()
    }

    /// Does what is due. Where that is long overdue the broker did not run, and what was said meanwhile goes first.
    pub(super) async fn wake(&mut self, facts: &mut inbox::Receiver<Fact>) {
        if self.is_behind() {
            self.catch_up_with_words(facts).await;
        }
        for tag in self.handler.launcher.overdue(SPAWN_PATIENCE) {
            self.handler.logs.touch(tag.run.child);
        }
        if self.handler.launcher.kill_overdue(SPAWN_PATIENCE) > 0 {
            tracing::warn!(
                "a child did not get to execute its program within {SPAWN_PATIENCE:?} and was killed"
            );
        }
        self.handler.notices.wake(Instant::now());
        let ended = self.handler.anchors.try_again(Instant::now());
        self.inputs.extend(ended.into_iter().map(|anchor| Input::AnchorEnded { anchor }));
        self.take(Input::Due);
    }

    /// Whether something has been due for longer than a turn of the loop takes.
    pub(super) fn is_behind(&self) -> bool {
        let due = self.broker.next_deadline().map(|due| Duration::from_nanos(due.as_nanos()));
        due.is_some_and(|due| clock::since_boot() > due.saturating_add(BEHIND_AFTER))
    }

    /// Takes in what children and clients have said while the broker did not run, as far as it is there at once.
    async fn catch_up_with_words(&mut self, facts: &mut inbox::Receiver<Fact>) {
        let began = Instant::now();
        let mut quiet_rounds = 0;
        while quiet_rounds < QUIET_ROUNDS && began.elapsed() < CATCH_UP_MAX {
            quiet_rounds += 1;
            self.hear();
            // The connections read what is there in the meantime.
            tokio::task::yield_now().await;
            for _ in 0..FACTS_A_TURN {
                let Some(fact) = facts.try_recv() else { break };
                self.fact(fact);
                quiet_rounds = 0;
            }
            if self.handler.has_unheard() {
                quiet_rounds = 0;
            }
        }
    }
}
