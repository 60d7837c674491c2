//! The model processes of one run of a child: its main process, or that of its cleanup, and what descends from it.

use procbroker_core::{Members, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, ExitStatus, Signal};

use crate::sim::agenda::{MILLISECOND, SECOND};
use crate::sim::dice::Dice;
use crate::sim::setting::Setting;

/// How long a process takes to die of SIGKILL, at most, unless something keeps it.
const KILL_LATENCY_MILLIS: u64 = 10;

/// How a process takes signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// It exits a while after any of the usual ones.
    Willing {
        /// How long after, in nanoseconds.
        delay: u64,
    },
    /// It ignores SIGTERM, and takes the others.
    Picky {
        /// How long after, in nanoseconds.
        delay: u64,
    },
    /// It ignores everything but SIGKILL.
    Stubborn,
    /// It is in uninterruptible sleep, and dies so long after SIGKILL.
    Late {
        /// How long after, in nanoseconds.
        delay: u64,
    },
    /// It never wakes from its uninterruptible sleep.
    Undying,
    /// It belongs to another user, and the broker is not root.
    Protected,
}

/// One model process.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Whether it is there.
    pub alive: bool,
    /// Whether it is in the process group of the child: else a daemon in a session of its own.
    pub in_group: bool,
    /// How it takes signals.
    pub temper: Temper,
    /// For a member: whether it ends with the main process.
    pub tied: bool,
}

/// Which processes: never used again, as pids are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FamilyId(pub u32);

/// What processes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// They are the child itself.
    Main,
    /// They release what it held.
    Cleanup,
    /// They find out whether it is ready.
    Probe,
}

/// The processes of one run; the first is the main one.
#[expect(clippy::struct_excessive_bools, reason = "facts that come one by one and do not exclude each other")]
#[derive(Debug)]
pub struct Family {
    /// Whose.
    pub child: ChildId,
    /// What for.
    pub part: Part,
    /// As which run the present broker knows them, if it does.
    pub run: Option<Run>,
    /// Whether the main process is the present broker's own child.
    pub own: bool,
    /// Its number.
    pub pid: Pid,
    /// The processes.
    pub processes: Vec<Process>,
    /// When the broker hears that it was started.
    pub told_at: u64,
    /// How the main process ended, or will.
    pub status: ExitStatus,
    /// Whether the broker has heard that the main process ended.
    pub reported: bool,
    /// How many processes it still forks at bad moments.
    pub forks_left: u32,
    /// Whether it is a cleanup of which the record does not know: it counts as what is left of the child.
    pub is_remnant: bool,
    /// Whether the kernel has killed one of the processes for want of memory.
    pub has_starved: bool,
    /// Whether its one process has its program, or is on the way there.
    pub launch: Launch,
}

/// How far a process is that was left on the way to its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// It has it.
    Executed,
    /// It may get there yet.
    Underway,
    /// It is held, and never does.
    Held,
}

impl Temper {
    /// Rolls how a process takes signals.
    pub fn roll(dice: &mut Dice, setting: &Setting) -> Self {
        let delay = match dice.below(4) {
            0 => 0,
            1 | 2 => dice.within_millis(300),
            _ => dice.within_millis(12_000),
        };
        if setting.undying && dice.chance(30) {
            return match dice.below(3) {
                0 => Self::Late { delay: SECOND / 4 + dice.within_millis(6_000) },
                1 if setting.config.broker_uid != 0 => Self::Protected,
                _ => Self::Undying,
            };
        }
        match dice.below(if setting.unwilling { 4 } else { 8 }) {
            0 => Self::Stubborn,
            1 => Self::Picky { delay },
            _ => Self::Willing { delay },
        }
    }

    /// After how long a process dies of a signal, if it does.
    fn reaction(self, signal: Signal, dice: &mut Dice) -> Option<u64> {
        if signal == Signal::KILL {
            return match self {
                Self::Willing { .. } | Self::Picky { .. } | Self::Stubborn => {
                    Some(dice.within_millis(KILL_LATENCY_MILLIS))
                }
                Self::Late { delay } => Some(delay),
                Self::Undying | Self::Protected => None,
            };
        }
        let asks = [Signal::TERM, Signal::HUP, Signal::INT, Signal::ABRT].contains(&signal);
        match self {
            Self::Willing { delay } if asks => Some(delay),
            Self::Picky { delay } if asks && signal != Signal::TERM => Some(delay),
            Self::Willing { .. }
            | Self::Picky { .. }
            | Self::Stubborn
            | Self::Late { .. }
            | Self::Undying
            | Self::Protected => None,
        }
    }

    /// Whether SIGKILL ends it at once.
    #[must_use]
    pub fn is_mortal(self) -> bool {
        match self {
            Self::Willing { .. } | Self::Picky { .. } | Self::Stubborn => true,
            Self::Late { .. } | Self::Undying | Self::Protected => false,
        }
    }
}

