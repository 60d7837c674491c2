//! The edge of the process broker: it carries out what the pure core decides. What it decides itself is how: which system
//! call, how often one is repeated, when one that hangs is given up.
//!
//! [`serve`] puts a broker together; [`cli`] is the program around it. The [`driver`] owns the core and has a thread,
//! on which all connections run too. Whatever comes in becomes an `Input`, the core turns it into `Effect`s, and each effect
//! is answered by another input. What the driver and the tasks and threads around it say to each other stands in [`messages`].
//!
//! # Which thread runs what
//!
//! | thread | runs |
//! | --- | --- |
//! | main | the start: folders, locks, the accounts that flags name. Then nothing: it sleeps, because its children are the orphans that the broker inherits ([`os::process::subreaper`]) |
//! | `driver` | the event loop: [`listener`], [`connection`], [`driver`], [`follower`] and [`prober`] (which read on `blocking`), [`metrics`], the intent log, the start of processes ([`os::spawn`]), reaping ([`os::process::reaper`]), what children say of themselves ([`os::service::notices`]), signals to one process or group |
//! | `descendants` | everything that walks processes: [`os::tree`]'s worker, which also makes and removes cgroups |
//! | `journal` | what the intent log has is brought into SQLite, with fsync where it counts: the worker of [`os::journal`] |
//! | `logs` | moves what children write from their pipes to files, within the bounds, and lets all other threads go first: [`os::logs`] |
//! | `stalls` | sees to it that `logs` comes back from each pipe that it touches, by the end of whoever holds that; sleeps as long as `logs` does: [`os::logs`] |
//! | `children-log` | passes lines of children on to the journal or to syslog, where it was asked to (`--children-log`): [`os::logs`] |
//! | `blocking` | look-ups of the accounts that requests name ([`os::host::accounts`]), reads of kept output for those who ask, encoding of large answers, what children use, probes that read output, the check of a new program: [`blocking_pool`] |
//! | `asker` | asks `/proc` about processes that may stand still in the midst of execve(2): given up with its question after a moment, and another one made (`os::process::apart`) |
//! | `log` | the broker's own log, to standard error |
//! | `disposal` | lets go of what a user's children and clients have sent along: one for each such user, while there is something to let go of, and another for a moment each time ([`os::host::disposal`]) |
//!
//! All threads but the driver's block every signal.
//!
//! On the event loop users take turns: a client's task is polled in its user's ([`turns`]), and what clients say is taken in
//! by user, not by connection ([`inbox`]). The driver itself takes turns between them, children that tell something, and what the
//! machine reports (`driver/precedence.rs`). What is on its way to them or from them is counted in bytes ([`transit`]).
//!
//! # A create, step by step
//!
//! 1. [`listener`] accepts the connection and asks the kernel who it is ([`os::host::peer`]); [`connection`] decodes a
//!    request and puts it into the [`driver`]'s queue.
//! 2. The core authorizes, validates and decides (`methods/create.rs`), and orders the intent to be recorded.
//! 3. `driver/records.rs` writes it to the intent log, which answers `Recorded` at once; that of a child with a cleanup waits
//!    for the journal thread, which commits it to the disk.
//! 4. The core orders the spawn. `driver/launches.rs` takes a cgroup ([`os::tree`]), composes the plan
//!    ([`os::spawn::environment`]) and launches it ([`os::spawn`]): the child is cloned into its cgroup, and nobody waits for its
//!    exec.
//! 5. Its slot's pipe hangs up when the program is executed: the pidfd is watched and held, and the core is told
//!    `Spawned`.
//! 6. The core records the start, publishes it, and orders the answer, which [`connection`] encodes and writes. Only then come
//!    the lines of the log and what else nobody waits for (`driver/chores.rs`).
//!
//! # A destroy, step by step
//!
//! 1. The request arrives as above. The core enters the first stop step, and orders its signal.
//! 2. [`os::tree`] sends it by pidfd on the driver's thread, or on its worker where it is for all that descends from the child.
//! 3. SIGCHLD, or the epoll of an adopted child, wakes the reaper, which retires the pid before it reaps it.
//! 4. [`os::tree`] finds out what the child has left. With no process group, no orphan that could be its and an empty control
//!    group (`cgroup.events`, which `os/tree/cgroup/group.rs` reads) that is nothing, which is known at once; else the worker
//!    walks (`os/tree/left.rs`). The core is told `Exited` with it, and `MembersLeft` whenever less is left.
//! 5. The core goes on with the steps until nothing is left: at last `Kill`, which the worker repeats until nothing new is
//!    found. Then the cleanup is spawned as a child is.
//! 6. The end is recorded. The answer waits in `driver/durable_answers.rs` until a record was written or has failed, and is sent.
//!
//! # A byte that a child writes, step by step
//!
//! 1. It comes through the FIFO of its stream (`os/logs/pipes.rs`), which the child has as its standard output. The `logs`
//!    thread (`os/logs/keeper.rs`) waits for all of them, and users take turns (`os/logs/turns.rs`).
//!    Each time that it touches one is noted (`os/logs/pipe_use.rs`): `os/logs/stalls.rs` has whoever keeps it there for too long
//!    ended (`os/logs/holders.rs`), and so has a start the one who keeps the broker before from going (`serve/startup/make_way.rs`).
//! 2. `os/logs/transfer.rs` copies what is there on, and takes it out of the FIFO only once it is written: so none is lost in a
//!    crash.
//! 3. `os/logs/store.rs` has it appended to a segment of the stream (`stream.rs`), made with the first byte, notes the time
//!    (`times.rs`), and releases the oldest segments beyond the bounds (`amounts.rs`).
//! 4. With `--children-log`, `os/logs/forward.rs` cuts it into lines for the journal or for syslog, on a thread of its own.
//! 5. Who asks for it: `os/logs/excerpt.rs` reads what is kept (`output.rs`) on a `blocking` thread; [`follower`] goes on from
//!    there, and [`connection`] writes it as fast as it is read.
//!
//! # An upgrade, step by step
//!
//! 1. The core asks for a check (`methods::upgrade`). `upgrade/check.rs` starts the other program, which looks at what it would
//!    be given, and says whether it can take over.
//! 2. The core starts nothing more, and waits for the launches that are under way. Then it orders `HandOver`.
//! 3. `serve/replacement.rs` completes the record, lets the last answers go out, holds back what children write, and gathers
//!    what is handed over. Whoever has asked for it is told once nothing but the exec can fail.
//! 4. `upgrade/manifest.rs` writes that: a JSON object in a memfd, with descriptors by their numbers. Its `format` is the version
//!    of that layout. The events stand in a memfd of their own (`upgrade/history.rs`).
//! 5. `upgrade/program.rs` executes the other program, which reads the manifest (`upgrade/predecessor.rs`), and goes on. Should
//!    it fail before it serves, it executes its predecessor again.
//!
//! # Where things are
//!
//! | what | where |
//! | --- | --- |
//! | what each input does to a child, in each phase | the table in the core's `child` |
//! | who may call a method, or act on a child | the core's `authorize` |
//! | who may signal a process | `os/tree/right.rs`, as kill(2) would have it |
//! | the pause before a restart, and what makes it short again | the core's `child::restarting` |
//! | whether a child is ready | the core's `child::readiness`; [`prober`] tries addresses, sockets and lines, `child::ready_command` a command |
//! | user, environment, folder and limits of a process, also of a cleanup | [`os::spawn::environment`] |
//! | messages: the binary layout, the JSON | the protocol's `binary` and `frame`, `json_lines` |
//! | the layout of the intent log, the tables of the state file | `os/journal/intent_log/form.rs`, `os/journal/schema.rs` |
//! | the layout of what an upgrade hands over | `upgrade/manifest.rs` |
//! | the flags of a create | `cli/verbs/create.rs`, and in files below it: surroundings, life, bounds |
//!
//! # The promises
//!
//! | promise | decided in the core's | carried out by | proved by (`tests/tests/broker`) |
//! | --- | --- | --- | --- |
//! | an answer tells what is on record | `pending`: what each answer waits for | [`os::journal`], `driver/durable_answers.rs` | `record`, `chaos`; of the log of intents alone, its cuts and its replay, `os/journal/intent_log/tests.rs` |
//! | one child a name, one owner | `methods::create` | [`os::host::lock`] | `one_owner` |
//! | nothing of a child outlives its destroy | `child::stopping` | [`os::tree`], [`os::process`] | `destroy`, `orderly_stop` |
//! | a cleanup runs however its child ended | `child::cleaning` | [`os::spawn`] | `cleanup`, `cleanup_surroundings` |
//! | a crash of the broker loses no child | `life::recovery`, `child::resuming` | [`recovery`], [`os::process::identity`] | `recovery`, `chaos` |
//! | a child is restarted as its policy says | `child::restarting`, `child::running_again` | [`os::spawn`] | `restart` |
//! | an upgrade is noticed by nobody | `methods::upgrade` | [`upgrade`] | `upgrade` |
//! | no client holds up another or gains privilege | `authorize`, `methods::targets` | [`turns`], [`inbox`], [`connection`], [`os::host::peer`]; `os/tree/right.rs`, which asks of each process whether its caller could signal it (kill(2)) | `who_may`, `hostile`, `hostile_clients`, `kept_bytes` |

pub mod answer_size;
pub mod blocking_pool;
#[cfg(test)]
mod captured_log;
mod causes;
pub mod cli;
pub mod connection;
mod counted;
pub mod driver;
pub mod feed;
pub mod flagged_accounts;
pub mod follower;
#[doc(hidden)]
pub mod fuzzing;
mod harmless;
pub mod inbox;
pub mod limits;
pub mod listener;
pub mod messages;
pub mod metrics;
pub mod os;
pub mod prober;
pub mod recovery;
pub mod report;
pub mod serve;
pub mod transit;
pub mod turns;
pub mod upgrade;
