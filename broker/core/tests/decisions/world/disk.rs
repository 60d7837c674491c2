//! What is on record, as a disk that outlives the broker keeps it, and the next broker that reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use procbroker_core::{
    Answered, Broker, Call, EventHistory, Finding, HandedOver, Incarnation, Input, Instant, Intent, Kinship,
    Members, Now, Pid, ProcessState, Progress, Record, RecordedLease, Recovered, Run, Safety, paired_id,
};
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::{ChildId, ExitStatus};

use super::{World, disk_full};

/// Every write, in its order: what is written later is never safe before what was written earlier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    writes: Vec<Write>,
    /// How many of them cannot be lost with the broker.
    safe: usize,
    /// How many of them cannot be lost with the machine.
    safe_for_power: usize,
}

/// What is safe once a record is: itself, and all that was written before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    writes: usize,
    safety: Safety,
}

#[derive(Clone, Debug)]
enum Write {
    Intent(Arc<Intent>),
    /// With when the child expires, if it was renewed.
    Progress(ChildId, Box<Progress>, Option<Instant>),
    Forget(ChildId),
    Answered(Answered),
    ForgetAnswer(ChildId),
}

impl Disk {
    fn of(found: &[Recovered], answers: &[Answered]) -> Self {
        let mut writes: Vec<Write> = answers.iter().copied().map(Write::Answered).collect();
        for child in found {
            writes.push(Write::Intent(Arc::new(child.intent.clone())));
            writes.extend(
                child
                    .progress
                    .clone()
                    .map(|progress| Write::Progress(child.intent.id, Box::new(progress), None)),
            );
        }
        let safe = writes.len();
        Self { writes, safe, safe_for_power: safe }
    }

    /// Writes, and checks what holds for every record, whatever a test is about.
    pub(crate) fn write(
        &mut self,
        run: Run,
        record: &Record,
        safety: Safety,
        expires: Option<Instant>,
    ) -> Awaited {
        let before = self.children().remove(&run.child);
        match (record, before) {
            (Record::Answered(answered), None) => {
                assert_eq!(answered.id, run.child, "it is on record under its own id");
                assert!(self.children().contains_key(&answered.child), "{answered:?} is of nobody");
                self.writes.push(Write::Answered(*answered));
            }
            (Record::Intent(intent), None) => self.writes.push(Write::Intent(Arc::clone(intent))),
            (Record::Progress(progress), Some((_, before))) => {
                let (before, after) = (before.as_ref().map(rank), rank(progress));
                assert!(
                    before.is_none_or(|(_, stage, _)| stage < 4),
                    "{run:?} is written after its end: {progress:?}"
                );
                assert!(before <= Some(after), "{run:?} goes back from {before:?} to {progress:?}");
                self.writes.push(Write::Progress(run.child, Box::new(progress.clone()), expires));
            }
            (record, before) => panic!("{record:?} is written after {before:?}"),
        }
        Awaited { writes: self.writes.len(), safety }
    }

    /// How many writes there are.
    pub(crate) fn written(&self) -> usize {
        self.writes.len()
    }

    /// The broker was told that a record is safe.
    pub(crate) fn is_safe(&mut self, awaited: Awaited) {
        self.safe = awaited.writes;
        if awaited.safety == Safety::Power {
            self.safe_for_power = awaited.writes;
        }
    }

    pub(crate) fn forget(&mut self, child: ChildId) {
        self.writes.push(Write::Forget(child));
    }

    pub(crate) fn forget_answers(&mut self, on_record: &[ChildId]) {
        for id in on_record {
            assert!(self.answers().contains_key(id), "{id} is no answer on record");
            self.writes.push(Write::ForgetAnswer(*id));
        }
    }

