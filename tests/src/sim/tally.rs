//! What runs have been through, so that it is known that the simulator goes there.

use std::fmt;

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Turns of a broker.
    pub turns: u64,
    /// Deaths of a broker.
    pub crashes: u64,
    /// Those of them that were deaths of the machine.
    pub power_cuts: u64,
    /// Those of them that came during a recovery.
    pub crashes_in_recovery: u64,
    /// Those of them that came during a shutdown.
    pub crashes_in_shutdown: u64,
    /// Live upgrades.
    pub upgrades: u64,
    /// Starts after an orderly exit.
    pub restarts: u64,
    /// Children that were found alive.
    pub found_alive: u64,
    /// Stops that went on after a crash.
    pub stops_resumed: u64,
    /// Processes that came to be without being on record.
    pub unrecorded: u64,
    /// Cleanups that had been begun by a broker that died.
    pub cleanups_interrupted: u64,
    /// Attempts at cleanups.
    pub cleanups: u64,
    /// Restarts of children.
    pub runs_again: u64,
    /// Children that were stopped because a process had ended that they lived as long as.
    pub owners_gone: u64,
    /// Runs with a death of the broker in it.
    pub runs_with_crashes: u64,
    /// What children told of themselves.
    pub words: u64,
    /// Questions whether a child is ready.
    pub questions: u64,
    /// Commands that were to find out whether a child is ready.
    pub commands: u64,
    /// Creates that were told why their child has failed to start.
    pub last_words: u64,
    /// Stops of children that did not say that they are well.
    pub hung: u64,
    /// Creates that got a place under a limit after they had waited for it.
    pub places: u64,
    /// Processes that were killed on the way to their programs.
    pub cut_short: u64,
    /// Processes that were found on the way to their programs.
    pub found_unexecuted: u64,
    /// Times that somebody sets the wall clock.
    pub clocks_set: u64,
    /// Gaps that subscribers to events were told of.
    pub gaps: u64,
}

impl Tally {
    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        let Self { turns, crashes, power_cuts, crashes_in_recovery, crashes_in_shutdown, .. } = other;
        self.turns += turns;
        self.crashes += crashes;
        self.power_cuts += power_cuts;
        self.crashes_in_recovery += crashes_in_recovery;
        self.crashes_in_shutdown += crashes_in_shutdown;
        let Self { upgrades, restarts, found_alive, stops_resumed, unrecorded, .. } = other;
        self.upgrades += upgrades;
        self.restarts += restarts;
        self.found_alive += found_alive;
        self.stops_resumed += stops_resumed;
        self.unrecorded += unrecorded;
        let Self { cleanups_interrupted, cleanups, runs_again, owners_gone, runs_with_crashes, .. } = other;
        self.owners_gone += owners_gone;
        self.runs_again += runs_again;
        self.cleanups_interrupted += cleanups_interrupted;
        self.cleanups += cleanups;
        self.runs_with_crashes += runs_with_crashes;
        let Self { words, questions, commands, last_words, hung, places, .. } = other;
        self.cut_short += other.cut_short;
        self.found_unexecuted += other.found_unexecuted;
        self.clocks_set += other.clocks_set;
        self.gaps += other.gaps;
        self.commands += commands;
        self.places += places;
        self.words += words;
        self.questions += questions;
        self.last_words += last_words;
        self.hung += hung;
    }

    /// The least of what is counted: nothing of it may be missing in many runs.
    #[must_use]
    pub fn least(&self) -> u64 {
        [
            self.turns,
            self.crashes,
            self.power_cuts,
            self.crashes_in_recovery,
            self.crashes_in_shutdown,
            self.upgrades,
            self.restarts,
            self.found_alive,
            self.stops_resumed,
            self.unrecorded,
            self.cleanups_interrupted,
            self.cleanups,
            self.runs_again,
            self.owners_gone,
            self.runs_with_crashes,
            self.words,
            self.questions,
            self.commands,
            self.last_words,
            self.hung,
            self.places,
            self.cut_short,
            self.found_unexecuted,
            self.clocks_set,
            self.gaps,
        ]
        .into_iter()
        .min()
        .unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, crashes, power_cuts, crashes_in_recovery, crashes_in_shutdown, .. } = self;
        let Self { upgrades, restarts, found_alive, stops_resumed, unrecorded, .. } = self;
        let Self { cleanups_interrupted, cleanups, runs_again, owners_gone, runs_with_crashes, .. } = self;
        let Self {
            words,
            questions,
            commands,
            last_words,
            hung,
            places,
            cut_short,
            found_unexecuted,
            clocks_set,
            gaps,
            ..
        } = self;
        write!(
            formatter,
            "{turns} turns of a broker; {runs_with_crashes} seeds with {crashes} deaths of the broker, {power_cuts} of \
             them of the machine, {crashes_in_recovery} in a recovery and {crashes_in_shutdown} in a shutdown; \
             {upgrades} live upgrades and {restarts} orderly restarts; {found_alive} children found alive, \
             {unrecorded} of them not on record as started; {stops_resumed} stops resumed; {runs_again} restarts of children; \
             {owners_gone} children ended with another process; {cleanups} attempts at \
             cleanups, of which {cleanups_interrupted} were found interrupted; {words} words of children and {questions} \
             questions whether they are ready, {commands} commands that find it out, {last_words} failed starts told, {hung} hung children stopped; {places} \
             creates that waited got a place; {cut_short} processes killed on the way to their programs, and \
             {found_unexecuted} found there; {gaps} gaps told to slow readers of events; the wall clock is set {clocks_set} times"
        )
    }
}
