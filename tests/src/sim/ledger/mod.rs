//! What happened, written down by an observer that sees only inputs and orders.
//!
//! The checkers read it. It takes nothing from the broker's own state: what it knows of a child, a
//! request or the shutdown follows from what the broker was told, what it ordered, and the contract.

pub mod asked;
pub mod by_command;
pub mod cleaning;
pub mod closing;
pub mod contest;
pub mod expected;
pub mod facts;
pub mod leases;
pub mod lives;
pub mod orders;
pub mod places;
pub mod readers;
pub mod readiness;
pub mod runs;
pub mod told;
pub mod track;
pub mod upgrade;
pub mod waves;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use procbroker_core::{Anchor, Call, Config, ConnectionId, Run};
use procbroker_protocol::{ChildId, Outcome, Owner, Target};
use uuid::Uuid;

use crate::sim::ledger::asked::{Asked, Link};
use crate::sim::ledger::cleaning::Stage;
use crate::sim::ledger::closing::Closing;
use crate::sim::ledger::lives::Census;
use crate::sim::ledger::places::Turns;
use crate::sim::ledger::readers::Readers;
use crate::sim::ledger::track::Track;
use crate::sim::ledger::upgrade::Upgrade;
use crate::sim::wall_clock::WallClock;

/// The observer's book.
#[derive(Debug)]
pub struct Ledger {
    /// What the broker was told at its start.
    pub config: Config,
    /// What the wall clock shows at which time.
    pub clock: WallClock,
    /// The present, in nanoseconds.
    pub now: u64,
    /// Every connection.
    pub links: BTreeMap<ConnectionId, Link>,
    /// How many are admitted and there.
    pub open_links: u32,
    /// Every request.
    pub calls: BTreeMap<Call, Asked>,
    /// The requests that wait, on connections that are there.
    pub waiting: BTreeSet<Call>,
    /// Every child.
    pub tracks: BTreeMap<ChildId, Track>,
    /// Those that are not on record any more: the machine's death can bring them back.
    pub former: BTreeMap<ChildId, Track>,
    /// Those that are live.
    pub live: BTreeSet<ChildId>,
    /// Those that have ended and are visible, in the order of their ends.
    pub visible: VecDeque<(u64, ChildId)>,
    /// The order in which children were created, by any of the brokers.
    pub creations: BTreeMap<ChildId, usize>,
    /// Which request an id was handed out to.
    pub handed_out: BTreeMap<ChildId, Call>,
    /// The requests that were answered with a child that was there already, and how.
    pub found: BTreeMap<(u32, Uuid), (ChildId, Outcome)>,
    /// Those of them whose clients have got the answer.
    pub told_found: BTreeSet<(u32, Uuid)>,
    /// The processes whose ends the broker wants to be told, and was not so far.
    pub watched: BTreeSet<Anchor>,
    /// The process of whose end the broker is told in this turn.
    pub ending_anchor: Option<Anchor>,
    /// Whose turns for a place under a limit were passed over.
    pub turns: Turns,
    /// The shutdown, if it is under way.
    pub closing: Option<Closing>,
    /// The live upgrade, if one is under way.
    pub upgrade: Upgrade,
    /// What the broker has found at its start.
    pub found_at_start: Census,
    /// Since when there is neither a connection nor a live child, while the broker serves.
    pub idle_since: Option<u64>,
    /// Which event has told that a run of a child is ready: the child, and how often it had been restarted.
    pub ready_events: BTreeMap<(ChildId, u32), u64>,
    /// What was told of in events, and to whom.
    pub readers: Readers,
    /// Whether a request was answered in this turn with what only an exiting broker says.
    pub farewell: bool,
    /// Whether the broker has ordered its exit.
    pub exited: bool,
    /// When it has handed over to another program, if it has.
    pub handed_over_at: Option<u64>,
}

impl Ledger {
    /// An empty book.
    #[must_use]
    pub fn new(config: Config, clock: WallClock) -> Self {
        Self {
            config,
            clock,
            now: 0,
            links: BTreeMap::new(),
            open_links: 0,
            calls: BTreeMap::new(),
            waiting: BTreeSet::new(),
            tracks: BTreeMap::new(),
            former: BTreeMap::new(),
            live: BTreeSet::new(),
            visible: VecDeque::new(),
            creations: BTreeMap::new(),
            handed_out: BTreeMap::new(),
            found: BTreeMap::new(),
            told_found: BTreeSet::new(),
            watched: BTreeSet::new(),
            ending_anchor: None,
            turns: Turns::new(),
            closing: None,
            upgrade: Upgrade::None,
            found_at_start: Census::default(),
            idle_since: None,
            ready_events: BTreeMap::new(),
            readers: Readers::default(),
            farewell: false,
            exited: false,
            handed_over_at: None,
        }
    }