    /// The answers that a later broker reads, oldest first.
    pub(crate) fn answers(&self) -> BTreeMap<ChildId, Answered> {
        let mut answers = BTreeMap::new();
        for write in &self.writes {
            match write {
                Write::Answered(answered) => drop(answers.insert(answered.id, *answered)),
                Write::ForgetAnswer(id) => drop(answers.remove(id)),
                Write::Intent(_) | Write::Progress(..) | Write::Forget(_) => {}
            }
        }
        answers
    }

    /// What a later broker reads, oldest first.
    fn children(&self) -> BTreeMap<ChildId, (Arc<Intent>, Option<Progress>)> {
        let mut children = BTreeMap::new();
        for write in &self.writes {
            match write {
                Write::Intent(intent) => {
                    children.insert(intent.id, (Arc::clone(intent), None));
                }
                Write::Progress(id, progress, expires) => {
                    if let Some((intent, written)) = children.get_mut(id) {
                        *written = Some(Progress::clone(progress));
                        // That of a child which lives by its connections is for as long as nobody holds it.
                        if expires.is_some() || intent.params.lifetime == Lifetime::Connection {
                            Arc::make_mut(intent).lease =
                                expires.map_or(RecordedLease::None, RecordedLease::Until);
                        }
                    }
                }
                Write::Forget(id) => {
                    children.remove(id);
                }
                Write::Answered(_) | Write::ForgetAnswer(_) => {}
            }
        }
        children
    }
}

/// How often a child was restarted, how far it is since, and at which attempt of its cleanup.
fn rank(progress: &Progress) -> (u32, u32, u32) {
    match progress {
        Progress::Unwanted { .. } => (0, 0, 0),
        Progress::Restarting { runs, .. } => (runs.restarts, 0, 0),
        Progress::Starting { runs, .. } | Progress::Running { runs, .. } => (runs.restarts, 1, 0),
        Progress::Stopping(stopping) => (stopping.runs.restarts, 2, 0),
        Progress::Cleaning { attempts, restarts, .. } => (*restarts, 3, *attempts),
        Progress::Ended { restarts, .. } => (*restarts, 4, 0),
    }
}

/// The process of a run that is there, and whose broker has died.
pub(crate) fn alive(run: Run) -> Finding {
    Finding::Process { pid: pid_of(run), kinship: Kinship::Foreign, state: ProcessState::Running }
}

/// The same, once it has ended, and before it is reaped.
pub(crate) fn zombie(run: Run) -> Finding {
    Finding::Process { pid: pid_of(run), kinship: Kinship::Foreign, state: ProcessState::Zombie }
}

/// The process of a run that is there, under the program that has taken over from its broker.
pub(crate) fn own(run: Run) -> Finding {
    Finding::Process { pid: pid_of(run), kinship: Kinship::Own, state: ProcessState::Running }
}

/// A process that is not there any more, and has left nothing.
pub(crate) fn gone(status: ExitStatus) -> Finding {
    Finding::Gone { status, members: Members::Nothing }
}

/// A process that is not there any more, and of which something is left.
pub(crate) fn left_behind(members: Members) -> Finding {
    Finding::Gone { status: ExitStatus::Unknown, members }
}

pub(crate) fn pid_of(run: Run) -> Pid {
    Pid::new(u32::try_from(run.child.as_uuid().as_u128() & 0xFFFF).unwrap() + 1000).unwrap()
}

/// As what a later broker knows the process of a child.
pub(crate) fn first(run: Run) -> Run {
    Run { incarnation: Incarnation::FIRST, ..run }
}

impl World {
    /// How far a child is, as is on record; none when that is not more than its intent.
    pub(crate) fn progress(&self, run: Run) -> Option<Progress> {
        self.disk.children().get(&run.child).unwrap_or_else(|| panic!("{run:?} is not on record")).1.clone()
    }

    pub(crate) fn is_on_record(&self, run: Run) -> bool {
        self.disk.children().contains_key(&run.child)
    }

    /// How many answers are on record for the same requests to get them again.
    pub(crate) fn answers_on_record(&self) -> usize {
        self.disk.answers().len()
    }