impl Family {
    /// Rolls the processes of a run that has just been started.
    pub fn roll(of: (Run, Part), pid: Pid, told_at: u64, dice: &mut Dice, setting: &Setting) -> Self {
        let leader =
            Process { alive: true, in_group: true, temper: Temper::roll(dice, setting), tied: false };
        let mut processes = vec![leader];
        for _ in 0..dice.choose([0, 0, 0, 1, 2, 3]) {
            processes.push(member(dice, setting));
        }
        let (run, part) = of;
        let status = if part == Part::Probe && dice.chance(90) {
            ExitStatus::Code(dice.choose([0, 1, 1]))
        } else if dice.chance(80) {
            ExitStatus::Code(dice.choose([0, 0, 1, 77]))
        } else {
            ExitStatus::Signal(Signal::INT)
        };
        let forks_left = dice.choose([0, 0, 0, 1, 2]);
        Self {
            child: run.child,
            part,
            run: Some(run),
            own: true,
            pid,
            processes,
            told_at,
            status,
            reported: false,
            forks_left,
            is_remnant: false,
            has_starved: false,
            launch: Launch::Executed,
        }
    }

    /// One process that was left on the way to its program: nothing but SIGKILL ends it there.
    pub fn left_on_its_way(of: (Run, Part), pid: Pid, dice: &mut Dice, setting: &Setting) -> Self {
        let mut family = Self::roll(of, pid, 0, dice, setting);
        family.processes.truncate(1);
        for process in &mut family.processes {
            // One that is held back by what does not answer dies late of a SIGKILL.
            process.temper = if setting.undying && dice.chance(50) {
                Temper::Late { delay: dice.within_millis(6_000) }
            } else {
                Temper::Stubborn
            };
        }
        (family.status, family.forks_left) = (ExitStatus::Signal(Signal::KILL), 0);
        (family.own, family.run, family.launch) = (false, None, Launch::Underway);
        family
    }

    /// Whether any of its processes is there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.processes.iter().any(|process| process.alive)
    }

    /// Whether its main process is there.
    #[must_use]
    pub fn leads(&self) -> bool {
        !self.is_remnant && self.processes.first().is_some_and(|leader| leader.alive)
    }

    /// What is left besides the main process.
    #[must_use]
    pub fn members(&self) -> Members {
        if self.is_remnant {
            return if self.is_alive() { Members::Outside } else { Members::Nothing };
        }
        let mut left = Members::Nothing;
        for process in self.processes.iter().skip(1).filter(|process| process.alive) {
            left = left.max(if process.in_group { Members::Group } else { Members::Outside });
        }
        left
    }

    /// Sends a signal: what the sender is told, and which processes die of it after how long.
    pub fn signal(
        &mut self,
        signal: Signal,
        scope: Scope,
        dice: &mut Dice,
    ) -> (SignalOutcome, Vec<(usize, u64)>) {
        let mut outcome = SignalOutcome::Gone;
        let mut deaths = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            let reached = match scope {
                Scope::Main => index == 0 && !self.is_remnant,
                Scope::Group => process.in_group && !self.is_remnant,
                Scope::All => true,
            };
            if !reached || !process.alive {
                continue;
            }
            if process.temper == Temper::Protected {
                if outcome == SignalOutcome::Gone {
                    outcome = SignalOutcome::Refused;
                }
                continue;
            }
            outcome = SignalOutcome::Delivered;
            if let Some(delay) = process.temper.reaction(signal, dice) {
                deaths.push((index, delay));
            }
        }
        (outcome, deaths)
    }

    /// A process forks, if any can: the new one has not got what was sent before.
    pub fn fork(&mut self, dice: &mut Dice, setting: &Setting) {
        let parent = self.processes.iter().any(|process| process.alive && process.temper.is_mortal());
        if self.forks_left > 0 && parent {
            self.forks_left -= 1;
            self.processes.push(Process { tied: false, ..member(dice, setting) });
        }
    }
}

fn member(dice: &mut Dice, setting: &Setting) -> Process {
    Process {
        alive: true,
        in_group: dice.chance(65),
        temper: Temper::roll(dice, setting),
        tied: dice.chance(40),
    }
}

/// After how long a process ends by itself, if it does. A cleanup mostly has an end.
pub fn own_end(part: Part, dice: &mut Dice) -> Option<u64> {
    if part == Part::Cleanup && dice.chance(70) {
        let longer = dice.within_millis(4_000);
        return Some(dice.choose([0, 3 * MILLISECOND, longer]));
    }
    if part == Part::Probe && dice.chance(85) {
        let most = dice.choose([1, 30, 30, 3_000, 5_100]);
        return Some(dice.within_millis(most));
    }
    match dice.below(10) {
        0 => Some(dice.within_millis(1)),
        1 => Some(dice.within_millis(100)),
        2 | 3 => Some(dice.within_millis(20_000)),
        4 => Some(60 * SECOND + dice.below(MILLISECOND)),
        _ => None,
    }
}
