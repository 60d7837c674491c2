//! The model's processes that clients name for their children to live as long: they come, end, and their numbers are given anew.

use std::collections::{BTreeMap, BTreeSet};

use procbroker_core::{Anchor, AnchorFound, AnchorSeen, AnchorUnknown, Birthmark, Input, Pid};
use procbroker_protocol::Request;
use procbroker_protocol::create::Lifetime;
use uuid::Uuid;

use crate::sim::event::Event;
use crate::sim::machine::Means;
use crate::sim::setting::USERS;

/// The numbers that clients name: few, so that they are given anew while children live.
pub const NUMBERS: [u32; 3] = [9_001, 9_002, 9_003];

/// How long a report about an end takes to the broker, at most.
const REPORT_MILLIS: u64 = 2;

/// The processes.
#[derive(Debug, Default)]
pub struct Anchors {
    /// Those that live, by their numbers.
    living: BTreeMap<u32, AnchorSeen>,
    /// Those whose end the present broker is to be told.
    pub watched: BTreeSet<Anchor>,
    births: u64,
}

impl Anchors {
    /// What is found of the process that a request of this user names.
    pub fn find(&mut self, request: &Request, uid: u32, boot: u32, means: &mut Means<'_>) -> AnchorFound {
        let Request::Create(params) = request else { return None };
        let Lifetime::Pid(number) = params.lifetime else { return None };
        let pid = Pid::new(number)?;
        if let Some(seen) = self.living.get(&number) {
            return Some(Box::new(Ok(*seen)));
        }
        if means.dice.chance(20) {
            return Some(Box::new(Err(AnchorUnknown::Gone)));
        }
        Some(Box::new(Ok(self.begin(pid, uid, boot, means))))
    }

    fn begin(&mut self, pid: Pid, uid: u32, boot: u32, means: &mut Means<'_>) -> AnchorSeen {
        self.births += 1;
        let owner = means.dice.choose([uid, uid, uid, uid, uid, USERS[0], USERS[1], 0]);
        let real_uid = if means.dice.chance(10) { 0 } else { owner };
        let birthmark = Birthmark::Inode(self.births);
        let anchor = Anchor { pid, birthmark, boot: Uuid::from_u128(boot.into()) };
        let seen = AnchorSeen { anchor, real_uid, saved_uid: owner };
        self.living.insert(pid.get(), seen);
        let most = means.dice.choose([0, 5, 400, 10_000, 100_000]);
        let delay = means.dice.within_millis(most);
        means.agenda.after(delay, Event::AnchorEnds { anchor });
        seen
    }

    /// A process ends, and its number is free for another one.
    pub fn ends(&mut self, anchor: Anchor, means: &mut Means<'_>) {
        let number = anchor.pid.get();
        let Some(seen) = self.living.get(&number).copied().filter(|seen| seen.anchor == anchor) else {
            return;
        };
        self.living.remove(&number);
        if means.dice.chance(50) {
            let boot = u32::try_from(anchor.boot.as_u128()).unwrap_or_default();
            self.begin(anchor.pid, seen.saved_uid, boot, means);
        }
        if self.watched.remove(&anchor) {
            means.tell(REPORT_MILLIS, Input::AnchorEnded { anchor });
        }
    }

    /// A broker wants to know when a process ends.
    pub fn watch(&mut self, anchor: Anchor, means: &mut Means<'_>) {
        if self.living.values().any(|seen| seen.anchor == anchor) {
            self.watched.insert(anchor);
        } else {
            means.tell(0, Input::AnchorEnded { anchor });
        }
    }

    /// The machine has died, and all with it.
    pub fn die(&mut self) {
        self.living.clear();
    }
}