    /// How many of the writes so far may be all that a later broker finds: one that follows the broker, or one that
    /// follows the machine.
    pub(crate) fn may_be_kept(&self, finding: Finding) -> std::ops::RangeInclusive<usize> {
        let safe = match finding {
            Finding::Rebooted => self.disk.safe_for_power,
            Finding::Process { .. }
            | Finding::Unexecuted { .. }
            | Finding::Gone { .. }
            | Finding::NeverStarted => self.disk.safe,
        };
        safe..=self.disk.writes.len()
    }

    /// Whether an answer waited for the record.
    pub(crate) fn is_promise(&self, call: Call) -> bool {
        self.promises.contains_key(&call)
    }

    /// How many of the writes are kept for sure when an answer has been given, whatever happens then to the broker.
    pub(crate) fn kept_when_told(&self, call: Call) -> usize {
        assert!(self.is_answered(call), "{call:?} is not answered");
        self.promises.get(&call).copied().unwrap_or_default().max(self.disk.safe)
    }

    /// How often the cleanup of a child was ordered to be started, by any of the brokers.
    pub(crate) fn cleanups(&self, run: Run) -> u32 {
        self.cleanups.get(&run.child).copied().unwrap_or_default()
    }

    /// What was written last of a run cannot be.
    pub(crate) fn unrecorded(&mut self, run: Run) {
        let is_of_run = |write: &Write| match write {
            Write::Intent(intent) => intent.id == run.child,
            Write::Progress(id, ..) => *id == run.child,
            Write::Forget(_) | Write::Answered(_) | Write::ForgetAnswer(_) => false,
        };
        let last = self.disk.writes.iter().rposition(is_of_run).unwrap();
        self.disk.writes.remove(last);
        self.safe.insert(run);
        self.give(Input::Recorded { run, result: Err(disk_full()) });
    }

    /// The broker dies and another one starts, for which there is this of every child.
    pub(crate) fn crash(&mut self, finding: Finding) {
        self.crash_with(|_, _| finding);
    }

    /// The same, and the kernel has counted kills for want of memory in each of their present runs.
    pub(crate) fn crash_out_of_memory(&mut self, finding: Finding) {
        let found = self.disk.children().into_values().map(|(intent, progress)| {
            let (intent, probe) = (Intent::clone(&intent), Members::Nothing);
            let handed_over = HandedOver::default();
            Recovered { intent, progress, finding, probe, out_of_memory: true, handed_over }
        });
        let found = found.collect();
        self.recover(found);
    }

    /// The same, with what there is of each child.
    pub(crate) fn crash_with(&mut self, find: impl Fn(ChildId, Option<&Progress>) -> Finding) {
        self.end_with(find, &BTreeMap::new());
    }

    /// Another program takes over in place, after so long, from which all children are its own.
    pub(crate) fn upgrade_taking(&mut self, length: Duration) {
        let handed_over = self.broker.handed_over(self.now);
        self.jump(length);
        self.end_with(|child, _| own(Broker::recovered_run(child)), &handed_over);
    }

    /// The same at once, and there is no process of any child.
    pub(crate) fn upgrade_without_processes(&mut self) {
        let handed_over = self.broker.handed_over(self.now);
        self.end_with(|_, _| gone(ExitStatus::Unknown), &handed_over);
    }

    /// The same, and there never was one: the next program goes on with the events of this one.
    pub(crate) fn upgrade_before_any_start(&mut self) {
        let history = self.broker.event_history();
        let found = self.disk.children().into_values().map(|(intent, progress)| Recovered {
            intent: Intent::clone(&intent),
            progress,
            finding: Finding::NeverStarted,
            probe: Members::Nothing,
            out_of_memory: false,
            handed_over: HandedOver::default(),
        });
        let found = found.collect();
        self.recover_with(found, Some(history));
    }

