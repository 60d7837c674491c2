//! The durable record of a create: how much of the create it is.
//!
//! A broker records the intent before it starts the child; the creator waits for nothing that is recorded later. There is no
//! broker without a record, so that is measured by itself, in the same rounds as whole creates: the broker's own journal, in
//! this process, writes the same intents to the same disks, and where it has to be waited for, tells an event loop of the
//! same kind. Beside it: the bare write(2) of as many bytes to a file in the same folder.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{getgid, getuid};
use procbroker::driver::Records;
use procbroker::messages::FromThread;
use procbroker::os::host::own_folder::OwnFolder;
use procbroker::os::journal::{self, Host, Submitted};
use procbroker::os::process::identity::{BootId, ProcessIdentity};
use procbroker::os::process::pidfd;
use procbroker_core::{
    Incarnation, Input, Intent, Launch, Pid, Progress, Receipt, Record, RecordFailure, RecordedLease, Role,
    Run, RunAs, Runs, Safety,
};
use procbroker_protocol::child::{Containment, Owner};
use procbroker_protocol::{ChildId, CreateParams, Outcome};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::create::one_create;
use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Spread, Unit, median, percentile_99};
use crate::hello::Hello;
use crate::in_turn::in_turn;
use crate::scene::Scene;
use crate::table::quantity;

const SHARE_MAX: f64 = 0.03;
/// As many power-safe ones in a round: each waits for the disk.
const SYNCED: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    let mut connection = broker.connect()?;
    let hello = Hello::new(scene, "record")?;
    let params = CreateParams::new(scene.child_command(Some(hello.path())));
    let mut book = Book::open(&scene.subfolder()?, &params)?;
    let (mut rounds, mut bare) = (Vec::new(), Vec::new());
    let [mut shares, mut tails, mut synced] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..scene.effort.rounds() {
        let [creates, records] = in_turn(
            scene.effort.samples(),
            [&mut || one_create(&mut connection, &params, &hello), &mut || book.intend(Safety::Process)],
        )?;
        let [create, record] = [creates, records.clone()].map(|samples| median(&samples));
        rounds.push(Pair { ours: record, beside: create });
        let writes = (0..scene.effort.samples()).map(|_| book.write()).collect::<Result<Vec<_>, _>>()?;
        bare.push(Pair { ours: record, beside: median(&writes) });
        shares.push(record / (create - record) * 100.0);
        tails.push(percentile_99(&records));
        let powers = (0..SYNCED).map(|_| book.intend(Safety::Power)).collect::<Result<Vec<_>, _>>()?;
        synced.push(median(&powers));
    }
    drop(connection);
    broker.stop()?;

    let tail = quantity(Unit::Time, Spread::of(&tails).median);
    let added = Spread::of(&shares).median;
    Ok(vec![
        Figure::beside("durable record of a create (process-safe)", Unit::Time, "the whole create", &rounds)
            .goal(Goal::RatioAtMost(SHARE_MAX))
            .note(format!(
                "from the submission of an intent to the broker's journal, alone in this process, until it is safe; \
                 99th percentile {tail}; it adds {added:.1} % to the rest of the create"
            )),
        Figure::beside("the same beside the bare write", Unit::Time, "write(2) of 650 bytes", &bare)
            .note("the intent's text is made, written and marked, and handed to the thread that writes to the disk"),
        Figure::alone("durable record of a create with a cleanup (power-safe)", Unit::Time, Spread::of(&synced))
            .note("the same, synced to the disk"),
    ])
}

/// The broker's journal without the rest of the broker.
struct Book {
    records: Records,
    reports: mpsc::Receiver<FromThread>,
    runtime: Runtime,
    params: Arc<CreateParams>,
    process: ProcessIdentity,
    /// A file in the folder of the log of intents.
    file: File,
}

impl Book {
    fn open(folder: &Path, params: &CreateParams) -> Result<Self, Failure> {
        let attempt = "open a record of children";
        let failed = |error: String| Failure::unexpected(attempt, error);
        let pid =
            Pid::new(std::process::id()).ok_or_else(|| failed("this process has no number".to_owned()))?;
        let pidfd = pidfd::open(pid).attempting(attempt)?;
        let process = ProcessIdentity::of(pid, pidfd.as_fd(), None).attempting(attempt)?;
        let boot = BootId::current().map_err(|error| failed(error.to_string()))?;
        let path = folder.join("runtime");
        DirBuilder::new().mode(0o700).create(&path).attempting(attempt)?;
        let runtime_folder = OwnFolder::open(&path).map_err(|error| failed(error.to_string()))?;
        let (store, _) = journal::open(&folder.join("record"), &runtime_folder)
            .map_err(|error| failed(error.to_string()))?;
        let file = File::options().append(true).create(true).open(path.join("bare")).attempting(attempt)?;
        let (sender, reports) = mpsc::channel(1);
        let host = Host { boot, cgroup_folder: None };
        let records = Records::start(store, &host, sender).map_err(|error| failed(error.to_string()))?;
        let runtime = super::list::runtime()?;
        Ok(Self { records, reports, runtime, params: Arc::new(params.clone()), process, file })
    }

    /// Records an intent, and times it until its receipt; then what became of it, so that the next one finds the
    /// journal at rest.
    fn intend(&mut self, safety: Safety) -> Result<Duration, Failure> {
        let attempt = "record an intent";
        let failed = |failure: RecordFailure| Failure::unexpected(attempt, failure.message);
        let run = Run { child: ChildId::from_uuid(Uuid::now_v7()), incarnation: Incarnation::FIRST };
        let record = Record::Intent(self.intent(run));
        let begin = Instant::now();
        let submitted =
            self.records.submit(run, (&record, None), safety, Receipt::Wanted, None).map_err(failed)?;
        let took = match submitted {
            Submitted::Safe => begin.elapsed(),
            Submitted::Waits => {
                let report = self.runtime.block_on(self.reports.recv());
                let took = begin.elapsed();
                match report {
                    Some(FromThread::Input(Input::Recorded { result, .. })) => result.map_err(failed)?,
                    other => {
                        return Err(Failure::unexpected(attempt, format!("the journal has said {other:?}")));
                    }
                }
                took
            }
        };
        let progress = Record::Progress(Progress::Running {
            departure: procbroker_core::Departure::default(),
            started_at: SystemTime::now().into(),
            runs: Runs::default(),
        });
        let process = Some(self.process);
        let _ = self
            .records
            .submit(run, (&progress, None), Safety::Process, Receipt::NotWanted, process)
            .map_err(failed)?;
        self.records
            .flush(PATIENCE)
            .map_err(|error| Failure::unexpected("flush the record", error.to_string()))?;
        Ok(took)
    }

    /// A bare write.
    fn write(&mut self) -> Result<Duration, Failure> {
        let bytes = [b'x'; 650];
        let begin = Instant::now();
        self.file.write_all(&bytes).attempting("write to a file")?;
        Ok(begin.elapsed())
    }

    /// What the broker records of a create.
    fn intent(&self, run: Run) -> Arc<Intent> {
        Arc::new(Intent {
            id: run.child,
            params: Arc::clone(&self.params),
            run_as: RunAs::Broker,
            launch: Launch::default(),
            owner: Owner { uid: getuid().as_raw(), gid: getgid().as_raw() },
            created_at: SystemTime::now().into(),
            number: 1_000_000,
            containment: Containment::Subreaper,
            outcome: Outcome::Created,
            role: Role::Child,
            lease: RecordedLease::None,
        })
    }
}