    /// Whether a user may act on everything.
    #[must_use]
    pub fn is_administrator(&self, uid: u32) -> bool {
        uid == 0 || uid == self.config.broker_uid
    }

    /// How many places of so many this user may take, if all the others are taken: a tenth, and at least one of
    /// several, is for administrators.
    #[must_use]
    pub fn open_to(&self, uid: u32, places: u32) -> u32 {
        if self.is_administrator(uid) || places < 2 { places } else { places - (places / 10).max(1) }
    }

    /// Whether a user may see and touch what belongs to this owner.
    #[must_use]
    pub fn may_touch(&self, uid: u32, owner: Owner) -> bool {
        owner.uid == uid || self.is_administrator(uid)
    }

    /// Whether a process is on its way to its program: that of a child, or of its cleanup.
    #[must_use]
    pub fn is_launch(&self, run: Run) -> bool {
        self.tracks.get(&run.child).is_some_and(|track| match &track.cleaning {
            None => track.run == run && track.is_launching(),
            Some(cleaning) => {
                cleaning.incarnation == run.incarnation && matches!(cleaning.stage, Stage::Ordered { .. })
            }
        })
    }

    /// Notes since when processes that are to be stopped are on their way to their programs.
    pub fn note_unwanted(&mut self) {
        let now = self.now;
        for id in &self.live {
            if let Some(track) = self.tracks.get_mut(id)
                && track.is_launching()
                && !track.demands.is_empty()
            {
                track.unwanted_since.get_or_insert(now);
            }
        }
    }

    /// The live children, oldest first.
    pub fn live_tracks(&self) -> impl Iterator<Item = &Track> {
        self.live.iter().filter_map(|id| self.tracks.get(id))
    }

    /// The live child of a name.
    #[must_use]
    pub fn holder(&self, name: &procbroker_protocol::Name) -> Option<&Track> {
        self.live_tracks().find(|track| track.params.name.as_ref() == Some(name))
    }

    /// The child that a single target means for a user.
    #[must_use]
    pub fn find(&self, uid: u32, target: &Target) -> Option<&Track> {
        let may_touch = |track: &&Track| self.may_touch(uid, track.owner);
        match target {
            Target::Id(id) => self.tracks.get(id).filter(|track| !track.forgotten).filter(may_touch),
            Target::Name(name) => self.holder(name).filter(may_touch).or_else(|| {
                let ended = self.visible.iter().rev().filter_map(|(_, id)| self.tracks.get(id));
                ended.filter(may_touch).find(|track| track.params.name.as_ref() == Some(name))
            }),
            Target::Labels(_) | Target::All => None,
        }
    }

    /// The live children that a target means for a user; none if there is not the one that it means.
    #[must_use]
    pub fn resolve(&self, uid: u32, target: &Target) -> Option<Vec<ChildId>> {
        let none = BTreeMap::new();
        let labels = match target {
            Target::Id(_) | Target::Name(_) => {
                return self.find(uid, target).map(|track| vec![track.run.child]);
            }
            Target::Labels(labels) => labels,
            Target::All => &none,
        };
        Some(
            self.live_tracks()
                .filter(|track| self.may_touch(uid, track.owner) && carries(track, labels))
                .map(|track| track.run.child)
                .collect(),
        )
    }

    /// The children that were started for this user's request with this id, the last one first: what has waited for long
    /// is older by its id than what was asked for since.
    #[must_use]
    pub fn started_for(&self, uid: u32, request: Uuid) -> Vec<&Track> {
        let is_for = |track: &&Track| track.owner.uid == uid && track.params.request_id == Some(request);
        let mut started: Vec<_> = self.tracks.values().filter(is_for).collect();
        started.sort_by_key(|track| Reverse(self.creations.get(&track.run.child)));
        started
    }

    /// The visible child that this user's request with this id was answered with, or waits for, and the
    /// answer, if there was one.
    #[must_use]
    pub fn first_answer(&self, uid: u32, request: Uuid) -> Option<(&Track, Option<Outcome>)> {
        let is_answer = |track: &&Track| !track.forgotten && !track.refused && !track.superseded;
        let started = self.started_for(uid, request).into_iter().find(is_answer);
        started.map(|track| (track, track.outcome)).or_else(|| {
            let (id, outcome) = self.found.get(&(uid, request))?;
            let track = self.tracks.get(id).filter(|track| !track.forgotten)?;
            Some((track, Some(*outcome)))
        })
    }
}

/// Whether a child has all of these labels.
#[must_use]
pub fn carries(track: &Track, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| track.params.labels.get(key) == Some(value))
}