    fn end_with(
        &mut self,
        find: impl Fn(ChildId, Option<&Progress>) -> Finding,
        handed_over: &BTreeMap<ChildId, HandedOver>,
    ) {
        let found = self.disk.children().into_iter().map(|(id, (intent, progress))| {
            let finding = find(id, progress.as_ref());
            Recovered {
                intent: Intent::clone(&intent),
                progress,
                finding,
                probe: self.probe_left,
                out_of_memory: false,
                handed_over: handed_over.get(&id).cloned().unwrap_or_default(),
            }
        });
        let found = found.collect();
        self.recover(found);
    }

    /// The same, after which all that was written later than the first `kept` writes is lost.
    pub(crate) fn crash_at(&mut self, kept: usize, finding: Finding) {
        self.disk.writes.truncate(kept);
        self.crash(finding);
    }

    /// The same, after which the last write is lost, and nothing of any child is there.
    pub(crate) fn crash_before_the_last_write(&mut self) {
        self.crash_at(self.disk.writes.len() - 1, Finding::NeverStarted);
    }

    /// A broker starts, and takes over this.
    pub(crate) fn recover(&mut self, found: Vec<Recovered>) {
        self.recover_with(found, None);
    }

    fn recover_with(&mut self, found: Vec<Recovered>, history: Option<EventHistory>) {
        let answers: Vec<Answered> = self.disk.answers().into_values().collect();
        self.disk = Disk::of(&found, &answers);
        self.answers.clear();
        self.promises.clear();
        self.orders.clear();
        self.exit = None;
        // That another run is to come is on record since before.
        let is_to_come = |child: &&Recovered| matches!(child.progress, Some(Progress::Restarting { .. }));
        let to_come = found.iter().filter(is_to_come);
        self.safe = to_come.map(|child| Broker::recovered_run(child.intent.id)).collect();
        self.awaited.clear();
        self.watched.clear();
        self.spawned = found.iter().filter_map(process).collect();
        let asked = found.iter().filter(|child| child.probe != Members::Nothing);
        let asked = asked.map(|child| Broker::recovered_run(paired_id(child.intent.id)));
        self.spawned.extend(asked.map(|run| (run, None)));
        let mut effects = Vec::new();
        let now = Now { instant: self.now, wall: self.wall() };
        self.broker = Broker::recover(self.config.clone(), now, found, answers, history, &mut effects);
        self.obey(effects);
    }

    /// Somebody sets the wall clock forward, or back.
    pub(crate) fn set_clock(&mut self, seconds: i64) {
        self.wall_at_start = self.wall_at_start.checked_add_signed(seconds * 1_000_000).unwrap();
    }

    /// The machine starts anew: its monotonic time begins again, and its wall clock goes on.
    pub(crate) fn reboot(&mut self, after: Duration) {
        self.jump(after);
        self.wall_at_start += self.now.as_nanos() / 1_000;
        self.now = Instant::from_nanos(0);
        self.crash(Finding::Rebooted);
    }
}

/// The process that was found of a child, or what is left of it, and the name that it holds.
fn process(child: &Recovered) -> Option<(Run, Option<procbroker_protocol::Name>)> {
    let is_there = match child.finding {
        Finding::Process { .. } | Finding::Unexecuted { .. } => true,
        Finding::Gone { members, .. } => members != Members::Nothing,
        Finding::NeverStarted | Finding::Rebooted => false,
    };
    let name = match child.progress {
        Some(Progress::Ended { .. }) => return None,
        Some(Progress::Cleaning { .. }) => None,
        Some(
            Progress::Unwanted { .. }
            | Progress::Starting { .. }
            | Progress::Running { .. }
            | Progress::Restarting { .. }
            | Progress::Stopping(_),
        )
        | None => child.intent.params.name.clone(),
    };
    is_there.then(|| (Broker::recovered_run(child.intent.id), name))
}
