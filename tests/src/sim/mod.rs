//! The simulator: the broker's own state machine in a model world, with every fault that a real one has.
//!
//! It takes the place of the driver and of the operating system, and needs neither trait nor mock for
//! it: the state machine has no clock, no file and no process in it. A **run** follows from its seed:
//!
//! 1. [`setting`] rolls the circumstances (bounds, users, how willing processes are, how often the broker
//!    dies, how it ends).
//! 2. [`clients`] send what [`requests`] rolls: few names and many creates, retries, destroys, waits,
//!    signals, shutdowns, upgrades; they disconnect at any point.
//! 3. [`run`] takes the earliest of what is planned in the [`agenda`] and of the broker's next deadline,
//!    sets the virtual clock and tells the broker. Somebody sets the [`wall_clock`] now and then, forwards and back.
//! 4. [`machine`] carries out the orders: records and spawns take their time, fail or hang; the
//!    processes of a [`family`] end at once, late, only of SIGKILL or never, by themselves at any moment,
//!    leave members and daemons behind, and fork just as they are killed. Pids are given anew at once. What they tell of
//!    themselves follows from their [`conduct`].
//! 5. [`lives`] ends brokers between any two of their orders, in a recovery and in a shutdown too: by
//!    their own death, by that of the machine, by a live upgrade, or in order. The [`disk`] keeps what it
//!    has acknowledged, and any part of the rest in its order. The machine goes on without a broker, and
//!    the next one is told what the truth is, as far as anybody can know it (see [`afterlife`]).
//!    An answer on which its client may rely is [`held`] until what it tells is on record.
//! 6. The [`ledger`] takes down every input and order, and the [`checks`] hold them against the
//!    contract. Neither reads the broker's state. After a death the book follows from what was promised
//!    before, from the record and from the contract alone. A broken promise is a [`finding`].
//!
//! Each run ends with a shutdown, unless the broker was told to exit when idle. A [`tally`] says where the
//! runs have been. What is told twice from
//! the same seed is told the same way, so that a finding is looked at by running its seed again, with
//! a trace: `PROCBROKER_SEED=n cargo nextest run -p procbroker-tests every_seed --no-capture`.
//! `PROCBROKER_SEEDS=n` sets how many seeds are run, and `PROCBROKER_FIRST_SEED=n` from which one on.
//!
//! That the checkers find anything is proved by the planted bugs: see `tests/planted`.

pub mod afterlife;
pub mod agenda;
pub mod anchors;
pub mod checks;
pub mod clients;
pub mod conduct;
pub mod dice;
pub mod disk;
pub mod event;
pub mod family;
pub mod finding;
pub mod held;
pub mod ledger;
pub mod lives;
pub mod machine;
pub mod requests;
pub mod run;
pub mod setting;
pub mod sweep;
pub mod tally;
pub mod wall_clock;
